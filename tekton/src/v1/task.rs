//! Task, its steps and sidecars.

use std::collections::BTreeMap;

use crate::duration::GoDuration;
use crate::k8s::{
    ContainerPort, EnvFromSource, EnvVar, Lifecycle, ObjectMeta, Probe, ResourceRequirements,
    SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use crate::object::{Absent, object};
use crate::v1::{
    Param, ParamSpec, ParamValue, PropertySpec, WhenExpression, WorkspaceDeclaration,
    WorkspaceUsage,
};

object! {
    /// `kind: Task`.
    pub struct Task {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: TaskSpec,
    }
}

object! {
    /// What a Task does.
    pub struct TaskSpec {
        params: Vec<ParamSpec>,
        display_name: String,
        description: String,
        steps: Vec<Step>,
        volumes: Vec<Volume>,
        step_template: Option<StepTemplate>,
        sidecars: Vec<Sidecar>,
        workspaces: Vec<WorkspaceDeclaration>,
        results: Vec<TaskResult>,
    }
}

impl Absent for TaskSpec {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// One step: a container of the TaskRun, run after the step before it.
    pub struct Step {
        name: String,
        display_name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        env_from: Vec<EnvFromSource>,
        env: Vec<EnvVar>,
        compute_resources: ResourceRequirements,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Vec<VolumeDevice>,
        image_pull_policy: String,
        security_context: Option<SecurityContext>,
        script: String,
        timeout: Option<GoDuration>,
        workspaces: Vec<WorkspaceUsage>,
        on_error: String,
        stdout_config: Option<StepOutputConfig>,
        stderr_config: Option<StepOutputConfig>,
        r#ref: Option<StepRef>,
        params: Vec<Param>,
        results: Vec<StepResult>,
        when: Vec<WhenExpression>,
    }
}

object! {
    /// A reference to a StepAction.
    pub struct StepRef {
        name: String,
        resolver: String,
        params: Vec<Param>,
    }
}

object! {
    /// A file that also gets a step's output stream.
    pub struct StepOutputConfig {
        path: String,
    }
}

object! {
    /// Defaults for all steps of a Task.
    pub struct StepTemplate {
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        env_from: Vec<EnvFromSource>,
        env: Vec<EnvVar>,
        compute_resources: ResourceRequirements,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Vec<VolumeDevice>,
        image_pull_policy: String,
        security_context: Option<SecurityContext>,
    }
}

object! {
    /// A container that runs beside the steps.
    pub struct Sidecar {
        name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        ports: Vec<ContainerPort>,
        env_from: Vec<EnvFromSource>,
        env: Vec<EnvVar>,
        compute_resources: ResourceRequirements,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Vec<VolumeDevice>,
        liveness_probe: Option<Probe>,
        readiness_probe: Option<Probe>,
        startup_probe: Option<Probe>,
        lifecycle: Option<Lifecycle>,
        termination_message_path: String,
        termination_message_policy: String,
        image_pull_policy: String,
        security_context: Option<SecurityContext>,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        script: String,
        workspaces: Vec<WorkspaceUsage>,
        restart_policy: Option<String>,
    }
}

object! {
    /// A result that a Task declares; with `value` it is copied from a step's result.
    pub struct TaskResult {
        name: String,
        r#type: String,
        properties: BTreeMap<String, PropertySpec>,
        description: String,
        value: Option<ParamValue>,
    }
}

object! {
    /// A result that a step declares.
    pub struct StepResult {
        name: String,
        r#type: String,
        properties: BTreeMap<String, PropertySpec>,
        description: String,
    }
}
