//! The thread that owns the Raft core: messages, ticks and proposals in; writes, committed entries
//! and messages out. It never waits for a disk or a network.
//!
//! Proposals that came together become one entry, so that one write and one message carry them all.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tenon_consensus::{
    Committed, Core, Dropped, MembershipChange, NodeId, Outgoing, Refused, Role, SnapshotMeta,
    SnapshotStep, Status,
};
use tokio::sync::{mpsc, oneshot};

use super::log_thread::LogInput;
use super::standing::Standing;
use crate::coordinator::{self, Input};
use crate::entry::{self, RequestId};
use crate::error::{Error, Result};
use crate::replica::Configuration;
use crate::replica::snapshot::Descriptor;
use crate::server::Metrics;

/// At most so many proposals become one entry.
const PROPOSALS: usize = 1024;
/// Proposals are put together up to about this size.
const ENTRY_BYTES: usize = 512 << 10;
/// At most so many inputs are taken before the core is asked what follows from them.
const INPUTS: usize = 4096;

/// What may reach the core.
pub enum RaftInput {
    /// Messages of other members, as they came.
    Messages(NodeId, Vec<bytes::Bytes>),
    /// Proposals for the log.
    Propose(Vec<(RequestId, Vec<u8>)>),
    /// A read that a quorum has to confirm.
    ReadIndex(RequestId),
    /// Everything up to this write is durable.
    Persisted(u64),
    /// Everything up to this index is applied.
    Applied(u64),
    /// Everything up to this index is durable in the state.
    Compact(u64),
    /// A change of the membership; answered when it was proposed, not when it has happened.
    Change(MembershipChange, oneshot::Sender<Result<(), Dropped>>),
    /// Hand the leadership over.
    Transfer(NodeId),
    /// A snapshot is there for who needs one.
    Offer(SnapshotMeta),
    /// The snapshot that was asked for is here.
    Fetched(Descriptor),
    /// It could not be had.
    FetchFailed(Descriptor),
    /// Its state is installed.
    Installed,
    /// A node that is to be heard, though it is not known to be a member yet.
    Vouch(NodeId),
    /// A member fetches a part of a snapshot.
    SnapshotProgress(NodeId),
    /// How sending a snapshot's offer went.
    SnapshotReport(NodeId, bool),
    /// A member could not be reached.
    Unreachable(NodeId),
    /// How things stand.
    Status(oneshot::Sender<Status>),
    /// End.
    Stop,
}

/// Where what follows goes.
pub struct Links {
    /// The log.
    pub log: Sender<LogInput>,
    /// What is behind the log.
    pub apply: mpsc::UnboundedSender<Input>,
    /// Other members.
    pub send: Box<dyn Fn(Outgoing) + Send>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// So many applied entries stay in the log for members that are behind.
    pub keep_entries: u64,
    /// How it stands.
    pub standing: Arc<Standing>,
}

/// The thread's state. The simulator calls [`RaftThread::step`] from its schedule.
pub struct RaftThread {
    core: Core,
    links: Links,
    proposals: Vec<(RequestId, Vec<u8>)>,
    proposed_bytes: usize,
    offered: Option<SnapshotMeta>,
    installing: Option<SnapshotMeta>,
    stopped: bool,
}

impl RaftThread {
    /// Nothing has happened yet.
    pub fn new(core: Core, links: Links) -> RaftThread {
        RaftThread {
            core,
            links,
            proposals: Vec::new(),
            proposed_bytes: 0,
            offered: None,
            installing: None,
            stopped: false,
        }
    }

    /// Works until it is told to stop, or until the core or the log cannot go on.
    pub fn run(mut self, tick: Duration, inbox: &Receiver<RaftInput>) -> Result<()> {
        let mut next_tick = Instant::now() + tick;
        self.step([], false)?;
        while !self.stopped {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let first = match inbox.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Whoever has more and waits for a processor comes first, so that it is taken together.
            std::thread::yield_now();
            let now = Instant::now();
            let ticks = now >= next_tick;
            if ticks {
                // A thread that was held up does not catch up: time lost is no one's silence.
                next_tick = now + tick;
                self.links.standing.set_raft(self.core.status());
            }
            self.step(first.into_iter().chain(inbox.try_iter().take(INPUTS)), ticks)?;
        }
        // The log ends before this thread, so that what was given out is written.
        let _ = self.links.log.send(LogInput::Stop);
        Ok(())
    }

    /// Takes what has come, lets a tick pass if it is time for one, and hands out what follows.
    pub fn step(&mut self, inputs: impl IntoIterator<Item = RaftInput>, ticks: bool) -> Result<()> {
        for input in inputs {
            self.take(input)?;
        }
        if ticks {
            self.core.tick();
        }
        self.propose();
        self.give_out()
    }

