//! What remains to be done for the runs, derived from the state alone: whoever leads asks
//! [`crate::Engine::pending_work`] and does it, as often as needed. Doing a thing twice is harmless;
//! it stays pending until a command says that it has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, RunId};

/// One thing that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// The attempt needs an agent: choose one ([`crate::plan`]) and send `Command::Place`.
    Place {
        /// Which attempt; `Command::Place` must carry exactly this id.
        attempt: AttemptId,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Namespace of the run.
    pub namespace: String,
    /// Labels that the agent must have (`podTemplate.nodeSelector`).
    pub node_selector: BTreeMap<String, String>,
    /// Images of the steps and sidecars: an agent that has them is better.
    pub images: BTreeSet<String>,
    /// PersistentVolumeClaims: all attempts that use one go to the agent where it lives.
    pub claims: BTreeSet<String>,
    /// The agent where one of the claims lives already: an earlier attempt of the run, or of the run
    /// that this one runs again, was placed there. No other agent will do.
    #[serde(default)]
    pub home: Option<String>,
}
