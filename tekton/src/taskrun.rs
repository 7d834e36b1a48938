//! The TaskRun (or CustomRun) that a PipelineTask becomes.
//!
//! A function of the run, the PipelineTask with its variables applied, and the resolved task. It draws
//! no uid and no time: the caller fills those in.

use crate::flags::FeatureFlags;
use crate::matrix::Combination;
use crate::pipelinerun::ResolvedTask;
use crate::rejection::Rejection;
use crate::v1::{CustomRun, PipelineRun, PipelineTask, TaskRun, WorkspaceBinding};

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

/// The TaskRun, without uid, creationTimestamp and status.
///
/// The error has reason `CreateRunFailed`: a binding that the task needs is not there.
pub fn build(input: &ChildInput<'_>) -> Result<TaskRun, Rejection> {
    let mut task_run = TaskRun {
        api_version: "tekton.dev/v1".into(),
        kind: "TaskRun".into(),
        ..TaskRun::default()
    };
    task_run.metadata.name = input.name.into();
    task_run.metadata.namespace = input.run.metadata.namespace.clone();
    task_run.spec.params = input.combination.map(|c| c.params.clone()).unwrap_or_default();
    task_run.spec.params.extend(input.task.params.iter().cloned());
    task_run.spec.retries = input.task.retries;
    task_run.spec.task_ref = input.task.task_ref.clone();
    if let Some(resolved) = input.resolved.filter(|resolved| resolved.name.is_none()) {
        task_run.spec.task_spec = Some(resolved.spec.clone());
    }
    Ok(task_run)
}

/// The CustomRun of a custom task, likewise.
pub fn build_custom_run(input: &ChildInput<'_>) -> Result<CustomRun, Rejection> {
    let mut custom_run = CustomRun {
        api_version: "tekton.dev/v1beta1".into(),
        kind: "CustomRun".into(),
        ..CustomRun::default()
    };
    custom_run.metadata.name = input.name.into();
    custom_run.metadata.namespace = input.run.metadata.namespace.clone();
    custom_run.spec.custom_ref = input.task.task_ref.clone();
    Ok(custom_run)
}
