//! Tekton's `status` of a TaskRun, made of the state whenever somebody asks.

use tenon_tekton::k8s::Condition;
use tenon_tekton::v1::{
    ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, SidecarState,
    StepState, TaskRun, TaskRunResult, TaskRunStatus,
};

use super::{
    Phase, SidecarProgress, StepProgress, TaskRunState, Verdict, VerdictKind, results, verdict,
};
use crate::Time;
use crate::report::Ending;

/// The `Succeeded` condition.
pub(crate) fn condition(status: &str, reason: &str, message: &str, since: Time) -> Condition {
    Condition {
        r#type: "Succeeded".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Some(since.to_seconds_string()),
        ..Condition::default()
    }
}

impl TaskRunState {
    /// The TaskRun with its status.
    pub(crate) fn object_with_status(&self) -> TaskRun {
        TaskRun { status: Some(self.status()), ..self.object.clone() }
    }

    pub(crate) fn status(&self) -> TaskRunStatus {
        let attempt = &self.attempt;
        let step_results = results::collect(self).step_results;
        let with_pod = !attempt.pod_name.is_empty() && attempt.agent.is_some();
        let steps = attempt.steps.iter().zip(step_results);
        TaskRunStatus {
            conditions: vec![self.condition()],
            pod_name: match with_pod {
                true => attempt.pod_name.clone(),
                false => String::new(),
            },
            start_time: attempt.start.map(Time::to_seconds_string),
            completion_time: attempt.completion.map(Time::to_seconds_string),
            steps: match with_pod {
                true => steps.map(|(step, own)| self.step_state(step, own)).collect(),
                false => Vec::new(),
            },
            sidecars: match with_pod {
                true => attempt.sidecars.iter().map(sidecar_state).collect(),
                false => Vec::new(),
            },
            results: attempt.results.clone(),
            task_spec: attempt.task_spec.as_deref().cloned(),
            retries_status: self.retries_status.clone(),
            ..TaskRunStatus::default()
        }
    }

    fn condition(&self) -> Condition {
        let attempt = &self.attempt;
        if let Some(verdict) = &attempt.verdict {
            let status = match verdict.kind {
                VerdictKind::Succeeded => "True",
                _ => "False",
            };
            let since = attempt.completion.unwrap_or_default();
            return condition(status, &verdict.reason, &verdict.message, since);
        }
        let since = attempt.agent_start.or(attempt.start).unwrap_or_default();
        let last = self.retries_status.last();
        match (attempt.phase, last.and_then(|last| last.conditions.first())) {
            (Phase::Running, _) => {
                let message = "Not all Steps in the Task have finished executing";
                condition("Unknown", "Running", message, since)
            }
            (Phase::Queued, Some(failed)) => Condition {
                status: "Unknown".to_owned(),
                reason: "ToBeRetried".to_owned(),
                ..failed.clone()
            },
            _ => condition("Unknown", "Pending", "Pending", since),
        }
    }

    fn step_state(&self, step: &StepProgress, own: Vec<TaskRunResult>) -> StepState {
        let mut state = StepState {
            name: step.name.clone(),
            container: format!("step-{}", step.name),
            results: own,
            ..StepState::default()
        };
        let stopped = self.attempt.verdict.as_ref().filter(|verdict| {
            let cut_short =
                step.end.as_ref().is_none_or(|(_, end)| end.ending == Ending::Cancelled);
            cut_short && verdict.kind != VerdictKind::Succeeded
        });
        if let Some((_, end)) = &step.end {
            state.image_id = end.image_id.clone();
        }
        if let Some(verdict) = stopped {
            state.termination_reason = verdict.reason.clone();
            state.terminated = Some(self.stopped_state(step, verdict));
            return state;
        }
        match (&step.end, step.started) {
            (Some((time, end)), _) => {
                state.termination_reason = end.ending.as_str().to_owned();
                let began = end.started_at.or(step.started).unwrap_or(*time);
                state.terminated = Some(ContainerStateTerminated {
                    exit_code: end.exit_code,
                    reason: verdict::terminated_reason(end.ending, end.exit_code).to_owned(),
                    message: results::termination_message(step),
                    started_at: Some(began.to_seconds_string()),
                    finished_at: Some(time.to_seconds_string()),
                    container_id: end.container_id.clone(),
                });
            }
            (None, Some(started)) => {
                state.running =
                    Some(ContainerStateRunning { started_at: Some(started.to_seconds_string()) });
            }
            (None, None) => state.waiting = Some(initializing()),
        }
        state
    }

    /// A step that was cut short: what Tekton writes when it deletes the pod.
    fn stopped_state(&self, step: &StepProgress, verdict: &Verdict) -> ContainerStateTerminated {
        let attempt = &self.attempt;
        let began = step.started.or(attempt.agent_start).or(attempt.start);
        let pod = &attempt.pod_name;
        ContainerStateTerminated {
            exit_code: 1,
            reason: verdict.reason.clone(),
            message: format!("Step {} terminated as pod {pod} is terminated", step.name),
            started_at: began.map(Time::to_seconds_string),
            finished_at: attempt.completion.map(Time::to_seconds_string),
            container_id: match &step.end {
                Some((_, end)) => end.container_id.clone(),
                None => String::new(),
            },
        }
    }
}

fn initializing() -> ContainerStateWaiting {
    ContainerStateWaiting { reason: "PodInitializing".to_owned(), message: String::new() }
}

fn sidecar_state(sidecar: &SidecarProgress) -> SidecarState {
    let mut state = SidecarState {
        name: sidecar.name.clone(),
        container: format!("sidecar-{}", sidecar.name),
        ..SidecarState::default()
    };
    match (&sidecar.end, sidecar.started) {
        (Some(end), started) => {
            state.image_id = end.image_id.clone();
            let reason = match end.exit_code {
                _ if end.oom_killed => "OOMKilled",
                0 => "Completed",
                _ if end.stopped => "Completed",
                _ => "Error",
            };
            let message = "Sidecar container successfully stopped by nop image";
            state.terminated = Some(ContainerStateTerminated {
                exit_code: end.exit_code,
                reason: reason.to_owned(),
                message: if end.stopped { message } else { "" }.to_owned(),
                started_at: Some(started.unwrap_or(end.time).to_seconds_string()),
                finished_at: Some(end.time.to_seconds_string()),
                container_id: end.container_id.clone(),
            });
        }
        (None, Some(started)) => {
            state.running =
                Some(ContainerStateRunning { started_at: Some(started.to_seconds_string()) });
        }
        (None, None) => state.waiting = Some(initializing()),
    }
    state
}
