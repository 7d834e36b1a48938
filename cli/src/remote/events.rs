//! `tenon events` and `tenon logs` of a cluster.

use tenon_proto::control::v1::SubscribeRequest;
use tenon_reporter::follow::{Screen, Show};
use tenon_reporter::json::Lines;
use tenon_reporter::pretty::Options;

use super::Remote;
use super::find::find;
use super::show::{Display, To, feed, finish};
use crate::args::{EventsArgs, EventsOutput, LogsArgs};
use crate::exit::{Exit, Failure};
use crate::logs::{Still, kinds};
use crate::names::{self, Names};
use crate::{events as local, terminal};

/// `tenon logs`.
pub async fn logs(remote: &Remote, args: &LogsArgs) -> Result<Exit, Failure> {
    kinds(&args.kind)?;
    let run = find(&remote.client, &args.run).await?;
    // Of a run that goes on and is followed, it may still come.
    let may_come = args.follow && run.ended_at.is_none();
    if !may_come && (args.task.is_some() || args.step.is_some()) {
        let mut names = Names::default();
        let mut events = remote.client.events(SubscribeRequest {
            run: run.id.clone(),
            kinds: names::KINDS.map(str::to_owned).into(),
            ..SubscribeRequest::default()
        });
        while let Some(batch) = events.next().await? {
            batch.lines.iter().for_each(|line| names.see(line));
        }
        names.check(&run.name, args.task.as_deref(), args.step.as_deref())?;
    }
    let show: Box<dyn Show + Send> = match args.output {
        EventsOutput::Json => Box::new(Lines::new()),
        _ => {
            let options = Options {
                style: terminal::stdout_style(),
                live: false,
                quiet: false,
                logs_only: args.kind.is_empty(),
                refusals_told: false,
            };
            Box::new(Screen::new(options, Still))
        }
    };
    let request = SubscribeRequest {
        run: run.id,
        since: args.since,
        follow: args.follow,
        kinds: args.kind.clone(),
        tasks: args.task.iter().cloned().collect(),
        steps: args.step.iter().cloned().collect(),
        ..SubscribeRequest::default()
    };
    stream(remote, request, show, args.output == EventsOutput::Json).await
}

/// `tenon events`.
pub async fn events(remote: &Remote, args: &EventsArgs) -> Result<Exit, Failure> {
    kinds(&args.kind)?;
    let run = match &args.run {
        Some(text) => find(&remote.client, text).await?.id,
        None => String::new(),
    };
    let request = SubscribeRequest {
        run,
        since: args.since,
        follow: args.follow,
        namespace: args.namespace.clone().unwrap_or_default(),
        kinds: args.kind.clone(),
        tasks: args.task.iter().cloned().collect(),
        steps: args.step.iter().cloned().collect(),
    };
    if args.run.is_some() && args.output == EventsOutput::Json {
        return stream(remote, request, Box::new(Lines::new()), true).await;
    }
    // Events of many runs have many ends, which nothing that shows one run expects.
    let mut events = remote.client.events(request);
    let mut pretty = local::Pretty::new(args.output);
    while let Some(batch) = events.next().await? {
        let mut out = Vec::new();
        for line in &batch.lines {
            pretty.line(line, &mut out);
        }
        if !terminal::write(&out)? {
            break;
        }
    }
    Ok(Exit::Success)
}

/// Shows one run's events up to their end.
async fn stream(
    remote: &Remote,
    request: SubscribeRequest,
    show: Box<dyn Show + Send>,
    verbatim: bool,
) -> Result<Exit, Failure> {
    let to = To { show, output: Box::new(std::io::stdout()), verbatim };
    let Display { lines, ended } = Display::start(request.run.clone(), to);
    let fed = feed(lines, remote.client.events(request)).await;
    finish(ended.await)?;
    fed?;
    Ok(Exit::Success)
}
