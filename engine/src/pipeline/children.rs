//! The TaskRuns and CustomRuns of a PipelineTask that starts.

use std::sync::Arc;

use tenon_tekton::matrix::{self, Combination};
use tenon_tekton::names;
use tenon_tekton::pipelinerun::{
    ResolvedTask, TaskContext, apply_results_to_bindings, apply_task_contexts, check_matrix_types,
    display_name, propagate_results,
};
use tenon_tekton::rejection::Rejection;
use tenon_tekton::taskrun::{ChildInput, build};
use tenon_tekton::v1::TaskRunResult;

use super::state::{Child, PipelineState};
use crate::Time;
use crate::event::MatrixCell;
use crate::log::{Log, non_empty};
use crate::run::Run;
use crate::taskrun::TaskRunState;

/// What all children of one PipelineTask share, taken out of the state before the first is made.
struct Start {
    combinations: Vec<Combination>,
    matrixed: bool,
    names: Vec<String>,
    resolved: Option<Arc<ResolvedTask>>,
    workspaces: Vec<tenon_tekton::v1::WorkspaceBinding>,
}

impl Run {
    /// Makes the children of a task whose results are applied.
    pub(super) fn start_task(
        &mut self,
        now: Time,
        log: &mut Log,
        index: usize,
    ) -> Result<(), Rejection> {
        let limit = self.materials.flags.default_max_matrix_combinations_count;
        let Some(pipeline) = &mut self.pipeline else {
            return Ok(());
        };
        let start = prepare(pipeline, index, limit)?;
        self.check_names(&start.names)?;
        for (position, name) in start.names.iter().enumerate() {
            let combination = start.combinations.get(position);
            if start.resolved.is_some() {
                self.start_task_run(now, index, position, name, combination, &start)?;
            } else {
                self.start_custom_run(now, log, index, name, combination, &start.workspaces)?;
            }
        }
        Ok(())
    }

    /// The children of a matrix are called after their task and their number, and so may another task be. Tekton takes
    /// the TaskRun of the one for the other's then.
    fn check_names(&self, names: &[String]) -> Result<(), Rejection> {
        let Some(pipeline) = &self.pipeline else { return Ok(()) };
        let owner = |name: &String| {
            let task_run = self.by_name.get(name).map(|index| &self.task_runs[*index]);
            let custom_run = || self.custom_runs.iter().find(|it| it.object.metadata.name == *name);
            let task = task_run.and_then(|it| it.pipeline_task);
            task.or_else(|| custom_run().map(|it| it.pipeline_task))
        };
        let Some((name, other)) = names.iter().find_map(|name| Some((name, owner(name)?))) else {
            return Ok(());
        };
        let other = &pipeline.tasks[other].task.name;
        let message = format!(
            "pipeline task {other:?} has a child called {name:?} already, which another one is to have: rename one of them"
        );
        Err(Rejection::user("PipelineValidationFailed", message))
    }

    fn start_task_run(
        &mut self,
        now: Time,
        index: usize,
        position: usize,
        name: &str,
        combination: Option<&Combination>,
        start: &Start,
    ) -> Result<(), Rejection> {
        let Some(pipeline) = &self.pipeline else {
            return Ok(());
        };
        let Some(resolved) = &start.resolved else {
            return Ok(());
        };
        let state = &pipeline.tasks[index];
        let mut object = build(&ChildInput {
            run: &pipeline.object,
            workspaces: &start.workspaces,
            task: &state.task,
            resolved: Some(resolved.as_ref()),
            name,
            combination,
            is_finally: index >= pipeline.dag_len,
            flags: &self.materials.flags,
        })?;
        let metadata = &mut object.metadata;
        metadata.uid = self.id().object_uid("TaskRun", name);
        metadata.creation_timestamp = Some(now.to_seconds_string());
        metadata.generation = 1;
        let shown = display_name(&state.task, &object.spec.params);
        let mut task_run = TaskRunState::new(
            self.id(),
            object,
            state.task.name.clone(),
            resolved.clone(),
            self.materials.flags.default_timeout_minutes,
        );
        task_run.pipeline_task = Some(index);
        task_run.failure_ignored = state.is_failure_ignored();
        if !shown.is_empty() {
            task_run.display_name = Some(shown);
        }
        if !state.task.description.is_empty() {
            task_run.description = non_empty(&state.task.description);
        }
        if let Some(combination) = combination.filter(|_| start.matrixed) {
            let params = combination.params.iter();
            task_run.matrix = Some(MatrixCell {
                parent: state.task.name.clone(),
                index: u32::try_from(position).unwrap_or(u32::MAX),
                of: u32::try_from(start.names.len()).unwrap_or(u32::MAX),
                params: params.map(|p| (p.name.clone(), p.value.clone())).collect(),
            });
        }
        let child = self.add_task_run(task_run);
        self.add_child(index, Child::TaskRun(child));
        Ok(())
    }

