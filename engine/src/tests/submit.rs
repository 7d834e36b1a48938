//! What is refused before anything runs, and what every object carries.

use serde_json::json;
use tenon_tekton::v1::Task;

use super::sim::*;
use crate::Submission;
use crate::command::RunObject;

fn refused(submission: Submission) -> (String, String) {
    let mut sim = Sim::new(submission);
    let outcome = sim.engine.outcome(sim.run).expect("refused at once");
    assert!(outcome.rejected, "{outcome:?}");
    assert_eq!(sim.told(), [told_start(&sim), told_end(&sim)]);
    assert_eq!(sim.condition().0, "False");
    assert_eq!(sim.condition().1, outcome.reason);
    sim.settle();
    assert_eq!(sim.events.len(), 2);
    (outcome.reason, outcome.message)
}

fn told_start(sim: &Sim) -> String {
    short(&sim.events[0])
}

fn told_end(sim: &Sim) -> String {
    let text = short(&sim.events[1]);
    assert!(text.starts_with("run-end") && text.ends_with("failed"));
    text
}

#[test]
fn references_to_nothing() {
    let (reason, message) = refused(pipeline_run(json!({"pipelineRef": {"name": "p"}})));
    assert_eq!(reason, "CouldntGetPipeline");
    assert_eq!(
        message,
        "Error retrieving pipeline for pipelinerun default/pr: error when getting Pipeline for PipelineRun pr: pipelines.tekton.dev \"p\" not found"
    );
    let (reason, message) =
        refused(pipeline(json!({"tasks": [{"name": "t", "taskRef": {"name": "gone"}}]})));
    assert_eq!(reason, "CouldntGetTask");
    assert_eq!(
        message,
        "Pipeline default/pr can't be Run; it contains Tasks that don't exist: Couldn't retrieve Task \"gone\": tasks.tekton.dev \"gone\" not found"
    );
    let (reason, _) = refused(task_run(json!({"taskRef": {"name": "gone"}})));
    assert_eq!(reason, "TaskRunResolutionFailed");
    let (reason, message) = refused(pipeline_run(json!({"pipelineRef": {"resolver": "git"}})));
    assert_eq!(reason, "CouldntGetPipeline");
    assert!(message.contains("resolver \"git\" is not available in this build"));
    let step = json!({"name": "s", "ref": {"name": "gone"}});
    let (reason, message) = refused(task_run(json!({"taskSpec": {"steps": [step]}})));
    assert_eq!(reason, "TaskRunResolutionFailed");
    assert!(message.contains("failed to resolve step ref for step \"s\" (index 0)"));
}

#[test]
fn missing_params_and_bad_references() {
    let (reason, message) = refused(pipeline(json!({
        "params": [{"name": "p", "type": "string"}],
        "tasks": [task("t", &[], json!({}))],
    })));
    assert_eq!(reason, "ParameterMissing");
    assert!(message.contains("missing some parameters required by Pipeline"), "{message}");
    let (reason, _) = refused(pipeline(json!({
        "workspaces": [{"name": "w"}],
        "tasks": [task("t", &[], json!({}))],
    })));
    assert_eq!(reason, "InvalidWorkspaceBindings");
    let (reason, message) = refused(pipeline(json!({"tasks": [
        task("a", &[], json!({})),
        task("b", &[], json!({"params": [{"name": "p", "value": "$(tasks.a.results.x)"}]})),
    ]})));
    assert_eq!(reason, "InvalidTaskResultReference");
    assert!(message.contains("\"x\" is not a named result returned by pipeline task \"a\""));
    let (reason, message) = refused(task_run(json!({"taskSpec": {
        "params": [{"name": "p", "type": "string"}],
        "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
    }})));
    assert_eq!(reason, "TaskRunValidationFailed");
    assert!(message.contains("missing values for these params"), "{message}");
}

#[test]
fn a_pending_run_is_refused_because_nobody_could_release_it() {
    let spec = json!({"status": "PipelineRunPending", "pipelineSpec": {"tasks": [task("t", &[], json!({}))]}});
    let (reason, message) = refused(pipeline_run(spec));
    assert_eq!(reason, "PipelineRunPending");
    assert!(message.starts_with("PipelineRun \"pr\" is pending"));
}

#[test]
fn a_run_submitted_as_cancelled_is_cancelled() {
    let spec =
        json!({"status": "Cancelled", "pipelineSpec": {"tasks": [task("t", &[], json!({}))]}});
    let sim = Sim::new(pipeline_run(spec));
    let outcome = sim.engine.outcome(sim.run).expect("over");
    assert_eq!((outcome.reason.as_str(), outcome.rejected), ("Cancelled", false));
    assert!(sim.task_runs().is_empty());
}

