//! The part of a node behind the log: applies what is committed, answers who waits, and does the
//! leader's duties.
//!
//! It does no I/O of its own but through the disk and the store that it was given, knows no clock and
//! no thread: inputs come with the time, outputs are handed back. A node drives it from one thread
//! ([`crate::node`]); the simulator drives it from its schedule.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tenon_engine::command::CancelMode;
use tenon_engine::report::Outcome;
use tenon_engine::{AttemptId, Report, RunId, Submission, Time};
use tenon_journal::bugs;
use tenon_journal::disk::Disk;
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, CoordinatorMessage, EndRun, Hello, Progress, Welcome, agent_message,
    coordinator_message,
};
use tenon_proto::raft::v1::{Chunk, FetchRequest};
use tenon_reporter::history::RunStatus;

use crate::command::{Command, IdempotencyKey};
use crate::duties::{Duties, SessionId};
use crate::entry::{RequestId, encode_proposal};
use crate::error::Result;
use crate::materials::Materials;
use crate::replica::snapshot::{Descriptor, Fetch};
use crate::replica::{Configuration, Effects, Member, Replica, Reply, Retired};
use crate::seal::SealKey;
use crate::waiting::{Proposals, Token};
use crate::wire;

/// Between attempts to read through a quorum that did not answer, in milliseconds.
const READ_AGAIN_MS: i64 = 300;
/// Between attempts to fetch a snapshot from a member that could not be reached, in milliseconds.
const FETCH_AGAIN_MS: i64 = 300;

/// When what is applied is made what a restart begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistPoints {
    /// After so many bytes of applied entries.
    pub bytes: u64,
    /// After this time even if it is little, in milliseconds.
    pub after_ms: i64,
}

impl Default for PersistPoints {
    fn default() -> Self {
        PersistPoints { bytes: 32 << 20, after_ms: 10_000 }
    }
}

/// How long the claims of failed runs are kept: a day.
pub(crate) const KEEP_CLAIMS_MS: i64 = 24 * 3600 * 1000;

/// What a coordinator needs to know.
#[derive(Clone)]
pub struct Options {
    /// The Raft id of this member.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Makes the numbers of requests differ from those of earlier lives of this member.
    pub request_base: u64,
    /// How long a stopped step has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Attempts go to whatever agent there is: `tenon run`.
    pub any_agent: bool,
    /// Opens and closes Secrets; without it, submissions with Secrets are refused.
    pub key: Option<SealKey>,
    /// When there are persist points: `tenon run` has none, its log is short-lived.
    pub persist: Option<PersistPoints>,
    /// How often an agent gives a sign of life, in milliseconds; 0 for not at all.
    pub heartbeat_ms: u64,
    /// How long the claims of a run that failed are kept, so that another run can go on with them, in
    /// milliseconds; they go when their agent next begins a session.
    pub keep_claims_ms: i64,
    /// The largest proposal that the log takes, in bytes.
    pub max_proposal_bytes: usize,
}

/// What may be asked of a member.
pub enum Request {
    /// Start a run.
    Submit {
        /// What to run.
        submission: Box<Submission>,
        /// Its ConfigMaps and Secrets.
        materials: Materials,
        /// The client's name for it.
        key: Option<IdempotencyKey>,
    },
    /// End a run early.
    Cancel {
        /// Which run.
        run: RunId,
        /// How.
        mode: CancelMode,
        /// Why, for people.
        message: String,
        /// Kill what runs instead of asking it to end.
        now: bool,
    },
    /// Let a pending run begin.
    Release {
        /// Which run.
        run: RunId,
    },
    /// Commit these bytes, which change nothing.
    Probe {
        /// Any bytes.
        payload: Vec<u8>,
    },
    /// Take an id for a new node.
    NewNode,
    /// Wait until this member has applied all that was committed when this was asked.
    Read,
}