    fn take(&mut self, input: RaftInput) -> Result<()> {
        match input {
            RaftInput::Messages(from, messages) => {
                for message in messages {
                    match self.core.step(from, &message) {
                        Ok(()) => {}
                        Err(refused @ Refused::Forgotten { .. }) => {
                            return Err(Error::Forgotten(refused.to_string()));
                        }
                        Err(refused) => {
                            tracing::debug!(from, %refused, "refused a message of another member");
                        }
                    }
                }
            }
            RaftInput::Propose(proposals) => {
                for (id, proposal) in proposals {
                    if self.proposed_bytes + proposal.len() > ENTRY_BYTES
                        || self.proposals.len() >= PROPOSALS
                    {
                        self.propose();
                    }
                    self.proposed_bytes += proposal.len();
                    self.proposals.push((id, proposal));
                }
            }
            RaftInput::ReadIndex(id) => {
                // One that cannot be asked for now is asked for again.
                let _ = self.core.read_index(&id.to_bytes());
            }
            RaftInput::Persisted(number) => self.core.persisted(number),
            RaftInput::Applied(index) => self.core.applied(index),
            RaftInput::Compact(index) => {
                let index = self.spare(index);
                if let Some(compaction) = self.core.compact(index) {
                    self.to_log(LogInput::Compact(compaction))?;
                }
            }
            RaftInput::Change(change, reply) => {
                let _ = reply.send(self.core.propose_change(&change));
            }
            RaftInput::Transfer(to) => {
                // Whoever wants it looks at the status, and asks again.
                let _ = self.core.transfer_leader(to);
            }
            RaftInput::Offer(meta) => {
                self.core.offer_snapshot(meta);
            }
            RaftInput::Fetched(descriptor) => {
                if let Some(meta) = self.take_offered(&descriptor) {
                    self.core.snapshot_fetched(&meta);
                }
            }
            RaftInput::FetchFailed(descriptor) => {
                if let Some(meta) = self.take_offered(&descriptor) {
                    self.core.snapshot_failed(&meta);
                }
            }
            RaftInput::Installed => {
                if let Some(meta) = self.installing.take() {
                    self.core.installed(&meta);
                }
            }
            RaftInput::Vouch(id) => self.core.vouch_for(id),
            RaftInput::SnapshotProgress(to) => self.core.snapshot_progress(to),
            RaftInput::SnapshotReport(to, sent) => self.core.report_snapshot(to, sent),
            RaftInput::Unreachable(to) => self.core.report_unreachable(to),
            RaftInput::Status(reply) => {
                let _ = reply.send(self.core.status());
            }
            RaftInput::Stop => self.stopped = true,
        }
        Ok(())
    }

    /// Puts the proposals that came together into one entry.
    fn propose(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let entry = entry::join(self.proposals.iter().map(|(_, proposal)| proposal.as_slice()));
        if self.core.propose(entry).is_err() {
            for (id, _) in &self.proposals {
                let _ = self.links.apply.send(Input::Refused(*id));
            }
        }
        self.proposals.clear();
        self.proposed_bytes = 0;
    }

    /// The snapshot that was offered, if it is still this one: a newer offer takes its place.
    fn take_offered(&mut self, descriptor: &Descriptor) -> Option<SnapshotMeta> {
        self.offered.take_if(|meta| meta.data == descriptor.to_bytes())
    }

    /// How far the log may be compacted of what this node does not need: a member that is a little
    /// behind is to get entries, not a snapshot.
    fn spare(&self, index: u64) -> u64 {
        let kept = index.saturating_sub(self.links.keep_entries);
        let status = self.core.status();
        let others = status.peers.iter().filter(|peer| peer.recent_active && peer.id != status.id);
        match others.map(|peer| peer.matched).min() {
            Some(behind) => index.min(behind.max(kept)),
            None if status.conf_state.members().len() > 1 => kept,
            None => index,
        }
    }

    fn to_log(&self, input: LogInput) -> Result<()> {
        self.links.log.send(input).map_err(|_| Error::Stopped)
    }

    fn to_apply(&self, input: Input) -> Result<()> {
        self.links.apply.send(input).map_err(|_| Error::Stopped)
    }

    /// Hands out everything that there is to do.
    fn give_out(&mut self) -> Result<()> {
        while let Some(ready) = self.core.ready()? {
            for message in ready.messages {
                (self.links.send)(message);
            }
            if let Some(write) = ready.write {
                self.to_log(LogInput::Write(write))?;
            }
            if let Some(leadership) = ready.leadership {
                self.links.standing.set_raft(self.core.status());
                if leadership.role == Role::Candidate {
                    self.links.metrics.elections.inc();
                }
                self.to_apply(Input::Leader { leader: leadership.leader, term: leadership.term })?;
            }
            if !ready.committed.is_empty() {
                let committed = ready.committed.into_iter().map(to_apply).collect();
                self.to_apply(Input::Committed(committed))?;
            }
            for (request, index) in ready.reads {
                if let Some(id) = RequestId::from_bytes(&request) {
                    self.to_apply(Input::ReadReady { id, index })?;
                }
            }
            match ready.snapshot {
                Some(SnapshotStep::Fetch { from, meta }) => {
                    let descriptor = meta.data.clone();
                    self.offered = Some(meta);
                    self.to_apply(Input::Offered { from, descriptor })?;
                }
                Some(SnapshotStep::Cancel) => {
                    self.offered = None;
                    self.to_apply(Input::FetchCancelled)?;
                }
                Some(SnapshotStep::Install(meta)) => {
                    self.installing = Some(meta);
                    self.to_apply(Input::Install)?;
                }
                None => {}
            }
            if ready.wants_snapshot {
                self.to_apply(Input::SnapshotWanted)?;
            }
        }
        Ok(())
    }
}

/// A committed entry as the coordinator takes it.
pub fn to_apply(committed: Committed) -> coordinator::Committed {
    match committed {
        Committed::Entry { index, term, data } => {
            coordinator::Committed::Entry { index, term, data }
        }
        Committed::Empty { index, term } => {
            coordinator::Committed::Entry { index, term, data: bytes::Bytes::new() }
        }
        Committed::Membership { index, term, change, conf_state, taken } => {
            let members = match taken {
                true => serde_json::from_slice(&change.context).unwrap_or_default(),
                false => Default::default(),
            };
            let configuration = Configuration::from(conf_state);
            coordinator::Committed::Membership { index, term, configuration, members }
        }
    }
}
