//! The agent's loop: attempts in, numbered reports out.
//!
//! One task owns all state, so there are no locks: attempts send what happens through a bounded
//! channel, the loop numbers it, keeps it until it is acknowledged, and sends it on. When too much
//! is unacknowledged it stops taking reports, and the steps that print slow down. It knows no
//! transport and no backend but through their contracts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, AttemptId, CoordinatorMessage, Ended, Hello, Infra, Progress,
    Report, RunSpec, Started, Stop, Stopped, TaskInvocation, agent_message, coordinator_message,
    ended, report,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, BoxFuture, Cancel, Sink};
use crate::clock::now_ms;

/// Bytes of unacknowledged reports above which steps are slowed down.
const UNACKNOWLEDGED_LIMIT: usize = 32 << 20;
/// Reports that attempts may be ahead of the loop.
const REPORTS_AHEAD: usize = 64;
/// What an attempt gets between SIGTERM and SIGKILL when the agent itself is told to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// How an agent presents itself.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Its name, unique in the fleet.
    pub name: String,
    /// How many attempts it runs at a time.
    pub slots: usize,
}

/// An agent that runs attempts on one backend.
pub struct Agent {
    options: AgentOptions,
    backend: Arc<dyn Backend>,
}

impl Agent {
    /// An agent; nothing runs until [`Agent::run`].
    pub fn new(options: AgentOptions, backend: Arc<dyn Backend>) -> Agent {
        Agent { options, backend }
    }

    /// Says hello, then works until the inbox is closed and all left is killed and removed, or until `shutdown`
    /// fires: then it stops every attempt, with grace, and still waits until nothing runs any more.
    pub async fn run(
        self,
        inbox: mpsc::Receiver<CoordinatorMessage>,
        outbox: mpsc::Sender<AgentMessage>,
        shutdown: CancellationToken,
    ) {
        let hello = Hello {
            name: self.options.name.clone(),
            slots: u32::try_from(self.options.slots).unwrap_or(u32::MAX),
            backends: vec![self.backend.name().to_owned()],
            running: Vec::new(),
            ..Hello::default()
        };
        let (reports, reported) = mpsc::channel(REPORTS_AHEAD);
        let mut work = Loop {
            backend: self.backend,
            slots: Arc::new(Semaphore::new(self.options.slots.max(1))),
            reports,
            outbox,
            live: HashMap::new(),
            tasks: JoinSet::new(),
            task_attempts: HashMap::new(),
            runs: HashMap::new(),
            ending_runs: Vec::new(),
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            last_number: 0,
        };
        work.send(agent_message::Message::Hello(hello)).await;
        work.run(inbox, reported, shutdown).await;
    }
}

/// What an attempt tells the loop.
enum Said {
    Report { attempt: AttemptId, time_ms: i64, what: report::What },
    Progress(Progress),
}

struct Loop {
    backend: Arc<dyn Backend>,
    slots: Arc<Semaphore>,
    reports: mpsc::Sender<Said>,
    outbox: mpsc::Sender<AgentMessage>,
    live: HashMap<AttemptKey, Cancel>,
    tasks: JoinSet<()>,
    task_attempts: HashMap<Id, AttemptId>,
    runs: HashMap<String, RunSpec>,
    ending_runs: Vec<String>,
    unacknowledged: VecDeque<(Report, usize)>,
    unacknowledged_bytes: usize,
    last_number: u64,
}

type AttemptKey = (String, String, u32, u32);

fn key(attempt: &AttemptId) -> AttemptKey {
    (attempt.run_id.clone(), attempt.task_run.clone(), attempt.attempt, attempt.placement)
}