/// How a request ended.
pub type Answer = Result<Reply, RequestError>;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There was no leader, or no quorum, in time.
    #[error(
        "the cluster has no leader: more than half of its nodes must be up and in contact; \
         nothing is lost, and the request may be repeated"
    )]
    NoQuorum,
    /// There is a leader, and yet it was not done in time.
    #[error(
        "the request was not confirmed in time; it may still take effect: repeat it (with the \
         same idempotency key, if it submits a run)"
    )]
    Deadline,
    /// Secrets without a key to encrypt them.
    #[error("the run has Secrets, and this cluster has no key to encrypt them at rest")]
    NoKey,
    /// More than the log takes.
    #[error("the submission takes {bytes} bytes; a cluster takes {limit} at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl RequestError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::NoQuorum => "unavailable/no-quorum",
            RequestError::Deadline => "deadline/unconfirmed",
            RequestError::NoKey => "invalid/no-secrets-key",
            RequestError::TooLarge { .. } => "too-large/submission",
            RequestError::Stopping => "unavailable/stopping",
        }
    }
}

/// A committed entry, as the log hands it over.
pub enum Committed {
    /// Proposals.
    Entry {
        /// Log index.
        index: u64,
        /// Term.
        term: u64,
        /// See [`crate::entry`].
        data: bytes::Bytes,
    },
    /// The configuration changes.
    Membership {
        /// Log index.
        index: u64,
        /// Term.
        term: u64,
        /// The configuration from here on.
        configuration: Configuration,
        /// Members that it brings in.
        members: BTreeMap<u64, Member>,
    },
}

/// What may happen to a member.
pub enum Input {
    /// Entries are committed and durable here.
    Committed(Vec<Committed>),
    /// Who leads, and in which term.
    Leader {
        /// Its id, if known.
        leader: Option<u64>,
        /// The term.
        term: u64,
    },
    /// A quorum has confirmed a read: it may be answered once this index is applied.
    ReadReady {
        /// Which read.
        id: RequestId,
        /// The index.
        index: u64,
    },
    /// A proposal found no leader.
    Refused(RequestId),
    /// Somebody asks for something.
    Request {
        /// Whom to answer.
        token: Token,
        /// What.
        request: Request,
        /// By when there must be an answer.
        deadline: Time,
    },
    /// An agent dials in.
    Attach {
        /// A number for the session, never used before.
        session: SessionId,
        /// What the agent says of itself.
        hello: Hello,
    },
    /// An agent says something.
    Said {
        /// In which session.
        session: SessionId,
        /// What.
        message: AgentMessage,
    },
    /// A session is over.
    Detached(SessionId),
    /// A snapshot is offered that this member needs.
    Offered {
        /// By whom.
        from: u64,
        /// Its descriptor.
        descriptor: Vec<u8>,
    },
    /// A chunk of the snapshot that is being fetched.
    Chunk(Chunk),
    /// The member that offers it could not be reached; it is tried again.
    FetchBroken,
    /// The snapshot is of no use any more.
    FetchCancelled,
    /// The snapshot is fetched and the log wants its state now.
    Install,
    /// A member needs a snapshot.
    SnapshotWanted,
    /// Persist what is applied, now.
    Persist,
    /// Time has passed.
    Wake,
}

/// What a member wants done.
pub enum Output {
    /// Put this into the log.
    Propose {
        /// Its id.
        id: RequestId,
        /// See [`crate::entry`].
        proposal: Vec<u8>,
    },
    /// Ask a quorum whether reading is safe.
    ReadIndex(RequestId),
    /// Everything up to this index is applied.
    Applied(u64),
    /// Everything up to this index will never be needed from the log by this member.
    Persisted(u64),
    /// Tell an agent.
    ToAgent(SessionId, CoordinatorMessage),
    /// End a session.
    Close(SessionId, CloseReason),
    /// An agent's passing remark.
    Progress(Progress),
    /// Answer a request.
    Answer(Token, Answer),
    /// A run is over.
    Retired(Retired),
    /// A snapshot is there for members that need one.
    SnapshotMade(Descriptor),
    /// Ask the member that offered the snapshot.
    Fetch(u64, FetchRequest),
    /// The snapshot is all here.
    Fetched,
    /// It could not be fetched.
    FetchFailed,
    /// The snapshot's state is installed.
    Installed,
    /// The members have changed.
    Members(BTreeMap<u64, Member>),
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This member does not lead.
    NotLeader,
    /// The same agent has begun another session.
    Superseded,
    /// Some of its reports were not taken: it has to send them again.
    Again,
}

