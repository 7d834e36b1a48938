//! Timeouts of TaskRuns and of PipelineRuns.

use serde_json::json;

use super::sim::*;
use crate::event::Status;

#[test]
fn a_task_run_times_out_for_each_attempt_anew() {
    let mut sim = Sim::new(task_run(json!({
        "timeout": "2s",
        "retries": 1,
        "taskSpec": {"steps": [{"name": "s", "image": "busybox", "script": "sleep 60"}]},
    })))
    .does("tr", &[Does::Hangs]);
    let begin = sim.now;
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Timeout);
    assert!(outcome.timed_out);
    assert_eq!(sim.now.0 - begin.0, 4000);
    let (_, reason, message) = sim.condition();
    assert_eq!(reason, "TaskRunTimeout");
    assert_eq!(message, "TaskRun \"tr\" failed to finish within \"2s\"");
    let status = sim.task_runs()["tr"].status.clone().expect("a status");
    assert_eq!(status.retries_status.len(), 1);
    assert_eq!(status.steps[0].termination_reason, "TaskRunTimeout");
}

#[test]
fn a_task_that_no_agent_takes_in_time_was_not_refused() {
    let mut sim = Sim::new(pipeline_run(json!({
        "pipelineSpec": {"tasks": [task("t", &[], json!({"timeout": "1s"}))]},
    })));
    sim.pass_to_deadline();
    let outcome = sim.engine.outcome(sim.run).expect("the end");
    assert_eq!(sim.task_condition("pr-t").1, "TaskRunTimeout");
    assert_eq!((outcome.status, outcome.rejected), (Status::Failed, false));
}

#[test]
fn the_pipeline_timeout_cancels_and_skips_finally() {
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "3s"},
        "pipelineSpec": {
            "tasks": [task("slow", &[], json!({})), task("next", &[], json!({"runAfter": ["slow"]}))],
            "finally": [task("f", &[], json!({}))],
        },
    })))
    .does("slow", &[Does::Hangs]);
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Timeout);
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PipelineRunTimeout"));
    assert_eq!(message, "PipelineRun \"pr\" failed to finish within \"3s\"");
    assert_eq!(
        sim.task_condition("pr-slow").2,
        "TaskRun \"pr-slow\" was cancelled. TaskRun cancelled as the PipelineRun it belongs to has timed out."
    );
    assert_eq!(sim.task_runs().len(), 1);
    assert!(sim.told().contains(&"task-skip f not-run".to_owned()));
}

#[test]
fn the_tasks_timeout_still_runs_finally() {
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "60s", "tasks": "3s", "finally": "30s"},
        "pipelineSpec": {
            "tasks": [task("slow", &[], json!({})), task("next", &[], json!({"runAfter": ["slow"]}))],
            "finally": [task("f", &[], json!({}))],
        },
    })))
    .does("slow", &[Does::Hangs]);
    sim.settle();
    sim.pass_seconds(3);
    assert_eq!(sim.condition().1, "PipelineRunTimeoutRunningFinally");
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Timeout);
    assert_eq!(
        sim.condition().2,
        "PipelineRun \"pr\" failed due to tasks failed to finish within \"3s\""
    );
    assert_eq!(sim.task_condition("pr-slow").1, "TaskRunCancelled");
    assert_eq!(sim.task_condition("pr-f").1, "Succeeded");
}

#[test]
fn the_tasks_timeout_means_nothing_once_the_dag_is_done() {
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "60s", "tasks": "3s"},
        "pipelineSpec": {
            "tasks": [task("quick", &[], json!({}))],
            "finally": [task("f", &[], json!({}))],
        },
    })))
    .does("f", &[Does::Hangs]);
    sim.settle();
    sim.pass_seconds(10);
    let attempt = sim.attempt("f");
    let end = crate::report::StepEnd { step: "s".to_owned(), ..Default::default() };
    sim.step_ended(&attempt, end);
    sim.end(&attempt, crate::report::Outcome::Ran);
    assert_eq!(sim.finish().status, Status::Succeeded);
}

#[test]
fn the_finally_timeout_fails_the_run() {
    // Unset, it is what the pipeline's leaves after the tasks'.
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "10s", "tasks": "6s"},
        "pipelineSpec": {
            "tasks": [task("quick", &[], json!({}))],
            "finally": [task("f", &[], json!({}))],
        },
    })))
    .does("f", &[Does::Hangs]);
    let begin = sim.now;
    let outcome = sim.finish();
    assert_eq!(sim.now.0 - begin.0, 4000);
    assert_eq!(outcome.status, Status::Failed);
    assert_eq!(sim.condition().1, "Failed");
    assert_eq!(sim.condition().2, "Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 0");
    assert_eq!(sim.task_condition("pr-f").1, "TaskRunCancelled");
}

#[test]
fn zero_is_no_timeout() {
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "0s"},
        "pipelineSpec": {"tasks": [task("slow", &[], json!({"timeout": "0s"}))]},
    })))
    .does("slow", &[Does::Hangs]);
    sim.settle();
    assert_eq!(sim.engine.next_deadline(), None);
}

#[test]
fn the_default_is_an_hour_and_counts_from_leaving_the_queue() {
    let mut submission = pipeline_run(json!({
        "timeouts": {"pipeline": "0s"},
        "pipelineSpec": {"tasks": [task("a", &[], json!({})), task("b", &[], json!({}))]},
    }));
    submission.parallel = Some(1);
    let mut sim = Sim::new(submission).does("a", &[Does::Hangs]).does("b", &[Does::Hangs]);
    let begin = sim.now;
    sim.finish();
    assert_eq!(sim.now.0 - begin.0, 2 * 3_600_000);
    assert_eq!(sim.task_condition("pr-b").1, "TaskRunTimeout");
}
