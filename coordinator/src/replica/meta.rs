//! What the replica remembers besides the runs: stored in one piece with the applied index.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_engine::Time;

use super::agents::AgentRecord;

/// Names one cluster for ever: members and messages of another are refused.
pub type ClusterId = String;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where other members and clients reach it.
    pub url: String,
}

/// The configuration of the Raft group: ids of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// They vote.
    pub voters: Vec<u64>,
    /// They receive the log and do not vote.
    #[serde(default)]
    pub learners: Vec<u64>,
    /// While a joint change is under way: those who voted before.
    #[serde(default)]
    pub voters_outgoing: Vec<u64>,
    /// They become learners when the joint change is over.
    #[serde(default)]
    pub learners_next: Vec<u64>,
    /// The joint change ends by itself.
    #[serde(default)]
    pub auto_leave: bool,
}

/// The replica's state besides its runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Log index up to which everything is applied.
    pub applied: u64,
    /// Its term.
    pub term: u64,
    /// The configuration as of `applied`.
    pub configuration: Configuration,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members by Raft id; also those that are still being added.
    pub members: BTreeMap<u64, Member>,
    /// The id that the next new member gets: never one that was used before.
    pub next_node: u64,
    /// `seq` of the next event.
    pub next_seq: u64,
    /// Index of the next record of the event log.
    pub next_record: u64,
    /// The latest time that a command had.
    pub last_time: Time,
    /// Index of the first record whose spans may not have reached the tracing backend; 0 while nobody
    /// has ever sent any.
    #[serde(default)]
    pub traced: u64,
    /// The agents by name; also those that were removed.
    pub agents: BTreeMap<String, AgentRecord>,
}

impl From<tenon_consensus::ConfState> for Configuration {
    fn from(state: tenon_consensus::ConfState) -> Self {
        Configuration {
            voters: state.voters,
            learners: state.learners,
            voters_outgoing: state.voters_outgoing,
            learners_next: state.learners_next,
            auto_leave: state.auto_leave,
        }
    }
}

impl From<Configuration> for tenon_consensus::ConfState {
    fn from(configuration: Configuration) -> Self {
        tenon_consensus::ConfState {
            voters: configuration.voters,
            learners: configuration.learners,
            voters_outgoing: configuration.voters_outgoing,
            learners_next: configuration.learners_next,
            auto_leave: configuration.auto_leave,
        }
    }
}
