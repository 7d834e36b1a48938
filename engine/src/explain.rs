//! What a run does and what it waits for, in words and as data: the answer to "why is my run not
//! getting on?".
//!
//! Made of the state alone, whenever somebody asks. Nothing here decides anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_tekton::v1::ParamValue;

use crate::event::Status;
use crate::pipeline::{Child, PipelineState, PipelineTaskState};
use crate::run::Run;
use crate::taskrun::{Phase, TaskRunState};
use crate::work::Requirements;
use crate::{RunId, Time};

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its id.
    pub run_id: RunId,
    /// Its namespace.
    pub namespace: String,
    /// `PipelineRun` or `TaskRun`.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// Where it stands.
    pub state: RunState,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The same in words.
    pub message: String,
    /// When it began.
    pub since: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// When a timeout is due, if nothing happens before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The run that it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Its PipelineTasks in the order of the Pipeline, `finally` last. Of a TaskRun: itself.
    pub tasks: Vec<TaskExplanation>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It waits to be released.
    Pending,
    /// It runs.
    Running,
    /// It was told to end, and does so.
    Stopping,
    /// It is over.
    Ended,
}

/// A PipelineTask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskExplanation {
    /// Its name in the Pipeline.
    pub task: String,
    /// Whether it is a task of `finally`.
    pub finally: bool,
    /// Where it stands.
    pub state: TaskState,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The same in words.
    pub message: String,
    /// The tasks that it waits for and that are not done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<String>,
    /// Its TaskRuns: one, or one for each combination of its matrix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_runs: Vec<TaskRunExplanation>,
}

/// Where a task stands. Of a fan-out: where its busiest TaskRun stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// It waits for other tasks.
    Waiting,
    /// The run's own limit of attempts at a time holds it back.
    Queued,
    /// It waits for an agent.
    Unplaced,
    /// It has an agent, which has not yet said that it began.
    Placed,
    /// An agent works on it.
    Running,
    /// It was told to stop, and does so.
    Stopping,
    /// It is over.
    Ended,
    /// It does not run.
    Skipped,
    /// It succeeded in an earlier run, and does not run again.
    Kept,
}

/// A TaskRun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunExplanation {
    /// Its name.
    pub task_run: String,
    /// Of a fan-out: its combination.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, ParamValue>,
    /// Where it stands.
    pub state: TaskState,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The same in words.
    pub message: String,
    /// The current attempt, from 1.
    pub attempt: u32,
    /// How many attempts it may have.
    pub attempts: u32,
    /// How often the attempt was placed, from 1.
    pub placement: u32,
    /// The agent that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Since when it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When its timeout is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The step that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What an agent must have, while it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
}

impl Run {
    pub(crate) fn explain(&self) -> Explanation {
        let held = self.held_because();
        let (state, message) = match (&self.outcome, &held) {
            (Some(outcome), _) => {
                (RunState::Ended, words([outcome.reason.as_str(), &outcome.message]))
            }
            (None, Some((_, message))) if self.pending().is_some() => {
                (RunState::Pending, format!("{message}: it waits to be released"))
            }
            (None, Some((_, message))) => (RunState::Pending, message.clone()),
            (None, None) => self.under_way(),
        };
        let (kind, tasks) = match &self.pipeline {
            Some(pipeline) => ("PipelineRun", self.explain_tasks(pipeline)),
            None if self.header.pipeline_run.is_some() => ("PipelineRun", Vec::new()),
            None => ("TaskRun", self.task_runs.iter().map(|t| self.explain_single(t)).collect()),
        };
        Explanation {
            run_id: self.id(),
            namespace: self.header.namespace.clone(),
            kind: kind.to_owned(),
            name: self.name.clone(),
            state,
            status: self.outcome.as_ref().map(|outcome| outcome.status),
            message,
            since: self.start,
            ended: self.ended_at,
            deadline: self.next_deadline(),
            rerun_of: self.materials.rerun.as_ref().map(|rerun| rerun.of),
            tasks,
        }
    }