/// One member, behind its log.
pub struct Coordinator {
    options: Options,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    replica: Replica,
    duties: Duties,
    proposals: Proposals,
    reads: BTreeMap<RequestId, Read>,
    next_request: u64,
    leader: Option<u64>,
    term: u64,
    /// The term in which this member's duties have begun.
    leading: Option<u64>,
    /// What proposals that nobody waits for were about.
    own: BTreeMap<RequestId, Own>,
    fetch: Option<(u64, Fetch)>,
    fetch_again: Option<Time>,
    persist_by: Option<Time>,
    out: Vec<Output>,
    now: Time,
}

/// A read that waits.
struct Read {
    token: Token,
    deadline: Time,
    again: Time,
    /// May be answered once this is applied.
    index: Option<u64>,
}

/// A proposal of the leader itself.
enum Own {
    Place(AttemptId),
    Report(SessionId),
    Lead,
    Tick,
    Other,
}

impl Coordinator {
    /// A member with this state; `dir` is for snapshots.
    pub fn new(
        options: Options,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        replica: Replica,
    ) -> Coordinator {
        Coordinator {
            duties: Duties::new(options.grace_ms, options.any_agent),
            next_request: options.request_base,
            options,
            disk,
            dir,
            replica,
            proposals: Proposals::default(),
            reads: BTreeMap::new(),
            leader: None,
            term: 0,
            leading: None,
            own: BTreeMap::new(),
            fetch: None,
            fetch_again: None,
            persist_by: None,
            out: Vec::new(),
            now: Time(0),
        }
    }

    /// The state.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The state, for setting it up.
    pub fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// The agents in contact with this member.
    pub fn agents(&self) -> impl Iterator<Item = &Hello> {
        self.duties.agents()
    }

    /// Why the attempts of a run wait for an agent.
    pub fn explain_waiting(&self, run: RunId) -> Vec<tenon_engine::plan::Explanation> {
        self.duties.explain(self.replica.engine(), run)
    }

    /// How many attempts wait for an agent, as the leader knows.
    pub fn waiting(&self) -> usize {
        self.duties.waiting()
    }

    /// Makes a snapshot of what is applied.
    pub fn make_snapshot(&mut self) -> Result<Descriptor> {
        self.replica.make_snapshot(&*self.disk, &self.dir.join("snapshots"))
    }

    /// Whether this member does the leader's duties.
    pub fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// How many proposals of this member are under way.
    pub fn under_way(&self) -> usize {
        self.own.len() + self.proposals.len()
    }

