//! Why a task does not run: Tekton's reasons, in Tekton's order.

use serde::{Deserialize, Serialize};
use tenon_tekton::matrix;
use tenon_tekton::pipelinerun::apply_results;
use tenon_tekton::resultref;
use tenon_tekton::results::{MissingResult, Producer, replacements, resolve};
use tenon_tekton::v1::PipelineTask;
use tenon_tekton::when;

use super::state::PipelineState;
use crate::command::CancelMode;
use crate::event::Status;
use crate::taskrun::TaskRunState;

/// Why a task does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Skip {
    When,
    Parent,
    Stopping,
    Cancelled,
    Stopped,
    Results,
    TasksTimeout,
    FinallyTimeout,
    EmptyMatrix,
}

impl Skip {
    /// Tekton's words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Skip::When => "When Expressions evaluated to false",
            Skip::Parent => "Parent Tasks were skipped",
            Skip::Stopping => "PipelineRun was stopping",
            Skip::Cancelled => "PipelineRun was gracefully cancelled",
            Skip::Stopped => "PipelineRun was gracefully stopped",
            Skip::Results => "Results were missing",
            Skip::TasksTimeout => "PipelineRun Tasks timeout has been reached",
            Skip::FinallyTimeout => "PipelineRun Finally timeout has been reached",
            Skip::EmptyMatrix => "Matrix Parameters have an empty array",
        }
    }

    /// `skipped` for what the Pipeline itself says, `not-run` for what was cut off.
    pub(crate) fn status(self) -> Status {
        match self {
            Skip::When | Skip::Parent | Skip::Results | Skip::EmptyMatrix => Status::Skipped,
            _ => Status::NotRun,
        }
    }
}

/// What is to become of a task that has not started.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// Its predecessors are not done.
    Wait,
    /// It may start.
    Start,
    /// It does not run.
    Skip(Skip),
    /// A result is missing that should be there: Tekton's message.
    Invalid(String),
    /// The run cannot go on: Tekton's reason and message.
    Fatal(String, String),
}

/// Whether params or `when` refer to results (Tekton looks nowhere else before it skips a task for
/// want of them).
pub(super) fn wants_results(task: &PipelineTask) -> bool {
    let mut found = false;
    let mut look = |text: &str| {
        found |= resultref::expressions(text).any(resultref::looks_like_result_ref);
    };
    for param in &task.params {
        resultref::visit_value(&param.value, &mut look);
    }
    for when in &task.when {
        resultref::visit_when(when, &mut look);
    }
    found
}

/// The fate of a DAG task that has not started. Applies results to the task when they are all there.
pub(super) fn fate_of_dag_task(
    pipeline: &mut PipelineState,
    task_runs: &[TaskRunState],
    index: usize,
    stopping: bool,
) -> Fate {
    if stopping {
        return Fate::Skip(Skip::Stopping);
    }
    match pipeline.cancel {
        Some(CancelMode::CancelledRunFinally) => return Fate::Skip(Skip::Cancelled),
        Some(CancelMode::StoppedRunFinally) => return Fate::Skip(Skip::Stopped),
        _ => {}
    }
    let parents = pipeline.graph.predecessors(index);
    let parents_done = parents.iter().all(|parent| pipeline.tasks[*parent].is_done());
    let parent_skipped = parents
        .iter()
        .any(|parent| pipeline.tasks[*parent].skip.is_some_and(|why| why != Skip::When));
    let missing = if parents_done { take_results(pipeline, task_runs, index) } else { None };
    let state = &pipeline.tasks[index];
    if let Some(fatal) = out_of_bounds(pipeline, missing.as_ref()) {
        return fatal;
    }
    if parents_done && !may_run(&state.task) {
        return Fate::Skip(Skip::When);
    }
    if parent_skipped {
        return Fate::Skip(Skip::Parent);
    }
    if !parents_done {
        return Fate::Wait;
    }
    if let Some(missing) = &missing {
        let producer = pipeline.index.get(&missing.reference().pipeline_task);
        let producer_by_when =
            producer.is_some_and(|producer| pipeline.tasks[*producer].skip == Some(Skip::When));
        if state.wants_results && (state.is_failure_ignored() || producer_by_when) {
            return Fate::Skip(Skip::Results);
        }
    }
    if pipeline.tasks_timed_out {
        return Fate::Skip(Skip::TasksTimeout);
    }
    if has_empty_matrix(&state.task) {
        return Fate::Skip(Skip::EmptyMatrix);
    }
    match missing {
        Some(missing) => Fate::Invalid(missing_message(pipeline, &missing, &state.task.name)),
        None => Fate::Start,
    }
}

