//! Pipeline and PipelineSpec: the tasks together, and all that they share.
//!
//! What a PipelineTask is by itself is said in [`super::pipeline_task`].

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use super::dns::check_metadata;
use super::field_error::{FieldError, FieldErrors};
use super::params::{Scope, check_declared_once, check_enums, check_given_once, check_types};
use super::step::{artifacts_need_flag, has_artifact};
use super::variables::{Prefix, unknown};
use super::{
    Context, Version, matrix, pipeline_params, pipeline_results, pipeline_task, step_texts, task,
    when, workspaces,
};
use crate::graph::{Graph, GraphError};
use crate::resultref;
use crate::v1::{ParamSpec, Pipeline, PipelineSpec, PipelineTask, Step};

/// The rule for a Pipeline that is an object by itself: it declares all that its tasks use.
pub(crate) fn check(context: Context<'_>, pipeline: &Pipeline) -> FieldErrors {
    let spec = &pipeline.spec;
    let mut found = check_spec(context, spec);
    let scope = Scope::new(&spec.params);
    let known: HashSet<&str> = spec.workspaces.iter().map(|w| w.name.as_str()).collect();
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        for (index, task) in tasks.iter().enumerate() {
            let mut of_task = check_embedded_usage(context, task, &scope);
            of_task.also(workspaces::check_task_usage(task, &known));
            found.also(of_task.via_field_index(field, index));
        }
        found.also(pipeline_params::check_usage(tasks, &scope).via_field(field));
    }
    let mut errors = FieldErrors::from(check_metadata(&pipeline.metadata)).via_field("metadata");
    errors.also(found.via_field("spec"));
    errors
}

/// Params that an embedded spec uses are declared by it or by the Pipeline.
fn check_embedded_usage(
    context: Context<'_>,
    task: &PipelineTask,
    outer: &Scope<'_>,
) -> FieldErrors {
    let Some(embedded) = &task.task_spec else {
        return FieldErrors::default();
    };
    let steps = embedded_steps(context, task);
    let texts = step_texts::of_steps(&steps);
    let inner = Scope::new(&embedded.task_spec.params);
    step_texts::check_usage(context, &texts, &[&inner, outer])
}

/// The merged steps of a task's embedded spec; none when it has no such spec.
pub(crate) fn embedded_steps<'a>(context: Context<'_>, task: &'a PipelineTask) -> Cow<'a, [Step]> {
    match &task.task_spec {
        Some(embedded) => task::merged_steps(context, &embedded.task_spec),
        None => Cow::Borrowed(&[]),
    }
}

/// The rule for a PipelineSpec anywhere, relative to it.
pub(crate) fn check_spec(context: Context<'_>, spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if *spec == PipelineSpec::default() {
        errors.also(FieldError::about(
            "expected at least one, got none",
            ["description", "params", "resources", "tasks", "workspaces"],
        ));
    }
    errors.also(check_tasks(context, spec));
    if let Err(error) = build_graph(context.version, &spec.tasks) {
        let subject = match &error {
            GraphError::MissingTask { dependency, .. } => dependency.clone(),
            _ => String::new(),
        };
        errors.also(FieldError::invalid(error, "tasks").subject(subject));
    }
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        errors.also(check_params(context, tasks, &spec.params).via_field(field));
        errors.also(check_context(tasks).via_field(field));
        errors.also(matrix::check(context, tasks).via_field(field));
        errors.also(pipeline_results::check_prefixes(tasks, field));
    }
    errors.also(workspaces::check_pipeline_declared(&spec.workspaces));
    errors.also(pipeline_results::check_status_variables(spec));
    errors.also(pipeline_results::check_results(spec));
    errors.also(pipeline_results::check_child_pipelines(spec));
    errors.also(pipeline_results::check_finally(spec));
    errors.also(check_artifacts(context, spec));
    errors
}

/// What needs no look at the other tasks but for the names, which differ over both lists.
fn check_tasks(context: Context<'_>, spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut names = HashSet::new();
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        for (index, task) in tasks.iter().enumerate() {
            let mut found = pipeline_task::check(context, task);
            if !names.insert(&task.name) {
                found.also(FieldError::multiple_one_of(["name"]));
            }
            found.also(when::check(context, &task.when));
            errors.also(found.via_field_index(field, index));
        }
    }
    errors
}

