//! A run that says of itself that it is pending: it waits, told by `run-queued`, until it is released
//! or cancelled; then it is submitted as if that had happened now.

use std::collections::BTreeMap;

use tenon_tekton::Object;
use tenon_tekton::v1::{PipelineRunStatus, TaskRunStatus};

use super::submit::admit;
use super::{Materials, Run};
use crate::Time;
use crate::command::{CancelMode, RunObject, Submission};
use crate::event::Kind;
use crate::log::{Header, Log};
use crate::taskrun::condition;

const PIPELINE_RUN: &str = "PipelineRunPending";
const TASK_RUN: &str = "TaskRunPending";

/// Whether a run must not begin yet.
pub(super) fn is_pending(run: &RunObject) -> bool {
    match run {
        RunObject::PipelineRun(run) => run.spec.status == PIPELINE_RUN,
        RunObject::TaskRun(run) => run.spec.status == TASK_RUN,
    }
}

impl CancelMode {
    /// `spec.status` of a PipelineRun that ends so.
    pub fn as_str(self) -> &'static str {
        match self {
            CancelMode::Cancelled => "Cancelled",
            CancelMode::CancelledRunFinally => "CancelledRunFinally",
            CancelMode::StoppedRunFinally => "StoppedRunFinally",
        }
    }
}

impl Run {
    /// A run that waits.
    pub(super) fn hold(now: Time, log: &mut Log, mut submission: Submission) -> Run {
        let id = submission.run_id;
        let mut header = Header::new(id);
        let (metadata, reason) = match &mut submission.run {
            RunObject::PipelineRun(run) => {
                admit(&mut run.metadata, "PipelineRun", id, now);
                header.pipeline_run = Some(run.metadata.name.clone());
                (&run.metadata, PIPELINE_RUN)
            }
            RunObject::TaskRun(run) => {
                admit(&mut run.metadata, "TaskRun", id, now);
                (&run.metadata, TASK_RUN)
            }
        };
        let materials = Materials {
            run_uid: String::new(),
            step_actions: BTreeMap::new(),
            service_accounts: BTreeMap::new(),
            flags: submission.flags.clone(),
            parallel: None,
            rerun: submission.rerun.clone(),
        };
        let mut run = Run::new(now, header, metadata, materials);
        run.held = Some(Box::new(submission));
        let mut event = run.run_event(Kind::RunQueued, now);
        event.reason = Some(reason.to_owned());
        event.message = Some(run.pending_message());
        log.push(&mut run.header, event);
        run
    }

    fn pending_message(&self) -> String {
        let kind = match self.held.as_ref().map(|held| &held.run) {
            Some(RunObject::TaskRun(_)) => "TaskRun",
            _ => "PipelineRun",
        };
        format!("{kind} \"{}\" is pending", self.name)
    }

    /// What a pending run waits for: reason and message.
    pub(crate) fn held_because(&self) -> Option<(&'static str, String)> {
        let held = self.held.as_ref()?;
        let reason = match held.run {
            RunObject::PipelineRun(_) => PIPELINE_RUN,
            RunObject::TaskRun(_) => TASK_RUN,
        };
        Some((reason, self.pending_message()))
    }

    /// Lets a pending run begin.
    pub(crate) fn release(&mut self, now: Time, log: &mut Log) {
        if self.is_over() {
            return;
        }
        if let Some(mut held) = self.held.take() {
            match &mut held.run {
                RunObject::PipelineRun(run) => run.spec.status.clear(),
                RunObject::TaskRun(run) => run.spec.status.clear(),
            }
            *self = Run::begin(now, log, self.header.clone(), *held);
        }
    }

    /// A pending run that is cancelled begins as a cancelled one.
    pub(super) fn cancel_held(
        &mut self,
        now: Time,
        log: &mut Log,
        mode: CancelMode,
        message: &str,
    ) {
        if let Some(mut held) = self.held.take() {
            match &mut held.run {
                RunObject::PipelineRun(run) => run.spec.status = mode.as_str().to_owned(),
                RunObject::TaskRun(run) => {
                    run.spec.status = "TaskRunCancelled".to_owned();
                    run.spec.status_message = message.to_owned();
                }
            }
            *self = Run::begin(now, log, self.header.clone(), *held);
        }
    }

    /// The object of a pending run, also when it ended without ever having begun.
    pub(super) fn held_object(&self) -> Option<Object> {
        let held = self.held.as_ref()?;
        let (reason, message) = self.held_because()?;
        let conditions = vec![match &self.outcome {
            Some(end) => {
                let since = self.ended_at.unwrap_or(self.start);
                condition("False", &end.reason, &end.message, since)
            }
            None => condition("Unknown", reason, &message, self.start),
        }];
        Some(match &held.run {
            RunObject::PipelineRun(run) => {
                let mut run = run.clone();
                run.status = Some(PipelineRunStatus { conditions, ..PipelineRunStatus::default() });
                Object::PipelineRun(run)
            }
            RunObject::TaskRun(run) => {
                let mut run = run.clone();
                run.status = Some(TaskRunStatus { conditions, ..TaskRunStatus::default() });
                Object::TaskRun(run)
            }
        })
    }
}
