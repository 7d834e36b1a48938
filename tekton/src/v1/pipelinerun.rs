//! PipelineRun and its status.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::duration::GoDuration;
use crate::k8s::{Condition, ObjectMeta, PodTemplate, ResourceRequirements};
use crate::object::{Absent, object};
use crate::v1::{
    Param, ParamValue, PipelineRef, PipelineSpec, PipelineTaskMetadata, TaskRunStepSpec,
    WhenExpression, WorkspaceBinding,
};

object! {
    /// `kind: PipelineRun`.
    pub struct PipelineRun {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: PipelineRunSpec,
        status: Option<PipelineRunStatus>,
    }
}

object! {
    /// What to run and with what.
    pub struct PipelineRunSpec {
        pipeline_ref: Option<PipelineRef>,
        pipeline_spec: Option<PipelineSpec>,
        params: Vec<Param>,
        status: String,
        timeouts: Option<TimeoutFields>,
        task_run_template: PipelineTaskRunTemplate,
        workspaces: Vec<WorkspaceBinding>,
        task_run_specs: Vec<PipelineTaskRunSpec>,
        managed_by: Option<String>,
    }
}

impl Absent for PipelineRunSpec {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// Time limits; 0 is none.
    pub struct TimeoutFields {
        pipeline: Option<GoDuration>,
        tasks: Option<GoDuration>,
        finally: Option<GoDuration>,
    }
}

object! {
    /// Defaults for all TaskRuns.
    pub struct PipelineTaskRunTemplate {
        pod_template: Option<PodTemplate>,
        service_account_name: String,
    }
}

impl Absent for PipelineTaskRunTemplate {
    fn is_absent(&self) -> bool {
        *self == PipelineTaskRunTemplate::default()
    }
}

object! {
    /// Settings for the TaskRuns of one PipelineTask.
    pub struct PipelineTaskRunSpec {
        pipeline_task_name: String,
        service_account_name: String,
        pod_template: Option<PodTemplate>,
        step_specs: Vec<TaskRunStepSpec>,
        sidecar_specs: Vec<TaskRunStepSpec>,
        metadata: Option<PipelineTaskMetadata>,
        compute_resources: Option<ResourceRequirements>,
        timeout: Option<GoDuration>,
    }
}

object! {
    /// How a PipelineRun went. Times are RFC 3339 UTC with seconds.
    pub struct PipelineRunStatus {
        observed_generation: i64,
        conditions: Vec<Condition>,
        annotations: BTreeMap<String, String>,
        start_time: Option<String>,
        completion_time: Option<String>,
        results: Vec<PipelineRunResult>,
        pipeline_spec: Option<PipelineSpec>,
        skipped_tasks: Vec<SkippedTask>,
        child_references: Vec<ChildStatusReference>,
        finally_start_time: Option<String>,
        provenance: Value,
        span_context: BTreeMap<String, String>,
    }
}

object! {
    /// A result of the run.
    pub struct PipelineRunResult {
        name: String,
        value: ParamValue,
    }
}

object! {
    /// A task that did not run, and Tekton's reason.
    pub struct SkippedTask {
        name: String,
        reason: String,
        when_expressions: Vec<WhenExpression>,
    }
}

object! {
    /// A TaskRun or CustomRun of this run.
    pub struct ChildStatusReference {
        api_version: String,
        kind: String,
        name: String,
        display_name: String,
        pipeline_task_name: String,
        when_expressions: Vec<WhenExpression>,
    }
}
