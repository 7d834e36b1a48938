//! The checks that a PipelineRun passes before its tasks are looked at, and its Pipeline with all
//! values applied.

use crate::flags::FeatureFlags;
use crate::graph::Graph;
use crate::params::{self, PIPELINE_PATTERNS, check};
use crate::rejection::{Rejection, go_list, go_map};
use crate::resultref::{visit_value, visit_when};
use crate::substitute::{Replacements, apply_to_binding, apply_to_pipeline_spec};
use crate::v1::{PipelineRun, PipelineSpec, WorkspaceBinding};

/// A PipelineRun that may go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The Pipeline with params, contexts and workspaces applied: `status.pipelineSpec`.
    pub spec: PipelineSpec,
    /// The run's workspace bindings with its own params applied.
    pub workspaces: Vec<WorkspaceBinding>,
    /// The graph of `spec.tasks`.
    pub tasks: Graph,
    /// The graph of `spec.finally`.
    pub finally: Graph,
}

/// Checks and prepares a run of `spec`, the resolved and defaulted Pipeline called `pipeline_name`
/// (the run's own name for an embedded one).
///
/// The spec itself must have passed validation; reasons here are `PipelineInvalidGraph`,
/// `ParameterMissing`, `ParameterTypeMismatch`, `InvalidParamValue`, `ObjectParameterMissKeys`,
/// `ParamArrayIndexingInvalid`, `InvalidWorkspaceBindings`, `InvalidTaskRunSpecs`,
/// `PipelineValidationFailed`.
pub fn prepare(
    run: &PipelineRun,
    spec: &PipelineSpec,
    pipeline_name: &str,
    flags: &FeatureFlags,
) -> Result<Prepared, Rejection> {
    let namespace = &run.metadata.namespace;
    let run_name = format!("PipelineRun {namespace}/{}", run.metadata.name);
    let pipeline = format!("Pipeline {namespace}/{pipeline_name}");
    let tasks = Graph::build(&spec.tasks).map_err(|error| {
        Rejection::user(
            "PipelineInvalidGraph",
            format!("{run_name}'s Pipeline DAG is invalid: {error}"),
        )
    })?;
    let finally = Graph::build_finally(&spec.finally).map_err(|error| {
        Rejection::user(
            "PipelineInvalidGraph",
            format!("{run_name}'s Pipeline DAG is invalid for finally clause: {error}"),
        )
    })?;
    check_params(run, spec, &run_name, &pipeline, flags)?;
    check_workspaces(run, spec, &run_name, &pipeline)?;
    check_task_run_specs(run, spec, &run_name)?;

    let mut workspaces = run.spec.workspaces.clone();
    let given = params::param_replacements(&run.spec.params, PIPELINE_PATTERNS);
    for binding in &mut workspaces {
        apply_to_binding(binding, &given);
    }
    let mut applied = spec.clone();
    let values =
        params::pipeline_replacements(&spec.params, &run.spec.params).map_err(|error| {
            Rejection::user(
                "PipelineValidationFailed",
                format!("Failed to apply parameters to {pipeline}: {error}"),
            )
        })?;
    apply_to_pipeline_spec(&mut applied, &values);
    apply_contexts(&mut applied, pipeline_name, run);
    apply_workspaces(&mut applied, run);
    check_on_error(&applied).map_err(|error| {
        Rejection::user(
            "PipelineValidationFailed",
            format!("{pipeline} can't be Run; it has an invalid spec: {error}"),
        )
    })?;
    Ok(Prepared { spec: applied, workspaces, tasks, finally })
}