/// The graph as the document's version sees it: v1beta1 does not look into embedded specs.
fn build_graph(version: Version, tasks: &[PipelineTask]) -> Result<Graph, GraphError> {
    if version == Version::V1 {
        return Graph::build(tasks);
    }
    let dependencies = |task: &PipelineTask| {
        let mut names: BTreeSet<String> = task.run_after.iter().cloned().collect();
        let mut add = |text: &str| {
            names.extend(resultref::in_text(text).map(|reference| reference.pipeline_task));
        };
        for param in resultref::all_params(task) {
            resultref::visit_value(&param.value, &mut add);
        }
        task.when.iter().for_each(|expression| resultref::visit_when(expression, &mut add));
        names
    };
    let names = tasks.iter().map(|task| task.name.clone()).collect();
    Graph::from_edges(names, &tasks.iter().map(dependencies).collect::<Vec<_>>())
}

/// Declared params, and the params given to tasks; relative to the tasks, as Tekton reports both.
pub(crate) fn check_params(
    context: Context<'_>,
    tasks: &[PipelineTask],
    params: &[ParamSpec],
) -> FieldErrors {
    let mut errors = check_types(params).via_field("params");
    errors.also(check_declared_once(params));
    errors.also(check_enums(context, params).via_field("params"));
    for (index, task) in tasks.iter().enumerate() {
        errors.also(check_given_once(&task.params).via_field("params").via_index(index));
    }
    errors
}

/// `$(context.…)` in params must be ones that exist. Tekton looks at the last task only.
fn check_context(tasks: &[PipelineTask]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut check = |text: &str| {
        for (prefix, known) in [
            ("context.pipelineRun", &["name", "namespace", "uid"][..]),
            ("context.pipeline", &["name"][..]),
            ("context.pipelineTask", &["retries"][..]),
        ] {
            let error = unknown(text, Prefix(prefix), false, |name| known.contains(&name));
            errors.also(FieldErrors::from(error).via_field("value"));
        }
    };
    if let Some(task) = tasks.last() {
        for param in resultref::all_params(task) {
            resultref::visit_value(&param.value, &mut check);
        }
    }
    errors
}

