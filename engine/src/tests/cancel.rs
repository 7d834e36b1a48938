//! Ending a run early, in its three ways.

use serde_json::json;

use super::sim::*;
use crate::Work;
use crate::command::CancelMode;
use crate::event::Status;
use crate::report::{Ending, Outcome, StepEnd};

/// `slow` hangs, `next` waits for it, `report` is `finally`.
fn hanging() -> Sim {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [task("slow", &[], json!({"retries": 3})), task("next", &[], json!({"runAfter": ["slow"]}))],
        "finally": [task("report", &[], json!({}))],
    })))
    .does("slow", &[Does::Hangs]);
    sim.settle();
    sim
}

#[test]
fn cancelled_stops_everything_and_skips_finally() {
    let mut sim = hanging();
    sim.cancel(CancelMode::Cancelled);
    assert!(matches!(sim.engine.pending_work()[..], [Work::Stop { .. }]));
    assert!(sim.engine.outcome(sim.run).is_none(), "not before the agent confirms");
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Cancelled);
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Cancelled"));
    assert_eq!(message, "PipelineRun \"pr\" was cancelled");
    assert_eq!(
        sim.task_condition("pr-slow"),
        (
            "False".to_owned(),
            "TaskRunCancelled".to_owned(),
            "TaskRun \"pr-slow\" was cancelled. TaskRun cancelled as the PipelineRun it belongs to has been cancelled.".to_owned()
        )
    );
    assert_eq!(
        sim.task_runs().len(),
        1,
        "cancelled TaskRuns are not retried, finally does not run"
    );
    assert_eq!(sim.pipeline_run().spec.status, "Cancelled");
    assert!(sim.skipped().is_empty());
    assert_eq!(
        sim.told()[2..],
        [
            "task-end slow cancelled",
            "task-skip next not-run",
            "task-skip report not-run",
            "run-end cancelled"
        ]
    );
}

#[test]
fn what_no_agent_was_given_begins_and_ends_when_it_is_cancelled() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [task("t", &[], json!({}))]})));
    sim.pass_seconds(60);
    sim.cancel(CancelMode::Cancelled);
    sim.finish();
    assert_eq!(
        sim.told(),
        ["run-start", "task-start t", "task-end t cancelled", "run-end cancelled"]
    );
    assert!(sim.events.is_sorted_by_key(|event| event.time));
    assert_eq!(sim.events[2].duration_ms, Some(0));
}

#[test]
fn cancelled_run_finally_stops_tasks_and_runs_finally() {
    let mut sim = hanging();
    sim.cancel(CancelMode::CancelledRunFinally);
    assert_eq!(sim.condition().1, "CancelledRunningFinally");
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Cancelled);
    assert_eq!(sim.condition().1, "Cancelled");
    assert_eq!(sim.task_condition("pr-report").0, "True");
    // The cancelled TaskRun counts as a failure of the DAG: Tekton's own words win.
    assert_eq!(sim.skipped(), map(&[("next", "PipelineRun was stopping")]));
}

#[test]
fn stopped_run_finally_lets_running_tasks_finish() {
    let mut sim = hanging();
    sim.cancel(CancelMode::StoppedRunFinally);
    assert_eq!(sim.condition().1, "StoppedRunningFinally");
    let work = sim.engine.pending_work();
    assert!(work.is_empty(), "nothing is stopped: {work:?}");
    let slow = sim.attempt("slow");
    let step = "s".to_owned();
    sim.step_ended(&slow, StepEnd { step, ..StepEnd::default() });
    sim.end(&slow, Outcome::Ran);
    sim.finish();
    assert_eq!(sim.condition().1, "Cancelled");
    assert_eq!(sim.task_condition("pr-slow").1, "Succeeded");
    assert_eq!(sim.task_condition("pr-report").1, "Succeeded");
    assert_eq!(sim.skipped(), map(&[("next", "PipelineRun was gracefully stopped")]));
}

#[test]
fn stopped_run_finally_after_a_failure_is_failed() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [task("slow", &[], json!({}))]})))
        .does("slow", &[Does::Hangs]);
    sim.settle();
    sim.cancel(CancelMode::StoppedRunFinally);
    let slow = sim.attempt("slow");
    sim.end(&slow, Outcome::Ran);
    assert_eq!(sim.finish().status, Status::Failed);
    assert_eq!(sim.condition().1, "Failed");
}

#[test]
fn a_harder_mode_replaces_a_softer_one_only() {
    let mut sim = hanging();
    sim.cancel(CancelMode::StoppedRunFinally);
    sim.cancel(CancelMode::Cancelled);
    sim.cancel(CancelMode::CancelledRunFinally);
    assert_eq!(sim.finish().status, Status::Cancelled);
    assert_eq!(sim.task_runs().len(), 1);
}

