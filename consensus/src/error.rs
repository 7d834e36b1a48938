//! What can go wrong here, each kind with a stable code.

use std::path::PathBuf;

use crate::NodeId;

/// A failure that this node cannot work around: stop it, and tell the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal that holds the log failed.
    #[error(transparent)]
    Journal(#[from] tenon_journal::Error),
    /// A record of the log is not what this program writes.
    #[error("{}: record {position} of the consensus log {problem}", .dir.display())]
    Damaged {
        /// The log's directory.
        dir: PathBuf,
        /// The record's index in the journal.
        position: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory holds a log already, and a new one was to be begun.
    #[error("{}: there is a consensus log already", .dir.display())]
    Exists {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The log and the applied state do not belong together.
    #[error(
        "the consensus log holds the entries {first} to {last}, but the state was applied up to {applied}: they do not \
         belong together. Restore both from the same backup, or remove this node and add it again under a new id"
    )]
    Apart {
        /// The log's first entry.
        first: u64,
        /// The log's last entry.
        last: u64,
        /// The index up to which the state was applied.
        applied: u64,
    },
    /// Options or a configuration that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// Old entries could not be read back from the journal.
    #[error("the consensus log cannot be read: {0}")]
    Unreadable(String),
}

impl Error {
    /// The stable identifier of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Journal(error) => error.code(),
            Error::Damaged { .. } => "consensus/damaged",
            Error::Exists { .. } => "consensus/exists",
            Error::Apart { .. } => "consensus/apart",
            Error::Invalid(_) => "consensus/invalid",
            Error::Unreadable(_) => "consensus/unreadable",
        }
    }
}

/// Why a proposal (or another request to the group) was not taken. Nothing of it was stored; it can be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// No leader is known at the moment.
    #[error("no leader is known at the moment")]
    NoLeader,
    /// Only the leader can do this.
    #[error("node {leader} is the leader")]
    NotLeader {
        /// Who can.
        leader: NodeId,
    },
    /// The leader was elected a moment ago and has not committed anything yet.
    #[error("the leader is new and not ready yet")]
    NotReady,
    /// Too much is proposed and not committed.
    #[error("too much is proposed and not committed yet")]
    TooMuchUncommitted,
    /// The leadership is being handed over.
    #[error("the leadership is being handed over")]
    Transferring,
    /// The data is over the limit.
    #[error("{length} bytes are over the limit of {limit}")]
    TooLarge {
        /// The data's length.
        length: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// Another change of the membership is not finished yet.
    #[error("another change of the membership is not finished yet")]
    ChangePending,
    /// The change cannot be made to the membership as it is.
    #[error("{0}")]
    InvalidChange(String),
}

impl Dropped {
    /// The stable identifier of this kind of refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Dropped::NoLeader => "consensus/no-leader",
            Dropped::NotLeader { .. } => "consensus/not-leader",
            Dropped::NotReady => "consensus/not-ready",
            Dropped::TooMuchUncommitted => "consensus/too-much-uncommitted",
            Dropped::Transferring => "consensus/transferring",
            Dropped::TooLarge { .. } => "consensus/too-large",
            Dropped::ChangePending => "consensus/change-pending",
            Dropped::InvalidChange(_) => "consensus/invalid-change",
        }
    }
}

/// Why a message was not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than any message may be.
    #[error("{length} bytes are over the limit of {limit}")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// It is not a message, or not one that a node sends.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// It is for another node.
    #[error("it is for node {to}")]
    Misdirected {
        /// For whom it is.
        to: NodeId,
    },
    /// It names a sender who is not the one it came from.
    #[error("it came from node {sender} and says that it is from node {claimed}")]
    Forged {
        /// From whom it came.
        sender: NodeId,
        /// From whom it says to be.
        claimed: NodeId,
    },
    /// Its sender is no member, and nobody vouched for it.
    #[error("node {sender} is not a member")]
    Stranger {
        /// Who sent it.
        sender: NodeId,
    },
    /// It contradicts what this node knows.
    #[error("impossible: {0}")]
    Impossible(&'static str),
    /// The leader knows that this node stored more than it has: it lost durable entries, and must not go on under this id.
    #[error(
        "this node stored entries up to {acknowledged} and has them up to {last} only: its log lost data. Remove the node and \
         add it again under a new id"
    )]
    Forgotten {
        /// What was acknowledged.
        acknowledged: u64,
        /// What is there.
        last: u64,
    },
    /// It cannot be taken while a snapshot is being installed; it will be sent again.
    #[error("a snapshot is being installed")]
    Installing,
}

impl Refused {
    /// The stable identifier of this kind of refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::TooLarge { .. } => "consensus/message-too-large",
            Refused::Malformed(_) => "consensus/message-malformed",
            Refused::Misdirected { .. } => "consensus/message-misdirected",
            Refused::Forged { .. } => "consensus/message-forged",
            Refused::Stranger { .. } => "consensus/message-from-stranger",
            Refused::Impossible(_) => "consensus/message-impossible",
            Refused::Forgotten { .. } => "consensus/forgotten",
            Refused::Installing => "consensus/installing",
        }
    }
}
