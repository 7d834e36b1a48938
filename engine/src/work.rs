//! What remains to be done for the runs, derived from the state alone: whoever leads asks
//! [`crate::Engine::pending_work`] and does it, as often as needed. Doing a thing twice is harmless;
//! it stays pending until a command says that it has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenon_tekton::pod::Demand;

use crate::plan::Term;
use crate::{AttemptId, RunId, Time};

/// One thing that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// The attempt needs an agent: choose one ([`crate::plan`]) and send `Command::Place`.
    Place {
        /// Which attempt; `Command::Place` must carry exactly this id.
        attempt: AttemptId,
        /// Since when it waits: since it left the queue of its run.
        since: Time,
        /// What the agent must have.
        requirements: Arc<Requirements>,
    },
    /// The agent has to be given the attempt's Pod ([`crate::Engine::pod`]). Pending until the agent's
    /// `Started` (or `Ended`) report.
    Start {
        /// Which attempt.
        attempt: AttemptId,
        /// The agent that it was placed on.
        agent: String,
    },
    /// The agent has to stop the attempt. Pending until its `Ended` report; an agent that knows
    /// nothing of the attempt answers with `Ended { Stopped }`.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// The agent that it was placed on.
        agent: String,
        /// Why.
        reason: StopReason,
    },
    /// The run is over: these agents may drop whatever outlives an attempt (claims, networks).
    /// Pending until [`crate::Engine::remove`].
    EndRun {
        /// Which run.
        run: RunId,
        /// Every agent that an attempt of the run was ever placed on.
        agents: BTreeSet<String>,
    },
}

/// Why an attempt is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopReason {
    /// The run or the task was cancelled.
    Cancelled,
    /// The TaskRun's own timeout.
    TaskTimeout,
    /// A timeout of the PipelineRun.
    PipelineTimeout,
}

impl StopReason {
    /// For logs and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::Cancelled => "cancelled",
            StopReason::TaskTimeout => "task timeout",
            StopReason::PipelineTimeout => "pipeline timeout",
        }
    }
}

/// What an attempt needs of the agent that runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirements {
    /// Namespace of the run.
    pub namespace: String,
    /// Labels that the agent must have (`podTemplate.nodeSelector`).
    pub node_selector: BTreeMap<String, String>,
    /// Images of the steps and sidecars: an agent that has them is better.
    pub images: BTreeSet<String>,
    /// What it asks for beyond what every agent lets any pod have.
    #[serde(default)]
    pub demands: BTreeSet<Demand>,
    /// PersistentVolumeClaims: attempts that use one at the same time do so on one agent.
    pub claims: BTreeSet<String>,
    /// The agent to which one of the claims is bound: another attempt uses it there, or its files are
    /// nowhere else. No other agent will do.
    #[serde(default)]
    pub home: Option<String>,
    /// Another agent, to which another one of the claims is bound: as long as that is so, none will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
    /// The files at the home are nowhere else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsaved: bool,
    /// The agent that has the files of a claim which may move: it is better than others, for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// What `podTemplate.affinity` requires of a node: one of these must match, if there are any.
    #[serde(default)]
    pub affinity: Vec<Term>,
    /// CPU that its containers request in all, in thousandths.
    #[serde(default)]
    pub cpu_millis: u64,
    /// Memory that its containers request in all, in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// From 0 to 100: a head start in the queue.
    #[serde(default)]
    pub priority: u8,
}

impl Requirements {
    /// What it takes of its agent.
    pub fn usage(&self) -> Usage {
        Usage { attempts: 1, cpu_millis: self.cpu_millis, memory_bytes: self.memory_bytes }
    }
}

/// What attempts take of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How many they are.
    pub attempts: u32,
    /// CPU that they request, in thousandths.
    pub cpu_millis: u64,
    /// Memory that they request, in bytes.
    pub memory_bytes: u64,
}

impl Usage {
    /// Both together.
    pub fn plus(self, more: Usage) -> Usage {
        Usage {
            attempts: self.attempts.saturating_add(more.attempts),
            cpu_millis: self.cpu_millis.saturating_add(more.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(more.memory_bytes),
        }
    }

    /// What is left without a part of it.
    pub fn minus(self, part: Usage) -> Usage {
        Usage {
            attempts: self.attempts.saturating_sub(part.attempts),
            cpu_millis: self.cpu_millis.saturating_sub(part.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(part.memory_bytes),
        }
    }
}
