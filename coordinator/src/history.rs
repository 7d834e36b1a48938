//! What the coordinator writes into a run's history besides its events.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_engine::command::RunObject;
use tenon_engine::{Submission, Time};
use tenon_reporter::history::Summary;
use tenon_tekton::Object;
use tenon_tekton::yaml_out::to_yaml;

use crate::error::{Error, Result};
use crate::masking;

/// The summary of a run that is about to start.
pub(crate) fn summary_of(submission: &Submission, time: Time) -> Summary {
    let (metadata, kind) = match &submission.run {
        RunObject::PipelineRun(run) => (&run.metadata, "PipelineRun"),
        RunObject::TaskRun(run) => (&run.metadata, "TaskRun"),
    };
    Summary::new(submission.run_id, &metadata.namespace, &metadata.name, kind, time)
}

/// The namespace of the run object.
pub(crate) fn namespace_of(submission: &Submission) -> String {
    match &submission.run {
        RunObject::PipelineRun(run) => run.metadata.namespace.clone(),
        RunObject::TaskRun(run) => run.metadata.namespace.clone(),
    }
}

/// The labels of the run object.
pub(crate) fn labels_of(submission: &Submission) -> BTreeMap<String, String> {
    match &submission.run {
        RunObject::PipelineRun(run) => run.metadata.labels.clone(),
        RunObject::TaskRun(run) => run.metadata.labels.clone(),
    }
}

/// A run's objects as people may see them: placeholders of secret values become `***`.
pub(crate) fn shown(objects: Vec<Object>) -> Vec<Object> {
    /// By way of JSON, where every string is reached alike.
    fn through<T: Serialize + DeserializeOwned>(object: &T) -> T {
        let mut json = serde_json::to_value(object)
            .expect("a Kubernetes object has only string keys, so it is always valid JSON");
        masking::show_json(&mut json);
        serde_json::from_value(json)
            .expect("showing changes only the content of strings, so the shape still fits")
    }
    let show = |object| match object {
        Object::PipelineRun(run) => Object::PipelineRun(Box::new(through(&*run))),
        Object::TaskRun(run) => Object::TaskRun(Box::new(through(&*run))),
        Object::CustomRun(run) => Object::CustomRun(Box::new(through(&*run))),
        other => other,
    };
    objects.into_iter().map(show).collect()
}

/// The objects of a finished run as they are stored: JSON, one a line, placeholders of secret values
/// not yet shown.
pub(crate) fn objects_to_json(objects: &[Object]) -> Vec<u8> {
    let mut lines = Vec::new();
    for object in objects {
        let json = match object {
            Object::PipelineRun(object) => serde_json::to_vec(object),
            Object::TaskRun(object) => serde_json::to_vec(object),
            Object::CustomRun(object) => serde_json::to_vec(object),
            _ => continue,
        };
        lines.extend_from_slice(
            &json.expect("a Kubernetes object has only string keys, so it is always valid JSON"),
        );
        lines.push(b'\n');
    }
    lines
}

/// Out of [`objects_to_json`].
pub(crate) fn objects_from_json(lines: &[u8]) -> Result<Vec<Object>> {
    #[derive(serde::Deserialize)]
    struct Kind {
        kind: String,
    }
    let damaged = |error: serde_json::Error| Error::Record(error.to_string());
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let kind: Kind = serde_json::from_slice(line).map_err(damaged)?;
            match kind.kind.as_str() {
                "PipelineRun" => serde_json::from_slice(line).map(Object::PipelineRun),
                "TaskRun" => serde_json::from_slice(line).map(Object::TaskRun),
                _ => serde_json::from_slice(line).map(Object::CustomRun),
            }
            .map_err(damaged)
        })
        .collect()
}

/// Objects as a stream of YAML documents, in the given order.
pub fn objects_to_yaml(objects: &[Object]) -> String {
    objects.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn document(object: &Object) -> String {
    match object {
        Object::Task(object) => to_yaml(object),
        Object::Pipeline(object) => to_yaml(object),
        Object::TaskRun(object) => to_yaml(object),
        Object::PipelineRun(object) => to_yaml(object),
        Object::StepAction(object) => to_yaml(object),
        Object::CustomRun(object) => to_yaml(object),
        Object::ConfigMap(object) => to_yaml(object),
        // A Secret's values are nobody's to read back.
        Object::Secret(_) => String::new(),
        Object::PersistentVolumeClaim(object) => to_yaml(object),
        Object::ServiceAccount(object) => to_yaml(object),
        Object::LimitRange(object) => to_yaml(object),
    }
}
