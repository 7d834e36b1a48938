//! Which tasks run, in which order, and why others do not.

use serde_json::json;

use super::sim::*;
use crate::event::Kind;
use crate::event::Status;

#[test]
fn a_diamond_runs_in_order_and_reports_its_counts() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("a", &[], json!({})),
        task("b", &[], json!({"runAfter": ["a"]})),
        task("c", &[], json!({"runAfter": ["a"]})),
        task("d", &[], json!({"runAfter": ["b", "c"]})),
    ]})));
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::Succeeded);
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Succeeded"));
    assert_eq!(message, "Tasks Completed: 4 (Failed: 0, Cancelled 0), Skipped: 0");
    let ends: Vec<String> = sim
        .events
        .iter()
        .filter(|event| event.kind == Kind::TaskEnd)
        .filter_map(|event| event.task.clone())
        .collect();
    assert_eq!(ends, ["a", "b", "c", "d"]);
}

#[test]
fn when_skips_do_not_skip_ordering_dependents_but_result_consumers() {
    let not = json!([{"input": "x", "operator": "in", "values": ["y"]}]);
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("produce", &["r"], json!({"when": not})),
        task("after", &[], json!({"runAfter": ["produce"]})),
        task("consume", &[], json!({"params": [{"name": "p", "value": "$(tasks.produce.results.r)"}]})),
        task("behind", &[], json!({"runAfter": ["consume"]})),
    ]})));
    sim.finish();
    let expected = [
        ("produce", "When Expressions evaluated to false"),
        ("consume", "Results were missing"),
        ("behind", "Parent Tasks were skipped"),
    ];
    assert_eq!(sim.skipped(), map(&expected));
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Completed"));
    assert_eq!(message, "Tasks Completed: 1 (Failed: 0, Cancelled 0), Skipped: 3");
    assert_eq!(sim.status().child_references.len(), 1);
}

#[test]
fn a_failure_stops_the_dag_lets_siblings_finish_and_runs_finally() {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [
            task("bad", &[], json!({})),
            task("sibling", &[], json!({})),
            task("next", &[], json!({"runAfter": ["bad"]})),
            task("never", &[], json!({"runAfter": ["sibling"], "when": [{"input": "a", "operator": "in", "values": ["b"]}]})),
        ],
        "finally": [task("report", &[], json!({"params": [
            {"name": "bad", "value": "$(tasks.bad.status)/$(tasks.bad.reason)"},
            {"name": "next", "value": "$(tasks.next.status)"},
            {"name": "all", "value": "$(tasks.status)"},
        ]}))],
    })))
    .does("bad", &[fails()])
    .does("sibling", &[Does::Hangs]);
    sim.settle();
    assert!(!sim.task_runs().contains_key("pr-report"));
    let sibling = sim.attempt("sibling");
    sim.end(&sibling, crate::report::Outcome::Ran);
    sim.finish();
    assert_eq!(
        sim.skipped(),
        map(&[("next", "PipelineRun was stopping"), ("never", "PipelineRun was stopping")])
    );
    let report = &sim.task_runs()["pr-report"];
    let params: Vec<_> =
        report.spec.params.iter().filter_map(|param| param.value.as_str()).collect();
    assert_eq!(params, ["Failed/StepFailed", "None", "Failed"]);
    assert_eq!(sim.condition().1, "Failed");
    assert!(sim.status().finally_start_time.is_some());
}

#[test]
fn retries_happen_in_the_same_task_run() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [task("t", &[], json!({"retries": 3}))]})))
        .does("t", &[fails(), fails(), succeeds()]);
    sim.finish();
    let runs = sim.task_runs();
    assert_eq!(runs.len(), 1);
    let status = runs["pr-t"].status.clone().expect("a status");
    assert_eq!(status.retries_status.len(), 2);
    assert_eq!(status.pod_name, "pr-t-pod-retry2");
    assert_eq!(status.retries_status[0].conditions[0].reason, "StepFailed");
    assert!(status.retries_status[1].retries_status.is_empty());
    assert_eq!(status.conditions[0].reason, "Succeeded");
    assert_eq!(
        sim.told(),
        [
            "run-start",
            "task-start t",
            "task-retry t failed",
            "task-start t",
            "task-retry t failed",
            "task-start t",
            "task-end t succeeded",
            "run-end succeeded"
        ]
    );
}

