//! What the core gives out: work for its owner.

use bytes::Bytes;
use raft::eraftpb;

use crate::{ConfState, MembershipChange, NodeId};

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The entry's index; the first one that is ever proposed has 2 in a bootstrapped group.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
}

/// A message for another node. It may be lost, doubled, delayed and reordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// For whom.
    pub to: NodeId,
    /// What the receiver passes to `step`.
    pub bytes: Vec<u8>,
    /// It offers a snapshot: keep that snapshot's data until the peer has it, and report how it went.
    pub is_snapshot: bool,
}

/// What must be made durable, by `LogWriter::write` and then `LogWriter::sync`, in the order in which writes were given out.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Its number, for `persisted`.
    pub number: u64,
    pub(crate) hard_state: Option<eraftpb::HardState>,
    /// The log begins anew after this place.
    pub(crate) reset: Option<Position>,
    pub(crate) entries: Vec<eraftpb::Entry>,
}

impl Write {
    /// Roughly how many bytes it is, for bounding batches.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len() + entry.context.len() + 32).sum::<usize>()
            + 32
    }

    /// How many entries it holds.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }
}

/// An entry that will never change again. They come in order of index, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// What somebody proposed.
    Entry {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// What was proposed.
        data: Bytes,
    },
    /// A change of the membership, which has taken effect in the core. Store `conf_state` together with the applied index.
    Membership {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// What was proposed.
        change: MembershipChange,
        /// The membership from here on.
        conf_state: ConfState,
        /// `false`: the change was impossible, and nothing was changed. The same on every node.
        taken: bool,
    },
    /// Nothing to apply: a new leader begins its term with such an entry.
    Empty {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
}

impl Committed {
    /// Its index.
    pub fn index(&self) -> u64 {
        self.position().index
    }

    /// Its place in the log.
    pub fn position(&self) -> Position {
        match *self {
            Committed::Entry { index, term, .. }
            | Committed::Membership { index, term, .. }
            | Committed::Empty { index, term } => Position { index, term },
        }
    }
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    #[default]
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks to be elected.
    Candidate,
    /// It leads.
    Leader,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// What this node is.
    pub role: Role,
}

/// What a snapshot contains and how it is got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it contains.
    pub position: Position,
    /// The membership at that entry.
    pub conf_state: ConfState,
    /// The owner's description of where and how to fetch it; opaque here, and at most `Options::max_entry_bytes`.
    pub data: Vec<u8>,
}

/// A step on the way of a snapshot into this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// Fetch the snapshot's data, then call `snapshot_fetched` (or `snapshot_failed`) with this `meta`. Replaces any fetch
    /// that is still going on.
    Fetch {
        /// Who offers it.
        from: NodeId,
        /// What is offered.
        meta: SnapshotMeta,
    },
    /// Stop fetching, and drop what was fetched: it is of no use any more.
    Cancel,
    /// Make the fetched data the state of this node, durably, after everything that was committed before; then call
    /// `installed`. Only after that the log itself begins anew, by a [`Write`].
    Install(SnapshotMeta),
}

/// Work for the owner. All of it may be done at the same time, except as said at the fields.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// To be sent now. What must not be sent before a write is durable comes only after `persisted`.
    pub messages: Vec<Outgoing>,
    /// To be made durable, in order.
    pub write: Option<Write>,
    /// To be applied, in order. They are durable here already.
    pub committed: Vec<Committed>,
    /// Reads that may be answered from a state that is applied up to the given index at least. The same request may come
    /// more than once.
    pub reads: Vec<(Vec<u8>, u64)>,
    /// Who leads, when that has changed.
    pub leadership: Option<Leadership>,
    /// A step of an incoming snapshot.
    pub snapshot: Option<SnapshotStep>,
    /// A peer needs a snapshot, and none that would do was offered: make one and call `offer_snapshot`. Told once for each
    /// time it is needed.
    pub wants_snapshot: bool,
}

impl Ready {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.write.is_none()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.leadership.is_none()
            && self.snapshot.is_none()
            && !self.wants_snapshot
    }
}

/// How a leader sees a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It is being found out what the peer has.
    Probe,
    /// Entries are streamed to it.
    Replicate,
    /// It needs a snapshot.
    Snapshot,
}

/// How far a peer is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which peer.
    pub id: NodeId,
    /// It has the log up to here, durably.
    pub matched: u64,
    /// The next entry to send.
    pub next: u64,
    /// How it is fed.
    pub state: PeerState,
    /// It was heard of within the last election timeout.
    pub recent_active: bool,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// What it is.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// Entries up to here are committed, as far as this node knows.
    pub commit: u64,
    /// Entries up to here were applied.
    pub applied: u64,
    /// Entries up to here are durable on this node.
    pub persisted: u64,
    /// The first entry of its log.
    pub first: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The members.
    pub conf_state: ConfState,
    /// A leader that has applied an entry of its own term, and so everything that was ever committed: leader duties may begin.
    pub leads_fully: bool,
    /// A change of the membership is proposed and not yet applied.
    pub change_pending: bool,
    /// A snapshot is being fetched or installed.
    pub snapshot_pending: bool,
    /// To whom the leadership is being handed over.
    pub transferring_to: Option<NodeId>,
    /// The peers, sorted by id; only on a leader.
    pub peers: Vec<PeerStatus>,
}

impl SnapshotMeta {
    pub(crate) fn to_raft(&self) -> eraftpb::Snapshot {
        let data = self.data.clone().into();
        let mut snapshot = eraftpb::Snapshot { data, ..eraftpb::Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = self.position.index;
        metadata.term = self.position.term;
        metadata.set_conf_state(self.conf_state.to_raft());
        snapshot
    }

    pub(crate) fn from_raft(snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
        let metadata = snapshot.get_metadata();
        SnapshotMeta {
            position: Position { index: metadata.index, term: metadata.term },
            conf_state: ConfState::from_raft(metadata.get_conf_state()),
            data: snapshot.data.to_vec(),
        }
    }
}
