//! PipelineRun: what to run, timeouts, bindings, and settings for its TaskRuns.

use std::collections::HashMap;

use super::dns::check_metadata;
use super::field_error::{FieldError, FieldErrors};
use super::params::check_given;
use super::pipeline_results::expressions;
use super::refs::check_ref;
use super::taskrun::check_overrides;
use super::text::{list, quote};
use super::{Context, pipeline, propagated, workspaces};
use crate::duration::GoDuration;
use crate::resultref;
use crate::v1::{PipelineRun, PipelineRunSpec, TimeoutFields};

/// The rule for a PipelineRun.
pub(crate) fn check(context: Context<'_>, run: &PipelineRun) -> FieldErrors {
    let mut errors = FieldErrors::from(check_metadata(&run.metadata)).via_field("metadata");
    let has_started = run.status.as_ref().is_some_and(|status| status.start_time.is_some());
    if run.spec.status == "PipelineRunPending" && has_started {
        let what = "PipelineRun cannot be Pending after it is started";
        errors.also(FieldError::invalid(what, "spec.status"));
    }
    errors.also(check_spec(context, &run.spec).via_field("spec"));
    errors
}

fn check_spec(context: Context<'_>, spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let choice = ["pipelineRef", "pipelineSpec"];
    match (&spec.pipeline_ref, &spec.pipeline_spec) {
        (None, None) => errors.also(FieldError::missing_one_of(choice)),
        (Some(_), Some(_)) => errors.also(FieldError::multiple_one_of(choice)),
        _ => {}
    }
    if let Some(it) = &spec.pipeline_ref {
        let found = check_ref(context, &it.name, &it.resolver, &it.params);
        errors.also(found.via_field("pipelineRef"));
    }
    if let Some(pipeline_spec) = &spec.pipeline_spec {
        if context.is_inline_spec_disabled("pipelinerun") {
            errors.also(FieldError::disallowed(["pipelineSpec"]));
        }
        errors.also(pipeline::check_spec(context, pipeline_spec).via_field("pipelineSpec"));
    }
    errors.also(check_params(spec));
    errors.also(propagated::check_pipeline_run(context, spec));
    if let Some(timeouts) = &spec.timeouts {
        errors.also(check_timeouts(context, timeouts));
    }
    for (index, settings) in spec.task_run_specs.iter().enumerate() {
        let mut found = check_overrides(
            context,
            &settings.step_specs,
            &settings.sidecar_specs,
            settings.compute_resources.as_ref(),
        );
        found.also(check_task_timeout(context, settings.timeout, spec.timeouts.as_ref()));
        errors.also(found.via_field_index("taskRunSpecs", index));
    }
    errors.also(check_status(&spec.status));
    errors.also(check_workspaces(spec));
    errors
}

fn check_status(status: &str) -> Option<FieldError> {
    let is_known = matches!(
        status,
        "" | "Cancelled" | "CancelledRunFinally" | "StoppedRunFinally" | "PipelineRunPending"
    );
    (!is_known).then(|| {
        FieldError::invalid(format!("{status} should be Cancelled, CancelledRunFinally, StoppedRunFinally or PipelineRunPending"), "status")
    })
}

/// Params of a run are values: no task has run that they could refer to.
fn check_params(spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = check_given(&spec.params).via_field("params");
    for param in &spec.params {
        let found = expressions(&param.value);
        let wrong: Vec<&str> =
            found.into_iter().filter(|text| resultref::looks_like_result_ref(text)).collect();
        if wrong.iter().any(|text| resultref::parse(text).is_some()) {
            let shown = list(wrong);
            let error = FieldError::invalid(
                format!("cannot use result expressions in {shown} as PipelineRun parameter values"),
                "value",
            );
            errors.also(FieldErrors::from(error).via_field_key("params", &param.name));
        }
    }
    errors
}

fn check_workspaces(spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut places = HashMap::new();
    for (index, binding) in spec.workspaces.iter().enumerate() {
        let mut found = FieldErrors::from(workspaces::check_binding(binding));
        if let Some(previous) = places.insert(&binding.name, index) {
            let name = quote(&binding.name);
            found.also(FieldError::new(format!("workspace {name} provided by pipelinerun more than once, at index {previous} and {index}"), "name"));
        }
        errors.also(found.via_field_index("workspaces", index));
    }
    errors
}

fn negative(timeout: GoDuration, path: &str) -> Option<FieldError> {
    (timeout.0 < 0).then(|| FieldError::invalid(format!("{timeout} should be >= 0"), path))
}

