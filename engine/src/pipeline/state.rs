//! The state of a PipelineRun and of its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenon_tekton::graph::Graph;
use tenon_tekton::pipelinerun::ResolvedTask;
use tenon_tekton::v1::{
    PipelineRun, PipelineRunResult, PipelineSpec, PipelineTask, TaskRunResult, WorkspaceBinding,
};

use super::books::Books;
use super::finish::Verdict;
use super::skip::Skip;
use crate::Time;
use crate::command::CancelMode;
use crate::rerun::KeptTask;
use crate::taskrun::TaskRunState;

/// A child of a PipelineTask, by its index in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Child {
    TaskRun(usize),
    CustomRun(usize),
}

/// How a PipelineTask ended, all its children together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskFinish {
    pub(crate) succeeded: bool,
    /// Some child was cancelled.
    pub(crate) cancelled: bool,
    /// Some child was cancelled because a timeout of the PipelineRun was reached.
    pub(crate) timed_out: bool,
    /// Every child that failed was lost to the infrastructure.
    pub(crate) infra: bool,
    /// `$(tasks.X.reason)`.
    pub(crate) reason: String,
    /// `$(tasks.X.results…)`: of a fan-out, gathered into arrays.
    pub(crate) results: Vec<TaskRunResult>,
}

/// One PipelineTask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PipelineTaskState {
    /// With everything applied that is known so far.
    pub(crate) task: PipelineTask,
    /// `None` for a custom task.
    pub(crate) resolved: Option<Arc<ResolvedTask>>,
    pub(crate) children: Vec<Child>,
    /// How many of them go on.
    pub(crate) running: usize,
    /// Some child failed, whether or not the others still run.
    pub(crate) some_failed: bool,
    pub(crate) finish: Option<TaskFinish>,
    /// Params or `when` refer to results: only then can it be skipped for want of them.
    pub(crate) wants_results: bool,
    pub(crate) results_applied: bool,
    /// A result that it needs is missing though its producer succeeded: Tekton's message.
    pub(crate) invalid: Option<String>,
    /// Why it does not run, as of now.
    pub(crate) skip: Option<Skip>,
    /// It ran in an earlier run, and does not run again.
    pub(crate) kept: Option<KeptTask>,
    /// Its `task-skip` is out.
    pub(crate) skip_told: bool,
    /// What the books have of it: whether it is done, and whether it stops the run.
    pub(super) counted: (bool, bool),
}

impl PipelineTaskState {
    pub(crate) fn new(task: PipelineTask, resolved: Option<Arc<ResolvedTask>>) -> Self {
        let wants_results = super::skip::wants_results(&task);
        PipelineTaskState {
            task,
            resolved,
            children: Vec::new(),
            running: 0,
            some_failed: false,
            finish: None,
            wants_results,
            results_applied: false,
            invalid: None,
            skip: None,
            kept: None,
            skip_told: false,
            counted: (false, false),
        }
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        !self.children.is_empty() || self.kept.is_some()
    }

    /// Takes over how it ended in an earlier run.
    pub(crate) fn keep(&mut self, kept: KeptTask) {
        self.kept = Some(kept);
        self.finish = Some(super::finish::sum_up(self, &[], &[]));
    }

    /// How many TaskRuns it has, or had.
    pub(crate) fn width(&self) -> usize {
        self.kept.as_ref().map_or(self.children.len(), |kept| kept.task_runs.len())
    }

    /// Its TaskRuns and their results.
    pub(crate) fn runs<'a>(
        &'a self,
        task_runs: &'a [TaskRunState],
    ) -> Vec<(&'a str, &'a [TaskRunResult])> {
        if let Some(kept) = &self.kept {
            let runs = kept.task_runs.iter();
            return runs.map(|run| (run.name.as_str(), run.results.as_slice())).collect();
        }
        let children = self.children.iter().filter_map(|child| match child {
            Child::TaskRun(index) => {
                let task_run = &task_runs[*index];
                Some((task_run.name(), task_run.attempt.results.as_slice()))
            }
            Child::CustomRun(_) => None,
        });
        children.collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.finish.is_some() || self.skip.is_some() || self.invalid.is_some()
    }

    pub(crate) fn is_failure_ignored(&self) -> bool {
        self.task.on_error == "continue"
    }

    /// A DAG task like this lets nothing new start.
    pub(crate) fn stops_the_run(&self) -> bool {
        let failed = self.finish.as_ref().is_some_and(|f| !f.succeeded);
        self.invalid.is_some() || (failed && !self.is_failure_ignored())
    }
}

/// A PipelineRun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PipelineState {
    /// Metadata and spec; the status is made on demand.
    pub(crate) object: PipelineRun,
    /// `status.pipelineSpec`; `None` while there is none to be had.
    pub(crate) spec: Option<PipelineSpec>,
    pub(crate) workspaces: Vec<WorkspaceBinding>,
    /// The DAG's tasks, then those of `finally`.
    pub(crate) tasks: Vec<PipelineTaskState>,
    pub(crate) dag_len: usize,
    pub(crate) graph: Graph,
    /// The DAG's tasks, each after those it waits for.
    pub(crate) order: Vec<usize>,
    pub(crate) index: BTreeMap<String, usize>,
    pub(crate) books: Books,
    pub(crate) cancel: Option<CancelMode>,
    /// `timeouts.tasks` was reached before the DAG was done.
    pub(crate) tasks_timed_out: bool,
    /// `timeouts.pipeline` was reached: everything stops, nothing starts.
    pub(crate) timed_out: bool,
    pub(crate) finally_timed_out: bool,
    /// Something that Tekton takes for the end of the run came up while it ran: reason and message.
    pub(crate) fatal: Option<(String, String)>,
    pub(crate) finally_start: Option<Time>,
    /// The condition, once it is final: status, reason, message.
    pub(crate) end: Option<Verdict>,
    pub(crate) results: Vec<PipelineRunResult>,
}

impl PipelineState {
    pub(crate) fn name(&self) -> &str {
        &self.object.metadata.name
    }

    pub(crate) fn display_name(&self) -> Option<String> {
        let spec = self.spec.as_ref()?;
        crate::log::non_empty(&spec.display_name)
    }

    pub(crate) fn dag(&self) -> &[PipelineTaskState] {
        &self.tasks[..self.dag_len]
    }

    pub(crate) fn finals(&self) -> &[PipelineTaskState] {
        &self.tasks[self.dag_len..]
    }

    /// Nothing of it will run.
    pub(crate) fn forget_tasks(&mut self) {
        self.tasks.clear();
        self.dag_len = 0;
        self.graph = Graph::default();
        self.order.clear();
        self.index.clear();
        self.books = Books::default();
    }

    /// Whether every index leads somewhere.
    pub(crate) fn is_sound(&self) -> bool {
        let tasks = self.tasks.len();
        let edges = (0..self.graph.len())
            .flat_map(|task| [self.graph.predecessors(task), self.graph.successors(task)])
            .flatten();
        self.dag_len <= tasks
            && (self.graph.is_empty() || self.graph.len() == self.dag_len)
            && edges.chain(&self.order).all(|task| *task < self.dag_len)
            && self.index.values().all(|task| *task < tasks)
            && self.books.is_sound(self.order.len(), tasks)
    }

    pub(crate) fn is_dag_done(&self) -> bool {
        self.books.undone_dag == 0
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.books.stopping > 0
    }

    /// Everything stops and nothing starts, `finally` included.
    pub(crate) fn is_halted(&self) -> bool {
        self.timed_out || self.fatal.is_some() || self.cancel == Some(CancelMode::Cancelled)
    }
}
