//! Running a run again without what already succeeded: what is kept of the old run.
//!
//! A kept PipelineTask counts as succeeded with its old results and never starts. It is told by one
//! `task-skip` with reason [`KEPT`], and listed in `status.skippedTasks` with the same reason. Tasks
//! of `finally` always run again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tenon_tekton::Object;
use tenon_tekton::graph::Graph;
use tenon_tekton::v1::{PipelineRun, TaskRun, TaskRunResult};

use crate::RunId;
use crate::claims::Claim;
use crate::command::{RunObject, Submission};

/// The reason of the `task-skip` of a kept task.
pub const KEPT: &str = "rerun/kept";

/// Which run is run again, and what is kept of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    /// The run that is run again.
    pub of: RunId,
    /// PipelineTasks that do not run again, by name. Names that are not in the DAG mean nothing.
    #[serde(default)]
    pub keep: BTreeMap<String, KeptTask>,
    /// The claims of the old run are used again; `None` begins with new ones.
    #[serde(default)]
    pub claims: Option<Claims>,
}

/// A PipelineTask that succeeded in an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptTask {
    /// The run in which it ran.
    pub ran_in: RunId,
    /// `$(tasks.X.reason)`.
    pub reason: String,
    /// Its TaskRuns, of a fan-out in the order of its combinations.
    pub task_runs: Vec<KeptTaskRun>,
}

/// A TaskRun of an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptTaskRun {
    /// Its name.
    pub name: String,
    /// Its results.
    pub results: Vec<TaskRunResult>,
}

/// The volumes of an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The run that they were made for: agents keep them in its directory.
    pub run: RunId,
    /// uid of that run's object, out of which the names of claims are made.
    pub uid: String,
    /// Where the files of each claim are, as far as that is known ([`crate::Engine::claims`]).
    #[serde(default)]
    pub homes: BTreeMap<String, Claim>,
}

/// Why there is no such rerun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRerun {
    /// Not a PipelineRun.
    #[error("a TaskRun has no tasks of its own to begin with: run the whole of it again")]
    TaskRun,
    /// The run goes on, or its objects are not there.
    #[error("the run is not over")]
    NotOver,
    /// Everything succeeded.
    #[error("the run succeeded: nothing of it failed that could be run again")]
    Succeeded,
}

impl NoRerun {
    /// The stable code of this error.
    pub fn code(self) -> &'static str {
        match self {
            NoRerun::TaskRun => "rerun/task-run",
            NoRerun::NotOver => "rerun/not-over",
            NoRerun::Succeeded => "rerun/succeeded",
        }
    }
}

impl Rerun {
    /// The whole run again, with claims of its own.
    pub fn whole(of: RunId) -> Rerun {
        Rerun { of, keep: BTreeMap::new(), claims: None }
    }

    /// From the failed tasks on: keeps every PipelineTask that succeeded and does not come after one
    /// that did not. `submission` is that of the old run, `objects` its final objects, the
    /// PipelineRun first (as [`crate::Engine::objects`] gives them).
    pub fn from_failed(submission: &Submission, objects: &[Object]) -> Result<Rerun, NoRerun> {
        let Some(Object::PipelineRun(run)) = objects.first() else {
            return Err(match submission.run {
                RunObject::TaskRun(_) => NoRerun::TaskRun,
                RunObject::PipelineRun(_) => NoRerun::NotOver,
            });
        };
        let status = run.status.as_ref().ok_or(NoRerun::NotOver)?;
        match status.conditions.first().map(|condition| condition.status.as_str()) {
            Some("True") => return Err(NoRerun::Succeeded),
            Some("False") => {}
            _ => return Err(NoRerun::NotOver),
        }
        let earlier = submission.rerun.as_ref();
        let claims = earlier.and_then(|rerun| rerun.claims.clone()).unwrap_or_else(|| Claims {
            run: submission.run_id,
            uid: run.metadata.uid.clone(),
            homes: BTreeMap::new(),
        });
        let keep = kept(submission, run, objects);
        Ok(Rerun { of: submission.run_id, keep, claims: Some(claims) })
    }
}

