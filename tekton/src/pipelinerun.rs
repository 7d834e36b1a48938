//! What a PipelineRun means before and while its tasks run: checks, values, and its tasks' variables.
//!
//! Order and words are those of Tekton's reconciler. The caller resolves references (Tasks by name) and
//! decides when a task starts; what is here is a function of documents.

mod check;
mod prepare;
mod task;

pub use check::{check_matrix_types, check_tasks};
pub(crate) use prepare::context_replacements;
pub use prepare::{Prepared, prepare};
pub use task::{
    TaskContext, apply_results, apply_results_to_bindings, apply_statuses, apply_task_contexts,
    display_name, propagate_results,
};

use serde::{Deserialize, Serialize};

use crate::v1::{PipelineTask, TaskSpec};

/// What a PipelineTask runs, once its reference is resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolvedTask {
    /// The referenced Task's name; `None` for an embedded taskSpec.
    pub name: Option<String>,
    /// Its spec, defaulted; an embedded one with the Pipeline's values applied.
    pub spec: TaskSpec,
    /// Labels of the referenced Task; the TaskRun gets those it has not itself.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations of the referenced Task, likewise.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Whether a PipelineTask is a custom task: its reference or spec has both apiVersion and kind, even
/// `tekton.dev/v1` and `Task`.
pub fn is_custom_task(task: &PipelineTask) -> bool {
    let by_reference =
        task.task_ref.as_ref().is_some_and(|r| !r.api_version.is_empty() && !r.kind.is_empty());
    let by_spec =
        task.task_spec.as_ref().is_some_and(|s| !s.api_version.is_empty() && !s.kind.is_empty());
    by_reference || by_spec
}
