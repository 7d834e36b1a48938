//! What only v1beta1 documents can get wrong: fields that v1 does not have.
//!
//! The documents are converted before they are validated, so these rules look at what was written.

use std::collections::HashSet;

use super::field_error::{FieldError, FieldErrors};
use super::workspaces::check_task_usage;
use crate::load::Document;
use crate::object::Object;
use crate::v1::PipelineRunSpec;

/// The rules for what was written and is not in the converted object; paths are whole.
pub(crate) fn check(document: &Document) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for path in document.v1beta1_fields.iter().filter(|path| is_disallowed(path)) {
        errors.also(FieldError::disallowed([path]));
    }
    if let Object::PipelineRun(run) = &document.object {
        errors.also(check_timeout(document, &run.spec));
        errors.also(check_propagated_workspaces(&run.spec).via_field("spec"));
    }
    errors
}

/// `resources` of specs and PipelineTasks, and `bundle` of references, were removed from Tekton;
/// `resources` of containers only have another name today.
fn is_disallowed(path: &str) -> bool {
    let (owner, field) = path.rsplit_once('.').unwrap_or(("", path));
    let owner = owner.rsplit('.').next().unwrap_or_default();
    let owner = owner.split('[').next().unwrap_or_default();
    match field {
        "bundle" => true,
        "resources" => {
            matches!(owner, "spec" | "taskSpec" | "pipelineSpec" | "tasks" | "finally")
        }
        _ => false,
    }
}

fn check_timeout(document: &Document, spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !document.v1beta1_fields.iter().any(|path| path == "spec.timeout") {
        return errors;
    }
    let written = document.root.get("spec").and_then(|written| written.get("timeouts"));
    if written.is_some_and(|timeouts| !timeouts.is_null()) {
        errors.also(FieldError::disallowed(["spec.timeout", "spec.timeouts"]));
        return errors;
    }
    // Conversion made it the timeout of the pipeline, whose rule names another field.
    if let Some(timeout) = spec.timeouts.as_ref().and_then(|timeouts| timeouts.pipeline)
        && timeout.0 < 0
    {
        errors.also(FieldError::invalid(format!("{timeout} should be >= 0"), "spec.timeout"));
    }
    errors
}

/// In a `pipelineSpec`, every workspace that a task names counts as known from there on.
fn check_propagated_workspaces(spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let Some(pipeline_spec) = &spec.pipeline_spec else {
        return errors;
    };
    let bound = spec.workspaces.iter().map(|workspace| workspace.name.as_str());
    let declared = pipeline_spec.workspaces.iter().map(|workspace| workspace.name.as_str());
    let mut known: HashSet<&str> = bound.chain(declared).collect();
    for tasks in [&pipeline_spec.tasks, &pipeline_spec.finally] {
        for (index, task) in tasks.iter().enumerate() {
            known.extend(task.workspaces.iter().map(|workspace| workspace.name.as_str()));
            errors.also(check_task_usage(task, &known).via_index(index));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_fields() {
        for (path, disallowed) in [
            ("spec.resources", true),
            ("spec.taskSpec.resources", true),
            ("spec.tasks[0].resources", true),
            ("spec.tasks[0].taskRef.bundle", true),
            ("spec.steps[0].resources", false),
            ("spec.stepTemplate.resources", false),
            ("spec.stepOverrides[0].resources", false),
            ("spec.timeout", false),
        ] {
            assert_eq!(is_disallowed(path), disallowed, "{path}");
        }
    }
}