fn check_params(
    run: &PipelineRun,
    spec: &PipelineSpec,
    run_name: &str,
    pipeline: &str,
    flags: &FeatureFlags,
) -> Result<(), Rejection> {
    let given = &run.spec.params;
    let missing = check::missing(&spec.params, given);
    if !missing.is_empty() {
        return Err(Rejection::user(
            "ParameterMissing",
            format!(
                "{run_name} is missing some parameters required by {pipeline}: pipelineRun missing parameters: {}",
                go_list(missing)
            ),
        ));
    }
    let mismatched = check::mismatched(&spec.params, given);
    if !mismatched.is_empty() {
        return Err(Rejection::user(
            "ParameterTypeMismatch",
            format!(
                "{run_name} parameters have mismatching types with {pipeline}'s parameters: parameters have inconsistent types : {}",
                go_list(mismatched)
            ),
        ));
    }
    if flags.enable_param_enum {
        check::enums(&spec.params, given).map_err(|error| {
            Rejection::user(
                "InvalidParamValue",
                format!("{run_name} parameters have invalid value: {error}"),
            )
        })?;
    }
    let lacking = check::missing_keys(&spec.params, given);
    if !lacking.is_empty() {
        return Err(Rejection::user(
            "ObjectParameterMissKeys",
            format!(
                "{run_name} parameters is missing object keys required by {pipeline}'s parameters: pipelineRun missing object keys for parameters: {}",
                go_map(&lacking)
            ),
        ));
    }
    let mut texts = Vec::new();
    for (task, is_final) in spec
        .tasks
        .iter()
        .map(|task| (task, false))
        .chain(spec.finally.iter().map(|task| (task, true)))
    {
        let matrix = task.matrix.iter().flat_map(|matrix| &matrix.params);
        for param in task.params.iter().chain(matrix) {
            visit_value(&param.value, &mut |text| texts.push(text));
        }
        if !is_final {
            texts.extend(task.workspaces.iter().map(|w| w.sub_path.as_str()));
        }
        for when in &task.when {
            visit_when(when, &mut |text| texts.push(text));
        }
    }
    check::array_indexes(&spec.params, given, texts).map_err(|error| {
        Rejection::user(
            "ParamArrayIndexingInvalid",
            format!(
                "{run_name} failed validation: failed to validate {pipeline}'s parameter which has an invalid index while referring to an array: {error}"
            ),
        )
    })
}

fn check_workspaces(
    run: &PipelineRun,
    spec: &PipelineSpec,
    run_name: &str,
    pipeline: &str,
) -> Result<(), Rejection> {
    let unbound = spec.workspaces.iter().find(|declared| {
        !declared.optional && !run.spec.workspaces.iter().any(|b| b.name == declared.name)
    });
    match unbound {
        None => Ok(()),
        Some(declared) => Err(Rejection::user(
            "InvalidWorkspaceBindings",
            format!(
                "{run_name} doesn't bind {pipeline}'s Workspaces correctly: pipeline requires workspace with name {:?} be provided by pipelinerun",
                declared.name
            ),
        )),
    }
}

fn check_task_run_specs(
    run: &PipelineRun,
    spec: &PipelineSpec,
    run_name: &str,
) -> Result<(), Rejection> {
    let unknown = run.spec.task_run_specs.iter().find(|settings| {
        !spec.tasks.iter().chain(&spec.finally).any(|task| task.name == settings.pipeline_task_name)
    });
    match unknown {
        None => Ok(()),
        Some(settings) => Err(Rejection::user(
            "InvalidTaskRunSpecs",
            format!(
                "{run_name} doesn't define taskRunSpecs correctly: pipelineRun's taskrunSpecs defined wrong taskName: {:?}, does not exist in Pipeline",
                settings.pipeline_task_name
            ),
        )),
    }
}

/// The `$(context.pipelineRun.*)` and `$(context.pipeline.name)` of a run.
pub(crate) fn context_replacements(pipeline_name: &str, run: &PipelineRun) -> Replacements {
    let mut with = Replacements::new();
    with.set("context.pipelineRun.name", run.metadata.name.clone());
    with.set("context.pipeline.name", pipeline_name);
    with.set("context.pipelineRun.namespace", run.metadata.namespace.clone());
    with.set("context.pipelineRun.uid", run.metadata.uid.clone());
    with
}

fn apply_contexts(spec: &mut PipelineSpec, pipeline_name: &str, run: &PipelineRun) {
    let with = context_replacements(pipeline_name, run);
    for task in spec.tasks.iter_mut().chain(&mut spec.finally) {
        // Unlike params, contexts reach the displayName of a matrixed task too.
        with.apply_to(&mut task.display_name);
    }
    apply_to_pipeline_spec(spec, &with);
}

fn apply_workspaces(spec: &mut PipelineSpec, run: &PipelineRun) {
    let mut with = Replacements::new();
    for declared in &spec.workspaces {
        with.set(format!("workspaces.{}.bound", declared.name), "false");
    }
    for binding in &run.spec.workspaces {
        with.set(format!("workspaces.{}.bound", binding.name), "true");
    }
    apply_to_pipeline_spec(spec, &with);
}

/// `onError` may be a variable, so its value is looked at again.
fn check_on_error(spec: &PipelineSpec) -> Result<(), String> {
    let groups = [("tasks", &spec.tasks), ("finally", &spec.finally)];
    for (group, tasks) in groups {
        for (i, task) in tasks.iter().enumerate() {
            match task.on_error.as_str() {
                "" | "stopAndFail" => {}
                "continue" if task.retries > 0 => {
                    return Err(
                        "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0"
                            .to_owned(),
                    );
                }
                "continue" => {}
                other => {
                    return Err(format!(
                        "invalid value: {other}: {group}[{i}].OnError\nPipelineTask OnError must be either \"continue\" or \"stopAndFail\""
                    ));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
