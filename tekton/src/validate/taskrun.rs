//! TaskRun, and the settings for steps that TaskRuns and PipelineRuns share.

use std::collections::HashSet;

use super::dns::check_metadata;
use super::field_error::{FieldError, FieldErrors};
use super::params::{Named, check_given, check_names_differ};
use super::refs::check_ref;
use super::{Context, Version, propagated, task, workspaces};
use crate::flags::ApiFields;
use crate::k8s::ResourceRequirements;
use crate::object::Absent;
use crate::v1::{TaskRun, TaskRunDebug, TaskRunSpec, TaskRunStepSpec};

/// The rule for a TaskRun.
pub(crate) fn check(context: Context<'_>, run: &TaskRun) -> FieldErrors {
    let mut errors = FieldErrors::from(check_metadata(&run.metadata)).via_field("metadata");
    let has_started = run.status.as_ref().is_some_and(|status| status.start_time.is_some());
    if run.spec.status == "TaskRunPending" && has_started {
        let what = "TaskRun cannot be Pending after it is started";
        errors.also(FieldError::invalid(what, "spec.status"));
    }
    errors.also(check_spec(context, &run.spec).via_field("spec"));
    errors
}

fn check_spec(context: Context<'_>, spec: &TaskRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    match (&spec.task_ref, &spec.task_spec) {
        (None, None) => errors.also(FieldError::missing_one_of(["taskRef", "taskSpec"])),
        (Some(_), Some(_)) => errors.also(FieldError::multiple_one_of(["taskRef", "taskSpec"])),
        _ => {}
    }
    if let Some(it) = &spec.task_ref {
        errors.also(check_ref(context, &it.name, &it.resolver, &it.params).via_field("taskRef"));
    }
    if let Some(task_spec) = &spec.task_spec {
        if context.is_inline_spec_disabled("taskrun") {
            errors.also(FieldError::disallowed(["taskSpec"]));
        }
        let steps = task::merged_steps(context, task_spec);
        errors.also(task::check_spec(context, task_spec, &steps).via_field("taskSpec"));
    }
    errors.also(check_given(&spec.params).via_field("params"));
    errors.also(propagated::check_task_run(context, spec));
    errors.also(check_workspaces(spec).via_field("workspaces"));
    if let Some(debug) = &spec.debug {
        errors.also(context.gate("debug", ApiFields::Alpha, "debug"));
        errors.also(check_debug(debug).via_field("debug"));
    }
    errors.also(check_overrides(
        context,
        &spec.step_specs,
        &spec.sidecar_specs,
        spec.compute_resources.as_ref(),
    ));
    errors.also(check_status(spec));
    if spec.retries < 0 && context.version == Version::V1 {
        errors.also(FieldError::invalid(format!("{} should be >= 0", spec.retries), "retries"));
    }
    if let Some(timeout) = spec.timeout
        && timeout.0 < 0
    {
        errors.also(FieldError::invalid(format!("{timeout} should be >= 0"), "timeout"));
    }
    errors
}

fn check_workspaces(spec: &TaskRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, binding) in spec.workspaces.iter().enumerate() {
        errors.also(FieldErrors::from(workspaces::check_binding(binding)).via_index(index));
    }
    let names = spec.workspaces.iter().map(|binding| binding.name.as_str());
    errors.also(check_names_differ(names, Named::ByIndex));
    errors
}

fn check_status(spec: &TaskRunSpec) -> Option<FieldError> {
    let status = &spec.status;
    match status.as_str() {
        "TaskRunCancelled" | "TaskRunPending" => None,
        "" if spec.status_message.is_empty() => None,
        "" => Some(FieldError::invalid(
            format!(
                "statusMessage should not be set if status is not set, but it is currently set to {}",
                spec.status_message
            ),
            "statusMessage",
        )),
        _ => Some(FieldError::invalid(
            format!("{status} should be TaskRunCancelled or TaskRunPending"),
            "status",
        )),
    }
}

fn check_debug(debug: &TaskRunDebug) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let Some(breakpoints) = &debug.breakpoints else {
        return errors;
    };
    let what = match breakpoints.on_failure.as_str() {
        "enabled" => None,
        "" => Some("onFailure breakpoint is empty, it is only allowed to be set as enabled".into()),
        other => Some(format!(
            "{other} is not a valid onFailure breakpoint value, onFailure breakpoint is only allowed to be set as enabled"
        )),
    };
    errors.also(what.map(|what| FieldError::invalid(what, "breakpoints.onFailure")));
    let mut seen = HashSet::new();
    for (index, step) in breakpoints.before_steps.iter().enumerate() {
        if !seen.insert(step) {
            errors.also(FieldError::new(
                format!(
                    "before step must be unique, the same step: {step} is defined multiple times at"
                ),
                format!("breakpoints.beforeSteps[{index}]"),
            ));
        }
    }
    errors
}