impl Loop {
    async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<CoordinatorMessage>,
        mut reported: mpsc::Receiver<Said>,
        shutdown: CancellationToken,
    ) {
        let mut inbox_open = true;
        let mut stopping = false;
        while inbox_open || !self.tasks.is_empty() || !reported.is_empty() {
            let has_room = self.unacknowledged_bytes < UNACKNOWLEDGED_LIMIT;
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    inbox_open = false;
                    self.stop_all();
                }
                message = inbox.recv(), if inbox_open || !has_room => match message {
                    Some(message) => self.take(message),
                    None => {
                        inbox_open = false;
                        // Nobody is left to acknowledge anything, or to wait for an end with grace.
                        self.acknowledge(u64::MAX);
                        for cancel in self.live.values() {
                            cancel.stop.cancel();
                            cancel.kill.cancel();
                        }
                    }
                },
                Some(said) = reported.recv(), if has_room => self.pass_on(said).await,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.task_ended(ended);
                }
            }
            if !inbox_open && inbox.is_closed() {
                self.acknowledge(u64::MAX);
            }
        }
    }

    fn take(&mut self, message: CoordinatorMessage) {
        match message.message {
            Some(coordinator_message::Message::Prepare(spec)) => {
                self.runs.insert(spec.run_id.clone(), spec);
            }
            Some(coordinator_message::Message::Start(task)) => self.start(task),
            Some(coordinator_message::Message::Stop(stop)) => self.stop(&stop),
            Some(coordinator_message::Message::Acknowledge(Acknowledge { number })) => {
                self.acknowledge(number);
            }
            Some(coordinator_message::Message::EndRun(end)) => {
                self.ending_runs.push(end.run_id);
                self.end_runs();
            }
            // Of the session, which is not this loop's.
            Some(
                coordinator_message::Message::Welcome(_)
                | coordinator_message::Message::Turned(_)
                | coordinator_message::Message::Heartbeat(_),
            )
            | None => {}
        }
    }

    fn start(&mut self, task: TaskInvocation) {
        let Some(attempt) = task.attempt.clone() else {
            return;
        };
        if self.live.contains_key(&key(&attempt)) {
            return;
        }
        let cancel = Cancel::default();
        self.live.insert(key(&attempt), cancel.clone());
        let sink = AttemptSink { attempt: attempt.clone(), reports: self.reports.clone() };
        let run = self
            .runs
            .get(&attempt.run_id)
            .cloned()
            .unwrap_or(RunSpec { run_id: attempt.run_id.clone(), ..RunSpec::default() });
        let backend = self.backend.clone();
        let slots = self.slots.clone();
        let handle = self.tasks.spawn(async move {
            run_attempt(&*backend, &slots, &run, &task, &sink, &cancel).await;
        });
        self.task_attempts.insert(handle.id(), attempt);
    }

    fn stop(&mut self, stop: &Stop) {
        let Some(cancel) = stop.attempt.as_ref().and_then(|attempt| self.live.get(&key(attempt)))
        else {
            return;
        };
        let cancel = cancel.clone();
        cancel.stop.cancel();
        let grace = Duration::from_millis(stop.grace_ms);
        self.tasks.spawn(kill_after(cancel, grace));
    }

    fn stop_all(&mut self) {
        for cancel in self.live.values() {
            cancel.stop.cancel();
            self.tasks.spawn(kill_after(cancel.clone(), SHUTDOWN_GRACE));
        }
    }

    fn task_ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(attempt) = self.task_attempts.remove(&id) else {
            return;
        };
        if let Some(cancel) = self.live.remove(&key(&attempt)) {
            // Ends the timer of a stop that is no longer needed.
            cancel.kill.cancel();
        }
        if panicked {
            let reports = self.reports.clone();
            let what = report::What::Ended(Ended {
                outcome: Some(ended::Outcome::Infra(Infra {
                    reason: "infra/agent-fault".to_owned(),
                    message: "the agent failed while it ran this attempt; this is a bug in Tenon"
                        .to_owned(),
                })),
            });
            self.tasks.spawn(async move {
                let _ = reports.send(Said::Report { attempt, time_ms: now_ms(), what }).await;
            });
        }
        self.end_runs();
    }

    /// Cleans up after the runs that have ended and of which nothing is live any more.
    fn end_runs(&mut self) {
        let live = &self.live;
        let (waiting, ready): (Vec<_>, Vec<_>) = self
            .ending_runs
            .drain(..)
            .partition(|run| live.keys().any(|(live_run, ..)| live_run == run));
        self.ending_runs = waiting;
        for run in ready {
            self.runs.remove(&run);
            let backend = self.backend.clone();
            self.tasks.spawn(async move {
                if let Err(error) = backend.cleanup(&run).await {
                    tracing::warn!(%run, %error, "could not clean up after a run");
                }
            });
        }
    }

    fn acknowledge(&mut self, number: u64) {
        while let Some((report, bytes)) = self.unacknowledged.front() {
            if report.number > number {
                break;
            }
            self.unacknowledged_bytes -= bytes;
            self.unacknowledged.pop_front();
        }
    }

    async fn pass_on(&mut self, said: Said) {
        match said {
            Said::Progress(progress) if progress.note => {
                self.send(agent_message::Message::Progress(progress)).await;
            }
            Said::Progress(progress) => {
                // A remark that finds no room is not worth waiting for.
                let _ = self.outbox.try_send(AgentMessage {
                    message: Some(agent_message::Message::Progress(progress)),
                });
            }
            Said::Report { attempt, time_ms, what } => {
                self.last_number += 1;
                let report = Report {
                    number: self.last_number,
                    attempt: Some(attempt),
                    time_ms,
                    what: Some(what),
                };
                let bytes = report.encoded_len();
                self.unacknowledged_bytes += bytes;
                self.unacknowledged.push_back((report.clone(), bytes));
                self.send(agent_message::Message::Report(report)).await;
            }
        }
    }

    async fn send(&self, message: agent_message::Message) {
        // A closed outbox means that the session is over; what is unacknowledged is kept.
        let _ = self.outbox.send(AgentMessage { message: Some(message) }).await;
    }
}

