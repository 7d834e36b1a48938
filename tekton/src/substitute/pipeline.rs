//! The fields of a PipelineSpec's tasks that are substituted, and how values reach embedded tasks.
//!
//! Variables never reach a referenced Task: it sees only the params that its PipelineTask gives it.

use super::{Kinds, Replacements, apply_to_task_spec};
use crate::params::PIPELINE_PATTERNS;
use crate::v1::{ParamValue, PipelineSpec, PipelineTask};

/// Replaces in all tasks, `finally` too.
pub fn apply_to_pipeline_spec(spec: &mut PipelineSpec, with: &Replacements) {
    for task in spec.tasks.iter_mut().chain(&mut spec.finally) {
        apply_to_pipeline_task(task, with);
    }
}

/// Replaces in one PipelineTask and in its embedded taskSpec.
pub fn apply_to_pipeline_task(task: &mut PipelineTask, with: &Replacements) {
    if with.is_empty() {
        return;
    }
    with.apply_to_params(&mut task.params, Kinds::All);
    match &mut task.matrix {
        Some(matrix) if !(matrix.params.is_empty() && matrix.include.is_empty()) => {
            with.apply_to_params(&mut matrix.params, Kinds::StringsAndArrays);
            for include in &mut matrix.include {
                with.apply_to_params(&mut include.params, Kinds::Strings);
            }
            // The displayName of a matrixed task is made for each TaskRun, from its own params.
        }
        _ => with.apply_to(&mut task.display_name),
    }
    for workspace in &mut task.workspaces {
        with.apply_to(&mut workspace.sub_path);
    }
    with.apply_to_when(&mut task.when, Kinds::All);
    if let Some(reference) = &mut task.task_ref {
        with.apply_to_params(&mut reference.params, Kinds::All);
        with.apply_to(&mut reference.name);
    }
    with.apply_to(&mut task.on_error);
    propagate(task, with);
}

/// Applies outer values to the embedded taskSpec; the task's own params win over outer ones.
fn propagate(task: &mut PipelineTask, with: &Replacements) {
    let Some(embedded) = &mut task.task_spec else {
        return;
    };
    let shadows = |with: &Replacements| {
        task.params.iter().any(|param| {
            PIPELINE_PATTERNS.iter().any(|pattern| {
                let key = pattern(&param.name);
                with.get(&key).is_some()
                    || with.get_array(&key).is_some()
                    || with.get_object(&key).is_some()
            })
        })
    };
    if !shadows(with) {
        apply_to_task_spec(&mut embedded.task_spec, with);
        return;
    }
    let mut scoped = with.clone();
    for param in &task.params {
        for pattern in PIPELINE_PATTERNS {
            let key = pattern(&param.name);
            // Tekton replaces under the outer value's type; a value of another type reads as empty.
            if scoped.get(&key).is_some() {
                scoped.set(key.clone(), param.value.as_str().unwrap_or_default());
            }
            if scoped.get_array(&key).is_some() {
                let items = match &param.value {
                    ParamValue::Array(items) => items.clone(),
                    _ => Vec::new(),
                };
                scoped.set_array(key.clone(), items);
            }
            if scoped.get_object(&key).is_some() {
                let entries = match &param.value {
                    ParamValue::Object(entries) => entries.clone(),
                    _ => Default::default(),
                };
                for (name, value) in &entries {
                    scoped.set(format!("params.{}.{name}", param.name), value.clone());
                }
                scoped.set_object(key, entries);
            }
        }
    }
    apply_to_task_spec(&mut embedded.task_spec, &scoped);
}