/// Artifacts in params need their flag; Tekton stops at the first.
fn check_artifacts(context: Context<'_>, spec: &PipelineSpec) -> FieldErrors {
    if context.flags.enable_artifacts {
        return FieldErrors::default();
    }
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        for (index, task) in tasks.iter().enumerate() {
            let mut is_used = false;
            for param in &task.params {
                resultref::visit_value(&param.value, &mut |text| {
                    is_used |= has_artifact(text, "tasks.");
                });
            }
            if is_used {
                let error = FieldErrors::from(artifacts_need_flag());
                return error.via_field("params").via_field_index(field, index);
            }
        }
    }
    FieldErrors::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{ApiFields, FeatureFlags};
    use crate::validate::tests::{parsed, shown};

    fn errors_of(flags: &FeatureFlags, spec: &str) -> String {
        let metadata = crate::k8s::ObjectMeta { name: "p".to_owned(), ..Default::default() };
        let pipeline = Pipeline { metadata, spec: parsed(spec), ..Pipeline::default() };
        shown(check(Context::new(flags), &pipeline))
    }

    #[test]
    fn pipelines() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (r#"{"tasks":[{"name":"a","taskRef":{"name":"t"}}]}"#, ""),
            (
                r#"{}"#,
                "expected at least one, got none: spec.description, spec.params, spec.resources, spec.tasks, spec.workspaces",
            ),
            (
                r#"{"tasks":[{"name":"a"}]}"#,
                "expected exactly one, got neither: spec.tasks[0].taskRef, spec.tasks[0].taskSpec",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"taskSpec":{"steps":[{"image":"x"}]}}]}"#,
                "expected exactly one, got multiple: spec.tasks[0].taskRef, spec.tasks[0].taskSpec",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"}}],"finally":[{"name":"a","taskRef":{"name":"t"}}]}"#,
                "expected exactly one, got both: spec.finally[0].name",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"runAfter":["ghost"]}]}"#,
                "invalid value: couldn't add link between a and ghost: task a depends on ghost but ghost wasn't present in Pipeline: spec.tasks",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"onError":"bad"}]}"#,
                "invalid value: bad: spec.tasks[0].OnError\nPipelineTask OnError must be either \"continue\" or \"stopAndFail\"",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"onError":"continue","retries":1}]}"#,
                "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0: ",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"apiVersion":"noslash"}}]}"#,
                "invalid value: custom task ref must specify kind: spec.tasks[0].taskRef.kind\ninvalid value: invalid apiVersion format \"noslash\", must be in the format \"group/version\": spec.tasks[0].taskRef.apiVersion",
            ),
            (
                r#"{"tasks":[{"name":"a","taskSpec":{"kind":"Foo"}}]}"#,
                "invalid value: custom task spec must specify apiVersion: spec.tasks[0].taskSpec.apiVersion",
            ),
            (
                r#"{"tasks":[{"name":"a","pipelineRef":{"name":"t"}}]}"#,
                "pipelineRef requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": ",
            ),
            (
                r#"{"params":[{"name":"a","type":"weird"}],"tasks":[{"name":"a","taskRef":{"name":"t"}}]}"#,
                "invalid value: weird: spec.finally.params.a.type, spec.tasks.params.a.type",
            ),
            (
                r#"{"tasks":[{"name":"a","taskSpec":{"steps":[{"image":"x","script":"$(params.p)"}]}}]}"#,
                "non-existent variable in \"$(params.p)\": spec.tasks[0].steps[0].script",
            ),
            (
                r#"{"params":[{"name":"p","type":"string"}],"tasks":[{"name":"a","taskSpec":{"steps":[{"image":"x","script":"$(params.p)"}]}}]}"#,
                "",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"params":[{"name":"p","value":"$(context.pipelineRun.nope)"}]}]}"#,
                "non-existent variable in \"$(context.pipelineRun.nope)\": spec.tasks.value",
            ),
            (
                r#"{"tasks":[{"name":"a","taskRef":{"name":"t"},"params":[{"name":"p","value":"$(tasks.b.outputs.c)"}]}]}"#,
                "feature flag enable-artifacts should be set to true to use artifacts feature.: spec.tasks[0].params",
            ),
            (
                r#"{"tasks":[{"name":"a","taskSpec":{"steps":[{"image":"x"}]},"workspaces":[{"name":"w"}]}]}"#,
                "invalid value: pipeline task \"a\" expects workspace with name \"w\" but none exists in pipeline spec: spec.tasks[0].workspaces[0]",
            ),
        ] {
            assert_eq!(errors_of(&flags, spec), errors, "{spec}");
        }
    }

    #[test]
    fn alpha_and_disabled_specs() {
        let flags = FeatureFlags {
            enable_api_fields: ApiFields::Alpha,
            disable_inline_spec: "pipeline,taskrun".to_owned(),
            ..FeatureFlags::default()
        };
        for (spec, errors) in [
            (
                r#"{"tasks":[{"name":"a","taskSpec":{"steps":[{"image":"x"}]}}]}"#,
                "must not set the field(s): spec.tasks[0].taskSpec",
            ),
            (
                r#"{"tasks":[{"name":"a"}]}"#,
                "expected exactly one, got neither: spec.tasks[0].pipelineRef, spec.tasks[0].pipelineSpec, spec.tasks[0].taskRef, spec.tasks[0].taskSpec",
            ),
            (
                r#"{"tasks":[{"name":"a","pipelineRef":{"name":"t"}},{"name":"b","taskRef":{"name":"t"},"params":[{"name":"p","value":"$(tasks.a.results.r)"}]}]}"#,
                "invalid value: result reference to pipelineTask \"a\" is not supported: referenced task uses pipelineRef or pipelineSpec and result propagation from child Pipelines is not yet implemented: spec.tasks[1]",
            ),
        ] {
            assert_eq!(errors_of(&flags, spec), errors, "{spec}");
        }
    }
}
