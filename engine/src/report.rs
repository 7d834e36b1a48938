//! What an agent reports of an attempt. The coordinator turns the wire messages into these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::usage::ResourceUsage;

/// One report about one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The agent has taken the attempt and prepares its containers.
    Started {
        /// When, by the agent's clock.
        time: Time,
    },
    /// A step's command runs (its turn has come, not just its container).
    StepStarted {
        /// When.
        time: Time,
        /// Its name without `step-`.
        step: String,
    },
    /// Lines that a step or a sidecar wrote.
    Output {
        /// Time of the first line.
        time: Time,
        /// Its name without `step-` or `sidecar-`.
        container: String,
        /// True for a sidecar.
        sidecar: bool,
        /// Number of lines in the chunk.
        lines: u32,
        /// The lines, packed by `tenon_journal::output`. Stored beside the JSON, as bytes.
        #[serde(skip)]
        chunk: Vec<u8>,
    },
    /// A step has ended, was skipped, or never got its turn.
    StepEnded {
        /// When.
        time: Time,
        /// How.
        end: StepEnd,
    },
    /// A sidecar's container runs.
    SidecarStarted {
        /// When.
        time: Time,
        /// Its name without `sidecar-`.
        sidecar: String,
    },
    /// A sidecar has ended.
    SidecarEnded {
        /// When.
        time: Time,
        /// Its name without `sidecar-`.
        sidecar: String,
        /// Exit code of its process.
        exit_code: i32,
        /// True when it was told to stop, after the last step: its exit code then means nothing.
        stopped: bool,
        /// The kernel ended it for want of memory.
        oom_killed: bool,
        /// Image, as `name@sha256:…` or the image's id.
        image_id: String,
        /// The container's id, `docker://…`.
        container_id: String,
    },
    /// Nothing of the attempt runs any more, and everything it made is removed. The last report.
    Ended {
        /// When.
        time: Time,
        /// How the agent sees it.
        outcome: Outcome,
        /// What became of its claims on the agent.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        workspaces: Vec<WorkspaceUse>,
    },
}

impl Report {
    /// Times that no clock can have shown become `now`: they come from a machine that is not ours.
    pub(crate) fn believe(&mut self, now: Time) {
        let believe = |time: &mut Time| {
            if time.believable() != *time {
                *time = now;
            }
        };
        match self {
            Report::Started { time }
            | Report::StepStarted { time, .. }
            | Report::Output { time, .. }
            | Report::SidecarStarted { time, .. }
            | Report::SidecarEnded { time, .. }
            | Report::Ended { time, .. } => believe(time),
            Report::StepEnded { time, end } => {
                believe(time);
                end.started_at.iter_mut().for_each(believe);
                end.usage.iter_mut().for_each(ResourceUsage::believe);
            }
        }
    }

    /// When it happened.
    pub fn time(&self) -> Time {
        match self {
            Report::Started { time }
            | Report::StepStarted { time, .. }
            | Report::Output { time, .. }
            | Report::StepEnded { time, .. }
            | Report::SidecarStarted { time, .. }
            | Report::SidecarEnded { time, .. }
            | Report::Ended { time, .. } => *time,
        }
    }
}

/// What became of a claim while an attempt used it, on the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceUse {
    /// The claim's name.
    pub claim: String,
    /// It was made of a snapshot before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Transfer>,
    /// A snapshot was made of it after the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<Transfer>,
    /// Why none was made, though one should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A snapshot that was made, or was made files of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Transfer {
    /// Its id.
    pub snapshot: String,
    /// Bytes of the files in it.
    pub bytes: u64,
    /// Bytes that had to be sent or fetched, as they travel.
    pub new_bytes: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
}

/// How one step ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepEnd {
    /// Its name without `step-`.
    pub step: String,
    /// Exit code: the process's own, also where `onError: continue` made it harmless; 1 for a step
    /// that was skipped after a failure or timed out, 0 for one skipped by `when`.
    pub exit_code: i32,
    /// Why it ended so.
    pub ending: Ending,
    /// When its command began; `None` when it never did.
    pub started_at: Option<Time>,
    /// Task results found after this step: name → raw file content.
    pub task_results: BTreeMap<String, String>,
    /// The step's own results: name → raw file content.
    pub step_results: BTreeMap<String, String>,
    /// For people, when something other than the exit code is to be said.
    pub message: String,
    /// Image, as `name@sha256:…` or the image's id.
    pub image_id: String,
    /// The container's id, `docker://…`.
    pub container_id: String,
    /// What it has used, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUsage>,
}

/// Tekton's `terminationReason` of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Exit code 0.
    #[default]
    Completed,
    /// Another exit code, or the command could not be started.
    Error,
    /// Another exit code, and `onError: continue`.
    Continued,
    /// The kernel ended it for want of memory.
    OomKilled,
    /// Skipped because a step before it failed (exit code 1) or by its `when` (exit code 0).
    Skipped,
    /// The step's own timeout.
    TimeoutExceeded,
    /// The attempt was stopped while the step ran or waited.
    Cancelled,
}

impl Ending {
    /// Tekton's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "Completed",
            Ending::Error => "Error",
            Ending::Continued => "Continued",
            Ending::OomKilled => "OOMKilled",
            Ending::Skipped => "Skipped",
            Ending::TimeoutExceeded => "TimeoutExceeded",
            Ending::Cancelled => "Cancelled",
        }
    }
}

/// How an attempt ended, as far as the agent knows; the engine derives Tekton's status from it and
/// from the steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every step has ended: the steps decide.
    Ran,
    /// It was stopped because the coordinator said so.
    Stopped,
    /// It could not run, through the fault of what was asked for: Tekton's reason (`PullImageFailed`,
    /// `CreateContainerConfigError`, `PodCreationFailed`, `TaskRunImagePullFailed` …) and a message.
    Refused {
        /// Tekton's reason, verbatim.
        reason: String,
        /// What, why, and what to do.
        message: String,
    },
    /// It was lost through no fault of its own (daemon gone, disk full): never costs a user's retry.
    Infra {
        /// `infra/<what>`.
        reason: String,
        /// What, why, and what to do.
        message: String,
    },
}
