//! Preparing a PipelineRun: what is refused and with which words, and what applying leaves behind.

use super::*;
use crate::v1::ParamValue;
use serde_json::json;

fn run(spec: &serde_json::Value) -> PipelineRun {
    serde_json::from_value(json!({
        "metadata": {"name": "pr", "namespace": "ns", "uid": "u"}, "spec": spec
    }))
    .expect("a PipelineRun")
}

fn prepared(spec: &serde_json::Value) -> Result<Prepared, Rejection> {
    let run = run(spec);
    let pipeline = run.spec.pipeline_spec.clone().expect("an embedded Pipeline");
    prepare(&run, &pipeline, "pr", &FeatureFlags::default())
}

fn task(script: &str) -> serde_json::Value {
    json!({"name": "t", "taskSpec": {"steps": [{"image": "i", "script": script}]}})
}

#[test]
fn refuses_with_tektons_reasons_and_words() {
    for (spec, reason, message) in [
        (
            json!({"pipelineSpec": {"params": [{"name": "need", "type": "string"}], "tasks": [task("")]}}),
            "ParameterMissing",
            "[User error] PipelineRun ns/pr is missing some parameters required by Pipeline ns/pr: pipelineRun missing parameters: [need]",
        ),
        (
            json!({"params": [{"name": "a", "value": "x"}],
                "pipelineSpec": {"params": [{"name": "a", "type": "array"}], "tasks": [task("")]}}),
            "ParameterTypeMismatch",
            "[User error] PipelineRun ns/pr parameters have mismatching types with Pipeline ns/pr's parameters: parameters have inconsistent types : [a]",
        ),
        (
            json!({"params": [{"name": "o", "value": {"b": "1"}}],
                "pipelineSpec": {"params": [{"name": "o", "type": "object", "properties": {"k": {}, "b": {}}}], "tasks": [task("")]}}),
            "ObjectParameterMissKeys",
            "[User error] PipelineRun ns/pr parameters is missing object keys required by Pipeline ns/pr's parameters: pipelineRun missing object keys for parameters: map[o:[k]]",
        ),
        (
            json!({"params": [{"name": "a", "value": ["x"]}],
                "pipelineSpec": {"params": [{"name": "a", "type": "array"}],
                    "tasks": [{"name": "t", "params": [{"name": "p", "value": "$(params.a[1])"}]}]}}),
            "ParamArrayIndexingInvalid",
            "[User error] PipelineRun ns/pr failed validation: failed to validate Pipeline ns/pr's parameter which has an invalid index while referring to an array: non-existent param references:[$(params.a[1])]",
        ),
        (
            json!({"pipelineSpec": {"workspaces": [{"name": "w"}], "tasks": [task("")]}}),
            "InvalidWorkspaceBindings",
            "[User error] PipelineRun ns/pr doesn't bind Pipeline ns/pr's Workspaces correctly: pipeline requires workspace with name \"w\" be provided by pipelinerun",
        ),
        (
            json!({"taskRunSpecs": [{"pipelineTaskName": "x"}], "pipelineSpec": {"tasks": [task("")]}}),
            "InvalidTaskRunSpecs",
            "[User error] PipelineRun ns/pr doesn't define taskRunSpecs correctly: pipelineRun's taskrunSpecs defined wrong taskName: \"x\", does not exist in Pipeline",
        ),
    ] {
        let error = prepared(&spec).expect_err(reason);
        assert_eq!((error.reason, error.message.as_str()), (reason, message));
    }
}

#[test]
fn outer_values_reach_embedded_tasks_and_beat_inner_defaults() {
    let spec = json!({
        "params": [{"name": "hello", "value": "run"}],
        "workspaces": [{"name": "w", "emptyDir": {}, "subPath": "$(params.hello)/$(params.bye)"}],
        "pipelineSpec": {
            "workspaces": [{"name": "w"}, {"name": "o", "optional": true}],
            "params": [
                {"name": "hello", "type": "string", "default": "pipeline"},
                {"name": "bye", "type": "string", "default": "$(params.hello)!"},
            ],
            "tasks": [{
                "name": "t",
                "params": [{"name": "bye", "value": "mine"}],
                "taskSpec": {
                    "params": [{"name": "hello", "type": "string", "default": "task"}],
                    "steps": [{"image": "i", "script": "$(params.hello) $(params.bye) $(workspaces.w.bound) $(workspaces.o.bound) $(context.pipelineRun.uid)"}],
                },
            }],
        },
    });
    let prepared = prepared(&spec).expect("prepared");
    let script =
        &prepared.spec.tasks[0].task_spec.as_ref().expect("embedded").task_spec.steps[0].script;
    assert_eq!(script, "run mine true false u");
    // Bindings see what the run gives, not the Pipeline's defaults.
    assert_eq!(prepared.workspaces[0].sub_path, "run/$(params.bye)");
}

#[test]
fn defaults_refer_to_each_other_ten_deep_and_not_in_circles() {
    let chain = |n: usize| -> serde_json::Value {
        let params: Vec<_> = (0..n)
            .map(|i| match i {
                0 => json!({"name": "p0", "type": "string", "default": "x"}),
                _ => json!({"name": format!("p{i}"), "type": "string", "default": format!("$(params.p{})", i - 1)}),
            })
            .rev()
            .collect();
        json!({"pipelineSpec": {"params": params, "tasks": [
            {"name": "t", "params": [{"name": "p", "value": format!("$(params.p{})", n - 1)}]}]}})
    };
    let ok = prepared(&chain(11)).expect("ten steps");
    assert_eq!(ok.spec.tasks[0].params[0].value, ParamValue::from("x"));
    assert!(
        prepared(&chain(13))
            .expect_err("too deep")
            .message
            .contains("maximum recursion depth (10) exceeded")
    );
    let circle = json!({"pipelineSpec": {"tasks": [task("")], "params": [
        {"name": "a", "type": "string", "default": "$(params.b)"},
        {"name": "b", "type": "string", "default": "$(params.a)"}]}});
    let error = prepared(&circle).expect_err("a circle");
    assert_eq!(
        error.message,
        "[User error] Failed to apply parameters to Pipeline ns/pr: parameter resolution failed: circular dependency detected in param \"params.a\""
    );
}
