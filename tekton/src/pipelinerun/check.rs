//! The checks that need the resolved tasks, before the first TaskRun is made.

use std::collections::{BTreeMap, HashMap};

use super::{ResolvedTask, is_custom_task};
use crate::flags::FeatureFlags;
use crate::params::check;
use crate::rejection::Rejection;
use crate::resultref::{ResultRef, in_value, result_refs};
use crate::v1::{ParamValue, PipelineRun, PipelineSpec, PipelineTask};

/// Checks params, result references and workspaces of all tasks. `spec` is [`super::Prepared::spec`];
/// `tasks` holds a resolved task for each PipelineTask name, but for custom tasks.
///
/// Reasons: `PipelineValidationFailed`, `CELEvaluationFailed`, `InvalidTaskResultReference`,
/// `InvalidPipelineResultReference`, `RequiredWorkspaceMarkedOptional`.
pub fn check_tasks(
    run: &PipelineRun,
    spec: &PipelineSpec,
    tasks: &BTreeMap<String, ResolvedTask>,
    flags: &FeatureFlags,
) -> Result<(), Rejection> {
    let run_name = &run.metadata.name;
    let all: Vec<&PipelineTask> = spec.tasks.iter().chain(&spec.finally).collect();
    for task in &all {
        let Some(resolved) = tasks.get(&task.name) else {
            continue;
        };
        check::task_params(&resolved.spec.params, &task.params, task.matrix.as_ref()).map_err(
            |error| {
                Rejection::user(
                    "PipelineValidationFailed",
                    format!(
                        "Validation failed for pipelinerun {run_name} with error invalid input params for task {}: {error}",
                        resolved.name.as_deref().unwrap_or_default()
                    ),
                )
            },
        )?;
    }
    for when in all.iter().flat_map(|task| &task.when) {
        if !when.cel.is_empty() {
            let error = crate::when::CelUnsupported { expression: when.cel.clone() };
            return Err(Rejection::user(
                "CELEvaluationFailed",
                format!("Error evaluating CEL {run_name}: {error}"),
            ));
        }
    }
    // A param's enum is looked at when the TaskRun is made; only its presence matters here.
    let _ = flags;
    let by_name: HashMap<&str, &PipelineTask> =
        all.iter().map(|task| (task.name.as_str(), *task)).collect();
    for task in &all {
        for reference in result_refs(task) {
            check_reference(&reference, &by_name, tasks).map_err(|error| {
                Rejection::new(
                    "InvalidTaskResultReference",
                    format!("invalid result reference in pipeline task {:?}: {error}", task.name),
                )
            })?;
        }
    }
    for result in &spec.results {
        for reference in in_value(&result.value) {
            check_reference(&reference, &by_name, tasks).map_err(|error| {
                Rejection::new(
                    "InvalidPipelineResultReference",
                    format!(
                        "Failed to resolve pipeline result reference for {run_name:?} with error invalid pipeline result {:?}: {error}",
                        result.name
                    ),
                )
            })?;
        }
    }
    check_optional_workspaces(spec, &all, tasks)
}

fn check_reference(
    reference: &ResultRef,
    by_name: &HashMap<&str, &PipelineTask>,
    tasks: &BTreeMap<String, ResolvedTask>,
) -> Result<(), String> {
    let name = &reference.pipeline_task;
    let Some(task) = by_name.get(name.as_str()) else {
        return Err(format!("referenced pipeline task {name:?} does not exist"));
    };
    if is_custom_task(task) {
        return Ok(());
    }
    let Some(resolved) = tasks.get(name) else {
        return Err(format!(
            "unable to validate result referencing pipeline task {name:?}: task spec not found"
        ));
    };
    if resolved.spec.results.iter().any(|result| result.name == reference.result) {
        return Ok(());
    }
    Err(format!("{:?} is not a named result returned by pipeline task {name:?}", reference.result))
}