/// Resources for steps, sidecars or the whole task, of a TaskRun or of one task of a PipelineRun;
/// relative to whatever holds them. v1beta1 has other names for the fields.
pub(crate) fn check_overrides(
    context: Context<'_>,
    steps: &[TaskRunStepSpec],
    sidecars: &[TaskRunStepSpec],
    whole: Option<&ResourceRequirements>,
) -> FieldErrors {
    let (step_field, sidecar_field, conflict) = match context.version {
        Version::V1 => ("stepSpecs", "sidecarSpecs", "stepSpecs.resources"),
        Version::V1beta1 => ("stepOverrides", "sidecarOverrides", "stepOverrides.resources"),
    };
    let mut errors = FieldErrors::default();
    for (field, specs) in [(step_field, steps), (sidecar_field, sidecars)] {
        if !specs.is_empty() {
            errors.also(context.gate(field, ApiFields::Beta, field));
            errors.also(check_named(specs).via_field(field));
        }
    }
    if whole.is_some() {
        errors.also(context.gate("computeResources", ApiFields::Beta, "computeResources"));
        if steps.iter().any(|step| !step.compute_resources.is_absent()) {
            errors.also(FieldError::multiple_one_of([conflict, "computeResources"]));
        }
    }
    errors
}

fn check_named(specs: &[TaskRunStepSpec]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, spec) in specs.iter().enumerate() {
        if spec.name.is_empty() {
            errors.also(FieldErrors::from(FieldError::missing("name")).via_index(index));
        }
    }
    // A repeated name is counted among the names that are there, as Tekton counts.
    let names = specs.iter().map(|spec| spec.name.as_str()).filter(|name| !name.is_empty());
    errors.also(check_names_differ(names, Named::ByIndex));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn task_runs() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (r#"{"taskRef":{"name":"t"}}"#, ""),
            (r#"{}"#, "expected exactly one, got neither: spec.taskRef, spec.taskSpec"),
            (
                r#"{"taskRef":{"name":"t"},"taskSpec":{"steps":[{"image":"x"}]}}"#,
                "expected exactly one, got both: spec.taskRef, spec.taskSpec",
            ),
            (
                r#"{"taskRef":{"name":"t"},"status":"Bogus","timeout":"-1s","retries":-2}"#,
                "invalid value: -1s should be >= 0: spec.timeout\ninvalid value: -2 should be >= 0: spec.retries\ninvalid value: Bogus should be TaskRunCancelled or TaskRunPending: spec.status",
            ),
            (
                r#"{"taskRef":{"name":"t"},"statusMessage":"m"}"#,
                "invalid value: statusMessage should not be set if status is not set, but it is currently set to m: spec.statusMessage",
            ),
            (
                r#"{"taskRef":{"name":"t"},"params":[{"name":"a"},{"name":"A"}]}"#,
                "expected exactly one, got both: spec.params[A].name",
            ),
            (
                r#"{"taskRef":{"name":"t"},"workspaces":[{"name":"a","emptyDir":{}},{"name":"a","emptyDir":{}}]}"#,
                "expected exactly one, got both: spec.workspaces[1].name",
            ),
            (
                r#"{"taskRef":{"name":"t"},"debug":{"breakpoints":{"onFailure":"","beforeSteps":["a","a"]}}}"#,
                "before step must be unique, the same step: a is defined multiple times at: spec.debug.breakpoints.beforeSteps[1]\ndebug requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": \ninvalid value: onFailure breakpoint is empty, it is only allowed to be set as enabled: spec.debug.breakpoints.onFailure",
            ),
            (
                r#"{"taskRef":{"name":"t"},"stepSpecs":[{},{"name":"a","computeResources":{"limits":{"cpu":"1"}}},{"name":"a"}],"computeResources":{"limits":{"cpu":"1"}}}"#,
                "expected exactly one, got both: spec.computeResources, spec.stepSpecs.resources, spec.stepSpecs[1].name\nmissing field(s): spec.stepSpecs[0].name",
            ),
        ] {
            let metadata = crate::k8s::ObjectMeta { name: "t".to_owned(), ..Default::default() };
            let run = TaskRun { metadata, spec: parsed(spec), ..TaskRun::default() };
            assert_eq!(shown(check(Context::new(&flags), &run)), errors, "{spec}");
        }
    }

    #[test]
    fn pending_only_before_the_start() {
        let flags = FeatureFlags::default();
        let run: TaskRun = parsed(
            r#"{"metadata":{"name":"t"},"spec":{"taskRef":{"name":"t"},"status":"TaskRunPending"},"status":{"startTime":"2026-01-01T00:00:00Z"}}"#,
        );
        assert_eq!(
            shown(check(Context::new(&flags), &run)),
            "invalid value: TaskRun cannot be Pending after it is started: spec.status"
        );
    }
}
