//! Task and TaskSpec: steps, sidecars, volumes, results, and the variables used in them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::dns::{check_metadata, has_qualified_form, is_label};
use super::field_error::{FieldError, FieldErrors};
use super::params::{
    Scope, check_declared_once, check_enums, check_name_formats, check_types, keys_of_other_type,
};
use super::step::{
    check_name_is_new, check_result_paths, check_results, check_script_and_command, check_step,
    invalid_result_name, uses_artifacts_without_flag,
};
use super::step_texts::{self, StepTexts};
use super::text::{list, quote};
use super::variables::{Prefix, unknown};
use super::{Context, Version, step_template, when, workspaces};
use crate::k8s::Volume;
use crate::v1::{ParamSpec, ParamValue, Sidecar, Step, Task, TaskResult, TaskSpec};

/// The name that Tekton gives its own sidecar.
const RESERVED_SIDECAR: &str = "tekton-log-results";

/// The rule for a Task that is an object by itself: all params that it uses are its own.
pub(crate) fn check(context: Context<'_>, task: &Task) -> FieldErrors {
    let mut errors = FieldErrors::from(check_metadata(&task.metadata)).via_field("metadata");
    let steps = merged_steps(context, &task.spec);
    let texts = step_texts::of_steps(&steps);
    let scope = Scope::new(&task.spec.params);
    let mut spec = check_spec(context, &task.spec, &steps);
    spec.also(step_texts::check_usage(context, &texts, &[&scope]));
    errors.also(spec.via_field("spec"));
    errors
}

/// The steps that a TaskSpec's rules are about.
pub(crate) fn merged_steps<'a>(context: Context<'_>, spec: &'a TaskSpec) -> Cow<'a, [Step]> {
    step_template::merge(context.version, spec.step_template.as_ref(), &spec.steps)
}

/// The rule for a TaskSpec anywhere, relative to it; `steps` are its [`merged_steps`].
pub(crate) fn check_spec(context: Context<'_>, spec: &TaskSpec, steps: &[Step]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if steps.is_empty() {
        errors.also(FieldError::missing("steps"));
    }
    errors.also(check_volumes(&spec.volumes).via_field("volumes"));
    errors.also(workspaces::check_declared(spec).via_field("workspaces"));
    errors.also(workspaces::check_usages(context, spec));
    errors.also(check_steps(context, steps).via_field("steps"));
    errors.also(check_sidecars(context, &spec.sidecars));
    errors.also(check_types(&spec.params).via_field("params"));
    let texts = step_texts::of_steps(steps);
    errors.also(check_params(context, &spec.params));
    errors.also(step_texts::check_arrays(&texts, &Scope::new(&spec.params)));
    errors.also(check_variables(context, spec, steps, &texts));
    for (index, result) in spec.results.iter().enumerate() {
        errors.also(check_result(result).via_field_index("results", index));
    }
    errors
}

/// Declared params: names differ and are well-formed, enums make sense.
pub(crate) fn check_params<'a, P>(context: Context<'_>, params: P) -> FieldErrors
where
    P: IntoIterator<Item = &'a ParamSpec> + Copy,
{
    let mut errors = check_declared_once(params);
    errors.also(check_enums(context, params).via_field("params"));
    errors.also(check_name_formats(params));
    errors
}

fn check_volumes(volumes: &[Volume]) -> FieldErrors {
    let mut names = HashSet::new();
    let mut errors = FieldErrors::default();
    for (index, Volume { name, .. }) in volumes.iter().enumerate() {
        if !names.insert(name) {
            let message = format!("multiple volumes with same name {}", quote(name));
            errors.also(FieldErrors::from(FieldError::new(message, "name")).via_index(index));
        }
    }
    errors
}

fn check_steps(context: Context<'_>, steps: &[Step]) -> FieldErrors {
    let mut names = HashSet::new();
    let mut errors = FieldErrors::default();
    for (index, step) in steps.iter().enumerate() {
        // In v1beta1 a use of artifacts hides everything else about a step, its name too.
        let is_hidden =
            context.version == Version::V1beta1 && uses_artifacts_without_flag(context, step);
        if !step.name.is_empty() && !is_hidden && !names.insert(&step.name) {
            errors.also(check_name_is_new(context.version, &step.name, index));
        }
        errors.also(check_step(context, step).via_index(index));
        errors.also(check_result_paths_of(step).via_index(index));
        errors.also(check_results(&step.results).via_index(index).via_field("results"));
        errors.also(when::check(context, &step.when).via_index(index));
    }
    errors
}

fn check_result_paths_of(step: &Step) -> FieldErrors {
    if step.results.is_empty() {
        return FieldErrors::default();
    }
    check_result_paths(&step.results, &step.script)
}

