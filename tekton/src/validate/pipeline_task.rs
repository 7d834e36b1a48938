//! One PipelineTask by itself: its name, what it runs, and whether it is a custom task.

use super::dns::is_label;
use super::field_error::{FieldError, FieldErrors};
use super::refs::check_ref;
use super::step::is_param_reference;
use super::text::quote;
use super::{Context, Version, pipeline, task};
use crate::flags::ApiFields;
use crate::v1::PipelineTask;

/// The rule for one PipelineTask, relative to it.
pub(crate) fn check(context: Context<'_>, task: &PipelineTask) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !is_label(&task.name) {
        errors.also(FieldError::new(format!("invalid value {}", quote(&task.name)), "name").details("Pipeline Task name must be a valid DNS Label.For more info refer to https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names"));
    }
    if let Some(reference) = &task.task_ref {
        if !reference.resolver.is_empty() {
            errors.also(context.gate("taskref.resolver", ApiFields::Beta, "taskRef.resolver"));
        }
        if !reference.params.is_empty() {
            errors.also(context.gate("taskref.params", ApiFields::Beta, "taskRef.params"));
        }
    }
    errors.also(check_kind(context, task));
    errors.also(check_on_error(context, task));
    if let Some(embedded) = &task.task_spec
        && !embedded.task_spec.steps.is_empty()
    {
        for (value, field) in [(&embedded.api_version, "apiVersion"), (&embedded.kind, "kind")] {
            if !value.is_empty() {
                let path = format!("taskSpec.{field}");
                let message = format!("{path} cannot be specified when using taskSpec.steps");
                errors.also(FieldError::new(message, path));
            }
        }
    }
    if is_custom(task) {
        errors.also(check_custom(task));
    } else {
        errors.also(check_regular(context, task));
    }
    errors
}

/// A task has exactly one of four things, each allowed by the flags.
fn check_kind(context: Context<'_>, task: &PipelineTask) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let given: Vec<&str> = [
        ("taskRef", task.task_ref.is_some()),
        ("taskSpec", task.task_spec.is_some()),
        ("pipelineRef", task.pipeline_ref.is_some()),
        ("pipelineSpec", task.pipeline_spec.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, is_given)| is_given.then_some(field))
    .collect();
    for field in &given {
        if field.starts_with("pipeline") {
            errors.also(context.gate(field, ApiFields::Alpha, field));
        }
        if field.ends_with("Spec") && context.is_inline_spec_disabled("pipeline") {
            errors.also(FieldError::disallowed([field]));
        }
    }
    match given.len() {
        0 if context.flags.enable_api_fields == ApiFields::Alpha => {
            errors.also(FieldError::missing_one_of([
                "taskRef",
                "taskSpec",
                "pipelineRef",
                "pipelineSpec",
            ]));
        }
        0 => errors.also(FieldError::missing_one_of(["taskRef", "taskSpec"])),
        1 => {}
        _ => errors.also(FieldError {
            message: "expected exactly one, got multiple".to_owned(),
            paths: given.into_iter().map(str::to_owned).collect(),
            ..FieldError::default()
        }),
    }
    errors
}

fn check_on_error(context: Context<'_>, task: &PipelineTask) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let on_error = task.on_error.as_str();
    if on_error.is_empty() || is_param_reference(on_error) {
        return errors;
    }
    errors.also(context.gate("OnError", ApiFields::Beta, "onError"));
    if !matches!(on_error, "continue" | "stopAndFail") {
        errors.also(
            FieldError::invalid(on_error, "OnError")
                .details("PipelineTask OnError must be either \"continue\" or \"stopAndFail\""),
        );
    }
    if on_error == "continue" && task.retries > 0 {
        errors.also(FieldError::about(
            "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0",
            [],
        ));
    }
    errors
}

/// Whether another controller would run the task: it has an `apiVersion` or a foreign kind.
fn is_custom(task: &PipelineTask) -> bool {
    let is_foreign = |kind: &str| !matches!(kind, "" | "Task");
    task.task_ref
        .as_ref()
        .is_some_and(|reference| is_foreign(&reference.kind) || !reference.api_version.is_empty())
        || task
            .task_spec
            .as_ref()
            .is_some_and(|embedded| is_foreign(&embedded.kind) || !embedded.api_version.is_empty())
}

fn check_custom(task: &PipelineTask) -> FieldErrors {
    let reference = task.task_ref.as_ref().map(|it| ("ref", "taskRef", &it.kind, &it.api_version));
    let spec = task.task_spec.as_ref().map(|it| ("spec", "taskSpec", &it.kind, &it.api_version));
    let mut errors = FieldErrors::default();
    for (what, field, kind, api_version) in reference.into_iter().chain(spec) {
        if kind.is_empty() {
            let message = format!("custom task {what} must specify kind");
            errors.also(FieldError::invalid(message, format!("{field}.kind")));
        }
        let message = if api_version.is_empty() {
            format!("custom task {what} must specify apiVersion")
        } else if is_group_and_version(api_version) {
            continue;
        } else {
            let given = quote(api_version);
            format!("invalid apiVersion format {given}, must be in the format \"group/version\"")
        };
        errors.also(FieldError::invalid(message, format!("{field}.apiVersion")));
    }
    errors
}

fn is_group_and_version(api_version: &str) -> bool {
    api_version.split_once('/').is_some_and(|(group, version)| {
        !group.is_empty() && !version.is_empty() && !version.contains('/')
    })
}

fn check_regular(context: Context<'_>, task: &PipelineTask) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if let Some(embedded) = &task.task_spec {
        let steps = pipeline::embedded_steps(context, task);
        let found = task::check_spec(context, &embedded.task_spec, &steps);
        errors.also(found.via_field("taskSpec"));
    }
    if let Some(it) = &task.task_ref {
        errors.also(check_ref(context, &it.name, &it.resolver, &it.params).via_field("taskRef"));
    }
    if context.version == Version::V1beta1 {
        return errors;
    }
    if let Some(it) = &task.pipeline_ref {
        let found = check_ref(context, &it.name, &it.resolver, &it.params);
        errors.also(found.via_field("pipelineRef"));
    }
    if let Some(spec) = &task.pipeline_spec {
        errors.also(pipeline::check_spec(context, spec).via_field("pipelineSpec"));
    }
    errors
}
