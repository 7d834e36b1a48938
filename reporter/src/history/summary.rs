//! What is known of a run without reading its events: the content of `run.json`.
//!
//! Derived from the events as they are appended, so that it cannot say anything else than they do.

use serde::{Deserialize, Serialize};
use tenon_engine::event::{Event, Kind, Status};
use tenon_engine::usage::ResourceUsage;
use tenon_engine::{RunId, Time};

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// It has not begun: somebody has to release it.
    Pending,
    /// It goes on.
    Running,
    /// The process that ran it is gone, and nothing has ended the run.
    Interrupted,
    /// Every task that had to succeed did.
    Succeeded,
    /// A task failed, or Tekton's rules refused the run.
    Failed,
    /// It ended through no fault of the pipeline.
    #[serde(rename = "infrafailed")]
    InfraFailed,
    /// A timeout ended it.
    Timeout,
    /// It was cancelled.
    Cancelled,
}

impl RunStatus {
    /// The word used in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Pending => "pending",
            RunStatus::Running => "running",
            RunStatus::Interrupted => "interrupted",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::InfraFailed => "infrafailed",
            RunStatus::Timeout => "timeout",
            RunStatus::Cancelled => "cancelled",
        }
    }

    /// The exit code of `tenon run` that belongs to this end (docs/events.md), where there is one.
    pub fn exit_code(self) -> Option<i32> {
        match self {
            RunStatus::Pending | RunStatus::Running | RunStatus::Interrupted => None,
            RunStatus::Succeeded => Some(0),
            RunStatus::Failed => Some(5),
            RunStatus::InfraFailed => Some(3),
            RunStatus::Timeout => Some(6),
            RunStatus::Cancelled => Some(130),
        }
    }
}

impl From<Status> for RunStatus {
    fn from(status: Status) -> RunStatus {
        match status {
            Status::Succeeded | Status::Skipped => RunStatus::Succeeded,
            Status::Failed | Status::NotRun => RunStatus::Failed,
            Status::InfraFailed => RunStatus::InfraFailed,
            Status::Timeout => RunStatus::Timeout,
            Status::Cancelled => RunStatus::Cancelled,
        }
    }
}

/// How many tasks (matrix combinations one by one) ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Ended well.
    pub succeeded: u32,
    /// Failed, timed out, were cancelled or lost.
    pub failed: u32,
    /// Skipped or never started.
    pub skipped: u32,
    /// Started and not yet ended.
    pub running: u32,
}

/// The content of `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The run's id.
    pub id: RunId,
    /// Its namespace.
    pub namespace: String,
    /// Name of the PipelineRun or TaskRun.
    pub name: String,
    /// `PipelineRun` or `TaskRun`.
    pub kind: String,
    /// Name of the Pipeline, or of the Task of a TaskRun, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// How it stands.
    pub status: RunStatus,
    /// Tekton's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began.
    pub started: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Its tasks.
    pub tasks: TaskCounts,
    /// What its steps have used, all attempts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUsage>,
    /// What `tenon run` exits with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Summary {
    /// The summary of a run that is about to begin.
    pub fn new(id: RunId, namespace: &str, name: &str, kind: &str, started: Time) -> Summary {
        Summary {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            pipeline: None,
            status: RunStatus::Running,
            reason: None,
            message: None,
            started,
            ended: None,
            tasks: TaskCounts::default(),
            usage: None,
            exit_code: None,
        }
    }

    /// Takes one more event into account.
    pub fn observe(&mut self, event: &Event) {
        if let (Kind::StepEnd, Some(usage)) = (event.kind, event.usage) {
            self.usage = Some(self.usage.unwrap_or_default().and(usage));
        }
        match event.kind {
            Kind::RunQueued => self.status = RunStatus::Pending,
            Kind::RunStart => {
                self.status = RunStatus::Running;
                self.started = event.time;
                if event.pipeline.is_some() {
                    self.pipeline.clone_from(&event.pipeline);
                }
            }
            Kind::TaskStart
                if event.attempt.unwrap_or(1) == 1 && event.placement.unwrap_or(1) == 1 =>
            {
                self.tasks.running += 1;
            }
            Kind::TaskEnd => {
                self.tasks.running = self.tasks.running.saturating_sub(1);
                match event.status {
                    Some(Status::Succeeded) => self.tasks.succeeded += 1,
                    Some(Status::Skipped | Status::NotRun) => self.tasks.skipped += 1,
                    _ => self.tasks.failed += 1,
                }
            }
            Kind::TaskSkip => self.tasks.skipped += 1,
            Kind::RunEnd => {
                self.ended = Some(event.time);
                self.status = event.status.map_or(RunStatus::Failed, RunStatus::from);
                self.reason.clone_from(&event.reason);
                self.message.clone_from(&event.message);
                self.exit_code = self.status.exit_code();
                self.tasks.running = 0;
            }
            _ => {}
        }
    }

    /// How long it took, in milliseconds, if it has ended.
    pub fn duration_ms(&self) -> Option<i64> {
        self.ended.map(|ended| (ended.0 - self.started.0).max(0))
    }
}
