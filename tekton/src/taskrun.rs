//! The TaskRun (or CustomRun) that a PipelineTask becomes.
//!
//! A function of the run, the PipelineTask with its variables applied, and the resolved task. It draws
//! no uid and no time: the caller fills those in.

mod metadata;
mod pod_template;
mod workspaces;

use serde_json::json;

use crate::duration::GoDuration;
use crate::flags::FeatureFlags;
use crate::matrix::Combination;
use crate::pipelinerun::ResolvedTask;
use crate::rejection::Rejection;
use crate::v1::{
    CustomRun, PipelineRun, PipelineTask, PipelineTaskRunSpec, TaskRun, TimeoutFields,
    WorkspaceBinding,
};

pub use pod_template::merge_pod_templates;

/// What a child run is made of.
#[derive(Clone, Copy, Debug)]
pub struct ChildInput<'a> {
    /// The PipelineRun, with uid, labels (`tekton.dev/pipeline` too) and annotations.
    pub run: &'a PipelineRun,
    /// The run's bindings, from [`crate::pipelinerun::Prepared::workspaces`], results applied.
    pub workspaces: &'a [WorkspaceBinding],
    /// The task with params, results, statuses and contexts applied.
    pub task: &'a PipelineTask,
    /// What it runs; `None` for a custom task.
    pub resolved: Option<&'a ResolvedTask>,
    /// The child's name, from [`crate::names::task_run_names`].
    pub name: &'a str,
    /// Its combination, if the task fans out.
    pub combination: Option<&'a Combination>,
    /// Whether it stands in `finally`.
    pub is_finally: bool,
    /// Flags.
    pub flags: &'a FeatureFlags,
}

impl ChildInput<'_> {
    fn params(&self) -> Vec<crate::v1::Param> {
        let combination = self.combination.iter().flat_map(|c| &c.params);
        combination.chain(&self.task.params).cloned().collect()
    }

    /// The task's own timeout, else the run's where that is longer than the default, and above both what
    /// `taskRunSpecs` says.
    fn timeout(&self, settings: &PipelineTaskRunSpec) -> Option<GoDuration> {
        let default = default_timeout(self.flags);
        let of_run = || {
            let timeouts = self.run.spec.timeouts.as_ref()?;
            let limit =
                if self.is_finally { finally_timeout(timeouts) } else { tasks_timeout(timeouts) }?;
            // A shorter one is kept by the PipelineRun's own clock.
            (limit.0 == 0 || limit > default).then_some(limit)
        };
        settings.timeout.or(self.task.timeout).or_else(of_run)
    }
}

/// `default-timeout-minutes` as a duration.
pub fn default_timeout(flags: &FeatureFlags) -> GoDuration {
    GoDuration::from_secs(i64::from(flags.default_timeout_minutes) * 60)
}

/// How long a run's `tasks` may take: as given, or what `pipeline` leaves beside `finally`; `Some(0)` is
/// given as none.
pub fn tasks_timeout(timeouts: &TimeoutFields) -> Option<GoDuration> {
    timeouts.tasks.or_else(|| remainder(timeouts.pipeline, timeouts.finally))
}

/// How long a run's `finally` may take, likewise.
pub fn finally_timeout(timeouts: &TimeoutFields) -> Option<GoDuration> {
    timeouts.finally.or_else(|| remainder(timeouts.pipeline, timeouts.tasks))
}

fn remainder(whole: Option<GoDuration>, part: Option<GoDuration>) -> Option<GoDuration> {
    let (whole, part) = (whole?, part?);
    (whole.0 != 0 && part.0 != 0).then(|| GoDuration(whole.0 - part.0))
}

/// The settings of a run for one PipelineTask: `taskRunTemplate` overlaid with its `taskRunSpecs` entry.
pub fn task_run_settings(run: &PipelineRun, pipeline_task: &str) -> PipelineTaskRunSpec {
    let template = &run.spec.task_run_template;
    let mut settings = PipelineTaskRunSpec {
        pipeline_task_name: pipeline_task.to_owned(),
        service_account_name: template.service_account_name.clone(),
        pod_template: template.pod_template.clone(),
        ..PipelineTaskRunSpec::default()
    };
    for entry in &run.spec.task_run_specs {
        if entry.pipeline_task_name != pipeline_task {
            continue;
        }
        let mut entry = entry.clone();
        entry.pod_template = merge_pod_templates(entry.pod_template, settings.pod_template);
        if entry.service_account_name.is_empty() {
            entry.service_account_name = settings.service_account_name;
        }
        settings = entry;
    }
    settings
}

fn service_account(settings: &PipelineTaskRunSpec) -> String {
    match settings.service_account_name.as_str() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    }
}

/// The TaskRun, defaulted, without uid, creationTimestamp and status.
///
/// The error has reason `CreateRunFailed` (a binding that the task needs is not there) or
/// `InvalidParamValue`.
pub fn build(input: &ChildInput<'_>) -> Result<TaskRun, Rejection> {
    let settings = task_run_settings(input.run, &input.task.name);
    let params = input.params();
    if let Some(resolved) = input.resolved.filter(|_| input.flags.enable_param_enum) {
        crate::params::check::enums(&resolved.spec.params, &params).map_err(|error| {
            Rejection::user(
                "InvalidParamValue",
                format!("Invalid param value from PipelineTask \"{}\": {error}", input.task.name),
            )
        })?;
    }
    let mut task_run = TaskRun {
        api_version: "tekton.dev/v1".into(),
        kind: "TaskRun".into(),
        metadata: metadata::of_task_run(input, &settings),
        ..TaskRun::default()
    };
    let timeout = input.timeout(&settings);
    let spec = &mut task_run.spec;
    spec.workspaces = workspaces::of_child(input)?;
    spec.params = params;
    spec.retries = input.task.retries;
    spec.service_account_name = service_account(&settings);
    spec.timeout = Some(timeout.unwrap_or_else(|| default_timeout(input.flags)));
    match input.resolved {
        Some(resolved) if resolved.name.is_none() => spec.task_spec = Some(resolved.spec.clone()),
        _ => spec.task_ref = input.task.task_ref.clone(),
    }
    if let Some(reference) = &mut spec.task_ref
        && reference.kind.is_empty()
        && reference.resolver.is_empty()
    {
        reference.kind = "Task".to_owned();
    }
    spec.pod_template = settings.pod_template;
    spec.step_specs = settings.step_specs;
    spec.sidecar_specs = settings.sidecar_specs;
    spec.compute_resources = settings.compute_resources;
    Ok(task_run)
}

/// The CustomRun of a custom task, likewise.
pub fn build_custom_run(input: &ChildInput<'_>) -> Result<CustomRun, Rejection> {
    let settings = task_run_settings(input.run, &input.task.name);
    let mut custom_run = CustomRun {
        api_version: "tekton.dev/v1beta1".into(),
        kind: "CustomRun".into(),
        metadata: metadata::of_custom_run(input),
        ..CustomRun::default()
    };
    let spec = &mut custom_run.spec;
    spec.workspaces = workspaces::of_child(input)?;
    spec.params = input.params();
    spec.retries = input.task.retries;
    spec.service_account_name = service_account(&settings);
    spec.timeout = input.timeout(&settings);
    spec.custom_ref = input.task.task_ref.clone();
    if let Some(embedded) = &input.task.task_spec {
        spec.custom_spec = json!({
            "apiVersion": embedded.api_version,
            "kind": embedded.kind,
            "metadata": embedded.metadata,
            "spec": embedded.spec,
        });
    }
    Ok(custom_run)
}

#[cfg(test)]
mod tests;
