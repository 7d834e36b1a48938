//! Pipeline and its tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::GoDuration;
use crate::k8s::{ObjectMeta, Volume};
use crate::object::{Absent, object};
use crate::v1::{
    Param, ParamSpec, ParamValue, PipelineWorkspaceDeclaration, Sidecar, Step, StepTemplate,
    TaskRef, TaskResult, TaskSpec, WhenExpression, WorkspaceDeclaration,
    WorkspacePipelineTaskBinding,
};

object! {
    /// `kind: Pipeline`.
    pub struct Pipeline {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: PipelineSpec,
    }
}

object! {
    /// A graph of tasks.
    pub struct PipelineSpec {
        display_name: String,
        description: String,
        tasks: Vec<PipelineTask>,
        params: Vec<ParamSpec>,
        workspaces: Vec<PipelineWorkspaceDeclaration>,
        results: Vec<PipelineResult>,
        finally: Vec<PipelineTask>,
    }
}

impl Absent for PipelineSpec {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// A result of the Pipeline, made of its tasks' results.
    pub struct PipelineResult {
        name: String,
        r#type: String,
        description: String,
        value: ParamValue,
    }
}

object! {
    /// One node of the graph. Exactly one of `taskRef`, `taskSpec`, `pipelineRef`, `pipelineSpec`.
    pub struct PipelineTask {
        name: String,
        display_name: String,
        description: String,
        task_ref: Option<TaskRef>,
        task_spec: Option<EmbeddedTask>,
        when: Vec<WhenExpression>,
        retries: i32,
        run_after: Vec<String>,
        params: Vec<Param>,
        matrix: Option<Matrix>,
        workspaces: Vec<WorkspacePipelineTaskBinding>,
        timeout: Option<GoDuration>,
        pipeline_ref: Option<PipelineRef>,
        pipeline_spec: Option<PipelineSpec>,
        on_error: String,
    }
}

object! {
    /// A Pipeline by name or by resolver.
    pub struct PipelineRef {
        name: String,
        api_version: String,
        resolver: String,
        params: Vec<Param>,
    }
}

object! {
    /// Fan-out: one TaskRun for each combination.
    pub struct Matrix {
        params: Vec<Param>,
        include: Vec<IncludeParams>,
    }
}

object! {
    /// Extra params for matching combinations, or a combination of its own.
    pub struct IncludeParams {
        name: String,
        params: Vec<Param>,
    }
}

object! {
    /// Labels and annotations of an embedded task or of a taskRunSpec.
    pub struct PipelineTaskMetadata {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

impl Absent for PipelineTaskMetadata {
    fn is_absent(&self) -> bool {
        *self == PipelineTaskMetadata::default()
    }
}

/// A `taskSpec` inside a PipelineTask: a TaskSpec with metadata, or, with `apiVersion` and `kind`,
/// the `spec` of a custom task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "EmbeddedTaskKeys", into = "EmbeddedTaskKeys")]
pub struct EmbeddedTask {
    /// Of a custom task.
    pub api_version: String,
    /// Of a custom task.
    pub kind: String,
    /// Of a custom task, as it was written.
    pub spec: Value,
    /// For the TaskRuns made of it.
    pub metadata: PipelineTaskMetadata,
    /// The task itself; its keys stand beside the ones above.
    pub task_spec: TaskSpec,
}

object! {
    /// The keys of an [`EmbeddedTask`] as they stand in a document, side by side.
    pub struct EmbeddedTaskKeys {
        api_version: String,
        kind: String,
        spec: Value,
        metadata: PipelineTaskMetadata,
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

impl From<EmbeddedTaskKeys> for EmbeddedTask {
    fn from(keys: EmbeddedTaskKeys) -> Self {
        EmbeddedTask {
            api_version: keys.api_version,
            kind: keys.kind,
            spec: keys.spec,
            metadata: keys.metadata,
            task_spec: TaskSpec {
                params: keys.params,
                display_name: keys.display_name,
                description: keys.description,
                steps: keys.steps,
                volumes: keys.volumes,
                step_template: keys.step_template,
                sidecars: keys.sidecars,
                workspaces: keys.workspaces,
                results: keys.results,
            },
        }
    }
}

impl From<EmbeddedTask> for EmbeddedTaskKeys {
    fn from(task: EmbeddedTask) -> Self {
        EmbeddedTaskKeys {
            api_version: task.api_version,
            kind: task.kind,
            spec: task.spec,
            metadata: task.metadata,
            params: task.task_spec.params,
            display_name: task.task_spec.display_name,
            description: task.task_spec.description,
            steps: task.task_spec.steps,
            volumes: task.task_spec.volumes,
            step_template: task.task_spec.step_template,
            sidecars: task.task_spec.sidecars,
            workspaces: task.task_spec.workspaces,
            results: task.task_spec.results,
        }
    }
}
