//! The exact state of one run as bytes: what a coordinator keeps of it between persist points and
//! sends inside a snapshot. Reading it back gives an engine that goes on as the first one would.
//!
//! The first byte is the version of the form. What follows is JSON, not compressed: whoever stores
//! many of them knows better how.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenon_tekton::pipelinerun::ResolvedTask;

use crate::pipeline::Child;
use crate::run::Run;

/// The form that this build writes, and the only one that it reads.
const VERSION: u8 = 1;

/// Why bytes are no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// There are no bytes.
    #[error("the state of a run is empty")]
    Empty,
    /// Another build wrote them.
    #[error("the state of a run has version {0}; this build reads version {VERSION}")]
    Version(u8),
    /// They are not what the version says.
    #[error("the state of a run is damaged: {0}")]
    Damaged(String),
}

impl Undecodable {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Undecodable::Empty | Undecodable::Damaged(_) => "engine/damaged-state",
            Undecodable::Version(_) => "engine/state-version",
        }
    }
}

#[derive(Serialize)]
struct Writes<'a> {
    run: &'a Run,
    resolved: BTreeMap<usize, &'a ResolvedTask>,
}

#[derive(Deserialize)]
struct Reads {
    run: Run,
    /// By the TaskRun's index: what it runs, where that is not what its PipelineTask says.
    resolved: BTreeMap<usize, Arc<ResolvedTask>>,
}

/// The run as bytes; `None` if it cannot be written, which no state that commands can bring about is.
pub(crate) fn encode(run: &Run) -> Option<Vec<u8>> {
    let own = run.task_runs.iter().enumerate().filter(|(index, task_run)| {
        let shared = shared_with(run, *index);
        shared.is_none_or(|shared| !Arc::ptr_eq(shared, &task_run.resolved))
    });
    let resolved = own.map(|(index, task_run)| (index, task_run.resolved.as_ref())).collect();
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, &Writes { run, resolved }).ok()?;
    Some(bytes)
}

/// The run that was made into these bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Run, Undecodable> {
    let (version, json) = bytes.split_first().ok_or(Undecodable::Empty)?;
    if *version != VERSION {
        return Err(Undecodable::Version(*version));
    }
    let damaged = |error: &dyn std::fmt::Display| Undecodable::Damaged(error.to_string());
    let Reads { mut run, mut resolved } =
        serde_json::from_slice(json).map_err(|error| damaged(&error))?;
    run.check().map_err(|what| damaged(&what))?;
    for index in 0..run.task_runs.len() {
        let found = resolved.remove(&index).or_else(|| shared_with(&run, index).cloned());
        let found = found.ok_or_else(|| damaged(&"a TaskRun without a Task"))?;
        run.task_runs[index].resolved = found;
    }
    Ok(run)
}

/// What the TaskRun's PipelineTask runs.
fn shared_with(run: &Run, index: usize) -> Option<&Arc<ResolvedTask>> {
    let task = run.task_runs[index].pipeline_task?;
    run.pipeline.as_ref()?.tasks.get(task)?.resolved.as_ref()
}

impl Run {
    /// Whether every index leads somewhere: what is read from a disk is not believed.
    fn check(&self) -> Result<(), &'static str> {
        let task_runs = self.task_runs.len();
        let tasks = self.pipeline.as_ref().map_or(0, |pipeline| pipeline.tasks.len());
        let custom_runs = self.custom_runs.len();
        let mut known = self.by_name.values().chain(&self.queue).chain(&self.active);
        let child = |child: &Child| match child {
            Child::TaskRun(index) => *index < task_runs,
            Child::CustomRun(index) => *index < custom_runs,
        };
        let children_are_there = self.pipeline.as_ref().is_none_or(|pipeline| {
            let mut children = pipeline.tasks.iter().flat_map(|task| &task.children);
            children.all(child) && pipeline.is_sound()
        });
        let parents_are_there = self
            .task_runs
            .iter()
            .filter_map(|task_run| task_run.pipeline_task)
            .chain(self.custom_runs.iter().map(|custom_run| custom_run.pipeline_task))
            .all(|task| task < tasks);
        if known.all(|index| *index < task_runs) && children_are_there && parents_are_there {
            Ok(())
        } else {
            Err("an index leads nowhere")
        }
    }
}