    /// Counts a new child of a PipelineTask.
    pub(super) fn add_child(&mut self, task: usize, child: Child) {
        if let Some(pipeline) = &mut self.pipeline {
            let state = &mut pipeline.tasks[task];
            state.children.push(child);
            state.running += 1;
            pipeline.books.running += 1;
        }
    }
}

/// Applies what is known only now, and counts the combinations.
fn prepare(pipeline: &mut PipelineState, index: usize, limit: u32) -> Result<Start, Rejection> {
    let context = task_context(pipeline, index);
    let task = &mut pipeline.tasks[index].task;
    apply_task_contexts(task, &context);
    check_matrix_types(task)?;
    let matrixed = matrix::is_matrixed(task.matrix.as_ref());
    let (mut count, mut combinations) = (1, Vec::new());
    if let Some(matrix) = task.matrix.as_ref().filter(|_| matrixed) {
        // As many TaskRuns as this, as in Tekton: more than combinations where a param was to be a whole array result
        // and the result is none.
        count = matrix::count(matrix);
        if count > usize::try_from(limit).unwrap_or(usize::MAX) {
            let message = format!(
                "PipelineTask \"{}\" fans out too far: expected 0 <= {count} <= {limit}: matrix",
                task.name
            );
            return Err(Rejection::new("PipelineValidationFailed", message));
        }
        combinations = matrix::combinations(matrix);
    }
    let names = names::task_run_names(pipeline.name(), &pipeline.tasks[index].task.name, count);
    Ok(Start {
        combinations,
        matrixed,
        names,
        resolved: propagated(pipeline, index),
        workspaces: bindings(pipeline),
    })
}

fn finished(pipeline: &PipelineState) -> impl Iterator<Item = (&str, &[TaskRunResult])> {
    pipeline.tasks.iter().filter_map(|state| {
        let finish = state.finish.as_ref()?;
        Some((state.task.name.as_str(), finish.results.as_slice()))
    })
}

/// The resolved task; an embedded one with the results of earlier tasks in its scripts.
fn propagated(pipeline: &PipelineState, index: usize) -> Option<Arc<ResolvedTask>> {
    let state = &pipeline.tasks[index];
    let resolved = state.resolved.as_ref()?;
    let embedded = resolved.name.is_none();
    if !embedded || !mentions_results(&resolved.spec) {
        return Some(resolved.clone());
    }
    let mut copy = resolved.as_ref().clone();
    propagate_results(&mut copy.spec, finished(pipeline));
    Some(Arc::new(copy))
}

/// A look at the text, so that only specs with a reference pay for applying all results.
fn mentions_results(value: &impl serde::Serialize) -> bool {
    serde_json::to_string(value).is_ok_and(|text| text.contains("$(tasks."))
}

fn bindings(pipeline: &PipelineState) -> Vec<tenon_tekton::v1::WorkspaceBinding> {
    let mut bindings = pipeline.workspaces.clone();
    if !bindings.is_empty() && mentions_results(&bindings) {
        apply_results_to_bindings(&mut bindings, finished(pipeline));
    }
    bindings
}

/// Lengths of fan-outs and of their results, as far as the task's params can ask for them.
fn task_context(pipeline: &PipelineState, index: usize) -> TaskContext {
    let mut context = TaskContext::default();
    let asks = mentions_results_length(&pipeline.tasks[index].task);
    if !asks {
        return context;
    }
    for state in &pipeline.tasks {
        let matrixed = matrix::is_matrixed(state.task.matrix.as_ref());
        if !matrixed || state.width() == 0 {
            continue;
        }
        let name = state.task.name.clone();
        let lengths = &mut context.matrix_lengths;
        lengths.insert(name.clone(), state.width());
        for result in state.finish.iter().flat_map(|finish| &finish.results) {
            if let tenon_tekton::v1::ParamValue::Array(items) = &result.value {
                let key = (name.clone(), result.name.clone());
                context.result_lengths.insert(key, items.len());
            }
        }
    }
    context
}

fn mentions_results_length(task: &tenon_tekton::v1::PipelineTask) -> bool {
    let mut found = false;
    for param in &task.params {
        tenon_tekton::resultref::visit_value(&param.value, &mut |text| {
            found |= text.contains(".matrix.");
        });
    }
    found
}
