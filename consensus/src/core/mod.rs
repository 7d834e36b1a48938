//! The deciding part: a raft-rs node, and around it what raft-rs leaves to its user.
//!
//! - Messages that speak of durable things are held back until `persisted`; nobody can send them too early.
//! - A change of the membership takes effect here when it is given out as committed.
//! - An incoming snapshot is shown to raft-rs only when its data is there, so that heartbeats are answered meanwhile.
//! - Whatever a message could do to make raft-rs panic is refused before (see `step`).
//! - Nothing depends on a random generator: election timeouts are drawn from seed and term.

mod ready;
mod snapshots;
mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{ConfChangeV2, Entry, EntryType, HardState, Message, MessageType};
use raft::{Changer, INVALID_ID, ProgressState, RawNode, StateRole};

pub use step::MAX_INDEX;

use self::snapshots::{Incoming, Installing};
use crate::log::{Compaction, LogView};
use crate::{
    ConfState, Dropped, Error, Leadership, MembershipChange, NodeId, Options, Outgoing, PeerState,
    PeerStatus, Role, Status,
};

/// A member of the group. One thread owns it; no call blocks.
pub struct Core {
    raw: RawNode<LogView>,
    view: LogView,
    options: Options,
    /// The membership as of the last entry that was given out.
    conf_state: ConfState,
    vouched: BTreeSet<NodeId>,
    /// Writes that were made and are not persisted, oldest first.
    writes: VecDeque<Outstanding>,
    /// The number of the newest of raft-rs' readies.
    number: u64,
    /// The newest hard state that is in a write.
    hard_state: HardState,
    /// Messages that wait for a write.
    held: VecDeque<(u64, Outgoing)>,
    /// Messages that may be sent.
    outbox: Vec<Outgoing>,
    /// Entries up to here were given out as committed.
    given: u64,
    /// Entries up to here are committed and durable here.
    available: u64,
    /// Index and weight of what was given out and not applied.
    unapplied: VecDeque<(u64, usize)>,
    unapplied_bytes: usize,
    /// The leadership as it was told last.
    told: Leadership,
    incoming: Option<Incoming>,
    installing: Option<Installing>,
    /// Ticks since a peer's snapshot made progress.
    snapshot_idle: BTreeMap<NodeId, usize>,
    /// Ticks since a snapshot was asked for.
    asked_for_snapshot: Option<usize>,
}

struct Outstanding {
    number: u64,
    /// It stores a new term or vote.
    term: bool,
}

impl Core {
    /// A member that goes on where it stopped: with the log's view after `LogWriter::repair`, what the owner has applied
    /// durably, and the membership at that index. A node that never was in a group has 0 and an empty membership.
    ///
    /// The only voter of a group leads at once.
    ///
    /// # Errors
    /// [`Error::Apart`] if the log does not hold what was applied; [`Error::Invalid`] for options or a membership that cannot be.
    pub fn new(
        options: Options,
        view: LogView,
        applied: u64,
        conf_state: ConfState,
    ) -> Result<Core, Error> {
        let config = options.to_raft(applied)?;
        let problem = conf_state.problem().filter(|_| !(conf_state.is_empty() && applied == 0));
        if let Some(problem) = problem {
            return Err(Error::Invalid(format!("the stored membership: {problem}")));
        }
        let hard_state = {
            let mut inner = view.lock();
            let (first, last) = (inner.first(), inner.last());
            if applied + 1 < first || applied > last {
                return Err(Error::Apart { first, last, applied });
            }
            // What was applied is committed; the log is told only now and then.
            inner.hard_state.commit = inner.hard_state.commit.max(applied);
            inner.conf_state = conf_state.to_raft();
            inner.hard_state.clone()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, view.clone(), &logger)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let mut core = Core {
            raw,
            view,
            options,
            conf_state,
            vouched: BTreeSet::new(),
            writes: VecDeque::new(),
            number: 0,
            hard_state,
            held: VecDeque::new(),
            outbox: Vec::new(),
            given: applied,
            available: applied,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            told: Leadership::default(),
            incoming: None,
            installing: None,
            snapshot_idle: BTreeMap::new(),
            asked_for_snapshot: None,
        };
        core.settle();
        if core.is_sole_voter() {
            core.campaign();
        }
        Ok(core)
    }