#[test]
fn objects_carry_what_an_api_server_gives_them() {
    let mut submission = pipeline(json!({"tasks": [{"name": "t", "taskRef": {"name": "build"}}]}));
    let RunObject::PipelineRun(run) = &mut submission.run else {
        panic!("a PipelineRun");
    };
    run.metadata.labels.insert("mine".into(), "1".into());
    let build: Task = serde_json::from_value(json!({
        "metadata": {"name": "build", "labels": {"from": "task"}, "annotations": {"note": "task"}},
        "spec": {"steps": [{"name": "s", "image": "busybox", "script": "echo"}]},
    }))
    .expect("a Task");
    submission.tasks.insert("build".into(), build);
    let mut sim = Sim::new(submission);
    sim.finish();
    let run = sim.pipeline_run();
    assert_eq!(run.metadata.namespace, "default");
    assert!(!run.metadata.uid.is_empty() && run.metadata.creation_timestamp.is_some());
    let child = &sim.task_runs()["pr-t"].metadata;
    for (label, value) in [
        ("mine", "1"),
        ("from", "task"),
        ("tekton.dev/pipeline", "pr"),
        ("tekton.dev/pipelineRun", "pr"),
        ("tekton.dev/pipelineRunUID", run.metadata.uid.as_str()),
        ("tekton.dev/pipelineTask", "t"),
        ("tekton.dev/memberOf", "tasks"),
        ("tekton.dev/task", "build"),
    ] {
        assert_eq!(child.labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    assert_eq!(child.annotations.get("note").map(String::as_str), Some("task"));
    let owner = &child.owner_references[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("PipelineRun", run.metadata.uid.as_str())
    );
    assert!(owner.controller);
    assert_eq!(child.generation, 1);
}

#[test]
fn a_pipeline_of_which_nothing_could_run_is_refused_too() {
    let claim = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let sim = Sim::new(pipeline_run(json!({
        "workspaces": [claim("a"), claim("b")],
        "pipelineSpec": {
            "workspaces": [{"name": "a"}, {"name": "b"}],
            "tasks": [{
                "name": "t",
                "workspaces": [{"name": "a"}, {"name": "b"}],
                "taskSpec": {
                    "workspaces": [{"name": "a"}, {"name": "b"}],
                    "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
                },
            }],
        },
    })));
    let outcome = sim.engine.outcome(sim.run).expect("over");
    assert!(outcome.rejected);
    assert_eq!(outcome.reason, "Failed");
    let (_, reason, message) = sim.task_condition("pr-t");
    assert_eq!(reason, "TaskRunValidationFailed");
    assert!(message.contains("more than one PersistentVolumeClaim is bound"), "{message}");
}

#[test]
fn a_task_run_that_is_wrong_is_as_wrong_each_time_it_is_tried() {
    let run = task_run(json!({
        "retries": 2,
        "taskSpec": {
            "params": [{"name": "need"}],
            "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
        },
    }));
    let sim = Sim::new(run);
    let status = sim.task_runs()["tr"].status.clone().expect("a status");
    assert_eq!(status.conditions[0].reason, "TaskRunValidationFailed");
    assert_eq!(status.retries_status.len(), 2);
    assert!(status.retries_status.iter().all(|it| it.conditions == status.conditions));
}

#[test]
fn what_others_manage_is_left_to_them() {
    let task = json!({"steps": [{"name": "s", "image": "busybox", "script": "echo"}]});
    for (manager, is_refused) in [("example.com/other", true), ("tekton.dev/pipeline", false)] {
        let tasks = [json!({"name": "t", "taskSpec": task})];
        let task_run = task_run(json!({"managedBy": manager, "taskSpec": task}));
        let pipeline_run =
            pipeline_run(json!({"managedBy": manager, "pipelineSpec": {"tasks": tasks}}));
        for run in [task_run, pipeline_run] {
            let sim = Sim::new(run);
            let outcome = sim.engine.outcome(sim.run);
            let refused = outcome.filter(|it| it.rejected && it.reason == "ManagedByOthers");
            assert_eq!(refused.is_some(), is_refused);
        }
    }
}

#[test]
fn commands_survive_being_stored() {
    let pipeline = pipeline_run(json!({
        "params": [{"name": "a", "value": []}, {"name": "n", "value": "1"}],
        "timeouts": {"pipeline": "0s"},
        "pipelineSpec": {"tasks": [
            task("t", &["r"], json!({"matrix": {"params": [{"name": "p", "value": ["x"]}]}})),
        ]},
    }));
    let single = task_run(json!({"taskRef": {"name": "build"}}));
    for submission in [pipeline, single] {
        let command =
            crate::Command::Submit { time: crate::Time(5), submission: Box::new(submission) };
        let stored = serde_json::to_string(&command).expect("JSON");
        let read: crate::Command = serde_json::from_str(&stored).expect("a command");
        assert_eq!(read, command);
    }
}
