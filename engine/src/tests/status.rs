//! A TaskRun's status: reasons, messages, steps and sidecars.

use serde_json::json;

use super::sim::*;
use crate::Report;
use crate::report::{Ending, Outcome, StepEnd};

fn two_steps() -> Sim {
    Sim::new(task_run(json!({"taskSpec": {
        "results": [{"name": "r", "type": "string"}],
        "steps": [
            {"name": "one", "image": "busybox", "script": "echo"},
            {"name": "two", "image": "busybox", "script": "echo"},
        ],
        "sidecars": [{"name": "db", "image": "busybox"}],
    }})))
}

fn place(sim: &mut Sim) -> crate::AttemptId {
    sim.settle();
    sim.attempt("tr")
}

/// Ends both steps so, and the sidecar: `(exit code, stopped, out of memory)`.
fn ends(steps: [(i32, Ending); 2], sidecar: Option<(i32, bool, bool)>) -> Sim {
    let mut sim = two_steps().does("tr", &[Does::Hangs]);
    let attempt = place(&mut sim);
    let time = sim.now;
    for (name, (exit_code, ending)) in ["one", "two"].into_iter().zip(steps) {
        let end = StepEnd { step: name.to_owned(), exit_code, ending, ..StepEnd::default() };
        sim.step_ended(&attempt, end);
    }
    if let Some((exit_code, stopped, oom_killed)) = sidecar {
        let sidecar = "db".to_owned();
        sim.report(
            &attempt,
            Report::SidecarEnded {
                time,
                sidecar,
                exit_code,
                stopped,
                oom_killed,
                image_id: String::new(),
                container_id: String::new(),
            },
        );
    }
    sim.end(&attempt, Outcome::Ran);
    sim
}

#[test]
fn reasons_and_messages_follow_teks_priorities() {
    use Ending::*;
    let stopped = Some((0, true, false));
    let killed_by_stop = Some((137, true, false));
    let crashed = Some((2, false, false));
    let sidecar_oom = Some((137, false, true));
    let ok = (0, Completed);
    let cases = [
        ([ok, ok], stopped, "Succeeded", "All Steps have completed executing"),
        ([ok, ok], killed_by_stop, "Succeeded", "All Steps have completed executing"),
        ([(7, Continued), ok], stopped, "Succeeded", "All Steps have completed executing"),
        ([(0, Skipped), ok], stopped, "Succeeded", "All Steps have completed executing"),
        (
            [(3, Error), (1, Skipped)],
            stopped,
            "StepFailed",
            "\"step-one\" exited with code 3: Error",
        ),
        (
            [(1, TimeoutExceeded), (1, Skipped)],
            stopped,
            "StepFailed",
            "\"step-one\" exited because the step exceeded the specified timeout limit",
        ),
        (
            [(137, OomKilled), (1, Skipped)],
            stopped,
            "StepOOM",
            "\"step-one\" exited with code 137: OOMKilled",
        ),
        ([ok, ok], crashed, "SidecarFailed", "\"sidecar-db\" exited with code 2: Error"),
        (
            [(1, Error), (1, Skipped)],
            crashed,
            "SidecarFailed",
            "\"sidecar-db\" exited with code 2: Error",
        ),
        (
            [(137, OomKilled), (1, Skipped)],
            crashed,
            "StepOOM",
            "\"step-one\" exited with code 137: OOMKilled",
        ),
        (
            [(137, OomKilled), (1, Skipped)],
            sidecar_oom,
            "SidecarOOM",
            "\"sidecar-db\" exited with code 137: OOMKilled",
        ),
    ];
    for (steps, sidecar, reason, message) in cases {
        let sim = ends(steps, sidecar);
        let (_, found_reason, found_message) = sim.condition();
        assert_eq!((found_reason.as_str(), found_message.as_str()), (reason, message));
    }
}

#[test]
fn steps_are_shown_as_tekton_shows_them() {
    use Ending::*;
    let cases = [
        ((0, Completed), 0, "Completed", "Completed"),
        ((7, Continued), 7, "Completed", "Continued"),
        ((3, Error), 3, "Error", "Error"),
        ((0, Skipped), 0, "Completed", "Skipped"),
        ((1, Skipped), 1, "Error", "Skipped"),
        ((1, TimeoutExceeded), 1, "Error", "TimeoutExceeded"),
        ((137, OomKilled), 137, "OOMKilled", "OOMKilled"),
    ];
    for (end, exit_code, reason, termination_reason) in cases {
        let sim = ends([end, (0, Completed)], Some((0, true, false)));
        let status = sim.task_runs()["tr"].status.clone().expect("a status");
        let step = &status.steps[0];
        let terminated = step.terminated.as_ref().expect("terminated");
        assert_eq!((step.name.as_str(), step.container.as_str()), ("one", "step-one"));
        assert_eq!(terminated.exit_code, exit_code);
        assert_eq!(terminated.reason, reason);
        assert_eq!(step.termination_reason, termination_reason);
        assert_eq!(status.sidecars[0].container, "sidecar-db");
    }
}

#[test]
fn results_stand_in_the_status_and_in_the_message() {
    let mut sim = two_steps().does("tr", &[Does::Succeeds(writes(&[("r", "v\n")]))]);
    sim.finish();
    let status = sim.task_runs()["tr"].status.clone().expect("a status");
    assert_eq!(status.results.len(), 1);
    assert_eq!(status.results[0].value.as_str(), Some("v\n"));
    let terminated = status.steps[0].terminated.as_ref().expect("terminated");
    assert_eq!(terminated.message, r#"[{"key":"r","value":"v\n","type":1}]"#);
    let end = sim.events.last().expect("run-end");
    assert!(end.results.is_some());
}

#[test]
fn a_result_of_the_wrong_type_fails_a_task_that_succeeded() {
    let mut sim = Sim::new(task_run(json!({"taskSpec": {
        "results": [{"name": "r", "type": "array"}],
        "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
    }})))
    .does("tr", &[Does::Succeeds(writes(&[("r", "hello")]))]);
    let outcome = sim.finish();
    assert!(!outcome.rejected);
    assert_eq!(outcome.reason, "TaskRunValidationFailed");
    assert!(outcome.message.contains("task result is expected to be \"array\" type"));
}

#[test]
fn what_the_agent_refuses_has_tekton_reasons() {
    for (refused, reason) in [
        ("PullImageFailed", "TaskRunImagePullFailed"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
        ("PodCreationFailed", "PodCreationFailed"),
        ("CreateContainerError", "PodCreationFailed"),
    ] {
        let mut sim = two_steps().does("tr", &[Does::IsRefused(refused)]);
        let outcome = sim.finish();
        assert_eq!((outcome.reason.as_str(), outcome.rejected), (reason, false));
    }
}

#[test]
fn a_running_task_run_says_so() {
    let mut sim = two_steps().does("tr", &[Does::Hangs]);
    assert_eq!(sim.condition().1, "Pending");
    place(&mut sim);
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Running"));
    assert_eq!(message, "Not all Steps in the Task have finished executing");
    let status = sim.task_runs()["tr"].status.clone().expect("a status");
    assert!(status.steps[0].running.is_some());
    assert!(status.steps[1].waiting.is_some());
    assert_eq!(status.pod_name, "tr-pod");
    assert!(status.start_time.is_some() && status.completion_time.is_none());
}