    /// Lets a tick pass.
    pub fn tick(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader;
        if leads || self.may_campaign() {
            self.raw.tick();
            self.settle();
        }
        self.tick_snapshots();
        self.leave_joint();
    }

    /// Proposes an entry. A follower passes it to the leader, and then nobody tells whether it got there: recognise your own
    /// entries when they are committed, and propose again what is missing for long.
    ///
    /// # Errors
    /// It was not taken, and will not be.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), Dropped> {
        match self.propose_all(vec![data]) {
            (_, Some(dropped)) => Err(dropped),
            (_, None) => Ok(()),
        }
    }

    /// Proposes entries, in order. Returns how many of them, from the first on, were taken, and why the next one was not.
    /// Much cheaper than one by one.
    pub fn propose_all(&mut self, data: Vec<Vec<u8>>) -> (usize, Option<Dropped>) {
        let limit = self.options.max_entry_bytes;
        let mut taken = 0;
        let mut data = data.into_iter().peekable();
        while data.peek().is_some() {
            let mut entries: Vec<Entry> = Vec::new();
            let mut bytes = 0;
            let full = self.options.max_message_bytes;
            while let Some(next) =
                data.next_if(|next| entries.is_empty() || bytes + next.len() <= full)
            {
                let length = next.len();
                if length > limit {
                    let refused = Some(Dropped::TooLarge { length, limit });
                    return match self.propose_entries(entries) {
                        Ok(count) => (taken + count, refused),
                        Err(dropped) => (taken, Some(dropped)),
                    };
                }
                // Small entries weigh more than their data.
                bytes += length + 16;
                entries.push(Entry { data: next.into(), ..Entry::default() });
            }
            match self.propose_entries(entries) {
                Ok(count) => taken += count,
                Err(dropped) => return (taken, Some(dropped)),
            }
        }
        (taken, None)
    }

    fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<usize, Dropped> {
        let count = entries.len();
        if count == 0 {
            return Ok(0);
        }
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.options.id,
            entries: entries.into(),
            ..Message::default()
        };
        self.raw.step(message).map_err(|_| self.why_dropped())?;
        Ok(count)
    }

    /// Why raft-rs has dropped a proposal.
    fn why_dropped(&self) -> Dropped {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || raft.prs().get(raft.id).is_none() {
            Dropped::NoLeader
        } else if raft.lead_transferee.is_some() {
            Dropped::Transferring
        } else {
            Dropped::TooMuchUncommitted
        }
    }

    /// Proposes a change of the membership; only the leader can. It is done when it is committed as [`crate::Committed::Membership`]
    /// with its id; with several changes at once, a second one (of no id and no changes) ends the joint consensus. A leader
    /// cannot remove or demote itself: transfer the leadership first.
    ///
    /// # Errors
    /// It was not taken, and will not be.
    pub fn propose_change(&mut self, change: &MembershipChange) -> Result<(), Dropped> {
        self.check_leading()?;
        let raft = &self.raw.raft;
        if !raft.apply_to_current_term() {
            return Err(Dropped::NotReady);
        }
        if raft.has_pending_conf() || self.conf_state.is_joint() {
            return Err(Dropped::ChangePending);
        }
        let length = change.context.len() + change.id.len();
        if length > self.options.max_entry_bytes {
            let limit = self.options.max_entry_bytes;
            return Err(Dropped::TooLarge { length, limit });
        }
        let invalid = |reason: &str| Err(Dropped::InvalidChange(reason.into()));
        if change.changes.is_empty() {
            return invalid("no node is named");
        }
        if change.changes.iter().any(|(_, node)| *node == INVALID_ID || *node > MAX_INDEX) {
            return invalid("a node's id is a positive number below 2^62");
        }
        let raw_change = change.to_raft();
        let mut changer = Changer::new(raft.prs());
        let tried = match raw_change.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, &raw_change.changes),
            None => changer.simple(&raw_change.changes),
        };
        match tried {
            Ok((configuration, _)) => {
                let after = ConfState::from_raft(&configuration.to_conf_state());
                if !after.voters.contains(&self.options.id) {
                    return invalid(
                        "the leader cannot remove itself: transfer the leadership first",
                    );
                }
            }
            Err(error) => return Err(Dropped::InvalidChange(error.to_string())),
        }
        self.raw
            .propose_conf_change(change.id.clone(), raw_change)
            .map_err(|_| self.why_dropped())?;
        Ok(())
    }

    /// Raft-rs forgets to end joint consensus when the leader changes at the wrong moment.
    fn leave_joint(&mut self) {
        let raft = &self.raw.raft;
        let may = raft.state == StateRole::Leader && !raft.has_pending_conf();
        if may && self.conf_state.is_joint() && self.conf_state.auto_leave {
            // If it is dropped now, the next tick tries again.
            let _ = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }

    /// Asks for an index that makes a read linearizable: it comes as one of `Ready::reads`, with the same `request`, or never
    /// (then ask again). Requests must be unique for ever on this node, also over restarts.
    ///
    /// # Errors
    /// It was not taken.
    pub fn read_index(&mut self, request: &[u8]) -> Result<(), Dropped> {
        let raft = &self.raw.raft;
        if raft.leader_id == INVALID_ID {
            return Err(Dropped::NoLeader);
        }
        if raft.state == StateRole::Leader && !raft.commit_to_current_term() {
            return Err(Dropped::NotReady);
        }
        // The leader tells requests apart by their bytes alone.
        let context = [&self.options.id.to_le_bytes(), request].concat();
        self.raw.read_index(context);
        Ok(())
    }

    /// Hands the leadership to another voter. Proposals are dropped until that is done, or given up after an election timeout.
    ///
    /// # Errors
    /// Only the leader can, and only to a voter.
    pub fn transfer_leader(&mut self, to: NodeId) -> Result<(), Dropped> {
        self.check_leading()?;
        if !self.conf_state.voters.contains(&to) {
            return Err(Dropped::InvalidChange(format!("node {to} does not vote")));
        }
        self.raw.transfer_leader(to);
        self.settle();
        Ok(())
    }

    /// Stands for election now, if it can.
    pub fn campaign(&mut self) {
        // raft-rs would let a node without a group elect itself.
        if self.may_campaign() && self.raw.raft.promotable() {
            // It is ignored where it makes no sense.
            let _ = self.raw.campaign();
            self.settle();
        }
    }

    fn check_leading(&self) -> Result<(), Dropped> {
        match (self.raw.raft.state, self.raw.raft.leader_id) {
            (StateRole::Leader, _) => Ok(()),
            (_, INVALID_ID) => Err(Dropped::NoLeader),
            (_, leader) => Err(Dropped::NotLeader { leader }),
        }
    }

    /// Raft-rs panics on a campaign in the middle of an installation, and on winning one at once with unsaved entries.
    fn may_campaign(&self) -> bool {
        self.installing.is_none() && (self.writes.is_empty() || !self.is_sole_voter())
    }

    fn is_sole_voter(&self) -> bool {
        let only = |voters: &[NodeId]| voters.iter().all(|id| *id == self.options.id);
        !self.conf_state.voters.is_empty()
            && only(&self.conf_state.voters)
            && only(&self.conf_state.voters_outgoing)
    }

    /// A node that is no member as far as this one knows, whose messages are to be taken all the same: because the transport
    /// has proven that it belongs to this group. A node that joins, or that lags behind, does not know its members yet.
    pub fn vouch_for(&mut self, id: NodeId) {
        self.vouched.insert(id);
    }

    /// The peer could not be reached: what was sent to it is probably lost.
    pub fn report_unreachable(&mut self, to: NodeId) {
        self.raw.report_unreachable(to);
    }

    /// Everything up to the write of this number is durable.
    pub fn persisted(&mut self, number: u64) {
        while self.writes.front().is_some_and(|write| write.number <= number) {
            self.writes.pop_front();
        }
        while self.held.front().is_some_and(|(wait, _)| *wait <= number) {
            self.outbox.extend(self.held.pop_front().map(|(_, message)| message));
        }
        // Readies without a write count as persisted together with the write before them.
        let up_to = self.writes.front().map_or(self.number, |write| write.number - 1);
        self.raw.on_persist_ready(up_to);
        self.finish_installation(number);
    }

    /// The entries up to this one were applied.
    pub fn applied(&mut self, index: u64) {
        while let Some((_, bytes)) = self.unapplied.pop_front_if(|(at, _)| *at <= index) {
            self.unapplied_bytes -= bytes;
        }
        let log = &self.raw.raft.raft_log;
        let index = index.min(self.given).min(log.committed).min(log.persisted);
        if index > log.applied {
            self.raw.advance_apply_to(index);
        }
    }

    /// Forgets the entries up to `index`, which must be durable in the state machine; what is not applied stays. Pass the result
    /// to `LogWriter::compact`. Peers that lack forgotten entries will need a snapshot.
    pub fn compact(&mut self, index: u64) -> Option<Compaction> {
        if self.installing.is_some() {
            return None;
        }
        let index = index.min(self.raw.raft.raft_log.applied);
        let mut inner = self.view.lock();
        if index <= inner.base().index {
            return None;
        }
        inner.compact(index);
        Some(Compaction { up_to: inner.base() })
    }

    /// Draws the election timeout of this term, in place of the one that raft-rs has drawn from the thread's generator.
    fn settle(&mut self) {
        let range = &self.options.election_ticks;
        let seed = self.options.seed ^ self.options.id.rotate_left(32);
        let drawn = mix(mix(seed).wrapping_add(self.raw.raft.term)) % range.len().max(1) as u64;
        self.raw.raft.set_randomized_election_timeout(range.start + drawn as usize);
    }

    fn leadership(&self) -> Leadership {
        let raft = &self.raw.raft;
        Leadership {
            leader: Some(raft.leader_id).filter(|id| *id != INVALID_ID),
            term: raft.term,
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
        }
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let Leadership { leader, term, role } = self.leadership();
        let mut peers = Vec::new();
        if role == Role::Leader {
            peers = raft
                .prs()
                .iter()
                .filter(|(id, _)| **id != raft.id)
                .map(|(id, progress)| PeerStatus {
                    id: *id,
                    matched: progress.matched,
                    next: progress.next_idx,
                    state: match progress.state {
                        ProgressState::Probe => PeerState::Probe,
                        ProgressState::Replicate => PeerState::Replicate,
                        ProgressState::Snapshot => PeerState::Snapshot,
                    },
                    recent_active: progress.recent_active,
                })
                .collect();
            peers.sort_unstable_by_key(|peer| peer.id);
        }
        let (first, last) = {
            let inner = self.view.lock();
            (inner.first(), inner.last())
        };
        Status {
            id: raft.id,
            role,
            leader,
            term,
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            persisted: raft.raft_log.persisted,
            first,
            last,
            conf_state: self.conf_state.clone(),
            leads_fully: role == Role::Leader && raft.apply_to_current_term(),
            change_pending: self.conf_state.is_joint() || raft.has_pending_conf(),
            snapshot_pending: self.incoming.is_some() || self.installing.is_some(),
            transferring_to: raft.lead_transferee,
            peers,
        }
    }
}

/// Whether an entry is a change of the membership.
fn is_change(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal
}

/// Mixes bits well (splitmix64's finisher).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
