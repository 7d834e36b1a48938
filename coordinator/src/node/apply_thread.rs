//! The thread that drives the [`Coordinator`]: committed entries, requests and agents in; answers,
//! messages and proposals out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tenon_consensus::SnapshotMeta;
use tenon_engine::Time;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, Progress};
use tenon_proto::raft::v1::FetchRequest;
use tokio::sync::{mpsc, oneshot};

use super::raft_thread::RaftInput;
use super::standing::{FleetView, Standing, StateView};
use crate::coordinator::{Answer, Clocks, CloseReason, Coordinator, Input, Output, Request};
use crate::duties::SessionId;
use crate::entry::RequestId;
use crate::error::{Error, Result};
use crate::replica::snapshot::Descriptor;
use crate::replica::{Member, Retired};
use crate::server::Metrics;
use crate::waiting::Token;

/// At most so many inputs are taken together.
const BATCH: usize = 1024;
/// How old the standing that is shown may be.
const SHOW: Duration = Duration::from_millis(50);
/// Showing the agents takes at most one part in so many of the thread's time: the more there are, the
/// older what is shown of them may be.
const SHOW_AGENTS: u32 = 100;
/// So many proposals may be under way before agents and clients have to wait.
const UNDER_WAY: usize = 16 << 10;

/// What comes from the node's users.
pub enum FromUser {
    /// A request and who waits for its answer.
    Request {
        /// What is asked for.
        request: Request,
        /// By when there must be an answer.
        deadline: Time,
        /// Where the answer goes.
        answer: oneshot::Sender<Answer>,
    },
    /// An agent has dialled in.
    Attach {
        /// What it says of itself.
        hello: Hello,
        /// The way to it.
        to_agent: ToAgent,
        /// Where the session's number goes.
        session: oneshot::Sender<SessionId>,
    },
    /// It says something.
    Said(SessionId, AgentMessage),
    /// It has hung up.
    Detached(SessionId),
    /// Make a snapshot, for a backup.
    Snapshot(oneshot::Sender<Descriptor>),
    /// A look at the state.
    Look(Box<dyn FnOnce(&Coordinator) + Send>),
    /// End.
    Stop,
}

/// What an agent's session receives.
#[derive(Debug)]
pub enum SessionMessage {
    /// For the agent.
    Message(Box<CoordinatorMessage>),
    /// The session is over.
    Close(CloseReason),
}

/// The way to an agent. Unbounded, because what is sent is bounded by the attempts it runs.
pub type ToAgent = mpsc::UnboundedSender<SessionMessage>;

/// Where what follows goes.
pub(super) struct Links {
    pub raft: Sender<RaftInput>,
    /// Asks another member for a part of a snapshot; the answer comes back as [`Input::Chunk`]
    /// or [`Input::FetchBroken`].
    pub fetch: Box<dyn Fn(u64, FetchRequest) + Send>,
    /// The members as of what is applied.
    pub members: Box<dyn Fn(std::collections::BTreeMap<u64, Member>) + Send>,
    pub progress: Box<dyn Fn(Progress) + Send>,
    pub retired: Box<dyn FnMut(Retired) + Send>,
    pub forged: super::running::OnForged,
    pub metrics: Arc<Metrics>,
    pub standing: Arc<Standing>,
}

/// The thread's state.
pub(super) struct ApplyThread {
    coordinator: Coordinator,
    links: Links,
    answers: HashMap<Token, oneshot::Sender<Answer>>,
    sessions: HashMap<SessionId, ToAgent>,
    next: u64,
    snapshots: Vec<oneshot::Sender<Descriptor>>,
    began: Instant,
    shown: Instant,
    /// Something was done since the standing was shown.
    behind: bool,
    /// The agents are not shown again before then.
    show_agents: Instant,
    stopping: bool,
}

impl ApplyThread {
    pub fn new(coordinator: Coordinator, links: Links) -> ApplyThread {
        ApplyThread {
            coordinator,
            links,
            answers: HashMap::new(),
            sessions: HashMap::new(),
            next: 0,
            snapshots: Vec::new(),
            began: Instant::now(),
            shown: Instant::now(),
            behind: true,
            show_agents: Instant::now(),
            stopping: false,
        }
    }

    /// Works until it is told to stop, or until something cannot be applied or stored.
    pub fn run(
        mut self,
        log: mpsc::UnboundedReceiver<Input>,
        users: mpsc::Receiver<FromUser>,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(
            |source| Error::Io {
                action: "start the runtime of",
                path: "the coordinator".into(),
                source,
            },
        )?;
        runtime.block_on(self.serve(log, users))
    }