async fn kill_after(cancel: Cancel, grace: Duration) {
    tokio::select! {
        () = tokio::time::sleep(grace) => cancel.kill.cancel(),
        () = cancel.kill.cancelled() => {}
    }
}

async fn run_attempt(
    backend: &dyn Backend,
    slots: &Semaphore,
    run: &RunSpec,
    task: &TaskInvocation,
    sink: &AttemptSink,
    cancel: &Cancel,
) {
    let permit = tokio::select! {
        permit = slots.acquire() => permit.ok(),
        () = cancel.stop.cancelled() => None,
    };
    let outcome = if permit.is_none() {
        ended::Outcome::Stopped(Stopped {})
    } else {
        sink.report(now_ms(), report::What::Started(Started {})).await;
        match backend.prepare(run).await {
            Ok(()) => backend.run_task(task, sink, cancel).await,
            Err(error) => ended::Outcome::Infra(Infra {
                reason: error.code.to_owned(),
                message: error.message,
            }),
        }
    };
    let ended = Ended { outcome: Some(outcome) };
    sink.report(now_ms(), report::What::Ended(ended)).await;
}

struct AttemptSink {
    attempt: AttemptId,
    reports: mpsc::Sender<Said>,
}

impl Sink for AttemptSink {
    fn report(&self, time_ms: i64, what: report::What) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The loop outlives its attempts, so the channel is open.
            let _ = self
                .reports
                .send(Said::Report { attempt: self.attempt.clone(), time_ms, what })
                .await;
        })
    }

    fn progress(&self, what: &str, done: u64, total: u64) {
        let _ = self.reports.try_send(Said::Progress(Progress {
            attempt: Some(self.attempt.clone()),
            what: what.to_owned(),
            done,
            total,
            note: false,
        }));
    }

    fn note<'a>(&'a self, what: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let note = Progress {
                attempt: Some(self.attempt.clone()),
                what: what.to_owned(),
                note: true,
                ..Progress::default()
            };
            // As with reports.
            let _ = self.reports.send(Said::Progress(note)).await;
        })
    }
}
