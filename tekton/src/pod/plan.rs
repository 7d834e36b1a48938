//! From a TaskRun and its Task to the Pod of one attempt.

use std::collections::BTreeMap;

use super::Pod;
use crate::flags::FeatureFlags;
use crate::k8s::ServiceAccount;
use crate::rejection::Rejection;
use crate::v1::{StepActionSpec, TaskRun, TaskSpec};

/// What a Pod is planned from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The TaskRun, with uid; its `volumeClaimTemplate`s are named after that uid.
    pub task_run: &'a TaskRun,
    /// Its Task, resolved and defaulted, StepActions not yet inlined.
    pub task_spec: &'a TaskSpec,
    /// `$(context.task.name)`: the Task's name, or the TaskRun's for an embedded taskSpec.
    pub task_name: &'a str,
    /// The StepActions that steps refer to, by the *index* of the step.
    pub step_actions: &'a BTreeMap<usize, StepActionSpec>,
    /// The TaskRun's ServiceAccount, if there is one.
    pub service_account: Option<&'a ServiceAccount>,
    /// How many attempts came before: `$(context.task.retry-count)`.
    pub retry_count: usize,
    /// uid of the whole run, for claims: the PipelineRun's, or the TaskRun's own.
    pub run_uid: &'a str,
    /// Flags.
    pub flags: &'a FeatureFlags,
}

/// One attempt, planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What the agent runs.
    pub pod: Pod,
    /// For `status.taskSpec`: StepActions inlined, variables applied, workspaces not yet mounted.
    pub task_spec: TaskSpec,
}

/// Why no Pod can be made: `TaskRunValidationFailed`, `InvalidParamValue`, `TaskRunResolutionFailed`,
/// `PodCreationFailed`.
pub type PlanError = Rejection;

/// Plans the Pod of one attempt of a TaskRun.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    Ok(Plan {
        pod: Pod {
            name: crate::names::pod_name(&input.task_run.metadata.name, input.retry_count),
            ..Pod::default()
        },
        task_spec: input.task_spec.clone(),
    })
}
