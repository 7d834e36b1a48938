//! Starts a coordinator and an agent in this process and runs what was prepared, one run after the
//! other. The only file of the command line that touches the coordinator.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tenon_agent::keeping::HouseOptions;
use tenon_agent::owner::Owner;
use tenon_agent::{Agent, AgentOptions};
use tenon_coordinator::intake::Prepared;
use tenon_coordinator::{AgentLink, Finished, Local, LocalOptions, RunHandle, objects_to_yaml};
use tenon_engine::RunId;
use tenon_engine::command::{CancelMode, RunObject};
use tenon_reporter::follow::Finish;
use tenon_tekton::pod::Demand;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backend::{self, Wanted};
use super::show::{Remarks, show};
use super::signals::{Signals, Wish};
use super::{Settings, exit_of, store, traces};
use crate::args::{BackendChoice, Output};
use crate::exit::{Exit, Failure};
use crate::policy::policy;
use crate::{machine, random, terminal};

/// Messages that may wait in either direction of the session.
const SESSION: usize = 64;
/// What a stopped step has between SIGTERM and SIGKILL: as in Kubernetes.
const GRACE_MS: u64 = 30_000;

/// Runs everything, in order. The first run that did not succeed decides the exit code.
pub fn execute(settings: &Settings, prepared: Vec<Prepared>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))?;
    runtime.block_on(drive(settings, prepared))
}

async fn drive(settings: &Settings, prepared: Vec<Prepared>) -> Result<Exit, Failure> {
    let signals = Signals::listen()?;
    let backend = backend::open(&wanted(settings)?).await?;
    let (to_agent, inbox) = mpsc::channel(SESSION);
    let (outbox, from_agent) = mpsc::channel(SESSION);
    let options = LocalOptions { state_dir: settings.state_dir.clone(), grace_ms: GRACE_MS };
    let local = Local::open(&options, AgentLink { from_agent, to_agent }).map_err(refused)?;
    for run in local.recovered() {
        terminal::note(&format!(
            "run {run} was interrupted; it is recorded as failed and cleaned up"
        ));
    }
    let agent = AgentOptions {
        name: machine::name(),
        slots: slots(settings),
        incarnation: random::new_id().to_string(),
        ..AgentOptions::default()
    };
    let mut agents = JoinSet::new();
    // What dead processes left behind hinders no new run: it is removed beside it.
    let reaper = Arc::clone(&backend);
    agents.spawn(async move {
        match reaper.reap().await {
            Ok(0) => {}
            Ok(count) => {
                terminal::note(&format!("removed {count} things that a dead process left"));
            }
            Err(error) => terminal::note(&format!("cannot clean up after dead processes: {error}")),
        }
    });
    agents.spawn(Agent::new(agent, backend).run(inbox, outbox, CancellationToken::new()));
    let mut session =
        Session { settings, local, signals, documents: 0, closed: false, noted: HashSet::new() };
    let result = session.run_all(prepared).await;
    let closed = session.local.close().await.map_err(refused);
    // The agent's inbox is closed now: it ends what still runs and cleans up.
    while agents.join_next().await.is_some() {}
    // Why the coordinator stopped explains more than that a run got no answer.
    closed.and(result)
}

struct Session<'a> {
    settings: &'a Settings,
    local: Local,
    signals: Signals,
    /// Runs whose objects were printed.
    documents: usize,
    /// Nobody reads stdout any more.
    closed: bool,
    /// What the agent had to say and was told.
    noted: HashSet<String>,
}