fn check_sidecars(context: Context<'_>, sidecars: &[Sidecar]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for sidecar in sidecars {
        if sidecar.name == RESERVED_SIDECAR {
            let message = format!("Invalid: cannot use reserved sidecar name {RESERVED_SIDECAR} ");
            let path = match context.version {
                Version::V1 => "sidecars.name",
                Version::V1beta1 => "sidecars",
            };
            errors.also(FieldError::new(message, path));
        }
        if context.version == Version::V1beta1 {
            continue;
        }
        let mut found = FieldErrors::default();
        if sidecar.image.is_empty() {
            found.also(FieldError::missing("image"));
        }
        found.also(check_script_and_command(&sidecar.script, &sidecar.command));
        errors.also(found.via_field("sidecars"));
    }
    errors
}

/// `$(context.…)` in steps, and `$(results.R.path)` in scripts.
fn check_variables(
    context: Context<'_>,
    spec: &TaskSpec,
    steps: &[Step],
    texts: &[StepTexts<'_>],
) -> FieldErrors {
    let mut errors = step_texts::check_context(context, texts);
    let results: HashSet<&str> = spec.results.iter().map(|result| result.name.as_str()).collect();
    let named = context.version == Version::V1beta1;
    for (index, step) in steps.iter().enumerate() {
        let error = unknown(&step.script, Prefix("results"), named, |name| results.contains(name));
        let error = FieldErrors::from(error).via_field("script");
        errors.also(error.via_field_index("steps", index));
    }
    errors
}

/// The rule for a result of a Task, relative to it.
fn check_result(result: &TaskResult) -> FieldErrors {
    let TaskResult { name, r#type, properties, .. } = result;
    if !has_qualified_form(name) {
        return invalid_result_name(name).into();
    }
    let mut errors = FieldErrors::default();
    match r#type.as_str() {
        "" | "string" | "array" => {}
        "object" if properties.is_empty() => {
            errors.also(FieldError::missing(format!("{name}.properties")));
        }
        "object" => {
            let wrong = keys_of_other_type(properties);
            if !wrong.is_empty() {
                errors.also(FieldError::new(
                    format!("The value type specified for these keys {} is invalid, the type must be string", list(wrong)),
                    format!("{name}.properties"),
                ));
            }
        }
        other => errors.also(FieldError::invalid(other, "type").details("type must be string")),
    }
    errors.also(check_result_value(result));
    errors
}

/// A result's `value` copies one result of one step.
fn check_result_value(result: &TaskResult) -> FieldErrors {
    let name = &result.name;
    let value = match &result.value {
        None => return FieldErrors::default(),
        Some(ParamValue::String(value)) if value.is_empty() => return FieldErrors::default(),
        Some(ParamValue::String(value)) => value,
        Some(other) => {
            let given = other.type_name();
            return FieldError::new(
                format!("Invalid Type. Wanted string but got: \"{given}\""),
                format!("{name}.type"),
            )
            .into();
        }
    };
    let Some((step, wanted)) = step_result(value) else {
        return FieldError::new(
            format!("Could not extract step name and result name. Expected value to look like $(steps.<stepName>.results.<resultName>) but got \"{value}\""),
            format!("{name}.value"),
        )
        .into();
    };
    let mut errors = FieldErrors::default();
    if !is_label(step) {
        errors.also(FieldError::new(format!("invalid extracted step name {}", quote(step)), format!("{name}.value")).details("stepName in $(steps.<stepName>.results.<resultName>) must be a valid DNS Label, For more info refer to https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names"));
    }
    if !has_qualified_form(wanted) {
        errors.also(FieldError::new(format!("invalid extracted result name {}", quote(wanted)), format!("{name}.value")).details("resultName in $(steps.<stepName>.results.<resultName>) must consist of alphanumeric characters, '-', '_', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my-name',  or 'my_name', regex used for validation is '^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$')"));
    }
    errors
}

/// The step and the result of the first `$(steps.S.results.R)` in a text.
fn step_result(text: &str) -> Option<(&str, &str)> {
    text.lines().find_map(|line| {
        let (_, after) = line.split_once("$(steps.")?;
        let (step, after) = after.split_once(".results.")?;
        let (result, _) = after.split_once(')')?;
        Some((step, result))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    fn errors_of(version: Version, task: &str) -> String {
        let flags = FeatureFlags::default();
        let context = Context { version, ..Context::new(&flags) };
        let spec: TaskSpec = parsed(task);
        let metadata = crate::k8s::ObjectMeta { name: "t".to_owned(), ..Default::default() };
        shown(check(context, &Task { metadata, spec, ..Task::default() }))
    }

    #[test]
    fn tasks() {
        for (task, errors) in [
            (r#"{}"#, "missing field(s): spec.steps"),
            (
                r#"{"steps":[{"image":"x","name":"a"},{"image":"x","name":"a"}]}"#,
                "expected exactly one, got both: spec.steps[1].name",
            ),
            (
                r#"{"steps":[{"image":"x"}],"volumes":[{"name":"v"},{"name":"v"}]}"#,
                "multiple volumes with same name \"v\": spec.volumes[1].name",
            ),
            (
                r#"{"steps":[{"image":"x"}],"sidecars":[{"name":"tekton-log-results"}]}"#,
                "Invalid: cannot use reserved sidecar name tekton-log-results : spec.sidecars.name\nmissing field(s): spec.sidecars.image",
            ),
            (
                r#"{"steps":[{"image":"x","when":[{"input":"a","operator":"in"}]}]}"#,
                "invalid value: expecting non-empty values field: spec.steps[0].when[0]",
            ),
            (
                r#"{"steps":[{"image":"x","results":[{"name":"r","type":"object"}]}]}"#,
                "missing field(s): spec.steps.results[0][0].r.properties",
            ),
            (
                r#"{"steps":[{"image":"x","results":[{"name":"r"}],"script":"$(step.results.r.path) $(step.results.q.path)"}]}"#,
                "non-existent variable in \"$(step.results.r.path) $(step.results.q.path)\": spec.steps[0].script",
            ),
            (
                r#"{"stepTemplate":{"env":[{"name":"A","value":"$(params.nope)"}]},"steps":[{"image":"x"}]}"#,
                "non-existent variable in \"$(params.nope)\": spec.steps[0].env[A]",
            ),
            (
                r#"{"steps":[{"image":"x","volumeMounts":[{"name":"v","mountPath":"$(params.nope)"}]}]}"#,
                "non-existent variable in \"$(params.nope)\": spec.steps[0].volumeMount[0].MountPath",
            ),
            (
                r#"{"steps":[{"image":"$(context.taskRun.nope)","script":"$(context.task.retry-count)"}]}"#,
                "non-existent variable in \"$(context.taskRun.nope)\": spec.steps[0].image",
            ),
            (
                r#"{"params":[{"name":"a","type":"array"}],"steps":[{"image":"x","args":["$(params.a[*])","x $(params.a[*])"],"script":"$(params.a)"},{"image":"x"}]}"#,
                "variable is not properly isolated in \"x $(params.a[*])\": spec.steps[1].steps[0].args[1]\nvariable type invalid in \"$(params.a)\": spec.steps[1].steps[0].script",
            ),
            (
                r#"{"steps":[{"image":"x","script":"$(params.a.b.c)"},{"image":"x"}]}"#,
                "Invalid referencing of parameters in \"$(params.a.b.c)\"! Only two dot-separated components after the prefix \"params\" are allowed.: spec.steps[0].script, spec.steps[1].steps[0].script",
            ),
        ] {
            assert_eq!(errors_of(Version::V1, task), errors, "{task}");
        }
    }

    #[test]
    fn v1beta1_says_some_things_differently() {
        for (task, errors) in [
            (
                r#"{"steps":[{"image":"x","name":"a"},{"image":"x","name":"a"}]}"#,
                "invalid value: a: spec.steps[1].name",
            ),
            (
                r#"{"steps":[{"image":"x"}],"sidecars":[{"name":"tekton-log-results"}]}"#,
                "Invalid: cannot use reserved sidecar name tekton-log-results : spec.sidecars",
            ),
            (
                r#"{"steps":[{"image":"$(params.q)","script":"$(params.p) $(results.r.path)"}]}"#,
                "non-existent variable `p` in \"$(params.p) $(results.r.path)\": spec.steps[0].script\nnon-existent variable `r` in \"$(params.p) $(results.r.path)\": spec.steps[0].script\nnon-existent variable in \"$(params.q)\": spec.steps[0].image",
            ),
        ] {
            assert_eq!(errors_of(Version::V1beta1, task), errors, "{task}");
        }
    }

    #[test]
    fn results() {
        for (result, beginning) in [
            (r#"{"name":"r","value":"$(steps.x.results.y)"}"#, ""),
            (r#"{"name":"-r"}"#, "invalid key name \"-r\": name\nName must consist"),
            (r#"{"name":"r","type":"bogus"}"#, "invalid value: bogus: type\ntype must be string"),
            (r#"{"name":"r","type":"object"}"#, "missing field(s): r.properties"),
            (
                r#"{"name":"r","value":"plain"}"#,
                "Could not extract step name and result name. Expected value to look like $(steps.<stepName>.results.<resultName>) but got \"plain\": r.value",
            ),
            (
                r#"{"name":"r","value":["a"]}"#,
                "Invalid Type. Wanted string but got: \"array\": r.type",
            ),
            (
                r#"{"name":"r","value":"$(steps.A B.results.y)"}"#,
                "invalid extracted step name \"A B\": r.value\nstepName in",
            ),
            (
                r#"{"name":"r","value":"$(steps.a.results.y[*])"}"#,
                "invalid extracted result name \"y[*]\": r.value\nresultName in",
            ),
        ] {
            let result: TaskResult = parsed(result);
            let found = shown(check_result(&result));
            assert!(
                found.starts_with(beginning) && found.is_empty() == beginning.is_empty(),
                "{found}"
            );
        }
    }
}
