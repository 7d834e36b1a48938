//! `tenon runs`: of a cluster asks it, of this machine reads what is stored.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tenon_engine::Time;
use tenon_engine::usage::ResourceUsage;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Screen, follow};
use tenon_reporter::history::{PrunePolicy, RunStatus, Store, Summary};
use tenon_reporter::pretty::{Options, bytes, duration};
use tenon_tekton::duration::GoDuration;

use crate::args::{Output, RunsCommand, RunsListArgs, RunsPruneArgs, RunsShowArgs};
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::logs::Still;
use crate::{remote, terminal};

/// `tenon runs`.
pub fn runs(
    command: &RunsCommand,
    server: Option<&str>,
    state_dir: &Path,
) -> Result<Exit, Failure> {
    let store = Store::new(state_dir);
    match (command, server) {
        (RunsCommand::Prune(_), Some(_)) => {
            Err(Failure::new(Exit::Usage, "only runs of this machine can be pruned")
                .hint("leave --server and TENON_SERVER out"))
        }
        (RunsCommand::Prune(args), None) => prune(&store, args),
        (RunsCommand::List(args), None) => list(&store, args),
        (RunsCommand::Show(args), None) => show(&store, args),
        (RunsCommand::Cancel(_), None) => Err(remote::needs_cluster("runs cancel")),
        (RunsCommand::Rerun(_), None) => Err(remote::needs_cluster("runs rerun")),
        (RunsCommand::Release(_), None) => Err(remote::needs_cluster("runs release")),
        (RunsCommand::Explain(_), None) => Err(remote::needs_cluster("runs explain")),
        (command, Some(server)) => remote::with(server, async |cluster| match command {
            RunsCommand::List(args) => remote::list(&cluster, args).await,
            RunsCommand::Show(args) => remote::show(&cluster, args).await,
            RunsCommand::Cancel(args) => remote::cancel(&cluster, args).await,
            RunsCommand::Rerun(args) => remote::rerun(&cluster, args).await,
            RunsCommand::Release(args) => remote::release(&cluster, args).await,
            RunsCommand::Explain(args) => remote::explain(&cluster, args).await,
            RunsCommand::Prune(_) => Ok(Exit::Success),
        }),
    }
}

fn list(store: &Store, args: &RunsListArgs) -> Result<Exit, Failure> {
    let (mut runs, errors) = store.list()?;
    for error in errors {
        terminal::note(&format!("{error} [{}]", error.code()));
    }
    let is =
        |wanted: &[String], value: &str| wanted.is_empty() || wanted.iter().any(|one| one == value);
    runs.retain(|run| {
        let namespace: Vec<String> = args.namespace.iter().cloned().collect();
        is(&args.status, run.status.as_str()) && is(&namespace, &run.namespace)
    });
    runs.truncate(args.limit.unwrap_or(usize::MAX));
    let rows: Vec<[String; 6]> = runs
        .iter()
        .map(|run| {
            [
                run.id.to_string(),
                run.status.as_str().to_owned(),
                ago(run.started),
                took(run),
                counts(run.tasks.succeeded, run.tasks.failed, run.tasks.skipped, 0),
                run.name.clone(),
            ]
        })
        .collect();
    answer(args.output, &runs, || {
        if rows.is_empty() {
            return format!("no runs are stored in {}\n", store.root().display());
        }
        table(&["ID", "STATUS", "STARTED", "TOOK", "TASKS", "NAME"], &rows)
    })?;
    Ok(Exit::Success)
}

/// How many tasks ended how, short enough never to be cut: the signs are those of the summary.
pub fn counts(succeeded: u32, failed: u32, skipped: u32, running: u32) -> String {
    let mut text = format!("{succeeded}✓");
    for (count, sign) in [(failed, '✗'), (skipped, '○'), (running, '▸')] {
        if count > 0 {
            text.push_str(&format!(" {count}{sign}"));
        }
    }
    text
}

fn took(run: &Summary) -> String {
    match (run.duration_ms(), run.status) {
        (Some(millis), _) => duration(millis),
        (None, RunStatus::Running) => duration(terminal::now().0 - run.started.0),
        (None, _) => "-".to_owned(),
    }
}

/// What a run's steps have used, as a line; nothing where nothing is known.
pub fn used(usage: Option<ResourceUsage>) -> String {
    let usage = usage.unwrap_or_default();
    let cpu = usage.cpu_micros.map(|micros| format!("{:.1}s of CPU", micros as f64 / 1e6));
    let of_bytes = |count: Option<u64>, words: &str| Some(format!("{} {words}", bytes(count?)));
    let parts = [
        cpu,
        of_bytes(usage.memory_peak_bytes, "of memory at most"),
        of_bytes(usage.io_read_bytes, "read"),
        of_bytes(usage.io_write_bytes, "written"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!("used {}\n", parts.join(", ")) }
}

/// How long ago that was.
pub fn ago(time: Time) -> String {
    let seconds = (terminal::now().0 - time.0).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

fn show(store: &Store, args: &RunsShowArgs) -> Result<Exit, Failure> {
    let run = store.find(&args.run)?;
    match args.output {
        Output::Json => terminal::print(&terminal::to_json(&run)?)?,
        Output::Yaml => match store.objects(run.id)? {
            Some(objects) => terminal::print(&objects)?,
            None => {
                let message =
                    format!("run {} has no final objects: it is {}", run.id, run.status.as_str());
                return Err(Failure::new(Exit::Usage, message));
            }
        },
        Output::Pretty => {
            let mut reader = store.reader(run.id)?;
            let options = Options {
                style: terminal::stdout_style(),
                live: false,
                quiet: true,
                logs_only: false,
                refusals_told: false,
            };
            let mut screen = Screen::new(options, Still);
            let mut text = Vec::new();
            follow(&mut reader, &Filter::default(), &mut screen, &mut text, false)?;
            let head = format!(
                "{} {}/{}  {}  {}\n",
                run.kind,
                run.namespace,
                run.name,
                run.id,
                run.status.as_str()
            );
            let text = String::from_utf8_lossy(&text);
            terminal::print(&format!("{head}{text}{}", used(run.usage)))?;
        }
    }
    Ok(Exit::Success)
}

fn prune(store: &Store, args: &RunsPruneArgs) -> Result<Exit, Failure> {
    if args.keep.is_none() && args.older_than.is_none() {
        return Err(Failure::new(Exit::Usage, "nothing says which runs are to be removed")
            .hint("--keep N, or --older-than DURATION, or both"));
    }
    let before = match &args.older_than {
        None => None,
        Some(text) => {
            let age = GoDuration::parse(text).map_err(|message| {
                Failure::new(Exit::Usage, format!("--older-than {text}: {message}"))
                    .hint("for example 12h, or 720h for 30 days")
            })?;
            let age = Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or_default());
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Some(terminal::now().plus_millis(-age))
        }
    };
    let policy = PrunePolicy { keep: args.keep, before };
    let pruned = store.prune(policy, args.dry_run)?;
    let value = json!({"dryRun": args.dry_run, "runs": pruned});
    answer(args.output, &value, || {
        let mut text = String::new();
        for run in &pruned {
            let name = run.run.as_ref().map_or("?", |run| run.name.as_str());
            text.push_str(&format!("{}  {:>8}  {name}\n", run.id, bytes(run.bytes)));
        }
        let verb = if args.dry_run { "would be removed" } else { "removed" };
        let total = pruned.iter().map(|run| run.bytes).sum();
        text.push_str(&format!("{} runs {verb}, {}\n", pruned.len(), bytes(total)));
        text
    })?;
    Ok(Exit::Success)
}
