//! What the containers of a finished attempt add up to: Tekton's reason and message, by its
//! order of priority (sidecar before step, out of memory before plain failure).

use super::{SidecarProgress, StepProgress, TaskRunState, Verdict, VerdictKind};
use crate::report::Ending;

const OOM_KILLED: &str = "OOMKilled";

/// The verdict of steps and sidecars, all of which have ended; keeps the results.
pub(super) fn of_containers(task_run: &mut TaskRunState) -> Verdict {
    let collected = super::results::collect(task_run);
    task_run.attempt.results = collected.results;
    if let Some(rejection) = collected.rejection {
        return Verdict {
            kind: VerdictKind::Failed,
            reason: rejection.reason.to_owned(),
            message: rejection.message,
        };
    }
    let attempt = &task_run.attempt;
    match failure(&attempt.steps, &attempt.sidecars) {
        Some((reason, message)) => Verdict {
            kind: VerdictKind::Failed,
            reason: if task_run.failure_ignored {
                "FailureIgnored".to_owned()
            } else {
                reason.to_owned()
            },
            message,
        },
        None => Verdict {
            kind: VerdictKind::Succeeded,
            reason: "Succeeded".to_owned(),
            message: "All Steps have completed executing".to_owned(),
        },
    }
}

/// Tekton's reason and message, when the pod counts as failed.
fn failure(steps: &[StepProgress], sidecars: &[SidecarProgress]) -> Option<(&'static str, String)> {
    let failed_step = steps.iter().find(|step| step_failure(step).is_some());
    // A pod whose steps all succeeded fails only when nothing of it runs any more, that is when
    // every sidecar had ended by itself.
    let crashed = |sidecar: &&SidecarProgress| {
        let end = sidecar.end.as_ref();
        end.is_some_and(|end| !end.stopped && end.exit_code != 0)
    };
    let crashed_sidecar = sidecars.iter().find(crashed);
    let all_gone =
        sidecars.iter().all(|sidecar| sidecar.end.as_ref().is_some_and(|end| !end.stopped));
    if failed_step.is_none() && (crashed_sidecar.is_none() || !all_gone) {
        return None;
    }
    let oom_sidecar = sidecars
        .iter()
        .find(|sidecar| sidecar.end.as_ref().is_some_and(|end| end.oom_killed && !end.stopped));
    let oom_step = steps.iter().find(|step| {
        let end = step.end.as_ref();
        end.is_some_and(|(_, end)| end.ending == Ending::OomKilled)
    });
    if let Some(sidecar) = oom_sidecar {
        return Some(("SidecarOOM", sidecar_message(sidecar)));
    }
    if let Some(step) = oom_step {
        return Some(("StepOOM", step_failure(step).unwrap_or_default()));
    }
    if let Some(sidecar) = crashed_sidecar {
        return Some(("SidecarFailed", sidecar_message(sidecar)));
    }
    let message = failed_step.and_then(step_failure).unwrap_or_default();
    Some(("StepFailed", message))
}

fn sidecar_message(sidecar: &SidecarProgress) -> String {
    let (code, reason) = sidecar.end.as_ref().map_or((1, "Error"), |end| {
        let reason = if end.oom_killed { OOM_KILLED } else { "Error" };
        (end.exit_code, reason)
    });
    let name = &sidecar.name;
    format!("\"sidecar-{name}\" exited with code {code}: {reason}")
}

/// Tekton's text for a step whose container failed; `None` for one that did not.
fn step_failure(step: &StepProgress) -> Option<String> {
    let name = &step.name;
    let Some((_, end)) = &step.end else {
        return Some(format!("\"step-{name}\" exited with code 1: Error"));
    };
    match end.ending {
        Ending::Completed | Ending::Continued => None,
        Ending::Skipped if end.exit_code == 0 => None,
        Ending::TimeoutExceeded => Some(format!(
            "\"step-{name}\" exited because the step exceeded the specified timeout limit"
        )),
        Ending::OomKilled | Ending::Error | Ending::Skipped | Ending::Cancelled => {
            let code = end.exit_code;
            let reason = terminated_reason(end.ending, code);
            Some(format!("\"step-{name}\" exited with code {code}: {reason}"))
        }
    }
}

/// The container runtime's word for how a step's container ended.
pub(super) fn terminated_reason(ending: Ending, exit_code: i32) -> &'static str {
    match ending {
        Ending::Completed | Ending::Continued => "Completed",
        Ending::OomKilled => OOM_KILLED,
        _ if exit_code == 0 => "Completed",
        _ => "Error",
    }
}

/// The condition's reason for what an agent refused: pods wait with one word, TaskRuns fail with
/// another.
pub(super) fn refused_reason(reason: &str) -> &str {
    match reason {
        "PullImageFailed" | "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" => {
            "TaskRunImagePullFailed"
        }
        "CreateContainerError" | "" => "PodCreationFailed",
        other => other,
    }
}
