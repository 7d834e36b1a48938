//! What Tekton's mutating webhook fills in (`SetDefaults`), so that validation, the run and the
//! printed objects see what they would see behind it.
//!
//! `serviceAccountName` becomes `default` and timeouts the configured ones; no pod template and no
//! resolver is configured, as in Tekton's own configuration.

use std::collections::BTreeMap;

use crate::duration::GoDuration;
use crate::flags::FeatureFlags;
use crate::object::Object;
use crate::v1::{
    ParamSpec, PipelineSpec, PipelineTask, PropertySpec, StepActionSpec, TaskRef, TaskSpec,
};

const SERVICE_ACCOUNT: &str = "default";
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tekton-pipelines");
/// Annotations that only Tekton Chains may set; dropped from what is submitted.
const RESERVED_ANNOTATION: &str = "chains.tekton.dev/";

/// Fills in what Tekton would.
pub fn set_defaults(object: &mut Object, flags: &FeatureFlags) {
    match object {
        Object::Task(task) => task_spec(&mut task.spec),
        Object::Pipeline(pipeline) => pipeline_spec(&mut pipeline.spec),
        Object::StepAction(action) => step_action_spec(&mut action.spec),
        Object::TaskRun(run) => {
            drop_reserved(&mut run.metadata.annotations);
            let labels = &mut run.metadata.labels;
            labels.entry(MANAGED_BY.0.to_owned()).or_insert_with(|| MANAGED_BY.1.to_owned());
            let spec = &mut run.spec;
            task_ref(spec.task_ref.as_mut());
            spec.timeout.get_or_insert(default_timeout(flags));
            service_account(&mut spec.service_account_name);
            if let Some(spec) = &mut spec.task_spec {
                task_spec(spec);
            }
        }
        Object::PipelineRun(run) => {
            drop_reserved(&mut run.metadata.annotations);
            let spec = &mut run.spec;
            let timeouts = spec.timeouts.get_or_insert_default();
            timeouts.pipeline.get_or_insert(default_timeout(flags));
            service_account(&mut spec.task_run_template.service_account_name);
            if let Some(spec) = &mut spec.pipeline_spec {
                pipeline_spec(spec);
            }
        }
        Object::CustomRun(run) => service_account(&mut run.spec.service_account_name),
        Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::PersistentVolumeClaim(_)
        | Object::ServiceAccount(_)
        | Object::LimitRange(_) => {}
    }
}

fn default_timeout(flags: &FeatureFlags) -> GoDuration {
    GoDuration::from_secs(i64::from(flags.default_timeout_minutes) * 60)
}

fn service_account(name: &mut String) {
    if name.is_empty() {
        SERVICE_ACCOUNT.clone_into(name);
    }
}

fn drop_reserved(annotations: &mut BTreeMap<String, String>) {
    annotations.retain(|key, _| !key.contains(RESERVED_ANNOTATION));
}

fn pipeline_spec(spec: &mut PipelineSpec) {
    spec.params.iter_mut().for_each(param_spec);
    spec.tasks.iter_mut().for_each(pipeline_task);
    spec.finally.iter_mut().for_each(pipeline_task);
}

/// Tekton leaves the `pipelineSpec` of a task as it is.
fn pipeline_task(task: &mut PipelineTask) {
    task_ref(task.task_ref.as_mut());
    if let Some(embedded) = &mut task.task_spec {
        task_spec(&mut embedded.task_spec);
    }
}

fn task_ref(reference: Option<&mut TaskRef>) {
    if let Some(reference) = reference
        && reference.kind.is_empty()
        && reference.resolver.is_empty()
    {
        "Task".clone_into(&mut reference.kind);
    }
}

fn task_spec(spec: &mut TaskSpec) {
    spec.params.iter_mut().for_each(param_spec);
    for result in &mut spec.results {
        result_type(&mut result.r#type, &mut result.properties);
    }
}

fn step_action_spec(spec: &mut StepActionSpec) {
    spec.params.iter_mut().for_each(param_spec);
    for result in &mut spec.results {
        result_type(&mut result.r#type, &mut result.properties);
    }
}

/// A param's type: as given, else `object` if it has properties, else its default's, else `string`.
fn param_spec(param: &mut ParamSpec) {
    if param.r#type.is_empty() {
        let inferred = match &param.default {
            _ if !param.properties.is_empty() => "object",
            Some(default) => default.type_name(),
            None => "string",
        };
        inferred.clone_into(&mut param.r#type);
    }
    property_types(&mut param.properties);
}

fn result_type(result_type: &mut String, properties: &mut BTreeMap<String, PropertySpec>) {
    if result_type.is_empty() {
        let inferred = if properties.is_empty() { "string" } else { "object" };
        inferred.clone_into(result_type);
    }
    property_types(properties);
}

fn property_types(properties: &mut BTreeMap<String, PropertySpec>) {
    for property in properties.values_mut() {
        if property.r#type.is_empty() {
            "string".clone_into(&mut property.r#type);
        }
    }
}
