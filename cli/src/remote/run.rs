//! `tenon run` on a cluster: submits what the files hold and shows it as a run of this machine is
//! shown. The run belongs to the cluster: it goes on when this process is gone.

use std::sync::Arc;

use tenon_coordinator::intake::Request;
use tenon_proto::control::v1::{
    CancelRunRequest, GetRunObjectsRequest, GetRunRequest, ManifestFile, ParamValue, Run,
    SubmitRequest, SubscribeRequest, WorkspaceSource,
};
use tenon_reporter::follow::Finish;

use super::Remote;
use super::show::{Display, To, feed, finish};
use crate::args::{Output, RunArgs};
use crate::exit::{Exit, Failure};
use crate::run::show::{Shower, sink};
use crate::run::signals::{Signals, Wish};
use crate::terminal;

/// Runs everything, in order: `runs` says how many run objects the documents of `request` hold. The
/// first run that did not succeed decides the exit code.
pub async fn run(
    remote: &Remote,
    args: &RunArgs,
    request: &Request,
    runs: usize,
) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let mut exit = Exit::Success;
    let mut documents = 0;
    for index in 0..runs {
        if signals.any() {
            break;
        }
        let one = submission(args, request, (runs > 1).then_some(index));
        let run = tokio::select! {
            answer = remote.client.submit(one) => answer?.run.unwrap_or_default(),
            _ = signals.next() => {
                terminal::note("leaving; whether the run was accepted is not known: `tenon runs list`");
                return Err(Failure::silent(Exit::Cancelled));
            }
        };
        if args.detach {
            match args.output {
                Output::Pretty => terminal::print(&format!("{}\n", run.id))?,
                _ => terminal::print(&terminal::to_json(&run)?)?,
            }
            continue;
        }
        let end = watch(remote, args, &run, &mut signals, &mut documents).await?;
        if exit == Exit::Success {
            exit = end;
        }
    }
    Ok(exit)
}

/// What is sent for one run of the request.
fn submission(args: &RunArgs, request: &Request, index: Option<usize>) -> SubmitRequest {
    let files = request
        .sources
        .iter()
        .map(|source| ManifestFile { name: source.name.clone(), text: source.text.to_string() });
    let params = request.params.iter();
    let params =
        params.map(|(name, value)| ParamValue { name: name.clone(), value: value.clone() });
    let workspaces = request
        .workspaces
        .iter()
        .map(|(name, source)| WorkspaceSource { name: name.clone(), source: source.clone() });
    let flags = args.files.feature_flag.iter().filter_map(|flag| flag.split_once('='));
    // One key cannot stand for several runs.
    let key = args.idempotency_key.as_ref().map(|key| match index {
        Some(index) => format!("{key}.{index}"),
        None => key.clone(),
    });
    SubmitRequest {
        files: files.collect(),
        run: index.map(|index| u32::try_from(index).unwrap_or(u32::MAX)),
        pipeline: request.pipeline.clone(),
        task: request.task.clone(),
        params: params.collect(),
        workspaces: workspaces.collect(),
        namespace: request.namespace.clone(),
        timeout: request.timeout.clone(),
        parallel: request.parallel,
        feature_flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        idempotency_key: key,
        traceparent: request.traceparent.clone(),
        ..SubmitRequest::default()
    }
}

/// Shows a run until it ends; signals cancel it.
async fn watch(
    remote: &Remote,
    args: &RunArgs,
    run: &Run,
    signals: &mut Signals,
    documents: &mut usize,
) -> Result<Exit, Failure> {
    let shower = Shower::new(args, Box::new(Vec::new));
    remote.voice.speak_into(shower.live.then(|| Arc::clone(&shower.note)));
    let verbatim = args.output == Output::Json && !args.debug;
    let to = To { show: shower.show, output: sink(args.output), verbatim };
    let Display { lines, mut ended } = Display::start(run.id.clone(), to);
    let request =
        SubscribeRequest { run: run.id.clone(), follow: true, ..SubscribeRequest::default() };
    let feeding = feed(lines, remote.client.events(request));
    tokio::pin!(feeding);
    let mut fed = None;
    let finish = loop {
        tokio::select! {
            done = &mut feeding, if fed.is_none() => fed = Some(done),
            wish = signals.next() => {
                remote.voice.say(text(wish));
                match wish {
                    Wish::Cancel => cancel(remote, run, first_mode(run), false, "cancelled by a signal").await?,
                    Wish::Stop => cancel(remote, run, "Cancelled", true, "stopped by a second signal").await?,
                    Wish::Leave => return Err(Failure::silent(Exit::Cancelled)),
                }
            }
            end = &mut ended => {
                break finish(end);
            }
        }
    };
    remote.voice.speak_into(None);
    if finish? == Finish::Closed {
        terminal::note(&format!(
            "nobody reads the output any more; the run goes on: tenon logs {} --follow",
            run.id
        ));
        return Err(Failure::silent(Exit::Cancelled));
    }
    if let Some(fed) = fed {
        fed?;
    }
    let run = remote.client.get_run(GetRunRequest { id: run.id.clone() }).await?;
    report(remote, args, &run, documents).await
}

/// What is told to the user about a signal.
fn text(wish: Wish) -> &'static str {
    match wish {
        Wish::Leave => "leaving; the cluster goes on with what it was told",
        other => other.text(),
    }
}

fn first_mode(run: &Run) -> &'static str {
    // A TaskRun has no finally tasks to run.
    match run.kind.as_str() {
        "TaskRun" => "Cancelled",
        _ => "CancelledRunFinally",
    }
}

async fn cancel(
    remote: &Remote,
    run: &Run,
    mode: &str,
    now: bool,
    message: &str,
) -> Result<(), Failure> {
    let request = CancelRunRequest {
        id: run.id.clone(),
        mode: mode.to_owned(),
        now,
        message: message.to_owned(),
    };
    match remote.client.cancel_run(request).await {
        // It ended by itself meanwhile.
        Err(error) if error.code() == "conflict/run-ended" => Ok(()),
        answer => Ok(answer.map(|_| ())?),
    }
}

/// Prints what belongs to the end of a run besides its events.
async fn report(
    remote: &Remote,
    args: &RunArgs,
    run: &Run,
    documents: &mut usize,
) -> Result<Exit, Failure> {
    let exit = run.exit_code.and_then(Exit::of_code).ok_or_else(|| {
        let message = format!("run {} stands at \"{}\" after its end", run.id, run.status);
        Failure::new(Exit::Internal, message)
    })?;
    if args.output == Output::Yaml {
        let request = GetRunObjectsRequest { id: run.id.clone() };
        let yaml = remote.client.get_run_objects(request).await?.yaml;
        let separator = if *documents > 0 && !yaml.starts_with("---") { "---\n" } else { "" };
        *documents += 1;
        terminal::print(&format!("{separator}{yaml}"))?;
    }
    let told = args.output == Output::Pretty && exit != Exit::Validation;
    if exit != Exit::Success && !told {
        terminal::note(&format!("{}: {}", run.reason, run.message));
    }
    Ok(exit)
}
