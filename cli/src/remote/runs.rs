//! `tenon runs` of a cluster.

use serde_json::json;
use tenon_engine::Time;
use tenon_engine::usage::ResourceUsage;
use tenon_proto::control::v1::{
    CancelRunRequest, ExplainRunRequest, ExplainRunResponse, GetRunObjectsRequest, ListRunsRequest,
    ReleaseRunRequest, RerunRunRequest, Run, RunUsage, SubscribeRequest, TaskExplanation,
};
use tenon_reporter::follow::Screen;
use tenon_reporter::pretty::{Options, duration};

use super::Remote;
use super::find::find;
use super::show::{Display, To, feed, finish};
use crate::args::{
    CancelChoice, Output, RunsCancelArgs, RunsExplainArgs, RunsListArgs, RunsReleaseArgs,
    RunsRerunArgs, RunsShowArgs,
};
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::logs::Still;
use crate::runs::{ago, used};
use crate::terminal;

/// Runs that are listed without `--limit`.
const LIMIT: usize = 100;
/// Runs of one page.
const PAGE: usize = 1000;

/// `tenon runs list`.
pub async fn list(remote: &Remote, args: &RunsListArgs) -> Result<Exit, Failure> {
    let limit = args.limit.unwrap_or(LIMIT);
    let mut request = ListRunsRequest {
        namespace: args.namespace.clone().unwrap_or_default(),
        status: args.status.clone(),
        labels: args.selector.clone().unwrap_or_default(),
        ..ListRunsRequest::default()
    };
    let mut runs: Vec<Run> = Vec::new();
    while runs.len() < limit {
        request.page_size = u32::try_from((limit - runs.len()).min(PAGE)).unwrap_or(u32::MAX);
        let page = remote.client.list_runs(request.clone()).await?;
        runs.extend(page.runs);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let rows: Vec<[String; 6]> = runs
        .iter()
        .map(|run| {
            let began = run.started_at.as_ref().unwrap_or(&run.created_at);
            [
                run.id.clone(),
                run.status.clone(),
                time(began).map(ago).unwrap_or_default(),
                took(run),
                counts(run),
                run.name.clone(),
            ]
        })
        .collect();
    answer(args.output, &runs, || {
        if rows.is_empty() {
            return "no such runs\n".to_owned();
        }
        table(&["ID", "STATUS", "STARTED", "TOOK", "TASKS", "NAME"], &rows)
    })?;
    Ok(Exit::Success)
}

fn time(text: &str) -> Option<Time> {
    serde_json::from_value(text.into()).ok()
}

fn took(run: &Run) -> String {
    let began = run.started_at.as_deref().and_then(time);
    match (run.duration_ms, began) {
        (Some(millis), _) => duration(millis),
        (None, Some(began)) => duration((terminal::now().0 - began.0).max(0)),
        (None, None) => "-".to_owned(),
    }
}

fn counts(run: &Run) -> String {
    let tasks = run.tasks.unwrap_or_default();
    crate::runs::counts(tasks.succeeded, tasks.failed, tasks.skipped, tasks.running)
}

/// `tenon runs show`.
pub async fn show(remote: &Remote, args: &RunsShowArgs) -> Result<Exit, Failure> {
    let run = find(&remote.client, &args.run).await?;
    match args.output {
        Output::Json => terminal::print(&terminal::to_json(&run)?)?,
        Output::Yaml => {
            let request = GetRunObjectsRequest { id: run.id };
            terminal::print(&remote.client.get_run_objects(request).await?.yaml)?;
        }
        Output::Pretty => {
            let options = Options {
                style: terminal::stdout_style(),
                live: false,
                quiet: true,
                logs_only: false,
                refusals_told: false,
            };
            terminal::print(&format!(
                "{} {}/{}  {}  {}\n",
                run.kind, run.namespace, run.name, run.id, run.status
            ))?;
            if run.ended_at.is_none() {
                // Events do not tell of what waits.
                let request = ExplainRunRequest { id: run.id };
                let explained = remote.client.explain_run(request).await?;
                terminal::print(&explanation(&explained))?;
                return Ok(Exit::Success);
            }
            let to = To {
                show: Box::new(Screen::new(options, Still)),
                output: Box::new(std::io::stdout()),
                verbatim: false,
            };
            let Display { lines, ended } = Display::start(run.id.clone(), to);
            let request = SubscribeRequest { run: run.id, ..SubscribeRequest::default() };
            let fed = feed(lines, remote.client.events(request)).await;
            finish(ended.await)?;
            fed?;
            terminal::print(&used(run.usage.map(usage)))?;
        }
    }
    Ok(Exit::Success)
}

fn usage(wire: RunUsage) -> ResourceUsage {
    ResourceUsage {
        cpu_micros: wire.cpu_seconds.map(|seconds| (seconds * 1e6) as u64),
        memory_peak_bytes: wire.memory_peak_bytes,
        io_read_bytes: wire.io_read_bytes,
        io_write_bytes: wire.io_write_bytes,
    }
}

/// `tenon runs cancel`.
pub async fn cancel(remote: &Remote, args: &RunsCancelArgs) -> Result<Exit, Failure> {
    let run = find(&remote.client, &args.run).await?;
    let mode = match (args.now, args.mode) {
        (true, _) | (false, Some(CancelChoice::Cancelled)) => "Cancelled",
        (false, Some(CancelChoice::StoppedRunFinally)) => "StoppedRunFinally",
        (false, Some(CancelChoice::CancelledRunFinally)) => "CancelledRunFinally",
        // A TaskRun has no finally tasks to run.
        (false, None) if run.kind == "TaskRun" => "Cancelled",
        (false, None) => "CancelledRunFinally",
    };
    let request = CancelRunRequest {
        id: run.id,
        mode: mode.to_owned(),
        now: args.now,
        message: args.message.clone().unwrap_or_default(),
    };
    let run = remote.client.cancel_run(request).await?;
    answer(args.output, &run, || format!("{} is being cancelled\n", run.id))?;
    Ok(Exit::Success)
}

/// `tenon runs rerun`.
pub async fn rerun(remote: &Remote, args: &RunsRerunArgs) -> Result<Exit, Failure> {
    let old = find(&remote.client, &args.run).await?;
    let request = RerunRunRequest {
        id: old.id,
        from_failed: args.from_failed,
        idempotency_key: args.idempotency_key.clone(),
    };
    let answered = remote.client.rerun_run(request).await?;
    let run = answered.run.unwrap_or_default();
    answer(args.output, &run, || format!("{}\n", run.id))?;
    Ok(Exit::Success)
}

/// `tenon runs release`.
pub async fn release(remote: &Remote, args: &RunsReleaseArgs) -> Result<Exit, Failure> {
    let run = find(&remote.client, &args.run).await?;
    if run.ended_at.is_some() {
        return Err(Failure::new(Exit::Usage, format!("run {} has ended", run.id)));
    }
    let run = remote.client.release_run(ReleaseRunRequest { id: run.id }).await?;
    answer(args.output, &run, || format!("{} is released\n", run.id))?;
    Ok(Exit::Success)
}

/// `tenon runs explain`.
pub async fn explain(remote: &Remote, args: &RunsExplainArgs) -> Result<Exit, Failure> {
    let run = find(&remote.client, &args.run).await?;
    let explained = remote.client.explain_run(ExplainRunRequest { id: run.id }).await?;
    let run = explained.run.clone().unwrap_or_default();
    let value = json!({"run": run, "why": explained.why, "tasks": explained.tasks});
    answer(args.output, &value, || {
        format!("{}  {}  {}\n{}", run.id, run.name, run.status, explanation(&explained))
    })?;
    Ok(Exit::Success)
}

/// Why a run stands as it does, and what its tasks do.
fn explanation(explained: &ExplainRunResponse) -> String {
    let mut text = String::new();
    if !explained.why.is_empty() {
        text.push_str(&terminal::below(&explained.why, 0));
    }
    // Others that are pending wait for their turn, and nobody has to do anything.
    if let Some(run) = &explained.run
        && explained.why.ends_with("waits to be released")
    {
        text.push_str(&format!("tenon runs release {}\n", run.id));
    }
    text + &tasks(&explained.tasks)
}

/// What tasks do, each with why below it.
fn tasks(tasks: &[TaskExplanation]) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let rows: Vec<[String; 3]> = tasks
        .iter()
        .map(|task| [task.task.clone(), task.state.clone(), task.agent.clone()])
        .collect();
    let table = table(&["TASK", "STATE", "AGENT"], &rows);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, task) in lines.zip(tasks) {
        text.push_str(&format!("{line}\n{}", terminal::below(&task.why, 4)));
    }
    text
}
