//! A run that is held back: because it says of itself that it is pending, or because its concurrency
//! group is full. It waits, told by `run-queued`, until it is released, let in, or cancelled; then it
//! is submitted as if that had happened now.

use std::collections::BTreeMap;

use tenon_tekton::Object;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::{PipelineRunStatus, TaskRunStatus};

use super::submit::admit;
use super::{Materials, Run};
use crate::admission::Admission;
use crate::command::{CancelMode, RunObject, Submission};
use crate::event::Kind;
use crate::groups::{GroupId, Standing};
use crate::log::{Header, Log};
use crate::plan::turn;
use crate::policy::{Membership, Policy};
use crate::taskrun::condition;
use crate::{Time, TraceContext};

const PIPELINE_RUN: &str = "PipelineRunPending";
const TASK_RUN: &str = "TaskRunPending";
/// The reason of a run whose concurrency group is full.
pub(super) const GROUP_FULL: &str = "ConcurrencyLimit";

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
    /// A run that waits: for its group, if that is full, else until it is released.
    pub(super) fn hold(
        now: Time,
        log: &mut Log,
        mut submission: Submission,
        group_full: Option<String>,
    ) -> Run {
        let id = submission.run_id;
        let mut header = Header::new(id, TraceContext::of(id, &submission.run));
        let metadata = match &mut submission.run {
            RunObject::PipelineRun(run) => {
                admit(&mut run.metadata, "PipelineRun", id, now);
                header.pipeline_run = Some(run.metadata.name.clone());
                &run.metadata
            }
            RunObject::TaskRun(run) => {
                admit(&mut run.metadata, "TaskRun", id, now);
                &run.metadata
            }
        };
        let materials = Materials {
            run_uid: String::new(),
            step_actions: BTreeMap::new(),
            service_accounts: BTreeMap::new(),
            flags: submission.flags.clone(),
            parallel: None,
            rerun: submission.rerun.clone(),
            policy: Policy::default(),
        };
        let mut run = Run::new(now, header, metadata, materials);
        run.held = Some(Box::new(submission));
        run.held_by_group = group_full;
        run.tell_held(now, log);
        run
    }

    fn tell_held(&mut self, now: Time, log: &mut Log) {
        let Some((reason, message)) = self.held_because() else { return };
        let mut event = self.run_event(Kind::RunQueued, now);
        event.reason = Some(reason.to_owned());
        event.message = Some(message);
        log.push(&mut self.header, event);
    }

    /// What a run waits for that is held back: reason and message.
    pub(crate) fn held_because(&self) -> Option<(&'static str, String)> {
        let held = self.held.as_ref()?;
        if let Some(full) = &self.held_by_group {
            return Some((GROUP_FULL, full.clone()));
        }
        let (reason, kind) = match held.run {
            RunObject::PipelineRun(_) => (PIPELINE_RUN, "PipelineRun"),
            RunObject::TaskRun(_) => (TASK_RUN, "TaskRun"),
        };
        Some((reason, format!("{kind} \"{}\" is pending", self.name)))
    }

    /// What a pending run will run; `None` for any other.
    pub(crate) fn pending(&self) -> Option<&Submission> {
        let waits = !self.is_over() && self.held_by_group.is_none();
        self.held.as_deref().filter(|_| waits)
    }

    /// A pending run begins, or waits for its group from now on.
    pub(crate) fn release(&mut self, now: Time, log: &mut Log, admission: Admission) {
        if self.pending().is_none() {
            return;
        }
        let Some(mut held) = self.held.take() else { return };
        match &mut held.run {
            RunObject::PipelineRun(run) => run.spec.status.clear(),
            RunObject::TaskRun(run) => run.spec.status.clear(),
        }
        let refusal = match admission {
            Admission::Begins => None,
            Admission::Refused(message) => Some(Rejection::new(GROUP_FULL, message)),
            Admission::Waits(message) => {
                self.held = Some(held);
                self.held_by_group = Some(message);
                self.start = now;
                self.tell_held(now, log);
                return;
            }
        };
        *self = Run::begin(now, log, self.header.clone(), *held, refusal);
    }

    /// There is room in its group.
    pub(crate) fn begin_held(&mut self, now: Time, log: &mut Log) {
        if let Some(held) = self.held.take() {
            *self = Run::begin(now, log, self.header.clone(), *held, None);
        }
    }

    /// The group that a run joins when it begins now, and how.
    pub(crate) fn membership_of(submission: &Submission) -> Option<(GroupId, Membership)> {
        // A run that is cancelled from the beginning, or refused because nobody can release it.
        match submission.run.wish() {
            "" => Run::membership_when_released(submission),
            _ => None,
        }
    }

    /// The same of a run that is pending.
    pub(crate) fn membership_when_released(
        submission: &Submission,
    ) -> Option<(GroupId, Membership)> {
        let run = &submission.run;
        let metadata = run.metadata();
        let membership = Policy::of(metadata, run.params()).ok()?.group?;
        let namespace = match metadata.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        Some(((namespace.to_owned(), membership.key.clone()), membership))
    }

    /// How many of its group may run when this one does.
    pub(crate) fn group_limit(&self) -> u32 {
        let held = self.held.as_deref().and_then(Run::membership_of);
        held.map_or(1, |(_, membership)| membership.limit)
    }

    /// Where it stands in its group, if it has one.
    pub(crate) fn standing(&self) -> Option<(GroupId, Standing)> {
        if self.is_over() {
            return None;
        }
        if let Some(held) = &self.held {
            self.held_by_group.as_ref()?;
            let (group, _) = Run::membership_of(held)?;
            let run = &held.run;
            let priority = Policy::of(run.metadata(), run.params()).unwrap_or_default().priority;
            return Some((group, Standing::Waits(turn(priority, self.start))));
        }
        let group = self.materials.policy.group.as_ref()?;
        Some(((self.header.namespace.clone(), group.key.clone()), Standing::Runs))
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
            *self = Run::begin(now, log, self.header.clone(), *held, None);
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
