//! What the coordinator writes into a run's history besides its events.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_engine::command::RunObject;
use tenon_engine::{Submission, Time};
use tenon_reporter::history::Summary;
use tenon_tekton::Object;
use tenon_tekton::yaml_out::to_yaml;

use crate::masking;

/// The summary of a run that is about to start.
pub(crate) fn summary_of(submission: &Submission, time: Time) -> Summary {
    let (metadata, kind) = match &submission.run {
        RunObject::PipelineRun(run) => (&run.metadata, "PipelineRun"),
        RunObject::TaskRun(run) => (&run.metadata, "TaskRun"),
    };
    Summary::new(submission.run_id, &metadata.namespace, &metadata.name, kind, time)
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