    /// When [`Input::Wake`] is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        let deadline = match self.leading {
            Some(_) if !self.is_ticking() => self.replica.engine().next_deadline(),
            _ => None,
        };
        let reads = self.reads.values().map(|read| read.deadline.min(read.again)).min();
        [deadline, reads, self.proposals.next_wakeup(), self.persist_by, self.fetch_again]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_ticking(&self) -> bool {
        self.own.values().any(|own| matches!(own, Own::Tick))
    }

    /// Takes what happened, at wall-clock time `now`, and hands out what is to be done, in order. An
    /// error means that this member must stop.
    pub fn handle(
        &mut self,
        now: Time,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<Output>> {
        self.now = self.now.max(now);
        let mut effects = Effects::default();
        for input in inputs {
            self.input(input, &mut effects)?;
        }
        self.settle(effects)?;
        self.timers()?;
        if self.leading.is_some() {
            self.do_duties()?;
        }
        Ok(std::mem::take(&mut self.out))
    }

    fn input(&mut self, input: Input, effects: &mut Effects) -> Result<()> {
        match input {
            Input::Committed(entries) => {
                for entry in entries {
                    self.apply(entry, effects)?;
                }
            }
            Input::Leader { leader, term } => self.leader_changed(leader, term),
            Input::ReadReady { id, index } => {
                if let Some(read) = self.reads.get_mut(&id) {
                    read.index = Some(index);
                }
            }
            Input::Refused(id) => self.refused(id),
            Input::Request { token, request, deadline } => self.request(token, request, deadline),
            Input::Attach { session, hello } => self.attach(session, hello)?,
            Input::Said { session, message } => self.said(session, message),
            Input::Detached(session) => self.duties.detach(session),
            Input::Offered { from, descriptor } => self.offered(from, &descriptor)?,
            Input::Chunk(chunk) => self.chunk(chunk)?,
            Input::FetchBroken => self.fetch_again = Some(self.now.plus_millis(FETCH_AGAIN_MS)),
            Input::FetchCancelled => self.fetch = None,
            Input::Install => self.install()?,
            Input::SnapshotWanted => {
                let made = self.make_snapshot()?;
                self.out.push(Output::Persisted(self.replica.persisted()));
                self.out.push(Output::SnapshotMade(made));
            }
            Input::Persist if self.options.persist.is_some() => self.persist()?,
            Input::Persist => {}
            Input::Wake => {}
        }
        Ok(())
    }

    fn apply(&mut self, entry: Committed, effects: &mut Effects) -> Result<()> {
        match entry {
            Committed::Entry { index, term, data } => {
                self.replica.apply(index, term, &data, effects)
            }
            Committed::Membership { index, term, configuration, members } => {
                self.replica.apply_membership(index, term, configuration, members);
                self.out.push(Output::Members(self.replica.meta().members.clone()));
                Ok(())
            }
        }
    }

    /// Shows and answers what was applied.
    fn settle(&mut self, effects: Effects) -> Result<()> {
        let applied = self.replica.meta().applied;
        if effects.events > 0 {
            self.replica.publish()?;
        }
        for (id, reply) in effects.replies {
            self.own.remove(&id);
            if let Some(token) = self.proposals.take(id) {
                self.out.push(Output::Answer(token, Ok(reply)));
            }
        }
        self.out.push(Output::Applied(applied));
        if let Some((node, term)) = effects.leader
            && node == self.options.node
            && self.leader == Some(node)
            && self.term == term
        {
            self.leading = Some(term);
            self.duties.begin(self.replica.engine());
        }
        if self.leading.is_some() {
            self.duties.look_at(effects.changed.iter().copied());
            effects.hurried.into_iter().for_each(|run| self.duties.hurry(run));
            self.acknowledge(effects.reports);
        }
        for retired in effects.retired {
            let mut messages = Vec::new();
            let keep = retired.keep_claims && !self.options.any_agent;
            self.duties.retire(retired.run, &retired.agents, keep, &mut messages);
            if self.leading.is_some() {
                self.tell(messages);
            }
            self.out.push(Output::Retired(retired));
        }
        let ready =
            self.reads.extract_if(.., |_, read| read.index.is_some_and(|index| index <= applied));
        for (_, read) in ready {
            self.out.push(Output::Answer(read.token, Ok(Reply::Done { index: applied })));
        }
        Ok(())
    }

    fn acknowledge(&mut self, reports: Vec<(String, String, u64)>) {
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (agent, incarnation, number) in reports {
            last.insert((agent, incarnation), number);
        }
        for ((agent, incarnation), number) in last {
            let Some(session) = self.duties.session(&agent) else { continue };
            let current = self.duties.agent(session);
            if current.is_some_and(|hello| hello.incarnation == incarnation) {
                let acknowledge = Acknowledge { number };
                self.tell_one(session, coordinator_message::Message::Acknowledge(acknowledge));
            }
        }
    }

    fn tell(&mut self, messages: Vec<(SessionId, CoordinatorMessage)>) {
        self.out.extend(
            messages.into_iter().map(|(session, message)| Output::ToAgent(session, message)),
        );
    }

    fn tell_one(&mut self, session: SessionId, message: coordinator_message::Message) {
        let message = CoordinatorMessage { message: Some(message) };
        self.out.push(Output::ToAgent(session, message));
    }

    /// What is due, by the clock.
    fn timers(&mut self) -> Result<()> {
        for token in self.proposals.expired(self.now) {
            self.out.push(Output::Answer(token, Err(self.too_late())));
        }
        if self.leader.is_some() {
            for (id, proposal) in self.proposals.due(self.now) {
                self.out.push(Output::Propose { id, proposal });
            }
        }
        let now = self.now;
        let late: Vec<Read> = self
            .reads
            .extract_if(.., |_, read| read.deadline <= now)
            .map(|(_, read)| read)
            .collect();
        for read in late {
            self.out.push(Output::Answer(read.token, Err(self.too_late())));
        }
        for (id, read) in &mut self.reads {
            if read.index.is_none() && read.again <= self.now {
                read.again = self.now.plus_millis(READ_AGAIN_MS);
                self.out.push(Output::ReadIndex(*id));
            }
        }
        if self.fetch_again.is_some_and(|again| again <= self.now) {
            self.fetch_again = None;
            self.fetch_next()?;
        }
        let Some(points) = self.options.persist else { return Ok(()) };
        let behind = self.replica.persisted() < self.replica.meta().applied;
        match self.persist_by {
            Some(by) if by <= self.now || self.replica.unpersisted() >= points.bytes => {
                self.persist()?;
            }
            None if behind => self.persist_by = Some(self.now.plus_millis(points.after_ms)),
            _ => {}
        }
        Ok(())
    }

    fn too_late(&self) -> RequestError {
        match self.leader {
            Some(_) => RequestError::Deadline,
            None => RequestError::NoQuorum,
        }
    }

    fn persist(&mut self) -> Result<()> {
        self.persist_by = None;
        self.replica.persist()?;
        self.out.push(Output::Persisted(self.replica.persisted()));
        Ok(())
    }

    fn leader_changed(&mut self, leader: Option<u64>, term: u64) {
        let before = (self.leader, self.term);
        (self.leader, self.term) = (leader, term);
        if before == (leader, term) {
            return;
        }
        if self.leading.take().is_some() {
            for session in self.duties.end() {
                self.out.push(Output::Close(session, CloseReason::NotLeader));
            }
        }
        self.own.clear();
        if leader.is_some() {
            self.proposals.leader_changed(self.now);
            self.reads.values_mut().for_each(|read| read.again = self.now);
        }
        if leader == Some(self.options.node) {
            let name = self.options.name.clone();
            let node = self.options.node;
            self.propose_own(&Command::Lead { time: self.now, node, name, term }, Own::Lead);
        }
    }

    fn refused(&mut self, id: RequestId) {
        self.proposals.refused(id, self.now);
        match self.own.remove(&id) {
            Some(Own::Place(attempt)) => self.duties.not_placed(&attempt),
            Some(Own::Report(session)) => {
                // What follows it may be taken, and would then be out of order.
                self.duties.detach(session);
                self.out.push(Output::Close(session, CloseReason::Again));
            }
            Some(Own::Lead) if self.leader == Some(self.options.node) => {
                let (node, name, term) = (self.options.node, self.options.name.clone(), self.term);
                self.propose_own(&Command::Lead { time: self.now, node, name, term }, Own::Lead);
            }
            _ => {}
        }
    }

    fn next_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId { node: self.options.node, number: self.next_request }
    }

    fn propose_own(&mut self, command: &Command, own: Own) {
        let id = self.next_id();
        self.own.insert(id, own);
        self.out.push(Output::Propose { id, proposal: encode_proposal(id, command) });
    }

    fn request(&mut self, token: Token, request: Request, deadline: Time) {
        let time = self.now;
        let id = self.next_id();
        let command = match request {
            Request::Submit { submission, materials, key } => {
                let sealed = match &self.options.key {
                    Some(seal) => seal.seal(submission.run_id, &materials),
                    None if materials.is_empty() => Vec::new(),
                    None => {
                        self.out.push(Output::Answer(token, Err(RequestError::NoKey)));
                        return;
                    }
                };
                Command::Submit { time, submission, materials: sealed, key }
            }
            Request::Cancel { run, mode, message, now } => {
                Command::Cancel { time, run, mode, message, now }
            }
            Request::Release { run } => Command::Release { time, run },
            Request::NewNode => Command::NewNode { time },
            Request::Probe { payload } => Command::Probe { time, payload },
            Request::Read => {
                let again = time.plus_millis(READ_AGAIN_MS);
                self.reads.insert(id, Read { token, deadline, again, index: None });
                self.out.push(Output::ReadIndex(id));
                return;
            }
        };
        let proposal = encode_proposal(id, &command);
        let (bytes, limit) = (proposal.len(), self.options.max_proposal_bytes);
        if bytes > limit {
            self.out.push(Output::Answer(token, Err(RequestError::TooLarge { bytes, limit })));
            return;
        }
        self.proposals.add(id, token, proposal.clone(), time, deadline);
        self.out.push(Output::Propose { id, proposal });
    }

    fn attach(&mut self, session: SessionId, hello: Hello) -> Result<()> {
        if self.leading.is_none() {
            self.out.push(Output::Close(session, CloseReason::NotLeader));
            return Ok(());
        }
        let known = self.replica.meta().agents.get(&hello.name);
        let known = known.filter(|known| known.incarnation == hello.incarnation);
        let welcome = Welcome {
            node: self.options.node,
            node_name: self.options.name.clone(),
            cluster_id: self.replica.meta().cluster.clone(),
            acknowledged: known.map_or(0, |known| known.last),
            heartbeat_ms: self.options.heartbeat_ms,
            ..Welcome::default()
        };
        if known.is_none() {
            self.forgotten_by(&hello);
            let (agent, incarnation) = (hello.name.clone(), hello.incarnation.clone());
            self.propose_own(&Command::Agent { time: self.now, agent, incarnation }, Own::Other);
        }
        self.tell_one(session, coordinator_message::Message::Welcome(welcome));
        for run in &hello.runs {
            let Ok(id) = run.parse::<RunId>() else { continue };
            if !self.replica.engine().contains(id) {
                let keep_claims = self.keeps_claims(id)?;
                let end = EndRun { run_id: run.clone(), keep_claims };
                self.tell_one(session, coordinator_message::Message::EndRun(end));
            }
        }
        if let Some(before) = self.duties.attach(session, hello, self.replica.engine()) {
            self.out.push(Output::Close(before, CloseReason::Superseded));
        }
        Ok(())
    }

    /// Whether a run that is over may still be gone on with.
    fn keeps_claims(&self, run: RunId) -> Result<bool> {
        let Some(record) = self.replica.index().get(run)? else { return Ok(false) };
        let ended = record.summary.ended.unwrap_or_default();
        let succeeded = record.summary.status == RunStatus::Succeeded;
        let late = ended.plus_millis(self.options.keep_claims_ms) < self.now;
        Ok(!succeeded && !late && !record.homes.is_empty())
    }

    /// A new life of an agent knows nothing of attempts that its former life was running.
    fn forgotten_by(&mut self, hello: &Hello) {
        let running: Vec<AttemptId> = hello
            .running
            .iter()
            .filter_map(|attempt| wire::attempt_from_wire(Some(attempt.clone())).ok())
            .collect();
        let lost: Vec<AttemptId> = self
            .replica
            .engine()
            .placed()
            .filter(|(attempt, agent)| *agent == hello.name && !running.contains(attempt))
            .map(|(attempt, _)| attempt)
            .collect();
        for attempt in lost {
            let outcome = Outcome::Infra {
                reason: "infra/agent-restarted".to_owned(),
                message: format!("agent {} was restarted and lost what it ran", hello.name),
            };
            let report = Report::Ended { time: self.now, outcome };
            let command = Command::Lost { time: self.now, attempt, report };
            self.propose_own(&command, Own::Other);
        }
    }

    fn said(&mut self, session: SessionId, message: AgentMessage) {
        use agent_message::Message;
        let Some(hello) = self.duties.agent(session) else { return };
        let (agent, incarnation) = (hello.name.clone(), hello.incarnation.clone());
        let reports = match message.message {
            Some(Message::Report(report)) => vec![report],
            Some(Message::Reports(reports)) => reports.reports,
            Some(Message::Progress(progress)) => {
                self.out.push(Output::Progress(progress));
                return;
            }
            Some(Message::Hello(_) | Message::Heartbeat(_)) | None => return,
        };
        for report in reports {
            let number = report.number;
            // A report that cannot be understood would be repeated for ever: it is taken as said.
            let Ok((attempt, mut report)) = wire::report_from_wire(report) else {
                let (agent, incarnation) = (agent.clone(), incarnation.clone());
                let command = Command::Skip { time: self.now, agent, incarnation, number };
                self.propose_own(&command, Own::Report(session));
                continue;
            };
            self.keep(attempt.run);
            self.duties.hide_secrets(attempt.run, &mut report);
            if bugs::is_on(bugs::Bug::AcknowledgeEarly) {
                let acknowledge = Acknowledge { number };
                self.tell_one(session, coordinator_message::Message::Acknowledge(acknowledge));
            }
            let (agent, incarnation) = (agent.clone(), incarnation.clone());
            let time = self.now;
            let command = Command::Report { time, agent, incarnation, number, attempt, report };
            self.propose_own(&command, Own::Report(session));
        }
    }

    /// Has a run's materials at hand, decrypted.
    fn keep(&mut self, run: RunId) {
        if self.duties.keeps(run) {
            return;
        }
        let Some(sealed) = self.replica.materials(run) else { return };
        let opened = match &self.options.key {
            Some(key) => key.open(run, &sealed).ok(),
            None if sealed.is_empty() => Some(Materials::default()),
            None => None,
        };
        if let Some(materials) = opened {
            self.duties.keep(run, materials);
        }
    }

    fn do_duties(&mut self) -> Result<()> {
        let mut messages = Vec::new();
        for run in self.duties.take_changed() {
            if self.replica.engine().contains(run) {
                self.keep(run);
                self.duties.work(self.replica.engine(), run, &mut messages);
            }
        }
        self.tell(messages);
        for (attempt, agent) in self.duties.placements(self.replica.engine()) {
            let place = Command::Place { time: self.now, attempt: attempt.clone(), agent };
            self.propose_own(&place, Own::Place(attempt));
        }
        let due = self.replica.engine().next_deadline().is_some_and(|due| due <= self.now);
        if due && !self.is_ticking() {
            self.propose_own(&Command::Tick { time: self.now }, Own::Tick);
        }
        Ok(())
    }

    fn offered(&mut self, from: u64, descriptor: &[u8]) -> Result<()> {
        let descriptor = Descriptor::from_bytes(descriptor)?;
        let incoming = self.dir.join("incoming");
        let fetch = Fetch::begin(self.disk.clone(), &incoming, descriptor, &mut self.replica)?;
        self.fetch = Some((from, fetch));
        self.fetch_next()
    }

    fn fetch_next(&mut self) -> Result<()> {
        if let Some((from, fetch)) = &self.fetch {
            self.out.push(match fetch.next() {
                Some(request) => Output::Fetch(*from, request),
                None if fetch.is_sound()? => Output::Fetched,
                None => {
                    self.fetch = None;
                    Output::FetchFailed
                }
            });
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<()> {
        if let Some((_, fetch)) = &mut self.fetch {
            fetch.take(&mut self.replica, &chunk)?;
            self.fetch_next()?;
        }
        Ok(())
    }

    fn install(&mut self) -> Result<()> {
        let Some((_, fetch)) = self.fetch.take() else { return Ok(()) };
        self.replica.install(&fetch)?;
        self.out.push(Output::Installed);
        self.out.push(Output::Members(self.replica.meta().members.clone()));
        Ok(())
    }
}
