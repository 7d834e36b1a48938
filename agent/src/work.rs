//! The agent's loop.
//!
//! One task owns all state, so there are no locks: attempts send what happens through a bounded
//! channel, the loop numbers it, puts it into the spool, and sends it on. When too much is
//! unacknowledged it stops taking reports, and the steps that print slow down. Sessions come and
//! go; attempts, numbers and what is unacknowledged stay. It knows no transport and no backend but
//! through their contracts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, CoordinatorMessage, EndRun, Hello, Infra, RunSpec, agent_message,
    coordinator_message, ended,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::AgentOptions;
use crate::attempt::{self, Reported, Said};
use crate::backend::{Backend, Cancel, Left};
use crate::clock::now_ms;
use crate::ended::EndedAttempts;
use crate::guard::{Guard, OnExpiry};
use crate::keeping::Needed;
use crate::lease::{Beats, Lease};
use crate::outgoing::Outgoing;
use crate::spool::{Found, Safe, Spool, SpoolError};
use crate::workspaces::Workspaces;

mod contact;
mod tasks;

use contact::{Contact, Held};

/// The protocol that this agent speaks.
const PROTOCOL: u32 = 2;
/// The one of agents whose workspaces stay with them.
const PROTOCOL_OF_STAYING: u32 = 1;
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
    /// The heartbeats that it sends; none in this process, where the other side listens without
    /// having to say so, and where there is no lease.
    pub(crate) beats: Option<Arc<Beats>>,
}

/// The loop's state.
pub(crate) struct Work {
    options: AgentOptions,
    backend: Arc<dyn Backend>,
    workspaces: Workspaces,
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
    contact: Contact,
    /// The heartbeats of this session.
    beats: Option<Arc<Beats>>,
    /// The number of the newest report of an attempt.
    last: u64,
    /// Who waits for a report to be safe, by number.
    awaited: VecDeque<(u64, oneshot::Sender<()>)>,
    stopping: bool,
    /// At most one look at what nobody needs any more.
    house: JoinSet<Vec<String>>,
}

impl Work {
    /// The work of an agent in this process.
    pub(crate) fn local(options: AgentOptions, backend: Arc<dyn Backend>) -> Work {
        let contact = Contact::new(Lease::unlimited(), None, OnExpiry::default());
        Work::new(options, backend, Workspaces::default(), Spool::default(), contact)
    }

    /// The work of an agent of a fleet, which does nothing before it is in contact.
    pub(crate) fn fleet(
        options: AgentOptions,
        backend: Arc<dyn Backend>,
        workspaces: Workspaces,
        spool: Spool,
        guard: Option<Guard>,
        on_expiry: OnExpiry,
    ) -> Work {
        let contact = Contact::new(Lease::none_yet(), guard, on_expiry);
        Work::new(options, backend, workspaces, spool, contact)
    }

    /// Takes over what an earlier process has left.
    pub(crate) fn take_over(&mut self, found: Found, left: Left) {
        let Found { ended, mut marks, .. } = found;
        self.workspaces.keep_only(&left.attempts);
        for run in left.runs {
            let spec = RunSpec { run_id: run.clone(), ..RunSpec::default() };
            self.runs.insert(run, spec);
        }
        for attempt in left.attempts {
            if !ended.contains(&attempt) {
                let marks = marks.remove(&attempt).unwrap_or_default();
                self.contact.left.insert(attempt, marks);
                continue;
            }
            // Its end is told, its containers are gone: only its directory was left.
            let backend = self.backend.clone();
            self.tasks.spawn(async move { backend.forget(&attempt).await });
        }
        ended.iter().for_each(|attempt| self.ended.insert(attempt));
        // Nobody will ask for these again, and nothing of them has begun.
        for attempt in marks.into_keys() {
            self.ended.insert(&attempt);
            let outcome = ended::Outcome::Infra(Infra {
                reason: "infra/agent-restarted".to_owned(),
                message: "the agent died before the attempt's steps had begun".to_owned(),
            });
            self.outgoing.report(attempt, now_ms(), attempt::ended(outcome), None);
        }
    }