fn check_optional_workspaces(
    spec: &PipelineSpec,
    all: &[&PipelineTask],
    tasks: &BTreeMap<String, ResolvedTask>,
) -> Result<(), Rejection> {
    for task in all {
        let Some(resolved) = tasks.get(&task.name) else {
            continue;
        };
        for given in &task.workspaces {
            let is_optional = spec
                .workspaces
                .iter()
                .any(|declared| declared.optional && declared.name == given.workspace);
            let is_required = resolved
                .spec
                .workspaces
                .iter()
                .any(|declared| declared.name == given.name && !declared.optional);
            if is_optional && is_required {
                return Err(Rejection::user(
                    "RequiredWorkspaceMarkedOptional",
                    format!(
                        "Optional workspace not supported by task: pipeline workspace {:?} is marked optional but pipeline task {:?} requires it be provided",
                        given.workspace, task.name
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Whether a matrix holds what it may once results are applied: arrays as params, strings as includes.
/// Reason `InvalidMatrixParameterTypes`.
pub fn check_matrix_types(task: &PipelineTask) -> Result<(), Rejection> {
    let Some(matrix) = &task.matrix else {
        return Ok(());
    };
    let wrong = |wanted: &str, name: &str, value: &ParamValue| {
        // Tekton prints its format with the run's name missing; the run's name is not repeated here.
        Rejection::user(
            "InvalidMatrixParameterTypes",
            format!(
                "Failed to validate matrix with error parameters of type {wanted} only are allowed, but param \"{name}\" has type \"{}\" in pipelineTask \"{}\"",
                value.type_name(),
                task.name
            ),
        )
    };
    for param in matrix.include.iter().flat_map(|include| &include.params) {
        if !matches!(param.value, ParamValue::String(_)) {
            return Err(wrong("string", &param.name, &param.value));
        }
    }
    for param in &matrix.params {
        let waits_for_result = !in_value(&param.value).is_empty();
        if !matches!(param.value, ParamValue::Array(_)) && !waits_for_result {
            return Err(wrong("array", &param.name, &param.value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refuses_with_tektons_reasons_and_words() {
        let run: PipelineRun =
            serde_json::from_value(json!({"metadata": {"name": "pr"}})).expect("a PipelineRun");
        let tasks: BTreeMap<String, ResolvedTask> = [(
            "a".to_owned(),
            ResolvedTask {
                name: Some("task-a".into()),
                spec: serde_json::from_value(json!({
                    "params": [{"name": "need", "type": "string"}],
                    "workspaces": [{"name": "w"}], "results": [{"name": "r"}], "steps": []}))
                .expect("a TaskSpec"),
                ..ResolvedTask::default()
            },
        )]
        .into();
        let a = json!({"name": "a", "params": [{"name": "need", "value": "x"}]});
        let custom = json!({"name": "c", "taskRef": {"apiVersion": "v", "kind": "K"}});
        let user = |reference: &str| {
            json!({"name": "c", "taskRef": {"apiVersion": "v", "kind": "K"},
            "params": [{"name": "p", "value": reference}]})
        };
        for (spec, reason, message) in [
            (
                json!({"tasks": [{"name": "a"}]}),
                "PipelineValidationFailed",
                "[User error] Validation failed for pipelinerun pr with error invalid input params for task task-a: missing values for these params which have no default values: [need]",
            ),
            (
                json!({"tasks": [a, user("$(tasks.a.results.x)")]}),
                "InvalidTaskResultReference",
                "invalid result reference in pipeline task \"c\": \"x\" is not a named result returned by pipeline task \"a\"",
            ),
            (
                json!({"tasks": [a, custom], "results": [
                    {"name": "o", "value": "$(tasks.c.results.any)"}, {"name": "q", "value": "$(tasks.z.results.x)"}]}),
                "InvalidPipelineResultReference",
                "Failed to resolve pipeline result reference for \"pr\" with error invalid pipeline result \"q\": referenced pipeline task \"z\" does not exist",
            ),
            (
                json!({"workspaces": [{"name": "v", "optional": true}], "tasks": [{"name": "a",
                    "params": [{"name": "need", "value": "x"}], "workspaces": [{"name": "w", "workspace": "v"}]}]}),
                "RequiredWorkspaceMarkedOptional",
                "[User error] Optional workspace not supported by task: pipeline workspace \"v\" is marked optional but pipeline task \"a\" requires it be provided",
            ),
        ] {
            let spec: PipelineSpec = serde_json::from_value(spec).expect("a PipelineSpec");
            let error =
                check_tasks(&run, &spec, &tasks, &FeatureFlags::default()).expect_err(reason);
            assert_eq!((error.reason, error.message.as_str()), (reason, message));
        }
    }
}
