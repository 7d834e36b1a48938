//! References of a run become what they refer to, and everything is checked that can be checked
//! before the first child is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenon_tekton::pipelinerun::{Prepared, ResolvedTask, check_tasks, is_custom_task, prepare};
use tenon_tekton::pod::claim_templates;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::{Pipeline, PipelineRun, PipelineSpec, PipelineTask, TaskRef};

use super::Materials;
use super::submit::Tasks;
use crate::pipeline::{PipelineState, PipelineTaskState};
use crate::taskrun::{no_resolver, not_found};

/// The Task that a reference names, or why there is none.
pub(super) fn resolve_task(reference: &TaskRef, tasks: &Tasks) -> Result<ResolvedTask, String> {
    if !reference.resolver.is_empty() {
        return Err(no_resolver(&reference.resolver));
    }
    let task = tasks.get(&reference.name).ok_or_else(|| not_found("tasks", &reference.name))?;
    Ok(ResolvedTask {
        name: Some(task.metadata.name.clone()),
        spec: task.spec.clone(),
        labels: task.metadata.labels.clone(),
        annotations: task.metadata.annotations.clone(),
    })
}

/// The Pipeline's name (the run's own for an embedded one), and its spec unless it is the embedded
/// one. Takes over the Pipeline's labels and annotations.
pub(super) fn resolve_pipeline<'a>(
    object: &mut PipelineRun,
    pipelines: &'a BTreeMap<String, Pipeline>,
) -> Result<(String, Option<&'a PipelineSpec>), Rejection> {
    let name = object.metadata.name.clone();
    let namespace = object.metadata.namespace.clone();
    let missing = |why: String| {
        let message =
            format!("Error retrieving pipeline for pipelinerun {namespace}/{name}: {why}");
        Rejection::new("CouldntGetPipeline", message)
    };
    let Some(reference) = &object.spec.pipeline_ref else {
        if object.spec.pipeline_spec.is_none() {
            let why = format!("pipelineRun {name} not providing PipelineRef or PipelineSpec");
            return Err(missing(why));
        }
        return Ok((name, None));
    };
    let prefix = format!("error when getting Pipeline for PipelineRun {name}");
    if !reference.resolver.is_empty() {
        let why = no_resolver(&reference.resolver);
        return Err(missing(format!("{prefix}: {why}")));
    }
    let pipeline = pipelines.get(&reference.name).ok_or_else(|| {
        let why = not_found("pipelines", &reference.name);
        missing(format!("{prefix}: {why}"))
    })?;
    let metadata = &mut object.metadata;
    for (key, value) in &pipeline.metadata.labels {
        let labels = &mut metadata.labels;
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &pipeline.metadata.annotations {
        if key != "kubectl.kubernetes.io/last-applied-configuration" {
            let annotations = &mut metadata.annotations;
            annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let label = "tekton.dev/pipeline".to_owned();
    let found = pipeline.metadata.name.clone();
    metadata.labels.insert(label, found.clone());
    Ok((found, Some(&pipeline.spec)))
}

/// Checks everything and fills in the tasks.
pub(super) fn resolve(
    state: &mut PipelineState,
    pipeline: &str,
    spec: &PipelineSpec,
    tasks: &Tasks,
    materials: &Materials,
) -> Result<(), Rejection> {
    let prepared = prepare(&state.object, spec, pipeline, &materials.flags)?;
    let original = spec;
    let Prepared { spec, mut workspaces, tasks: graph, finally: _ } = prepared;
    let rerun = materials.rerun.as_ref();
    if let Some(claims) = rerun.and_then(|rerun| rerun.claims.as_ref()) {
        claim_templates(&mut workspaces, &claims.uid);
    }
    state.spec = Some(spec.clone());
    let metadata = &state.object.metadata;
    let mut resolved = BTreeMap::new();
    for task in spec.tasks.iter().chain(&spec.finally) {
        if let Some(found) = resolve_pipeline_task(task, tasks, &metadata.namespace, pipeline)? {
            resolved.insert(task.name.clone(), found);
        }
    }
    check_tasks(&state.object, original, &spec, &resolved, &materials.flags)?;
    state.workspaces = workspaces;
    state.dag_len = spec.tasks.len();
    state.order = graph.topological_order();
    state.graph = graph;
    for task in spec.tasks.into_iter().chain(spec.finally) {
        let found = resolved.remove(&task.name).map(Arc::new);
        state.index.insert(task.name.clone(), state.tasks.len());
        let name = task.name.clone();
        let mut task = PipelineTaskState::new(task, found);
        let kept = rerun.and_then(|rerun| rerun.keep.get(&name));
        if let Some(kept) = kept.filter(|_| state.tasks.len() < state.dag_len) {
            task.keep(kept.clone());
        }
        state.tasks.push(task);
    }
    state.open_books();
    Ok(())
}

/// What a PipelineTask runs; `None` for a custom task.
fn resolve_pipeline_task(
    task: &PipelineTask,
    tasks: &Tasks,
    namespace: &str,
    pipeline: &str,
) -> Result<Option<ResolvedTask>, Rejection> {
    if is_custom_task(task) {
        return Ok(None);
    }
    if task.pipeline_ref.is_some() || task.pipeline_spec.is_some() {
        let message = format!(
            "Pipeline {namespace}/{pipeline} can't be Run; pipeline task \"{}\" is a Pipeline itself, which this build does not run",
            task.name
        );
        return Err(Rejection::new("PipelineValidationFailed", message));
    }
    if let Some(reference) = &task.task_ref {
        let found = resolve_task(reference, tasks).map_err(|why| {
            let name = &reference.name;
            let message = format!(
                "Pipeline {namespace}/{pipeline} can't be Run; it contains Tasks that don't exist: Couldn't retrieve Task \"{name}\": {why}"
            );
            Rejection::new("CouldntGetTask", message)
        });
        return found.map(Some);
    }
    let embedded = task.task_spec.as_ref();
    let spec = embedded.map(|embedded| embedded.task_spec.clone());
    Ok(Some(ResolvedTask { spec: spec.unwrap_or_default(), ..ResolvedTask::default() }))
}
