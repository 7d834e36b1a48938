//! What ends a run in the middle: values that cannot be, found only when results are there.

use serde_json::json;

use super::sim::*;
use crate::Work;
use crate::event::Status;

/// `a` writes an array, `slow` hangs beside it, and `b` is given.
fn with(b: serde_json::Value) -> Sim {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [
            {
                "name": "a",
                "taskSpec": {
                    "results": [{"name": "list", "type": "array"}, {"name": "text", "type": "string"}],
                    "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
                },
            },
            task("slow", &[], json!({})),
            b,
        ],
        "finally": [task("f", &[], json!({}))],
    })))
    .does("slow", &[Does::Hangs])
    .does("a", &[Does::Succeeds(writes(&[("list", "[\"x\",\"y\"]"), ("text", "t")]))]);
    while !sim.told().contains(&"task-end a succeeded".to_owned()) {
        sim.settle();
    }
    sim
}

fn ends(mut sim: Sim, reason: &str, message: &str) {
    let outcome = sim.finish();
    assert_eq!((outcome.status, outcome.rejected), (Status::Failed, false));
    assert_eq!(outcome.reason, reason);
    assert!(outcome.message.contains(message), "{}", outcome.message);
    assert_eq!(sim.task_condition("pr-slow").1, "TaskRunCancelled");
    assert!(!sim.task_runs().contains_key("pr-f"));
    super::events::check_order(&sim.events);
    assert!(matches!(sim.engine.pending_work()[..], [Work::EndRun { .. }]));
}

#[test]
fn an_index_behind_the_end_of_an_array() {
    let params = json!([{"name": "p", "value": "$(tasks.a.results.list[2])"}]);
    let sim = with(task("b", &[], json!({"params": params})));
    let message = "array Result Index 2 for Task a Result list is out of bound of size 2";
    ends(sim, "PipelineValidationFailed", message);
}

#[test]
fn a_matrix_over_something_that_is_no_array() {
    let b = json!({
        "name": "b",
        "matrix": {"params": [{"name": "p", "value": "$(tasks.a.results.text)"}]},
        "taskSpec": {
            "params": [{"name": "p", "type": "string"}],
            "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
        },
    });
    ends(with(b), "InvalidMatrixParameterTypes", "but param \"p\" has type \"string\"");
}

#[test]
fn a_matrix_that_fans_out_too_far() {
    let values: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    let b = json!({
        "name": "b",
        "matrix": {"params": [
            {"name": "p", "value": "$(tasks.a.results.list[*])"},
            {"name": "q", "value": values},
        ]},
        "taskSpec": {
            "params": [{"name": "p", "type": "string"}, {"name": "q", "type": "string"}],
            "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
        },
    });
    ends(with(b), "PipelineValidationFailed", "expected 0 <= 400 <= 256");
}

/// `param.p` is to be all values of a result that is none of several: the task has one TaskRun, without it.
#[test]
fn a_matrix_over_all_values_of_a_string() {
    let b = |param: serde_json::Value| {
        json!({
            "name": "b",
            "matrix": {"params": [{"name": "p", "value": "$(tasks.a.results.text[*])"}]},
            "taskSpec": {
                "params": [param],
                "steps": [{"name": "s", "image": "busybox", "script": "echo $(params.p)"}],
            },
        })
    };
    let mut sim = with(b(json!({"name": "p", "type": "string", "default": "d"})));
    sim.settle();
    assert!(sim.task_runs().contains_key("pr-b"));
    let mut sim = with(b(json!({"name": "p", "type": "string"})));
    sim.settle();
    assert_eq!(sim.task_condition("pr-b").1, "TaskRunValidationFailed");
}

#[test]
fn two_tasks_whose_children_have_one_name() {
    let mut sim = Sim::new(pipeline(json!({
        "tasks": [task("b-1", &[], json!({}))],
        "finally": [
            task("b", &[], json!({"matrix": {"params": [{"name": "p", "value": ["x", "y"]}]}})),
        ],
    })));
    let outcome = sim.finish();
    assert_eq!(outcome.reason, "PipelineValidationFailed");
    let message = "pipeline task \"b-1\" has a child called \"pr-b-1\" already";
    assert!(outcome.message.contains(message), "{}", outcome.message);
}
