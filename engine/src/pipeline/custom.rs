//! CustomRuns: objects for a controller that is not here. They stay as they are until they are
//! cancelled or their time is up; then this engine says so in the controller's place.

use serde::{Deserialize, Serialize};
use tenon_tekton::duration::GoDuration;
use tenon_tekton::k8s::Condition;
use tenon_tekton::matrix::Combination;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::taskrun::{ChildInput, build_custom_run};
use tenon_tekton::v1::{CustomRun, CustomRunStatus, WorkspaceBinding};

use super::state::Child;
use crate::Time;
use crate::event::{Kind, Status};
use crate::log::{Log, non_empty};
use crate::run::Run;
use crate::taskrun::condition;
use crate::work::StopReason;

/// A CustomRun and how it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CustomRunState {
    pub(crate) object: CustomRun,
    pub(crate) pipeline_task: usize,
    start: Time,
    deadline: Option<Time>,
    end: Option<(Time, StopReason, Condition)>,
}

impl CustomRunState {
    pub(crate) fn object_with_status(&self) -> CustomRun {
        let current = match &self.end {
            Some((_, _, condition)) => condition.clone(),
            None => condition("Unknown", "Running", "waiting for its controller", self.start),
        };
        CustomRun {
            status: Some(CustomRunStatus {
                conditions: vec![current],
                start_time: Some(self.start.to_seconds_string()),
                completion_time: self.end.as_ref().map(|(time, ..)| time.to_seconds_string()),
                ..CustomRunStatus::default()
            }),
            ..self.object.clone()
        }
    }

    pub(crate) fn end(&self) -> Option<(StopReason, &str)> {
        let (_, reason, condition) = self.end.as_ref()?;
        Some((*reason, condition.reason.as_str()))
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadline.filter(|_| self.end.is_none())
    }
}

impl Run {
    pub(super) fn start_custom_run(
        &mut self,
        now: Time,
        log: &mut Log,
        index: usize,
        name: &str,
        combination: Option<&Combination>,
        workspaces: &[WorkspaceBinding],
    ) -> Result<(), Rejection> {
        let Some(pipeline) = &self.pipeline else {
            return Ok(());
        };
        let state = &pipeline.tasks[index];
        let mut object = build_custom_run(&ChildInput {
            run: &pipeline.object,
            workspaces,
            task: &state.task,
            resolved: None,
            name,
            combination,
            is_finally: index >= pipeline.dag_len,
            flags: &self.materials.flags,
        })?;
        object.metadata.uid = self.id().object_uid("CustomRun", name);
        object.metadata.creation_timestamp = Some(now.to_seconds_string());
        object.metadata.generation = 1;
        let timeout = object.spec.timeout.filter(|timeout| *timeout != GoDuration(0));
        let mut event = self.header.event(Kind::TaskStart, now);
        event.task = Some(state.task.name.clone());
        event.task_run = Some(name.to_owned());
        event.attempt = Some(1);
        event.span_id = Some(self.header.run.task_span_id(name));
        event.message = Some("custom task: no controller here will run it".to_owned());
        event.display_name = non_empty(&state.task.display_name);
        log.push(&mut self.header, event);
        let child = self.custom_runs.len();
        self.custom_runs.push(CustomRunState {
            object,
            pipeline_task: index,
            start: now,
            deadline: timeout.map(|timeout| now.plus_millis(timeout.as_millis())),
            end: None,
        });
        self.add_child(index, Child::CustomRun(child));
        Ok(())
    }

    pub(super) fn stop_custom_run(
        &mut self,
        now: Time,
        log: &mut Log,
        index: usize,
        why: StopReason,
    ) {
        let Some(state) = self.custom_runs.get_mut(index) else {
            return;
        };
        if state.end.is_some() {
            return;
        }
        let name = &state.object.metadata.name;
        let (status, reason, message) = match why {
            StopReason::TaskTimeout => {
                let timeout = state.object.spec.timeout.unwrap_or_default();
                let message = format!("CustomRun \"{name}\" failed to finish within \"{timeout}\"");
                (Status::Timeout, "CustomRunTimedOut", message)
            }
            StopReason::PipelineTimeout | StopReason::Cancelled => {
                let what = match why {
                    StopReason::PipelineTimeout => "timed out",
                    _ => "been cancelled",
                };
                let message =
                    format!("CustomRun cancelled as the PipelineRun it belongs to has {what}.");
                state.object.spec.status = "RunCancelled".to_owned();
                state.object.spec.status_message = message.clone();
                let status = match why {
                    StopReason::PipelineTimeout => Status::Timeout,
                    _ => Status::Cancelled,
                };
                (status, "CustomRunCancelled", message)
            }
        };
        state.end = Some((now, why, condition("False", reason, &message, now)));
        let mut event = self.header.event(Kind::TaskEnd, now);
        if let Some(pipeline) = &self.pipeline {
            event.task = Some(pipeline.tasks[state.pipeline_task].task.name.clone());
        }
        event.task_run = Some(name.clone());
        event.attempt = Some(1);
        event.status = Some(status);
        event.reason = Some(reason.to_owned());
        event.message = Some(message);
        event.duration_ms = Some((now.0 - state.start.0).max(0));
        event.task_duration_ms = event.duration_ms;
        event.span_id = Some(self.header.run.task_span_id(name));
        log.push(&mut self.header, event);
        self.child_ended(Child::CustomRun(index));
    }
}
