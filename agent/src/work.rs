//! The agent's loop.
//!
//! One task owns all state, so there are no locks: attempts send what happens through a bounded
//! channel, the loop numbers it, keeps it until it is acknowledged, and sends it on. When too much
//! is unacknowledged it stops taking reports, and the steps that print slow down. Sessions come and
//! go; attempts, numbers and what is unacknowledged stay. It knows no transport and no backend but
//! through their contracts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, CoordinatorMessage, EndRun, Hello, Infra, RunSpec, Stop, Stopped,
    TaskInvocation, agent_message, coordinator_message, ended,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::AgentOptions;
use crate::attempt::{self, AttemptSink, Said};
use crate::backend::{Backend, Cancel};
use crate::clock::now_ms;
use crate::ended::EndedAttempts;
use crate::outgoing::Outgoing;

/// The protocol that this agent speaks.
const PROTOCOL: u32 = 1;
/// Reports that attempts may be ahead of the loop.
const REPORTS_AHEAD: usize = 64;
/// What an attempt gets between SIGTERM and SIGKILL when the agent itself is told to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// How long an agent that ends tries to get its last reports acknowledged.
const FAREWELL: Duration = Duration::from_secs(5);

/// One conversation with a coordinator.
pub(crate) struct Session {
    pub(crate) inbox: mpsc::Receiver<CoordinatorMessage>,
    pub(crate) outbox: mpsc::Sender<AgentMessage>,
    /// In this process: it listens without having to say so.
    pub(crate) is_local: bool,
}

/// The loop's state.
pub(crate) struct Work {
    options: AgentOptions,
    backend: Arc<dyn Backend>,
    slots: Arc<Semaphore>,
    reports: mpsc::Sender<Said>,
    reported: Option<mpsc::Receiver<Said>>,
    live: HashMap<AttemptId, Cancel>,
    ended: EndedAttempts,
    tasks: JoinSet<()>,
    task_attempts: HashMap<Id, AttemptId>,
    runs: HashMap<String, RunSpec>,
    ending_runs: Vec<EndRun>,
    outgoing: Outgoing,
    stopping: bool,
}

impl Work {
    pub(crate) fn new(options: AgentOptions, backend: Arc<dyn Backend>) -> Work {
        let (reports, reported) = mpsc::channel(REPORTS_AHEAD);
        Work {
            slots: Arc::new(Semaphore::new(options.slots.max(1))),
            options,
            backend,
            reports,
            reported: Some(reported),
            live: HashMap::new(),
            ended: EndedAttempts::default(),
            tasks: JoinSet::new(),
            task_attempts: HashMap::new(),
            runs: HashMap::new(),
            ending_runs: Vec::new(),
            outgoing: Outgoing::default(),
            stopping: false,
        }
    }