impl Session<'_> {
    async fn run_all(&mut self, prepared: Vec<Prepared>) -> Result<Exit, Failure> {
        let mut exit = Exit::Success;
        for run in prepared {
            if self.signals.any() || self.closed {
                break;
            }
            let end = self.run(run).await?;
            if exit == Exit::Success {
                exit = end;
            }
        }
        Ok(exit)
    }

    async fn run(&mut self, run: Prepared) -> Result<Exit, Failure> {
        let first_cancel = match &run.submission.run {
            RunObject::PipelineRun(_) => CancelMode::CancelledRunFinally,
            // A TaskRun has no finally tasks to run.
            RunObject::TaskRun(_) => CancelMode::Cancelled,
        };
        let args = &self.settings.args;
        let remarks = remarks(self.local.progress(), run.submission.run_id);
        let handle = self.local.submit(run.submission, run.materials).await.map_err(refused)?;
        let RunHandle { run_id, mut finished } = handle;
        let reader = store(&self.settings.state_dir).reader(run_id)?;
        let mut shown = show(reader, args, remarks);
        let mut gone = false;
        // A live display is not written over.
        let mut held_back = Vec::new();
        let finished: Finished = loop {
            tokio::select! {
                finished = &mut finished => match finished {
                    Ok(finished) => break finished,
                    Err(_) => return Err(Failure::silent(Exit::Internal)),
                },
                Some(note) = self.local.note() => {
                    if !shown.is_live() {
                        self.tell(note);
                    } else {
                        held_back.push(note);
                    }
                }
                wish = self.signals.next() => {
                    shown.say(wish.text());
                    match wish {
                        Wish::Cancel => {
                            self.cancel(run_id, first_cancel, "cancelled by a signal").await?;
                        }
                        Wish::Stop => {
                            let killed = self.local.kill(run_id, "stopped by a second signal").await;
                            killed.map_err(refused)?;
                        }
                        Wish::Leave => return Err(Failure::silent(Exit::Cancelled)),
                    }
                }
                // The display ends by itself a moment before the run is reported as finished, or
                // because nobody reads the output any more.
                _ = &mut shown.ended, if !gone => {
                    gone = true;
                    if shown.is_closed() {
                        self.closed = true;
                        terminal::note(
                            "nobody reads the output any more: cancelling, finally tasks still run",
                        );
                        self.cancel(run_id, first_cancel, "nobody reads the output").await?;
                    }
                }
            }
        };
        let closed = shown.finish()? == Finish::Closed;
        traces::send(args.otlp_endpoint.as_deref(), &self.settings.state_dir, run_id).await;
        held_back.extend(std::iter::from_fn(|| self.local.note_now()));
        held_back.into_iter().for_each(|note| self.tell(note));
        self.report(&finished, closed)
    }

    /// Tells the user what the agent has to say, but nothing twice.
    fn tell(&mut self, note: String) {
        if !self.noted.contains(&note) {
            terminal::note(&note);
            self.noted.insert(note);
        }
    }

    async fn cancel(&self, run: RunId, mode: CancelMode, message: &str) -> Result<(), Failure> {
        self.local.cancel(run, mode, message).await.map_err(refused)
    }

    /// Prints what belongs to the end of a run besides its events.
    fn report(&mut self, finished: &Finished, closed: bool) -> Result<Exit, Failure> {
        let outcome = &finished.outcome;
        let exit = exit_of(outcome);
        if self.settings.args.output == Output::Yaml {
            let yaml = objects_to_yaml(&finished.objects);
            let separator =
                if self.documents > 0 && !yaml.starts_with("---") { "---\n" } else { "" };
            self.documents += 1;
            terminal::print(&format!("{separator}{yaml}"))?;
        }
        let told = self.settings.args.output == Output::Pretty && !outcome.rejected;
        if exit != Exit::Success && !told && !closed {
            terminal::note(&format!("{}: {}", outcome.reason, outcome.message));
        }
        Ok(exit)
    }
}

/// What the attempts of a run wait for, as the display asks for it.
fn remarks(
    mut progress: broadcast::Receiver<tenon_proto::agent::v1::Progress>,
    run: RunId,
) -> Remarks {
    let run = run.to_string();
    Box::new(move || {
        let mut remarks = Vec::new();
        loop {
            match progress.try_recv() {
                Ok(remark) => {
                    let attempt = remark.attempt.filter(|attempt| attempt.run_id == run);
                    if let Some(attempt) = attempt {
                        remarks.push((attempt.task_run, remark.what, remark.done, remark.total));
                    }
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return remarks,
            }
        }
    })
}

fn wanted(settings: &Settings) -> Result<Wanted<'_>, Failure> {
    let args = &settings.args;
    let mut policy = policy(&args.policy, "tenon run")?;
    policy.grants.extend(args.workspace.iter().filter_map(|text| directory(text)));
    let chosen_by_tenon = args.backend == BackendChoice::Auto;
    Ok(Wanted {
        owner: Owner::Process,
        data_dir: settings.state_dir.join("agent"),
        keep: args.keep,
        image_map: args.image_map.as_deref(),
        backend: args.backend,
        policy,
        house: HouseOptions::default(),
        tell: (chosen_by_tenon && !args.quiet) || args.debug,
    })
}

/// Whoever binds a directory to a workspace lets the run have it.
fn directory(workspace: &str) -> Option<Demand> {
    let (_, source) = workspace.split_once('=')?;
    let path = Path::new(source).canonicalize().ok()?;
    Some(Demand::HostPath(path.to_str()?.to_owned()))
}

/// How many attempts at a time: what the user says, else what the machine can do.
fn slots(settings: &Settings) -> usize {
    settings.args.parallel.map_or_else(machine::slots, |parallel| parallel as usize)
}

#[expect(clippy::needless_pass_by_value, reason = "this is what map_err hands over")]
fn refused(error: tenon_coordinator::Error) -> Failure {
    Failure::new(Exit::Environment, format!("{error} [{}]", error.code()))
        .hint("is the state directory writable and the disk not full? --state-dir chooses another")
}
