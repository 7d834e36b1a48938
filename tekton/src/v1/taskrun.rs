//! TaskRun, its status, and CustomRun.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::GoDuration;
use crate::k8s::{Condition, ObjectMeta, PodTemplate, ResourceRequirements};
use crate::object::{Absent, object};
use crate::v1::{Param, ParamValue, TaskSpec, WorkspaceBinding};

object! {
    /// `kind: TaskRun`.
    pub struct TaskRun {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: TaskRunSpec,
        status: Option<TaskRunStatus>,
    }
}

object! {
    /// What to run and with what.
    pub struct TaskRunSpec {
        debug: Option<TaskRunDebug>,
        params: Vec<Param>,
        service_account_name: String,
        task_ref: Option<TaskRef>,
        task_spec: Option<TaskSpec>,
        status: String,
        status_message: String,
        retries: i32,
        timeout: Option<GoDuration>,
        pod_template: Option<PodTemplate>,
        workspaces: Vec<WorkspaceBinding>,
        step_specs: Vec<TaskRunStepSpec>,
        sidecar_specs: Vec<TaskRunStepSpec>,
        compute_resources: Option<ResourceRequirements>,
        managed_by: Option<String>,
    }
}

impl Absent for TaskRunSpec {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// Breakpoints (alpha).
    pub struct TaskRunDebug {
        breakpoints: Option<TaskBreakpoints>,
    }
}

object! {
    /// Where a TaskRun stops for a person.
    pub struct TaskBreakpoints {
        on_failure: String,
        before_steps: Vec<String>,
    }
}

object! {
    /// A Task by name or by resolver; with `apiVersion` it is a custom task.
    pub struct TaskRef {
        name: String,
        kind: String,
        api_version: String,
        resolver: String,
        params: Vec<Param>,
    }
}

object! {
    /// Resources of one step or sidecar, by its name.
    pub struct TaskRunStepSpec {
        name: String,
        compute_resources: ResourceRequirements,
    }
}

object! {
    /// How a TaskRun went. Times are RFC 3339 UTC with seconds.
    pub struct TaskRunStatus {
        observed_generation: i64,
        conditions: Vec<Condition>,
        annotations: BTreeMap<String, String>,
        pod_name: String,
        start_time: Option<String>,
        completion_time: Option<String>,
        steps: Vec<StepState>,
        retries_status: Vec<TaskRunStatus>,
        results: Vec<TaskRunResult>,
        artifacts: Value,
        sidecars: Vec<SidecarState>,
        task_spec: Option<TaskSpec>,
        provenance: Value,
        span_context: BTreeMap<String, String>,
    }
}

object! {
    /// One step's container.
    pub struct StepState {
        waiting: Option<ContainerStateWaiting>,
        running: Option<ContainerStateRunning>,
        terminated: Option<ContainerStateTerminated>,
        name: String,
        container: String,
        #[serde(rename = "imageID")]
        image_id: String,
        results: Vec<TaskRunResult>,
        provenance: Value,
        termination_reason: String,
        inputs: Value,
        outputs: Value,
    }
}

object! {
    /// One sidecar's container.
    pub struct SidecarState {
        waiting: Option<ContainerStateWaiting>,
        running: Option<ContainerStateRunning>,
        terminated: Option<ContainerStateTerminated>,
        name: String,
        container: String,
        #[serde(rename = "imageID")]
        image_id: String,
    }
}

object! {
    /// Not yet running.
    pub struct ContainerStateWaiting {
        reason: String,
        message: String,
    }
}

object! {
    /// Running since.
    pub struct ContainerStateRunning {
        started_at: Option<String>,
    }
}

/// Ended. `exitCode` is always written, 0 too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStateTerminated {
    /// Exit code of the process, or of its signal.
    pub exit_code: i32,
    /// `Completed`, `Error` or `OOMKilled`; `TaskRunCancelled` or `TaskRunTimeout` when the pod was deleted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// JSON of the step's results, or a text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The container's id, `docker://…`.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

object! {
    /// A result of a TaskRun or of a step.
    pub struct TaskRunResult {
        name: String,
        r#type: String,
        value: ParamValue,
    }
}

object! {
    /// `kind: CustomRun` (`tekton.dev/v1beta1`): a task that another controller would run.
    pub struct CustomRun {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: CustomRunSpec,
        status: Option<CustomRunStatus>,
    }
}

object! {
    /// What the other controller is asked to do.
    pub struct CustomRunSpec {
        custom_ref: Option<TaskRef>,
        custom_spec: Value,
        params: Vec<Param>,
        status: String,
        status_message: String,
        retries: i32,
        service_account_name: String,
        timeout: Option<GoDuration>,
        workspaces: Vec<WorkspaceBinding>,
    }
}

impl Absent for CustomRunSpec {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// What the other controller says.
    pub struct CustomRunStatus {
        conditions: Vec<Condition>,
        start_time: Option<String>,
        completion_time: Option<String>,
        results: Vec<TaskRunResult>,
        retries_status: Value,
        extra_fields: Value,
    }
}