#[test]
fn exhausted_retries_fail_with_all_attempts_kept() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [task("t", &[], json!({"retries": 2}))]})))
        .does("t", &[fails()]);
    sim.finish();
    let status = sim.task_runs()["pr-t"].status.clone().expect("a status");
    assert_eq!(status.retries_status.len(), 2);
    assert_eq!(sim.task_condition("pr-t").1, "StepFailed");
    assert_eq!(sim.condition().1, "Failed");
}

#[test]
fn an_ignored_failure_counts_but_does_not_fail_the_run() {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [
            task("ign", &[], json!({"onError": "continue"})),
            task("dep", &[], json!({"runAfter": ["ign"]})),
        ],
        "finally": [task("f", &[], json!({"params": [
            {"name": "p", "value": "$(tasks.ign.status)/$(tasks.ign.reason)/$(tasks.status)"},
        ]}))],
    })))
    .does("ign", &[fails()]);
    sim.finish();
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Succeeded"));
    assert_eq!(message, "Tasks Completed: 3 (Failed: 1 (Ignored: 1), Cancelled 0), Skipped: 0");
    assert_eq!(sim.task_condition("pr-ign").1, "FailureIgnored");
    let told = sim.task_runs()["pr-f"].spec.params[0].value.clone();
    assert_eq!(told.as_str(), Some("Failed/FailureIgnored/Failed"));
}

#[test]
fn a_result_missing_from_a_successful_task_fails_the_run() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("a", &["r"], json!({})),
        task("b", &[], json!({"params": [{"name": "p", "value": "$(tasks.a.results.r)"}]})),
        task("c", &[], json!({"runAfter": ["b"]})),
    ]})));
    let outcome = sim.finish();
    assert!(!outcome.rejected);
    let (_, reason, message) = sim.condition();
    assert_eq!(reason, "PipelineValidationFailed");
    assert_eq!(
        message,
        "Tasks Completed: 1 (Failed: 0, Cancelled 0), Skipped: 1, Failed Validation: 1 (task \"a\" completed successfully but did not emit the result \"r\", which is referenced by task \"b\")"
    );
    assert_eq!(sim.skipped(), map(&[("c", "PipelineRun was stopping")]));
}

#[test]
fn results_of_failed_tasks_reach_finally_and_the_pipeline() {
    let mut sim = Sim::new(pipeline(json!({
        "results": [{"name": "kept", "value": "$(tasks.t.results.a)"}],
        "tasks": [task("t", &["a", "b"], json!({}))],
        "finally": [
            task("f1", &[], json!({"params": [{"name": "p", "value": "$(tasks.t.results.a)"}]})),
            task("f2", &[], json!({"params": [{"name": "p", "value": "$(tasks.t.results.b)"}]})),
        ],
    })))
    .does("t", &[Does::Fails(1, writes(&[("a", "123")]))]);
    sim.finish();
    assert_eq!(sim.skipped(), map(&[("f2", "Results were missing")]));
    let results = sim.status().results;
    assert_eq!(results[0].value.as_str(), Some("123"));
    assert_eq!(sim.task_runs()["pr-f1"].spec.params[0].value.as_str(), Some("123"));
    let end = sim.events.last().expect("run-end");
    assert_eq!(end.results.as_ref().expect("results").len(), 1);
}

#[test]
fn a_matrix_fans_out_and_in() {
    let values: Vec<String> = (0..11).map(|i| format!("v{i}")).collect();
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("m", &["r"], json!({"matrix": {"params": [{"name": "p", "value": values}]}})),
        json!({
            "name": "in",
            "params": [{"name": "all", "value": ["$(tasks.m.results.r[*])"]}],
            "taskSpec": {
                "params": [{"name": "all", "type": "array"}],
                "steps": [{"name": "s", "image": "busybox", "command": ["echo"], "args": ["$(params.all[*])"]}],
            },
        }),
    ]})));
    for i in 0..11 {
        let results = writes(&[("r", &format!("{i}"))]);
        sim = sim.does(&format!("m-{i}"), &[Does::Succeeds(results)]);
    }
    sim.finish();
    assert_eq!(sim.condition().0, "True");
    let param = sim.task_runs()["pr-in"].spec.params[0].value.clone();
    let expected = ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"];
    let expected = expected.map(str::to_owned).to_vec();
    assert_eq!(param, tenon_tekton::v1::ParamValue::Array(expected));
    let start = sim.events.iter().find(|event| event.kind == Kind::TaskStart);
    let cell = start.and_then(|event| event.matrix.clone()).expect("a cell");
    assert_eq!((cell.parent.as_str(), cell.index, cell.of), ("m", 0, 11));
    for event in &sim.events {
        let of_task = matches!(event.kind, Kind::TaskStart | Kind::TaskEnd);
        if of_task && event.task.as_deref() == Some("m") {
            assert!(event.matrix.is_some());
        }
    }
}