/// The fate of a finally task, once the DAG is done.
pub(super) fn fate_of_final_task(
    pipeline: &mut PipelineState,
    task_runs: &[TaskRunState],
    index: usize,
) -> Fate {
    if take_results(pipeline, task_runs, index).is_some() {
        return Fate::Skip(Skip::Results);
    }
    let state = &pipeline.tasks[index];
    if !may_run(&state.task) {
        return Fate::Skip(Skip::When);
    }
    if pipeline.finally_timed_out {
        return Fate::Skip(Skip::FinallyTimeout);
    }
    if has_empty_matrix(&state.task) {
        return Fate::Skip(Skip::EmptyMatrix);
    }
    Fate::Start
}

fn may_run(task: &PipelineTask) -> bool {
    // CEL was refused when the run was submitted.
    when::evaluate(&task.when).unwrap_or(false)
}

fn has_empty_matrix(task: &PipelineTask) -> bool {
    task.matrix.as_ref().is_some_and(matrix::has_empty_array)
}

/// Applies the results that a task refers to, all or none; the one that is missing.
fn take_results(
    pipeline: &mut PipelineState,
    task_runs: &[TaskRunState],
    index: usize,
) -> Option<MissingResult> {
    if pipeline.tasks[index].results_applied {
        return None;
    }
    let state = &pipeline.tasks[index];
    let resolved = match resolve(&state.task, |name| producer(pipeline, task_runs, name)) {
        Ok(resolved) => resolved,
        Err(missing) => return Some(missing),
    };
    let with = replacements(&resolved);
    let state = &mut pipeline.tasks[index];
    apply_results(&mut state.task, &with);
    state.results_applied = true;
    None
}

fn producer<'a>(
    pipeline: &'a PipelineState,
    task_runs: &'a [TaskRunState],
    name: &str,
) -> Option<Producer<'a>> {
    let state = &pipeline.tasks[*pipeline.index.get(name)?];
    Some(Producer {
        finished: state.finish.is_some(),
        matrixed: matrix::is_matrixed(state.task.matrix.as_ref()),
        runs: state.runs(task_runs),
    })
}

fn out_of_bounds(pipeline: &PipelineState, missing: Option<&MissingResult>) -> Option<Fate> {
    let error = missing.filter(|m| matches!(m, MissingResult::OutOfBounds { .. }))?;
    let metadata = &pipeline.object.metadata;
    let (namespace, name) = (&metadata.namespace, &metadata.name);
    let message = format!(
        "PipelineRun {namespace}/{name} can't be Run; couldn't resolve all references: [User error] {error}"
    );
    Some(Fate::Fatal("PipelineValidationFailed".to_owned(), message))
}

fn missing_message(pipeline: &PipelineState, missing: &MissingResult, consumer: &str) -> String {
    let reference = missing.reference();
    let (task, result) = (&reference.pipeline_task, &reference.result);
    let producer = pipeline.index.get(task).map(|index| &pipeline.tasks[*index]);
    let finish = producer.and_then(|producer| producer.finish.as_ref());
    match finish {
        Some(finish) if finish.succeeded => format!(
            "task {task:?} completed successfully but did not emit the result {result:?}, which is referenced by task {consumer:?}"
        ),
        Some(_) => missing.to_string(),
        None => format!(
            "Result reference error: Internal result ref \"{task}\" has zero-length TaskRuns"
        ),
    }
}
