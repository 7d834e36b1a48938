//! What may be asked of the engine. Every choice that is not a function of the state (time, ids,
//! placement, what a reference resolves to) has been made by whoever sends the command.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::k8s::{ObjectMeta, ServiceAccount};
use tenon_tekton::v1::{Param, Pipeline, PipelineRun, StepAction, Task, TaskRun};

use crate::rerun::Rerun;
use crate::{AttemptId, Report, RunId, Time};

/// One command; it is applied at [`Command::time`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Start a run.
    Submit {
        /// When it was accepted.
        time: Time,
        /// What to run.
        submission: Box<Submission>,
    },
    /// Give an attempt to an agent.
    Place {
        /// When.
        time: Time,
        /// Which attempt; its placement number must be the one that `pending_work` named.
        attempt: AttemptId,
        /// The agent's name.
        agent: String,
    },
    /// An agent's report. A report of a superseded placement changes nothing.
    Report {
        /// When the coordinator got it; the report has the agent's own time.
        time: Time,
        /// Of which attempt.
        attempt: AttemptId,
        /// What it says.
        report: Report,
    },
    /// End a run early.
    Cancel {
        /// When.
        time: Time,
        /// Which run.
        run: RunId,
        /// How.
        mode: CancelMode,
        /// Why, for people.
        message: String,
    },
    /// Let a pending run begin. One that is not pending stays as it is.
    Release {
        /// When.
        time: Time,
        /// Which run.
        run: RunId,
    },
    /// No agent can take an attempt now: `task-queued` says why, once for each reason.
    Defer {
        /// When.
        time: Time,
        /// Which attempt; its placement number must be the one that `pending_work` named.
        attempt: AttemptId,
        /// Why, for programs.
        reason: String,
        /// Why, for people.
        message: String,
    },
    /// Time has passed: timeouts that are due take effect.
    Tick {
        /// Now.
        time: Time,
    },
    /// The coordinator that ran this run died and nothing will continue it: everything unfinished
    /// ends as infrastructure failure with this message.
    Abandon {
        /// When it was noticed.
        time: Time,
        /// Which run.
        run: RunId,
        /// Why.
        message: String,
    },
}

impl Command {
    /// When the command takes effect.
    pub fn time(&self) -> Time {
        match self {
            Command::Submit { time, .. }
            | Command::Place { time, .. }
            | Command::Report { time, .. }
            | Command::Cancel { time, .. }
            | Command::Release { time, .. }
            | Command::Defer { time, .. }
            | Command::Tick { time }
            | Command::Abandon { time, .. } => *time,
        }
    }
}

/// The values of a PipelineRun's `spec.status` that end it early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelMode {
    /// Stop everything now, no `finally`. For a TaskRun: `TaskRunCancelled`.
    Cancelled,
    /// Stop the running tasks, then run `finally`.
    CancelledRunFinally,
    /// Let running tasks finish, then run `finally`.
    StoppedRunFinally,
}

/// A run and everything it refers to: the immutable snapshot of invariant 7.
///
/// Holds no secret value: Secrets go from the loader to the agents that need them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The run's id.
    pub run_id: RunId,
    /// What to run; name, namespace and uid are filled in.
    pub run: RunObject,
    /// Tasks that may be referred to, by name.
    pub tasks: BTreeMap<String, Task>,
    /// Pipelines, by name.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// StepActions, by name.
    pub step_actions: BTreeMap<String, StepAction>,
    /// ServiceAccounts, by name.
    pub service_accounts: BTreeMap<String, ServiceAccount>,
    /// Tekton's flags and defaults.
    pub flags: FeatureFlags,
    /// At most so many attempts of this run at a time; `None` is no limit of its own.
    pub parallel: Option<u32>,
    /// What is kept of an earlier run, if this one runs it again.
    #[serde(default)]
    pub rerun: Option<Rerun>,
    /// Whether somebody can send [`Command::Release`]: a run that says of itself that it is pending
    /// then waits for it, and is refused otherwise.
    #[serde(default)]
    pub can_be_released: bool,
}

/// A run object. Stored with its kind as the tag: all fields of both are optional, so that their
/// content alone would not tell them apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RunObject {
    /// A PipelineRun.
    PipelineRun(Box<PipelineRun>),
    /// A TaskRun of its own.
    TaskRun(Box<TaskRun>),
}

impl RunObject {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            RunObject::PipelineRun(run) => &run.metadata,
            RunObject::TaskRun(run) => &run.metadata,
        }
    }

    /// Its metadata, to change.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            RunObject::PipelineRun(run) => &mut run.metadata,
            RunObject::TaskRun(run) => &mut run.metadata,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.metadata().name
    }

    /// `spec.status`.
    pub(crate) fn wish(&self) -> &str {
        match self {
            RunObject::PipelineRun(run) => &run.spec.status,
            RunObject::TaskRun(run) => &run.spec.status,
        }
    }

    pub(crate) fn params(&self) -> &[Param] {
        match self {
            RunObject::PipelineRun(run) => &run.spec.params,
            RunObject::TaskRun(run) => &run.spec.params,
        }
    }
}