#[test]
fn an_empty_matrix_is_skipped_and_one_combination_has_no_index() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("none", &[], json!({"matrix": {"params": [{"name": "p", "value": []}]}})),
        task("one", &[], json!({"matrix": {"params": [{"name": "p", "value": ["x"]}]}})),
    ]})));
    sim.finish();
    let reason = "Matrix Parameters have an empty array";
    assert_eq!(sim.skipped(), map(&[("none", reason)]));
    assert_eq!(sim.condition().1, "Completed");
    assert_eq!(sim.task_runs().keys().collect::<Vec<_>>(), ["pr-one"]);
}

#[test]
fn at_most_so_many_attempts_at_a_time() {
    let tasks: Vec<_> = (0..5).map(|i| task(&format!("t{i}"), &[], json!({}))).collect();
    let mut submission = pipeline(json!({"tasks": tasks}));
    submission.parallel = Some(2);
    let mut sim = Sim::new(submission);
    for i in 0..5 {
        sim = sim.does(&format!("t{i}"), &[Does::Hangs]);
    }
    sim.settle();
    assert_eq!(sim.engine.placed().count(), 2);
    let first = sim.attempt("t0");
    sim.end(&first, crate::report::Outcome::Ran);
    sim.settle();
    let running: Vec<String> = sim.engine.placed().map(|(id, _)| id.task_run).collect();
    assert_eq!(running, ["pr-t1", "pr-t2"], "a failure stops what waits, not what is ready");
}

#[test]
fn infrastructure_failures_never_cost_a_retry() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [task("t", &[], json!({"retries": 5}))]})))
        .does("t", &[Does::IsLost]);
    let outcome = sim.finish();
    assert_eq!(outcome.status, Status::InfraFailed);
    let losses = sim.events.iter().filter(|event| event.kind == Kind::TaskLost);
    assert_eq!(losses.count(), 3);
    let end = sim.events.iter().find(|event| event.kind == Kind::TaskEnd).expect("task-end");
    assert_eq!((end.attempt, end.placement), (Some(1), Some(4)));
    assert_eq!(end.reason.as_deref(), Some("infra/test"));
    let status = sim.task_runs()["pr-t"].status.clone().expect("a status");
    assert!(status.retries_status.is_empty());
}

#[test]
fn a_custom_task_waits_for_a_controller_until_the_timeout() {
    let mut sim = Sim::new(pipeline_run(json!({
        "timeouts": {"pipeline": "5s"},
        "pipelineSpec": {"tasks": [{"name": "c", "taskRef": {"apiVersion": "example.dev/v1", "kind": "Wait", "name": "w"}}]},
    })));
    let outcome = sim.finish();
    assert!(outcome.timed_out);
    let references = sim.status().child_references;
    assert_eq!(references[0].kind, "CustomRun");
    assert_eq!(references[0].name, "pr-c");
    let objects = sim.engine.objects(sim.run);
    let tenon_tekton::Object::CustomRun(run) = &objects[1] else {
        panic!("no CustomRun");
    };
    assert_eq!(run.spec.status, "RunCancelled");
    let condition = &run.status.as_ref().expect("a status").conditions[0];
    assert_eq!(condition.reason, "CustomRunCancelled");
}

#[test]
fn results_reach_scripts_and_matrix_lengths_reach_params() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("a", &["r"], json!({})),
        json!({
            "name": "b",
            "taskSpec": {"steps": [{"name": "s", "image": "busybox", "script": "echo $(tasks.a.results.r)"}]},
        }),
        task("m", &["r"], json!({"matrix": {"params": [{"name": "p", "value": ["x", "y", "z"]}]}})),
        task("n", &[], json!({
            "runAfter": ["m"],
            "params": [{"name": "q", "value": "$(tasks.m.matrix.length)/$(tasks.m.matrix.r.length)"}],
        })),
    ]})))
    .does("a", &[Does::Succeeds(writes(&[("r", "hello")]))])
    .does("m-1", &[Does::Succeeds(writes(&[("r", "1")]))]);
    sim.finish();
    let runs = sim.task_runs();
    let spec = runs["pr-b"].spec.task_spec.as_ref().expect("an embedded spec");
    assert_eq!(spec.steps[0].script, "echo hello");
    let ends: Vec<&str> = sim
        .events
        .iter()
        .filter(|event| event.kind == Kind::TaskEnd)
        .filter_map(|event| event.task.as_deref())
        .collect();
    assert!(ends.iter().position(|t| *t == "a") < ends.iter().position(|t| *t == "b"));
    assert_eq!(runs["pr-n"].spec.params[0].value.as_str(), Some("3/1"));
}