    fn under_way(&self) -> (RunState, String) {
        match &self.pipeline {
            Some(pipeline) => {
                let (_, reason, message) = pipeline.verdict();
                let stopping = pipeline.is_halted() || pipeline.cancel.is_some();
                let state = if stopping { RunState::Stopping } else { RunState::Running };
                (state, words([reason.as_str(), &message]))
            }
            None => {
                let stopping = self.task_runs.iter().any(|t| t.attempt.stopping.is_some());
                let state = if stopping { RunState::Stopping } else { RunState::Running };
                (state, "Running".to_owned())
            }
        }
    }

    fn explain_single(&self, task_run: &TaskRunState) -> TaskExplanation {
        let explained = self.explain_task_run(task_run);
        TaskExplanation {
            task: task_run.task.clone(),
            finally: false,
            state: explained.state,
            status: explained.status,
            message: explained.message.clone(),
            waiting_on: Vec::new(),
            task_runs: vec![explained],
        }
    }

    fn explain_tasks(&self, pipeline: &PipelineState) -> Vec<TaskExplanation> {
        let tasks = pipeline.tasks.iter().enumerate();
        tasks.map(|(index, task)| self.explain_task(pipeline, index, task)).collect()
    }

    fn explain_task(
        &self,
        pipeline: &PipelineState,
        index: usize,
        task: &PipelineTaskState,
    ) -> TaskExplanation {
        let finally = index >= pipeline.dag_len;
        let task_runs: Vec<TaskRunExplanation> = task
            .children
            .iter()
            .filter_map(|child| match child {
                Child::TaskRun(index) => Some(self.explain_task_run(&self.task_runs[*index])),
                Child::CustomRun(_) => None,
            })
            .collect();
        let mut waiting_on = Vec::new();
        let mut status = None;
        let (state, message) = if let Some(kept) = &task.kept {
            status = Some(Status::Skipped);
            (TaskState::Kept, format!("succeeded in run {}: does not run again", kept.ran_in))
        } else if let Some(finish) = &task.finish {
            let ended = if finish.succeeded { Status::Succeeded } else { Status::Failed };
            status = task_runs.iter().find_map(|t| t.status.filter(|s| *s != Status::Succeeded));
            status = status.or(Some(ended));
            let first_failed = task_runs.iter().find(|t| t.status == status);
            let message = first_failed.map_or(finish.reason.clone(), |t| t.message.clone());
            (TaskState::Ended, message)
        } else if task.is_scheduled() {
            busiest(&task_runs)
        } else if let Some(message) = &task.invalid {
            status = Some(Status::NotRun);
            (TaskState::Skipped, message.clone())
        } else if let Some(skip) = task.skip {
            status = Some(skip.status());
            (TaskState::Skipped, skip.as_str().to_owned())
        } else if self.is_over() {
            status = Some(Status::NotRun);
            (TaskState::Skipped, "the run ended before".to_owned())
        } else {
            waiting_on = waits_for(pipeline, index);
            let message = match (finally, waiting_on.is_empty()) {
                (true, _) => "waits until all other tasks are done".to_owned(),
                (false, true) => "nothing new starts any more".to_owned(),
                (false, false) => format!("waits for {}", waiting_on.join(", ")),
            };
            (TaskState::Waiting, message)
        };
        let task = task.task.name.clone();
        TaskExplanation { task, finally, state, status, message, waiting_on, task_runs }
    }