#[test]
fn cancelling_twice_is_cancelling_once() {
    for mode in
        [CancelMode::Cancelled, CancelMode::CancelledRunFinally, CancelMode::StoppedRunFinally]
    {
        let mut sim = hanging();
        sim.cancel(mode);
        let (engine, told) = (sim.engine.clone(), sim.events.len());
        sim.cancel(mode);
        assert_eq!((&sim.engine, sim.events.len()), (&engine, told), "{mode:?}");
    }
    let mut sim = hanging();
    sim.cancel(CancelMode::Cancelled);
    sim.finish();
    let told = sim.events.len();
    sim.cancel(CancelMode::Cancelled);
    assert_eq!(sim.events.len(), told, "a run that is over stays as it ended");
}

#[test]
fn each_harder_mode_does_what_is_left_to_do() {
    let mut sim = hanging().does("report", &[Does::Hangs]);
    sim.cancel(CancelMode::StoppedRunFinally);
    assert!(sim.engine.pending_work().is_empty(), "running tasks finish");
    assert_eq!(sim.condition().1, "StoppedRunningFinally");
    sim.cancel(CancelMode::CancelledRunFinally);
    assert!(matches!(sim.engine.pending_work()[..], [Work::Stop { .. }]), "now they are stopped");
    sim.settle();
    assert_eq!(sim.condition().1, "CancelledRunningFinally");
    assert_eq!(sim.pipeline_run().spec.status, "CancelledRunFinally");
    let report = sim.attempt("report");
    sim.cancel(CancelMode::Cancelled);
    let work = sim.engine.pending_work();
    assert!(
        matches!(&work[..], [Work::Stop { attempt, .. }] if *attempt == report),
        "finally is stopped too: {work:?}"
    );
    assert_eq!(sim.finish().status, Status::Cancelled);
    assert_eq!(sim.task_condition("pr-report").1, "TaskRunCancelled");
    assert_eq!(sim.condition().1, "Cancelled");
}

#[test]
fn a_cancelled_task_run_says_why_and_marks_its_steps() {
    let mut sim = Sim::new(task_run(json!({
        "retries": 2,
        "taskSpec": {"steps": [
            {"name": "one", "image": "busybox", "script": "sleep 60"},
            {"name": "two", "image": "busybox", "script": "echo"},
        ]},
    })))
    .does("tr", &[Does::Hangs]);
    sim.settle();
    sim.cancel(CancelMode::Cancelled);
    let attempt = sim.attempt("tr");
    let end = StepEnd {
        step: "one".to_owned(),
        exit_code: 137,
        ending: Ending::Cancelled,
        ..StepEnd::default()
    };
    sim.step_ended(&attempt, end);
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Cancelled);
    let (_, reason, message) = sim.condition();
    assert_eq!(reason, "TaskRunCancelled");
    assert_eq!(message, "TaskRun \"tr\" was cancelled. by a test");
    let status = sim.task_runs()["tr"].status.clone().expect("a status");
    for step in &status.steps {
        let terminated = step.terminated.as_ref().expect("terminated");
        assert_eq!(terminated.exit_code, 1);
        assert_eq!(terminated.reason, "TaskRunCancelled");
        assert_eq!(step.termination_reason, "TaskRunCancelled");
        let name = &step.name;
        assert_eq!(
            terminated.message,
            format!("Step {name} terminated as pod tr-pod is terminated")
        );
    }
}

#[test]
fn what_waits_in_the_queue_or_for_an_agent_is_cancelled_at_once() {
    let tasks: Vec<_> = (0..3).map(|i| task(&format!("t{i}"), &[], json!({}))).collect();
    let mut submission = pipeline(json!({"tasks": tasks}));
    submission.parallel = Some(1);
    let mut sim = Sim::new(submission);
    sim.cancel(CancelMode::Cancelled);
    assert_eq!(sim.engine.outcome(sim.run).expect("over").status, Status::Cancelled);
    assert_eq!(sim.status().child_references.len(), 3);
    assert!(sim.task_runs()["pr-t0"].status.as_ref().expect("a status").pod_name.is_empty());
}

#[test]
fn a_step_that_ended_before_the_stop_came_through_counts() {
    let mut sim = hanging();
    sim.cancel(CancelMode::CancelledRunFinally);
    let slow = sim.attempt("slow");
    let step = "s".to_owned();
    sim.step_ended(&slow, StepEnd { step, ..StepEnd::default() });
    sim.end(&slow, Outcome::Ran);
    assert_eq!(sim.task_condition("pr-slow").1, "Succeeded");
    sim.finish();
    assert_eq!(sim.condition().1, "Cancelled");
}

#[test]
fn an_abandoned_run_ends_as_infrastructure_failure() {
    let mut sim = hanging();
    sim.apply(crate::Command::Abandon {
        time: sim.now,
        run: sim.run,
        message: "the coordinator died".to_owned(),
    });
    let outcome = sim.engine.outcome(sim.run).expect("over");
    assert_eq!(outcome.status, Status::InfraFailed);
    assert_eq!(sim.told().last().map(String::as_str), Some("run-end infrafailed"));
    assert_eq!(sim.condition().2, "the coordinator died");
    assert!(matches!(sim.engine.pending_work()[..], [Work::EndRun { .. }]));
    assert!(sim.engine.remove(sim.run));
    assert!(sim.engine.pending_work().is_empty());
}
