//! The checks that need the resolved tasks, before the first TaskRun is made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{ResolvedTask, is_custom_task};
use crate::flags::FeatureFlags;
use crate::params::check;
use crate::rejection::{Rejection, go_list};
use crate::resultref::{ResultRef, in_value, result_refs};
use crate::v1::{Param, ParamSpec, ParamValue, PipelineRun, PipelineSpec, PipelineTask};

/// Checks params, result references and workspaces of all tasks. `spec` is [`super::Prepared::spec`], of which
/// `original` is what it was before params were applied; `tasks` holds a resolved task for each PipelineTask name, but
/// for custom tasks.
///
/// Reasons: `PipelineValidationFailed`, `CELEvaluationFailed`, `InvalidTaskResultReference`,
/// `InvalidPipelineResultReference`, `RequiredWorkspaceMarkedOptional`.
pub fn check_tasks(
    run: &PipelineRun,
    original: &PipelineSpec,
    spec: &PipelineSpec,
    tasks: &BTreeMap<String, ResolvedTask>,
    flags: &FeatureFlags,
) -> Result<(), Rejection> {
    let run_name = &run.metadata.name;
    let all: Vec<&PipelineTask> = spec.tasks.iter().chain(&spec.finally).collect();
    let originals = original.tasks.iter().chain(&original.finally);
    for (task, original_task) in all.iter().zip(originals) {
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
        if flags.enable_param_enum {
            check_enum_subset(&original_task.params, &original.params, resolved).map_err(
                |error| {
                    let message = format!("Validation failed for pipelinerun with error {error}");
                    Rejection::user("PipelineValidationFailed", message)
                },
            )?;
        }
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

/// Whether what a Pipeline allows for a param is allowed by the task that gets it: by a param of the task whose value is
/// one reference to one of the Pipeline's. As in Tekton, the first one without an enum ends the look at the task.
fn check_enum_subset(
    given: &[Param],
    pipeline_params: &[ParamSpec],
    task: &ResolvedTask,
) -> Result<(), String> {
    for param in given {
        let text = param.value.as_str().unwrap_or_default();
        let references = text.match_indices("$(params").map(|(at, _)| &text[at + 2..]);
        let names: BTreeSet<&str> = references.filter_map(param_name).collect();
        let [name] = names.iter().collect::<Vec<_>>()[..] else {
            continue;
        };
        let of_pipeline = pipeline_params.iter().find(|spec| spec.name == *name);
        let of_task = task.spec.params.iter().find(|spec| spec.name == param.name);
        let (Some(of_pipeline), Some(of_task)) = (of_pipeline, of_task) else {
            return Ok(());
        };
        if check::declared_type(of_pipeline) != "string" || of_task.r#enum.is_empty() {
            return Ok(());
        }
        let task = task.name.as_deref().unwrap_or_default();
        let enums = go_list(&of_task.r#enum);
        if of_pipeline.r#enum.is_empty() {
            return Err(format!(
                "pipeline param \"{name}\" has no enum, but referenced in \"{task}\" task has enums: {enums}"
            ));
        }
        if of_pipeline.r#enum.iter().any(|value| !of_task.r#enum.contains(value)) {
            return Err(format!(
                "pipeline param \"{name}\" enum: {} is not a subset of the referenced in \"{task}\" task param enum: {enums}",
                go_list(&of_pipeline.r#enum)
            ));
        }
    }
    Ok(())
}

/// The param that a reference names with which a text begins: `params.x)`, `params.x[0])`, `params["x"])`.
fn param_name(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("params")?;
    for quote in ["\"", "'"] {
        let quoted = rest.strip_prefix('[').and_then(|rest| rest.strip_prefix(quote));
        if let Some(quoted) = quoted {
            return quoted.split_once(quote).map(|(name, _)| name);
        }
    }
    let (name, _) = rest.strip_prefix('.')?.split_once(')')?;
    Some(name.split_once('[').map_or(name, |(name, _)| name))
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
            let flags = FeatureFlags::default();
            let error = check_tasks(&run, &spec, &spec, &tasks, &flags).expect_err(reason);
            assert_eq!((error.reason, error.message.as_str()), (reason, message));
        }
    }

    #[test]
    fn a_pipeline_allows_no_value_that_its_task_does_not() {
        let check = |pipeline: serde_json::Value, value: &str| {
            let spec = |json| -> Vec<ParamSpec> { serde_json::from_value(json).expect("params") };
            let given = [Param { name: "p".into(), value: ParamValue::String(value.into()) }];
            let of_task = json!({"params": [{"name": "p", "enum": ["a", "b"]}], "steps": []});
            let task = ResolvedTask {
                spec: serde_json::from_value(of_task).expect("a TaskSpec"),
                ..ResolvedTask::default()
            };
            check_enum_subset(&given, &spec(pipeline), &task)
        };
        let narrow = json!([{"name": "x", "type": "string", "enum": ["a"]}]);
        let wide = json!([{"name": "x", "type": "string", "enum": ["a", "c"]}]);
        for value in ["$(params.x)", "$(params['x'])", "$(params[\"x\"])"] {
            assert_eq!(check(narrow.clone(), value), Ok(()));
            let not_a_subset = "pipeline param \"x\" enum: [a c] is not a subset of the referenced in \"\" task param enum: [a b]";
            assert_eq!(check(wide.clone(), value), Err(not_a_subset.to_owned()));
        }
        let none = json!([{"name": "x"}, {"name": "y"}]);
        assert_eq!(check(none.clone(), "$(params.x)$(params.y)"), Ok(()));
        let no_enum =
            "pipeline param \"x\" has no enum, but referenced in \"\" task has enums: [a b]";
        assert_eq!(check(none, "v-$(params.x)"), Err(no_enum.to_owned()));
    }
}