    fn explain_task_run(&self, task_run: &TaskRunState) -> TaskRunExplanation {
        let attempt = &task_run.attempt;
        let retries = u32::try_from(task_run.object.spec.retries).unwrap_or(0);
        let attempts = retries.saturating_add(1);
        let step = attempt.steps.iter().find(|step| step.started.is_some() && step.end.is_none());
        let step = step.filter(|_| attempt.phase == Phase::Running).map(|step| step.name.clone());
        let agent = attempt.agent.as_deref().unwrap_or_default();
        let (state, message, since) = match attempt.phase {
            Phase::Queued => {
                let message = self.queued_message();
                (TaskState::Queued, message, None)
            }
            Phase::Waiting => {
                let message = match &attempt.waits {
                    Some(waits) => format!("waits for an agent: {}", waits.message),
                    None => "waits for an agent".to_owned(),
                };
                (TaskState::Unplaced, message, attempt.start)
            }
            Phase::Placed | Phase::Running if attempt.stopping.is_some() => {
                let why = attempt.stopping.map_or("", |reason| reason.as_str());
                let message = format!("agent {agent} is to stop it: {why}");
                (TaskState::Stopping, message, attempt.agent_start())
            }
            Phase::Placed => {
                let message = format!("given to agent {agent}, which has not begun yet");
                (TaskState::Placed, message, attempt.start)
            }
            Phase::Running => {
                let message = match &step {
                    Some(step) => format!("runs step {step} on agent {agent}"),
                    None => format!("agent {agent} prepares it"),
                };
                (TaskState::Running, message, attempt.agent_start())
            }
            Phase::Over => {
                let verdict = attempt.verdict.as_ref();
                let parts = verdict.map_or(["", ""], |v| [v.reason.as_str(), &v.message]);
                (TaskState::Ended, words(parts), attempt.completion)
            }
        };
        let retry = match attempt.number {
            1 => String::new(),
            number => format!(" (attempt {number} of {attempts})"),
        };
        let waiting = attempt.phase == Phase::Waiting;
        TaskRunExplanation {
            task_run: task_run.name().to_owned(),
            matrix: task_run.matrix.as_ref().map(|cell| cell.params.clone()).unwrap_or_default(),
            state,
            status: attempt.verdict.as_ref().map(|verdict| verdict.kind.event_status()),
            message: format!("{message}{retry}"),
            attempt: attempt.number,
            attempts,
            placement: attempt.placement,
            agent: attempt.agent.clone(),
            since,
            deadline: task_run.due(),
            step,
            requirements: waiting.then(|| self.requirements(task_run).as_ref().clone()),
        }
    }

    fn queued_message(&self) -> String {
        match self.materials.parallel {
            Some(limit) => format!("the run lets {limit} attempt(s) run at a time"),
            None => "waits for its turn".to_owned(),
        }
    }
}

/// What the TaskRuns of a task that goes on come to: the one that is furthest, and how many there are.
fn busiest(task_runs: &[TaskRunExplanation]) -> (TaskState, String) {
    let on = task_runs.iter().filter(|task_run| task_run.state != TaskState::Ended);
    let Some(first) = on.max_by_key(|task_run| task_run.state) else {
        return (TaskState::Running, "a custom task: no controller here runs it".to_owned());
    };
    let ended = task_runs.iter().filter(|t| t.state == TaskState::Ended).count();
    let message = match task_runs.len() {
        1 => first.message.clone(),
        all => format!("{ended} of {all} ended; {}: {}", first.task_run, first.message),
    };
    (first.state, message)
}

/// The names of the tasks before this one that are not done.
fn waits_for(pipeline: &PipelineState, index: usize) -> Vec<String> {
    let undone = |task: &&PipelineTaskState| !task.is_done();
    let name = |task: &PipelineTaskState| task.task.name.clone();
    if index >= pipeline.dag_len {
        return pipeline.dag().iter().filter(undone).map(name).collect();
    }
    let before = pipeline.graph.predecessors(index).iter();
    before.map(|task| &pipeline.tasks[*task]).filter(undone).map(name).collect()
}

/// Reason and message, whichever there are.
fn words(parts: [&str; 2]) -> String {
    match parts {
        [reason, ""] => reason.to_owned(),
        ["", message] => message.to_owned(),
        [reason, message] => format!("{reason}: {message}"),
    }
}
