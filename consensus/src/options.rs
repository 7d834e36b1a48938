//! How a core behaves.

use std::ops::Range;

use crate::{Error, NodeId};

/// How a core behaves. A tick is whatever time the owner lets pass between calls of `tick`.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node. Not 0, and never an id that another node had, nor this one before it lost its disk.
    pub id: NodeId,
    /// Ticks without a leader after which a node stands for election: a value of this range, drawn anew for each term.
    pub election_ticks: Range<usize>,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// From this and the term each election timeout is drawn: the same seed gives the same elections. Nodes of a group should
    /// have different ones.
    pub seed: u64,
    /// Entries are packed into messages up to about this size, in bytes.
    pub max_message_bytes: usize,
    /// The most data of one proposal, and of a snapshot's description, in bytes.
    pub max_entry_bytes: usize,
    /// Messages with entries on their way to one peer.
    pub max_inflight: usize,
    /// Data that is proposed and not committed, in bytes; more is dropped.
    pub max_uncommitted_bytes: usize,
    /// Committed data that is given out and not reported as applied, in bytes; the rest stays in the log meanwhile.
    pub max_unapplied_bytes: usize,
    /// A snapshot that was offered to a peer is offered again after so many ticks without `snapshot_progress` or a report.
    pub snapshot_retry_ticks: usize,
}

impl Options {
    /// The usual options: for ticks of 10 to 100 ms.
    pub fn new(id: NodeId) -> Options {
        Options {
            id,
            election_ticks: 10..20,
            heartbeat_ticks: 2,
            seed: id,
            max_message_bytes: 1 << 20,
            max_entry_bytes: 4 << 20,
            max_inflight: 256,
            max_uncommitted_bytes: 64 << 20,
            max_unapplied_bytes: 64 << 20,
            snapshot_retry_ticks: 100,
        }
    }

    /// The longest message that is taken from the wire, in bytes. Transports must let as much pass.
    pub fn max_wire_bytes(&self) -> usize {
        // Besides the data of entries there are their headers, and small entries are mostly header.
        2 * self.max_message_bytes.max(self.max_entry_bytes) + (64 << 10)
    }

    pub(crate) fn to_raft(&self, applied: u64) -> Result<raft::Config, Error> {
        if self.election_ticks.is_empty() {
            return Err(Error::Invalid("the range of election ticks is empty".into()));
        }
        let config = raft::Config {
            id: self.id,
            election_tick: self.election_ticks.start,
            heartbeat_tick: self.heartbeat_ticks,
            min_election_tick: self.election_ticks.start,
            max_election_tick: self.election_ticks.end,
            applied,
            max_size_per_msg: self.max_message_bytes as u64,
            max_inflight_msgs: self.max_inflight,
            check_quorum: true,
            pre_vote: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            max_uncommitted_size: self.max_uncommitted_bytes as u64,
            ..raft::Config::default()
        };
        config.validate().map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(config)
    }
}
