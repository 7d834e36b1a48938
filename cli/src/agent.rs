//! `tenon agent`: an agent of a fleet, until it is told to end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tenon_agent::{Agent, AgentOptions, Change, ServeOptions};
use tenon_client::connect::urls;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::AgentArgs;
use crate::exit::{Exit, Failure};
use crate::remote::{needs_cluster, runtime};
use crate::run::backend::{self, Wanted};
use crate::{machine, random, terminal};

/// `tenon agent`.
pub fn agent(args: &AgentArgs, server: Option<&str>, state_dir: &Path) -> Result<Exit, Failure> {
    let servers = urls(&[server.ok_or_else(|| needs_cluster("agent"))?])?;
    let options = AgentOptions {
        name: args.name.clone().unwrap_or_else(machine::name),
        slots: args.slots.map_or_else(machine::slots, |slots| slots as usize),
        incarnation: random::new_id().to_string(),
        labels: labels(&args.label)?,
    };
    runtime()?.block_on(serve(args, options, servers, state_dir))
}

async fn serve(
    args: &AgentArgs,
    options: AgentOptions,
    servers: Vec<String>,
    state_dir: &Path,
) -> Result<Exit, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot listen for signals: {error}"))
        })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let wanted = Wanted {
        data_dir: state_dir.join("agent"),
        keep: args.keep,
        image_map: args.image_map.as_deref(),
        backend: args.backend,
        tell: true,
    };
    let backend = backend::open(&wanted).await?;
    match backend.reap().await {
        Ok(0) => {}
        Ok(count) => terminal::note(&format!("removed {count} things that a dead process left")),
        Err(error) => terminal::note(&format!("cannot clean up after dead processes: {error}")),
    }
    let name = options.name.clone();
    terminal::note(&format!(
        "agent {name} with {} slots dials {}",
        options.slots,
        servers.join(", ")
    ));
    let shutdown = CancellationToken::new();
    let agent = Agent::new(options, Arc::clone(&backend));
    let serving = agent.serve(ServeOptions { servers }, shutdown.clone(), |change| match change {
        Change::Connected { url, node } => {
            terminal::note(&format!("connected to {node} at {url}"));
        }
        Change::Alone { why } => terminal::note(&format!("{why}; trying again")),
    });
    tokio::pin!(serving);
    let ended = loop {
        tokio::select! {
            ended = &mut serving => break ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if shutdown.is_cancelled() {
            terminal::note("leaving without waiting; the next start cleans up");
            return Ok(Exit::Cancelled);
        }
        terminal::note("stopping what runs; another signal leaves without waiting");
        shutdown.cancel();
    };
    match ended {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            let failure = Failure::new(Exit::Environment, format!("{error} [{}]", error.code));
            match error.hint.is_empty() {
                true => Err(failure),
                false => Err(failure.hint(error.hint)),
            }
        }
    }
}

fn labels(texts: &[String]) -> Result<HashMap<String, String>, Failure> {
    let parsed = texts.iter().map(|text| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::new(Exit::Usage, format!("--label {text}: not of the form KEY=VALUE"))
            .hint("for example --label zone=b")),
    });
    parsed.collect()
}