    fn new(
        options: AgentOptions,
        backend: Arc<dyn Backend>,
        workspaces: Workspaces,
        spool: Spool,
        contact: Contact,
    ) -> Work {
        let (reports, reported) = mpsc::channel(REPORTS_AHEAD);
        Work {
            slots: Arc::new(Semaphore::new(options.slots.max(1))),
            options,
            backend,
            workspaces,
            reports,
            reported: Some(reported),
            live: HashMap::new(),
            ended: EndedAttempts::default(),
            tasks: JoinSet::new(),
            task_attempts: HashMap::new(),
            runs: HashMap::new(),
            ending_runs: Vec::new(),
            outgoing: Outgoing::new(spool),
            contact,
            beats: None,
            last: 0,
            awaited: VecDeque::new(),
            stopping: false,
            house: JoinSet::new(),
        }
    }

    /// Works for one session after the other, until there are no more or `shutdown` has fired, and
    /// until nothing runs any more. When the spool fails it ends at once, and what runs goes on.
    pub(crate) async fn run(
        mut self,
        mut sessions: mpsc::Receiver<Session>,
        shutdown: CancellationToken,
    ) -> Result<(), SpoolError> {
        let Some(mut reported) = self.reported.take() else { return Ok(()) };
        let mut safe = self.outgoing.spool.safe();
        let (mut inbox, mut outbox) = (None, None);
        let mut more_sessions = true;
        let mut farewell = None;
        let mut looks = self.options.house_every.map(tokio::time::interval);
        loop {
            if inbox.is_none() {
                // What was held back is said again in the next session.
                self.contact.held.clear();
            }
            let alone = inbox.is_none() && !more_sessions;
            if alone {
                self.outgoing.spool.abandon();
            }
            let idle = self.tasks.is_empty() && reported.is_empty();
            if idle && (alone || self.stopping && self.outgoing.spool.is_empty()) {
                return self.end();
            }
            if idle && self.stopping && farewell.is_none() {
                farewell = Some(tokio::time::Instant::now() + FAREWELL);
            }
            let has_room = alone || self.outgoing.spool.has_room();
            let lease_ends = self.lease_ends();
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
                    Some(message) => self.take(message)?,
                    None => (inbox, outbox) = (None, None),
                },
                next = sessions.recv(), if inbox.is_none() && more_sessions => match next {
                    Some(session) => {
                        self.outgoing.begin(self.hello());
                        if session.beats.is_none() {
                            self.outgoing.welcome(false);
                        }
                        self.beats = session.beats;
                        (inbox, outbox) = (Some(session.inbox), Some(session.outbox));
                    }
                    None => {
                        more_sessions = false;
                        self.kill_all();
                    }
                },
                open = speak(outbox.as_ref(), &mut self.outgoing), if is_waiting => if !open? {
                    // Whatever it had said was heard before.
                    (inbox, outbox) = (None, None);
                },
                state = safer(safe.as_mut()) => {
                    self.tell_safe();
                    if let Some(failed) = state.failed {
                        return Err(failed);
                    }
                }
                Some(renewed) = self.contact.renewing.join_next() => {
                    self.renewed(renewed.unwrap_or_else(|error| Err(error.to_string())));
                }
                () = until(lease_ends) => self.look_at_lease(),
                Some(said) = reported.recv(), if has_room => self.pass_on(said, outbox.as_ref()),
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.task_ended(ended);
                }
                () = until(farewell) => return self.end(),
                () = tick(looks.as_mut()), if !self.stopping && self.house.is_empty() => {
                    self.look_after();
                }
                Some(done) = self.house.join_next() => {
                    for what in done.unwrap_or_default() {
                        tracing::info!("{what}");
                    }
                }
            }
        }
    }

    /// Nothing runs any more, unless it was left to the next process.
    fn end(self) -> Result<(), SpoolError> {
        let guard = self.contact.guard.filter(|_| self.contact.left.is_empty());
        if let Some(guard) = guard.and_then(Arc::into_inner) {
            guard.end();
        }
        Ok(())
    }

    /// Has removed what is not needed. What is needed is said first, and looked for then.
    fn look_after(&mut self) {
        if self.contact.lease.is_told() {
            let attempts = self.live.keys().chain(self.contact.left.keys());
            let of_others = self.runs.values().flat_map(|run| run.claims_of.values());
            let runs = self.runs.keys().chain(of_others).cloned();
            let needed = Needed::of(attempts, runs.collect::<Vec<_>>());
            let backend = self.backend.clone();
            self.house.spawn(async move { backend.keep_house(&needed).await });
        }
    }

    fn hello(&self) -> Hello {
        let options = &self.options;
        Hello {
            name: options.name.clone(),
            slots: u32::try_from(options.slots).unwrap_or(u32::MAX),
            backends: vec![self.backend.name().to_owned()],
            running: self.live.keys().chain(self.contact.left.keys()).cloned().collect(),
            incarnation: options.incarnation.clone(),
            labels: options.labels.clone(),
            runs: self.runs.keys().cloned().collect(),
            protocol: if self.workspaces.can_move() { PROTOCOL } else { PROTOCOL_OF_STAYING },
            software: concat!("tenon ", env!("CARGO_PKG_VERSION")).to_owned(),
            cpu_millis: options.cpu_millis,
            memory_bytes: options.memory_bytes,
            images: options.images.clone(),
            allowed_images: options.allowed_images.clone(),
            grants: options.grants.iter().map(ToString::to_string).collect(),
            disk_floor_bytes: options.floor.bytes,
            disk_free_bytes: options.floor.free(),
        }
    }

    fn take(&mut self, message: CoordinatorMessage) -> Result<(), SpoolError> {
        use coordinator_message::Message;
        match message.message {
            Some(Message::Welcome(welcome)) => {
                self.outgoing.spool.check(welcome.acknowledged)?;
                self.outgoing.spool.acknowledge(welcome.acknowledged);
                self.outgoing.welcome(true);
                self.welcomed(&welcome);
            }
            Some(Message::Prepare(spec)) => {
                self.runs.insert(spec.run_id.clone(), spec);
            }
            Some(Message::Heartbeat(beat)) => {
                let beats = self.beats.as_ref();
                if let Some(sent) = beats.and_then(|beats| beats.sent(beat.number)) {
                    self.heartbeat_answered(sent);
                }
            }
            Some(Message::Start(task)) if self.contact.lease.is_told() => self.start(task),
            Some(Message::Start(task)) => self.contact.held.push(Held::Start(Box::new(task))),
            Some(Message::Stop(stop)) => self.stop_or_hold(stop),
            Some(Message::Acknowledge(upto)) => self.outgoing.spool.acknowledge(upto.number),
            Some(Message::EndRun(end)) => {
                self.ending_runs.push(end);
                self.end_runs();
            }
            None => {}
        }
        Ok(())
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
            Said::Flush(safe) => {
                let last = self.awaited.back().map_or(0, |(number, _)| *number);
                self.awaited.push_back((last.max(self.last), safe));
            }
            Said::Report(reported) => {
                let Reported { attempt, time_ms, mut what, marked, safe } = *reported;
                self.as_expired(&attempt, &mut what);
                let number = self.outgoing.report(attempt, time_ms, what, marked);
                self.last = number;
                self.awaited.extend(safe.map(|safe| (number, safe)));
            }
        }
        self.tell_safe();
    }

    /// Tells who waits for it what is safe now.
    fn tell_safe(&mut self) {
        let safe = self.outgoing.spool.tell_marks();
        while let Some((number, _)) = self.awaited.front()
            && *number <= safe
            && let Some((_, waiting)) = self.awaited.pop_front()
        {
            // Who waits no more needs not to know.
            let _ = waiting.send(());
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
async fn speak(
    outbox: Option<&mpsc::Sender<AgentMessage>>,
    outgoing: &mut Outgoing,
) -> Result<bool, SpoolError> {
    let Some(outbox) = outbox else { return std::future::pending().await };
    let Ok(permit) = outbox.reserve().await else { return Ok(false) };
    if let Some(message) = outgoing.next()? {
        permit.send(message);
    }
    Ok(true)
}

/// Waits until more reports are safe, or none will be.
async fn safer(safe: Option<&mut watch::Receiver<Safe>>) -> Safe {
    if let Some(safe) = safe
        && safe.changed().await.is_ok()
    {
        return safe.borrow_and_update().clone();
    }
    // What is safe at once changes nothing; a writer that is gone has said why.
    std::future::pending().await
}

async fn tick(looks: Option<&mut tokio::time::Interval>) {
    match looks {
        Some(looks) => drop(looks.tick().await),
        None => std::future::pending().await,
    }
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