#[test]
fn a_pipeline_result_that_a_successful_task_did_not_write_fails_the_run() {
    let mut sim = Sim::new(pipeline(json!({
        "results": [{"name": "out", "value": "$(tasks.a.results.r)"}],
        "tasks": [task("a", &["r"], json!({}))],
    })));
    sim.finish();
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "CouldntGetPipelineResult"));
    assert!(message.contains("invalid pipelineresults [out]"), "{message}");
}

#[test]
fn final_tasks_have_skip_rules_of_their_own() {
    let not = json!([{"input": "$(tasks.a.status)", "operator": "in", "values": ["Failed"]}]);
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [task("a", &["r"], json!({}))],
        "finally": [
            task("when", &[], json!({"when": not})),
            task("empty", &[], json!({"matrix": {"params": [{"name": "p", "value": []}]}})),
            task("lacks", &[], json!({"params": [{"name": "p", "value": "$(tasks.a.results.r)"}]})),
            task("runs", &[], json!({})),
        ],
    })));
    sim.finish();
    assert_eq!(
        sim.skipped(),
        map(&[
            ("when", "When Expressions evaluated to false"),
            ("empty", "Matrix Parameters have an empty array"),
            ("lacks", "Results were missing"),
        ])
    );
    assert_eq!(sim.condition().1, "Completed");
    let with_when: Vec<String> = sim
        .status()
        .skipped_tasks
        .into_iter()
        .filter(|task| !task.when_expressions.is_empty())
        .map(|task| task.name)
        .collect();
    assert_eq!(with_when, ["when"]);
}

#[test]
fn a_failing_final_task_fails_the_run() {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [task("a", &[], json!({}))],
        "finally": [task("f", &[], json!({})), task("g", &[], json!({}))],
    })))
    .does("f", &[fails()]);
    sim.finish();
    assert_eq!(sim.condition().1, "Failed");
    assert_eq!(sim.task_condition("pr-g").1, "Succeeded");
}

#[test]
fn one_failed_combination_fails_the_matrix_when_all_are_done() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("m", &[], json!({"matrix": {"params": [{"name": "p", "value": ["x", "y"]}]}})),
        task("next", &[], json!({"runAfter": ["m"]})),
    ]})))
    .does("m-0", &[fails()])
    .does("m-1", &[Does::Hangs]);
    sim.settle();
    assert!(sim.skipped().is_empty(), "not stopping while one of them runs");
    assert_eq!(sim.condition().1, "Running");
    let other = sim.attempt("m-1");
    let step = crate::report::StepEnd { step: "s".to_owned(), ..Default::default() };
    sim.step_ended(&other, step);
    sim.end(&other, crate::report::Outcome::Ran);
    assert_eq!(sim.finish().status, Status::Failed);
    assert_eq!(sim.skipped(), map(&[("next", "PipelineRun was stopping")]));
    assert_eq!(sim.condition().2, "Tasks Completed: 1 (Failed: 1, Cancelled 0), Skipped: 1");
}

#[test]
fn display_names_and_when_stand_in_child_references() {
    let yes = json!([{"input": "$(tasks.a.results.r)", "operator": "in", "values": ["go"]}]);
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("a", &["r"], json!({})),
        task("b", &[], json!({"when": yes, "displayName": "The $(tasks.a.results.r)"})),
    ]})))
    .does("a", &[Does::Succeeds(writes(&[("r", "go")]))]);
    sim.finish();
    let references = sim.status().child_references;
    let b = &references[1];
    assert_eq!((b.name.as_str(), b.display_name.as_str()), ("pr-b", "The go"));
    assert_eq!(b.when_expressions[0].input, "go");
    assert_eq!((b.kind.as_str(), b.api_version.as_str()), ("TaskRun", "tekton.dev/v1"));
}
