//! The TaskRun and the CustomRun that are built for a PipelineTask.

use super::*;
use crate::v1::TaskSpec;

fn run(spec: &serde_json::Value) -> PipelineRun {
    serde_json::from_value(json!({
        "metadata": {"name": "pr", "namespace": "ns", "uid": "uid",
            "labels": {"l": "run", "tekton.dev/pipeline": "p"},
            "annotations": {"a": "run", "chains.tekton.dev/signed": "true"}},
        "spec": spec
    }))
    .expect("a PipelineRun")
}

fn child(
    run: &PipelineRun,
    task: serde_json::Value,
    resolved: &ResolvedTask,
) -> Result<TaskRun, Rejection> {
    let task: PipelineTask = serde_json::from_value(task).expect("a PipelineTask");
    build(&ChildInput {
        run,
        workspaces: &run.spec.workspaces,
        task: &task,
        resolved: Some(resolved),
        name: "pr-t",
        combination: None,
        is_finally: false,
        flags: &FeatureFlags::default(),
    })
}

#[test]
fn labels_follow_tektons_precedence() {
    let run = run(&json!({"taskRunSpecs": [{
        "pipelineTaskName": "t", "metadata": {"labels": {"l": "spec"}}, "serviceAccountName": "sa"}]}));
    let resolved = ResolvedTask {
        name: Some("task".into()),
        labels: [("l".into(), "task".into()), ("m".into(), "task".into())].into(),
        ..ResolvedTask::default()
    };
    let made = child(
        &run,
        json!({"name": "t", "taskRef": {"name": "task"}, "onError": "continue"}),
        &resolved,
    )
    .expect("a TaskRun");
    let labels: Vec<String> =
        made.metadata.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        labels,
        [
            "app.kubernetes.io/managed-by=tekton-pipelines",
            "l=spec",
            "m=task",
            "tekton.dev/memberOf=tasks",
            "tekton.dev/pipeline=p",
            "tekton.dev/pipelineRun=pr",
            "tekton.dev/pipelineRunUID=uid",
            "tekton.dev/pipelineTask=t",
            "tekton.dev/task=task",
        ]
    );
    let annotations: Vec<&String> = made.metadata.annotations.keys().collect();
    assert_eq!(annotations, ["a", "pipeline.tekton.dev/pipeline-task-on-error"]);
    assert_eq!(made.spec.service_account_name, "sa");
    assert_eq!(made.spec.task_ref.expect("a taskRef").kind, "Task");
}

#[test]
fn timeouts_follow_tektons_rule() {
    for (spec, task, expected) in [
        (json!({}), json!({}), "1h0m0s"),
        (json!({"timeouts": {"tasks": "20m"}}), json!({}), "1h0m0s"),
        (json!({"timeouts": {"tasks": "2h"}}), json!({}), "2h0m0s"),
        (json!({"timeouts": {"tasks": "0"}}), json!({}), "0s"),
        (json!({"timeouts": {"pipeline": "3h", "finally": "1h"}}), json!({}), "2h0m0s"),
        (json!({"timeouts": {"tasks": "2h"}}), json!({"timeout": "5m"}), "5m0s"),
        (
            json!({"taskRunSpecs": [{"pipelineTaskName": "t", "timeout": "7m"}]}),
            json!({"timeout": "5m"}),
            "7m0s",
        ),
    ] {
        let mut task = task;
        task["name"] = "t".into();
        let made = child(&run(&spec), task, &ResolvedTask::default()).expect("a TaskRun");
        assert_eq!(made.spec.timeout.expect("a timeout").to_string(), expected, "{spec}");
    }
}

#[test]
fn workspaces_are_bound_joined_and_propagated() {
    let run = run(&json!({"workspaces": [
        {"name": "shared", "subPath": "a", "volumeClaimTemplate": {"metadata": {"name": "claim"}}},
        {"name": "tmp", "emptyDir": {}}]}));
    let spec: TaskSpec =
        serde_json::from_value(json!({"steps": [{"script": "ls $(workspaces.tmp.path)"}], "workspaces": [{"name": "o", "optional": true}]}))
            .expect("a TaskSpec");
    let resolved = ResolvedTask { spec: spec.clone(), ..ResolvedTask::default() };
    let task = json!({"name": "t", "taskSpec": spec, "workspaces": [
        {"name": "src", "workspace": "shared", "subPath": "b/$(context.pipelineRun.name)"},
        {"name": "o", "workspace": "none"}]});
    let made = child(&run, task, &resolved).expect("a TaskRun");
    let names: Vec<&str> = made.spec.workspaces.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["src", "tmp"]);
    assert_eq!(made.spec.workspaces[0].sub_path, "a/b/pr");
    let claim = made.spec.workspaces[0].persistent_volume_claim.as_ref().expect("a claim");
    assert!(claim.claim_name.starts_with("claim-"));
    let error = child(&run, json!({"name": "t", "workspaces": [{"name": "x"}]}), &resolved);
    assert_eq!(
        error.expect_err("unbound").message,
        "expected workspace \"x\" to be provided by pipelinerun for pipeline task \"t\""
    );
}