/// None is negative, and tasks and finally fit into the whole. 0 is no limit.
fn check_timeouts(context: Context<'_>, timeouts: &TimeoutFields) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let parts = [("timeouts.tasks", timeouts.tasks), ("timeouts.finally", timeouts.finally)];
    for (path, timeout) in parts.into_iter().chain([("timeouts.pipeline", timeouts.pipeline)]) {
        errors.also(timeout.and_then(|timeout| negative(timeout, path)));
    }
    let (whole, limit) = match timeouts.pipeline {
        Some(whole) => (whole, "should be <= pipeline duration"),
        // Defaulting leaves no PipelineRun here. Tekton takes the minutes for nanoseconds.
        None => {
            let minutes = GoDuration(i64::from(context.flags.default_timeout_minutes));
            (minutes, "should be <= default timeout duration")
        }
    };
    for (path, part) in parts {
        let Some(part) = part.filter(|_| whole.0 != 0) else {
            continue;
        };
        if part.0 == 0 {
            errors.also(FieldError::invalid(format!("{part} (no timeout) {limit}"), path));
        } else if part > whole {
            errors.also(FieldError::invalid(format!("{part} {limit}"), path));
        }
    }
    if let (Some(tasks), Some(finally)) = (timeouts.tasks, timeouts.finally)
        && tasks.0.saturating_add(finally.0) > whole.0
    {
        for (path, _) in parts {
            errors.also(FieldError::invalid(format!("{tasks} + {finally} {limit}"), path));
        }
    }
    errors
}

/// The timeout of one task fits into that of all tasks, else of the run, else the default.
fn check_task_timeout(
    context: Context<'_>,
    timeout: Option<GoDuration>,
    run: Option<&TimeoutFields>,
) -> Option<FieldError> {
    let timeout = timeout?;
    if let Some(error) = negative(timeout, "timeout") {
        return Some(error);
    }
    let (most, source) = if let Some(tasks) = run.and_then(|run| run.tasks) {
        (tasks, "pipeline tasks duration")
    } else if let Some(pipeline) = run.and_then(|run| run.pipeline) {
        (pipeline, "pipeline duration")
    } else {
        let minutes = i64::from(context.flags.default_timeout_minutes);
        (GoDuration::from_secs(minutes * 60), "default pipeline duration")
    };
    if let Some(error) = negative(most, "timeout") {
        return Some(error);
    }
    let is_too_long = most.0 != 0 && timeout > most;
    is_too_long
        .then(|| FieldError::invalid(format!("{timeout} should be <= {source} {most}"), "timeout"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn pipeline_runs() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (r#""pipelineRef":{"name":"p"}"#, ""),
            (
                r#""status":"""#,
                "expected exactly one, got neither: spec.pipelineRef, spec.pipelineSpec",
            ),
            (
                r#""pipelineRef":{"name":"p"},"status":"TaskRunPending""#,
                "invalid value: TaskRunPending should be Cancelled, CancelledRunFinally, StoppedRunFinally or PipelineRunPending: spec.status",
            ),
            (
                r#""pipelineRef":{"name":"p"},"params":[{"name":"a","value":"$(tasks.x.results.y) $(params.z)"}]"#,
                "invalid value: cannot use result expressions in [tasks.x.results.y] as PipelineRun parameter values: spec.params[a].value",
            ),
            (
                r#""pipelineRef":{"name":"p"},"timeouts":{"pipeline":"1h0m0s","tasks":"2h0m0s"}"#,
                "invalid value: 2h0m0s should be <= pipeline duration: spec.timeouts.tasks",
            ),
            (
                r#""pipelineRef":{"name":"p"},"timeouts":{"pipeline":"1h0m0s","tasks":"40m0s","finally":"40m0s"}"#,
                "invalid value: 40m0s + 40m0s should be <= pipeline duration: spec.timeouts.finally, spec.timeouts.tasks",
            ),
            (
                r#""pipelineRef":{"name":"p"},"timeouts":{"pipeline":"1h0m0s","tasks":"0s"}"#,
                "invalid value: 0s (no timeout) should be <= pipeline duration: spec.timeouts.tasks",
            ),
            (r#""pipelineRef":{"name":"p"},"timeouts":{"pipeline":"0s","tasks":"2h0m0s"}"#, ""),
            (
                r#""pipelineRef":{"name":"p"},"timeouts":{"pipeline":"-1m0s"}"#,
                "invalid value: -1m0s should be >= 0: spec.timeouts.pipeline",
            ),
            (
                r#""pipelineRef":{"name":"p"},"taskRunSpecs":[{"pipelineTaskName":"a","timeout":"5h0m0s"}],"timeouts":{"pipeline":"1h0m0s"}"#,
                "invalid value: 5h0m0s should be <= pipeline duration 1h0m0s: spec.taskRunSpecs[0].timeout",
            ),
            (
                r#""pipelineRef":{"name":"p"},"workspaces":[{"name":"w","emptyDir":{}},{"name":"w","emptyDir":{}}]"#,
                "workspace \"w\" provided by pipelinerun more than once, at index 0 and 1: spec.workspaces[1].name",
            ),
        ] {
            let run: PipelineRun =
                parsed(&format!(r#"{{"metadata":{{"name":"r"}},"spec":{{{spec}}}}}"#));
            assert_eq!(shown(check(Context::new(&flags), &run)), errors, "{spec}");
        }
    }
}