    async fn serve(
        &mut self,
        mut log: mpsc::UnboundedReceiver<Input>,
        mut users: mpsc::Receiver<FromUser>,
    ) -> Result<()> {
        let mut inputs = Vec::new();
        while !self.stopping {
            let room = self.coordinator.under_way() < UNDER_WAY;
            let wakeup = self.coordinator.next_wakeup();
            let timer = async {
                match wakeup {
                    Some(time) => {
                        let millis = u64::try_from(time.0 - now().0).unwrap_or(0);
                        tokio::time::sleep(Duration::from_millis(millis)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = log.recv() => match message {
                    Some(message) => inputs.push(message),
                    None => break,
                },
                message = users.recv(), if room => match message {
                    Some(message) => self.take_user(message, &mut inputs),
                    None => self.stopping = true,
                },
                () = timer => inputs.push(Input::Wake),
                // What was done lately is shown when there is time for it.
                () = tokio::time::sleep(SHOW), if self.behind => self.show(),
            }
            // Whoever has more and waits for a processor comes first: on a busy machine one entry carries much then, and
            // on an idle one nobody waits.
            std::thread::yield_now();
            while inputs.len() < BATCH && !self.stopping {
                if let Ok(message) = log.try_recv() {
                    inputs.push(message);
                } else if room && let Ok(message) = users.try_recv() {
                    self.take_user(message, &mut inputs);
                } else {
                    break;
                }
            }
            self.step(inputs.drain(..))?;
        }
        self.step([Input::Persist])
    }

    fn step(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<()> {
        let began = Instant::now();
        self.behind = true;
        let before = self.coordinator.replica().meta().next_seq;
        let steady = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let clocks = Clocks { wall: now(), steady };
        let outputs = self.coordinator.handle(clocks, inputs)?;
        let events = self.coordinator.replica().meta().next_seq.saturating_sub(before);
        self.links.metrics.events.inc_by(events);
        self.links.metrics.apply.observe(began.elapsed().as_secs_f64());
        let mut proposals = Vec::new();
        let mut others = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Propose { id, proposal } => proposals.push((id, proposal)),
                other => others.push(other),
            }
        }
        // First what has to wait for disks, and together: one entry carries all of it.
        self.propose(proposals);
        for output in others {
            self.put(output);
        }
        for made in std::mem::take(&mut self.snapshots) {
            let descriptor = self.coordinator.make_snapshot()?;
            // Whoever wanted it may have gone.
            let _ = made.send(descriptor);
        }
        if self.shown.elapsed() > SHOW {
            self.show();
        }
        Ok(())
    }

    fn show(&mut self) {
        self.shown = Instant::now();
        self.behind = false;
        self.links.standing.set_state(StateView::of(&self.coordinator));
        if self.shown < self.show_agents {
            // They are shown later.
            self.behind = true;
            return;
        }
        self.links.standing.set_fleet(FleetView::of(&self.coordinator));
        self.show_agents = self.shown + self.shown.elapsed() * SHOW_AGENTS;
    }

    fn take_user(&mut self, message: FromUser, inputs: &mut Vec<Input>) {
        self.next += 1;
        match message {
            FromUser::Request { request, deadline, answer } => {
                self.answers.insert(self.next, answer);
                inputs.push(Input::Request { token: self.next, request, deadline });
            }
            FromUser::Attach { hello, to_agent, session } => {
                self.sessions.insert(self.next, to_agent);
                // Who dialled in may have gone again; then `Detached` follows.
                let _ = session.send(self.next);
                inputs.push(Input::Attach { session: self.next, hello });
            }
            FromUser::Said(session, message) => inputs.push(Input::Said { session, message }),
            FromUser::Detached(session) => {
                self.sessions.remove(&session);
                inputs.push(Input::Detached(session));
            }
            FromUser::Snapshot(made) => self.snapshots.push(made),
            FromUser::Look(look) => look(&self.coordinator),
            FromUser::Stop => self.stopping = true,
        }
    }

    fn propose(&self, proposals: Vec<(RequestId, Vec<u8>)>) {
        if !proposals.is_empty() {
            self.links.metrics.proposals.inc_by(proposals.len() as u64);
            // Its receiver is gone only when the node is ending.
            let _ = self.links.raft.send(RaftInput::Propose(proposals));
        }
    }

    fn put(&mut self, output: Output) {
        // Who receives these is gone only when the node is ending.
        match output {
            Output::Propose { id, proposal } => self.propose(vec![(id, proposal)]),
            Output::ReadIndex(id) => {
                let _ = self.links.raft.send(RaftInput::ReadIndex(id));
            }
            Output::Applied(index) => {
                let _ = self.links.raft.send(RaftInput::Applied(index));
            }
            Output::Persisted(index) => {
                let _ = self.links.raft.send(RaftInput::Compact(index));
            }
            Output::Members(members) => {
                (self.links.members)(members);
            }
            Output::ToAgent(session, message) => {
                if let Some(agent) = self.sessions.get(&session) {
                    let _ = agent.send(SessionMessage::Message(Box::new(message)));
                }
            }
            Output::Close(session, reason) => {
                if let Some(agent) = self.sessions.remove(&session) {
                    let _ = agent.send(SessionMessage::Close(reason));
                }
            }
            Output::Progress(progress) => (self.links.progress)(progress),
            Output::Answer(token, answer) => {
                if let Some(waiting) = self.answers.remove(&token) {
                    let _ = waiting.send(answer);
                }
            }
            Output::Forged { agent, attempt } => (self.links.forged)(&agent, &attempt),
            Output::Retired(retired) => (self.links.retired)(retired),
            Output::SnapshotMade(descriptor) => {
                self.links.metrics.snapshots.get_or_create(&[("outcome", "made")]).inc();
                let meta = SnapshotMeta {
                    position: tenon_consensus::Position {
                        index: descriptor.index,
                        term: descriptor.term,
                    },
                    conf_state: descriptor.configuration.clone().into(),
                    data: descriptor.to_bytes(),
                };
                let _ = self.links.raft.send(RaftInput::Offer(meta));
            }
            Output::Fetch(from, request) => (self.links.fetch)(from, request),
            Output::Fetched(descriptor) => {
                let _ = self.links.raft.send(RaftInput::Fetched(descriptor));
            }
            Output::FetchFailed(descriptor) => {
                self.links.metrics.snapshots.get_or_create(&[("outcome", "failed")]).inc();
                let _ = self.links.raft.send(RaftInput::FetchFailed(descriptor));
            }
            Output::Installed => {
                self.links.metrics.snapshots.get_or_create(&[("outcome", "installed")]).inc();
                let _ = self.links.raft.send(RaftInput::Installed);
            }
        }
    }
}

/// The wall clock.
pub fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}