    /// Works for one session after the other, until there are no more or `shutdown` has fired, and
    /// until nothing runs any more.
    pub(crate) async fn run(
        mut self,
        mut sessions: mpsc::Receiver<Session>,
        shutdown: CancellationToken,
    ) {
        let Some(mut reported) = self.reported.take() else { return };
        let (mut inbox, mut outbox) = (None, None);
        let mut more_sessions = true;
        let mut farewell = None;
        loop {
            let alone = inbox.is_none() && !more_sessions;
            if alone {
                // Nobody is left to acknowledge anything.
                self.outgoing.acknowledge(u64::MAX);
            }
            let idle = self.tasks.is_empty() && reported.is_empty();
            if idle && (alone || self.stopping && self.outgoing.is_empty()) {
                return;
            }
            if idle && self.stopping && farewell.is_none() {
                farewell = Some(tokio::time::Instant::now() + FAREWELL);
            }
            let has_room = self.outgoing.has_room();
            let is_waiting = self.outgoing.is_waiting();
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.stop_all();
                    // A new hello says that there is no room here any more: what ends now is not to
                    // be placed here again. It can be made only if there may be another session.
                    self.options.slots = 0;
                    if !sessions.is_closed() {
                        (inbox, outbox) = (None, None);
                    }
                }
                heard = hear(&mut inbox) => match heard {
                    Some(message) => self.take(message),
                    None => (inbox, outbox) = (None, None),
                },
                next = sessions.recv(), if inbox.is_none() && more_sessions => match next {
                    Some(session) => {
                        self.outgoing.begin(self.hello());
                        if session.is_local {
                            self.outgoing.welcome(false);
                        }
                        (inbox, outbox) = (Some(session.inbox), Some(session.outbox));
                    }
                    None => {
                        more_sessions = false;
                        self.kill_all();
                    }
                },
                open = speak(outbox.as_ref(), &mut self.outgoing), if is_waiting => if !open {
                    // Whatever it had said was heard before.
                    (inbox, outbox) = (None, None);
                },
                Some(said) = reported.recv(), if has_room => self.pass_on(said, outbox.as_ref()),
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.task_ended(ended);
                }
                () = until(farewell) => return,
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            name: self.options.name.clone(),
            slots: u32::try_from(self.options.slots).unwrap_or(u32::MAX),
            backends: vec![self.backend.name().to_owned()],
            running: self.live.keys().cloned().collect(),
            incarnation: self.options.incarnation.clone(),
            labels: self.options.labels.clone(),
            runs: self.runs.keys().cloned().collect(),
            protocol: PROTOCOL,
            software: concat!("tenon ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Hello::default()
        }
    }

    fn take(&mut self, message: CoordinatorMessage) {
        use coordinator_message::Message;
        match message.message {
            Some(Message::Welcome(welcome)) => {
                self.outgoing.acknowledge(welcome.acknowledged);
                self.outgoing.welcome(true);
            }
            Some(Message::Prepare(spec)) => {
                self.runs.insert(spec.run_id.clone(), spec);
            }
            Some(Message::Start(task)) => self.start(task),
            Some(Message::Stop(stop)) => self.stop(&stop),
            Some(Message::Acknowledge(upto)) => self.outgoing.acknowledge(upto.number),
            Some(Message::EndRun(end)) => {
                self.ending_runs.push(end);
                self.end_runs();
            }
            // The rest is the transport's, see `session`.
            _ => {}
        }
    }

    fn start(&mut self, task: TaskInvocation) {
        let Some(attempt) = task.attempt.clone() else {
            return;
        };
        // A coordinator that has not yet heard of it, or has forgotten that it sent this, repeats it.
        let known = self.live.contains_key(&attempt) || self.ended.contains(&attempt);
        if known || self.stopping {
            return;
        }
        let cancel = Cancel::default();
        self.live.insert(attempt.clone(), cancel.clone());
        let sink = AttemptSink { attempt: attempt.clone(), reports: self.reports.clone() };
        let unprepared = || RunSpec { run_id: attempt.run_id.clone(), ..RunSpec::default() };
        let run = self.runs.entry(attempt.run_id.clone()).or_insert_with(unprepared).clone();
        let backend = self.backend.clone();
        let slots = self.slots.clone();
        let handle = self.tasks.spawn(async move {
            attempt::run(&*backend, &slots, &run, &task, &sink, &cancel).await;
        });
        self.task_attempts.insert(handle.id(), attempt);
    }

    fn stop(&mut self, stop: &Stop) {
        let Some(attempt) = &stop.attempt else {
            return;
        };
        if let Some(cancel) = self.live.get(attempt) {
            let cancel = cancel.clone();
            cancel.stop.cancel();
            let grace = Duration::from_millis(stop.grace_ms);
            self.tasks.spawn(attempt::kill_after(cancel, grace));
        } else if !self.ended.contains(attempt) {
            // It never came, or another process had it: nothing of it runs here.
            self.ended.insert(attempt);
            let stopped = attempt::ended(ended::Outcome::Stopped(Stopped {}));
            self.outgoing.report(attempt.clone(), now_ms(), stopped);
        }
    }

    fn stop_all(&mut self) {
        for cancel in self.live.values() {
            cancel.stop.cancel();
            self.tasks.spawn(attempt::kill_after(cancel.clone(), SHUTDOWN_GRACE));
        }
    }

    /// Nobody is left to wait for an end with grace.
    fn kill_all(&mut self) {
        for cancel in self.live.values() {
            cancel.stop.cancel();
            cancel.kill.cancel();
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
        self.ended.insert(&attempt);
        if let Some(cancel) = self.live.remove(&attempt) {
            // Ends the timer of a stop that is no longer needed.
            cancel.kill.cancel();
        }
        if panicked {
            let reports = self.reports.clone();
            let what = attempt::ended(ended::Outcome::Infra(Infra {
                reason: "infra/agent-fault".to_owned(),
                message: "the agent failed while it ran this attempt; this is a bug in Tenon"
                    .to_owned(),
            }));
            // Behind what the attempt itself has said.
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
            .partition(|end| live.keys().any(|attempt| attempt.run_id == end.run_id));
        self.ending_runs = waiting;
        for EndRun { run_id: run, keep_claims } in ready {
            self.runs.remove(&run);
            self.ended.forget_run(&run);
            let backend = self.backend.clone();
            self.tasks.spawn(async move {
                if let Err(error) = backend.cleanup(&run, keep_claims).await {
                    tracing::warn!(%run, %error, "could not clean up after a run");
                }
            });
        }
    }

    fn pass_on(&mut self, said: Said, outbox: Option<&mpsc::Sender<AgentMessage>>) {
        match said {
            Said::Progress(progress) if progress.note => self.outgoing.note(progress),
            Said::Progress(progress) => {
                // A remark that finds no room is not worth waiting for.
                if let Some(outbox) = outbox
                    && self.outgoing.is_idle()
                {
                    let message = agent_message::Message::Progress(progress);
                    let _ = outbox.try_send(AgentMessage { message: Some(message) });
                }
            }
            Said::Report { attempt, time_ms, what } => self.outgoing.report(attempt, time_ms, what),
        }
    }
}

/// The next message of the session, `None` at its end; waits for ever where there is no session.
async fn hear(
    inbox: &mut Option<mpsc::Receiver<CoordinatorMessage>>,
) -> Option<CoordinatorMessage> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

/// Sends what waits as soon as the session takes it; false when it takes nothing any more.
async fn speak(outbox: Option<&mpsc::Sender<AgentMessage>>, outgoing: &mut Outgoing) -> bool {
    let Some(outbox) = outbox else { return std::future::pending().await };
    let Ok(permit) = outbox.reserve().await else { return false };
    if let Some(message) = outgoing.next() {
        permit.send(message);
    }
    true
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
