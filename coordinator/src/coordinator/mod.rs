//! The part of a node behind the log: applies what is committed, answers who waits, and does the
//! leader's duties.
//!
//! It does no I/O of its own but through the disk and the store that it was given, knows no clock and
//! no thread: inputs come with the time, outputs are handed back. A node drives it from one thread
//! ([`crate::node`]); the simulator drives it from its schedule.

mod agents;
mod exchange;
mod leases;
mod options;
mod requests;
mod rounds;
mod snapshots;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tenon_engine::{AttemptId, RunId, Time};
use tenon_journal::disk::Disk;
use tenon_proto::agent::v1::Hello;

pub(crate) use leases::Terms;
pub(crate) use options::KEEP_CLAIMS_MS;

pub use exchange::{Answer, Clocks, CloseReason, Committed, Input, Output, Request, RequestError};
pub use options::{LeaseTimes, Options, PersistPoints};

use crate::command::Command;
use crate::duties::{Duties, SessionId};
use crate::entry::RequestId;
use crate::error::Result;
use crate::replica::snapshot::Fetch;
use crate::replica::{Effects, Replica, Reply};
use crate::waiting::{Proposals, Token};
use leases::Leases;
use rounds::Rounds;

/// Between attempts to read through a quorum that did not answer, in milliseconds.
const READ_AGAIN_MS: i64 = 300;
/// Between attempts to fetch a snapshot from a member that could not be reached, in milliseconds.
const FETCH_AGAIN_MS: i64 = 300;

/// One member, behind its log.
pub struct Coordinator {
    options: Options,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    replica: Replica,
    duties: Duties,
    leases: Leases,
    rounds: Rounds,
    proposals: Proposals,
    reads: BTreeMap<RequestId, Read>,
    next_request: u64,
    leader: Option<u64>,
    term: u64,
    /// The term in which this member's duties have begun.
    leading: Option<u64>,
    /// What proposals that nobody waits for were about.
    own: BTreeMap<RequestId, Own>,
    /// The last tick that was proposed; it is under way as long as it is in `own`.
    ticking: Option<RequestId>,
    fetch: Option<(u64, Fetch)>,
    fetch_again: Option<Time>,
    /// Until then the leader's own proposals wait.
    hold_until: Option<Time>,
    persist_by: Option<Time>,
    /// What the log was told to be applied.
    told_applied: u64,
    out: Vec<Output>,
    now: Time,
    /// See [`Clocks::steady`].
    steady: u64,
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
    /// What is said in a session: it has to be said again if it is not taken.
    Session(SessionId),
    /// The session's hello: it is welcomed when every member knows of it.
    Hello(SessionId),
    /// An agent is given up.
    Lost(String),
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
            duties: Duties::new(&options),
            leases: Leases::new(options.leases),
            rounds: Rounds::default(),
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
            ticking: None,
            fetch: None,
            fetch_again: None,
            hold_until: None,
            persist_by: None,
            told_applied: 0,
            out: Vec::new(),
            now: Time(0),
            steady: 0,
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
        self.duties.explain(run)
    }

    /// How many attempts wait for an agent, as the leader knows.
    pub fn waiting(&self) -> usize {
        self.duties.waiting()
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
        let free = self.leading.is_some() && self.hold_until.is_none();
        let deadline = match free && !self.is_ticking() {
            true => self.replica.engine().next_deadline(),
            false => None,
        };
        let read = |read: &Read| match read.index {
            // It waits for nothing but its index.
            Some(_) => read.deadline,
            None => read.deadline.min(read.again),
        };
        let reads = self.reads.values().map(read).min();
        let wave = if free { self.duties.next_wave() } else { None };
        let deferral = if free { self.duties.next_deferral() } else { None };
        let drain = match free {
            true => self.duties.next_drain(&self.replica.meta().agents),
            false => None,
        };
        let lease = self.leases.next_look().filter(|_| free).map(|at| {
            let millis = i64::try_from(at.saturating_sub(self.steady)).unwrap_or(i64::MAX);
            self.now.plus_millis(millis)
        });
        [
            deadline,
            wave,
            deferral,
            drain,
            lease,
            reads,
            self.rounds.next_wakeup(),
            self.proposals.next_wakeup(),
            self.persist_by,
            self.fetch_again,
            self.hold_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn is_ticking(&self) -> bool {
        self.ticking.is_some_and(|tick| self.own.contains_key(&tick))
    }

    /// Takes what happened, when the clocks show `clocks`, and hands out what is to be done, in order. An
    /// error means that this member must stop.
    pub fn handle(
        &mut self,
        clocks: Clocks,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<Output>> {
        self.now = self.now.max(clocks.wall);
        self.steady = self.steady.max(clocks.steady);
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
                self.rounds.confirmed(id, index);
            }
            Input::Refused(id) => self.refused(id),
            Input::Request { token, request, deadline } => self.request(token, request, deadline),
            Input::Attach { session, hello } => self.attach(session, hello)?,
            Input::Said { session, message } => self.said(session, message),
            Input::Detached(session) => self.detach(session),
            Input::Offered { from, descriptor } => self.offered(from, &descriptor)?,
            Input::Chunk(chunk) => self.chunk(&chunk)?,
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
        for agent in effects.lost {
            self.leases.lost(&agent);
        }
        for attempt in effects.unplaced {
            self.duties.not_placed(&attempt);
        }
        for (id, reply) in effects.replies {
            if let Some(Own::Hello(session)) = self.own.remove(&id) {
                self.welcome(session)?;
            }
            if let Some(token) = self.proposals.take(id) {
                self.out.push(Output::Answer(token, Ok(reply)));
            }
        }
        if applied > std::mem::replace(&mut self.told_applied, applied) {
            self.out.push(Output::Applied(applied));
        }
        if effects.members_changed {
            self.out.push(Output::Members(self.replica.meta().members.clone()));
        }
        if let Some((node, term)) = effects.leader
            && node == self.options.node
            && self.leader == Some(node)
            && self.term == term
        {
            self.leading = Some(term);
            self.duties.begin(self.replica.engine(), &self.replica.meta().agents);
            self.begin_leases();
        }
        if self.leading.is_some() {
            self.duties.look_at(effects.changed.iter().copied());
            effects.hurried.into_iter().for_each(|run| self.duties.hurry(run));
            let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
            self.duties.count(&effects.moved, engine, agents);
            for agent in &effects.decided {
                self.duties.know(agent, engine, agents);
            }
            self.end_sessions_of_removed(&effects.decided);
            for (agent, attempt) in effects.forged {
                self.out.push(Output::Forged { agent, attempt });
            }
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
        if let Some(round) = self.rounds.take(applied) {
            self.answer_round(round)?;
        }
        let ready =
            self.reads.extract_if(.., |_, read| read.index.is_some_and(|index| index <= applied));
        for (_, read) in ready {
            self.out.push(Output::Answer(read.token, Ok(Reply::Done { index: applied })));
        }
        Ok(())
    }

    /// What is due, by the clock.
    fn timers(&mut self) -> Result<()> {
        let (expired, again) = self.proposals.due(self.now, self.leader.is_some());
        for token in expired {
            self.out.push(Output::Answer(token, Err(self.too_late())));
        }
        for (id, proposal) in again {
            self.out.push(Output::Propose { id, proposal });
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
        if let Some(round) = self.rounds.again(self.now) {
            self.out.push(Output::ReadIndex(round));
        }
        if self.hold_until.is_some_and(|until| until <= self.now) {
            self.hold_until = None;
            self.lead_again();
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
        self.leases.begin([], self.steady);
        self.rounds = Rounds::default();
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
}
