//! Names, labels, annotations and owner of a child run, with Tekton's precedence: `taskRunSpecs` over
//! the run over the embedded taskSpec; and over the referenced Task.

use std::collections::BTreeMap;

use super::ChildInput;
use crate::k8s::{ObjectMeta, OwnerReference};
use crate::v1::PipelineTaskRunSpec;

type Map = BTreeMap<String, String>;

/// Adds what is not there yet.
fn add_missing(to: &mut Map, from: &Map) {
    for (key, value) in from {
        to.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// Annotations that Tekton keeps for itself and drops silently.
fn is_reserved(key: &str) -> bool {
    key.contains("chains.tekton.dev/")
}

fn base(input: &ChildInput<'_>) -> ObjectMeta {
    ObjectMeta {
        name: input.name.to_owned(),
        namespace: input.run.metadata.namespace.clone(),
        owner_references: vec![OwnerReference {
            api_version: "tekton.dev/v1".into(),
            kind: "PipelineRun".into(),
            name: input.run.metadata.name.clone(),
            uid: input.run.metadata.uid.clone(),
            controller: true,
            block_owner_deletion: true,
        }],
        ..ObjectMeta::default()
    }
}

/// The labels that every child of a run has.
fn child_labels(input: &ChildInput<'_>) -> Map {
    let run = &input.run.metadata;
    let mut labels = run.labels.clone();
    let member_of = if input.is_finally { "finally" } else { "tasks" };
    for (key, value) in [
        ("tekton.dev/pipelineRun", run.name.as_str()),
        ("tekton.dev/pipelineRunUID", run.uid.as_str()),
        ("tekton.dev/pipelineTask", input.task.name.as_str()),
        ("tekton.dev/memberOf", member_of),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn child_annotations(input: &ChildInput<'_>) -> Map {
    let mut annotations = input.run.metadata.annotations.clone();
    annotations.retain(|key, _| !is_reserved(key));
    annotations
}

/// The metadata of a TaskRun.
pub(super) fn of_task_run(input: &ChildInput<'_>, settings: &PipelineTaskRunSpec) -> ObjectMeta {
    let mut metadata = base(input);
    let (mut labels, mut annotations) = match &settings.metadata {
        Some(own) => (own.labels.clone(), own.annotations.clone()),
        None => (Map::new(), Map::new()),
    };
    add_missing(&mut labels, &child_labels(input));
    add_missing(&mut annotations, &child_annotations(input));
    if let Some(embedded) = &input.task.task_spec {
        add_missing(&mut labels, &embedded.metadata.labels);
        add_missing(&mut annotations, &embedded.metadata.annotations);
    }
    if input.task.on_error == "continue" {
        annotations.insert("pipeline.tekton.dev/pipeline-task-on-error".into(), "continue".into());
    }
    annotations.retain(|key, _| !is_reserved(key));
    labels
        .entry("app.kubernetes.io/managed-by".into())
        .or_insert_with(|| "tekton-pipelines".into());
    if let Some(resolved) = input.resolved {
        let mut of_task = resolved.annotations.clone();
        of_task.remove("kubectl.kubernetes.io/last-applied-configuration");
        add_missing(&mut annotations, &of_task);
        add_missing(&mut labels, &resolved.labels);
        if let Some(name) = &resolved.name {
            labels.insert("tekton.dev/task".into(), name.clone());
        }
    }
    metadata.labels = labels;
    metadata.annotations = annotations;
    metadata
}

/// The metadata of a CustomRun.
pub(super) fn of_custom_run(input: &ChildInput<'_>) -> ObjectMeta {
    ObjectMeta { labels: child_labels(input), annotations: child_annotations(input), ..base(input) }
}