/// The tasks of the DAG that succeeded, without those that come after one that must run again.
fn kept(
    submission: &Submission,
    run: &PipelineRun,
    objects: &[Object],
) -> BTreeMap<String, KeptTask> {
    let spec = run.status.as_ref().and_then(|status| status.pipeline_spec.as_ref());
    let Some((spec, graph)) = spec.and_then(|spec| Some((spec, Graph::build(&spec.tasks).ok()?)))
    else {
        return BTreeMap::new();
    };
    let mut keep = succeeded(submission.run_id, run, objects);
    // What an even earlier run did is nowhere in the objects.
    if let Some(rerun) = &submission.rerun {
        for (name, task) in &rerun.keep {
            keep.entry(name.clone()).or_insert_with(|| task.clone());
        }
    }
    let children = run.status.iter().flat_map(|status| &status.child_references);
    let ran: BTreeSet<&str> = children.map(|child| child.pipeline_task_name.as_str()).collect();
    let mut again = vec![false; spec.tasks.len()];
    for task in graph.topological_order() {
        let name = graph.name(task);
        let after = graph.predecessors(task).iter().any(|before| again[*before]);
        // One that never ran though something after it did was skipped by its `when`, which says the
        // same again.
        again[task] = after || (ran.contains(name) && !keep.contains_key(name));
    }
    let names: BTreeSet<&str> =
        (0..graph.len()).filter(|task| !again[*task]).map(|task| graph.name(task)).collect();
    keep.retain(|name, _| names.contains(name.as_str()));
    keep
}

/// Every PipelineTask all of whose children succeeded.
fn succeeded(id: RunId, run: &PipelineRun, objects: &[Object]) -> BTreeMap<String, KeptTask> {
    let task_runs: BTreeMap<&str, &TaskRun> = objects
        .iter()
        .filter_map(|object| match object {
            Object::TaskRun(task_run) => Some((task_run.metadata.name.as_str(), &**task_run)),
            _ => None,
        })
        .collect();
    let mut found: BTreeMap<String, Option<KeptTask>> = BTreeMap::new();
    for child in run.status.iter().flat_map(|status| &status.child_references) {
        let entry = found
            .entry(child.pipeline_task_name.clone())
            .or_insert_with(|| Some(KeptTask { ran_in: id, ..KeptTask::default() }));
        let status = task_runs.get(child.name.as_str()).and_then(|run| run.status.as_ref());
        let succeeded = status.and_then(|status| {
            let condition = status.conditions.first()?;
            (condition.status == "True").then_some((status, condition))
        });
        match (entry.as_mut(), succeeded) {
            (Some(task), Some((status, condition))) => {
                if task.task_runs.is_empty() {
                    task.reason.clone_from(&condition.reason);
                }
                let name = child.name.clone();
                task.task_runs.push(KeptTaskRun { name, results: status.results.clone() });
            }
            _ => *entry = None,
        }
    }
    found.into_iter().filter_map(|(name, task)| Some((name, task?))).collect()
}

impl Submission {
    /// The run in whose directory agents keep the claims of this one: its own, or an earlier one's.
    pub fn claims_run(&self) -> RunId {
        let claims = self.rerun.as_ref().and_then(|rerun| rerun.claims.as_ref());
        claims.map_or(self.run_id, |claims| claims.run)
    }

    /// The same submission as a new run: what an API server fills in is to be filled in anew, and no
    /// wish to cancel or to hold it is left. A generated name is generated anew.
    #[must_use]
    pub fn again(&self, run_id: RunId, rerun: Rerun) -> Submission {
        let mut new = Submission { run_id, rerun: Some(rerun), ..self.clone() };
        let metadata = match &mut new.run {
            RunObject::PipelineRun(run) => {
                run.spec.status = String::new();
                run.status = None;
                &mut run.metadata
            }
            RunObject::TaskRun(run) => {
                run.spec.status = String::new();
                run.spec.status_message = String::new();
                run.status = None;
                &mut run.metadata
            }
        };
        metadata.uid = String::new();
        metadata.creation_timestamp = None;
        metadata.generation = 0;
        if !metadata.generate_name.is_empty() {
            metadata.name = run_id.generated_name(&metadata.generate_name);
        }
        new
    }
}
