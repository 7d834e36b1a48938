//! The order of a run's events.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tenon_engine::{AttemptId, RunId};

use crate::oracle::Violation;

/// What was seen of a run, in the order of the history.
#[derive(Default)]
pub struct RunOrder {
    pub name: String,
    pub body: u64,
    /// Its `finally` tasks.
    finals: Vec<String>,
    last_seq: u64,
    ended: Option<String>,
    archived: bool,
    /// 1 while it runs, 2 when it is over.
    steps: BTreeMap<(String, u64, u64, String, bool), u8>,
    tasks: BTreeMap<(String, u64), u8>,
    /// Placements that were lost: TaskRun, attempt, placement.
    lost: BTreeSet<(String, u64, u64)>,
    /// Attempts that were told to stop: TaskRun, attempt.
    stopped: BTreeSet<(String, u64)>,
    /// PipelineTasks that have begun or were skipped.
    decided: Vec<String>,
}

impl RunOrder {
    /// A run that was submitted.
    pub fn new(name: String, body: u64, finals: Vec<String>) -> RunOrder {
        RunOrder { name, body, finals, ..RunOrder::default() }
    }

    /// Whether a placement was over before its agent has said so: it was lost. One that was to stop and
    /// is lost counts as stopped.
    pub fn was_lost(&self, attempt: &AttemptId, agent_was_lost: bool) -> bool {
        let (task_run, number) = (attempt.task_run.clone(), u64::from(attempt.attempt));
        let placement = (task_run.clone(), number, u64::from(attempt.placement));
        self.lost.contains(&placement)
            || agent_was_lost && self.stopped.contains(&(task_run, number))
    }

    /// The next event, which takes so many numbers.
    pub fn event(&mut self, event: &Value, count: u64) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Violation::new("order of events", format!("{what}: {event}")));
        if self.ended.is_some() {
            return wrong("nothing follows run-end");
        }
        if event["runSeq"].as_u64() != Some(self.last_seq + 1) {
            return Err(Violation::new(
                "runSeq has no gap",
                format!("after {}: {event}", self.last_seq),
            ));
        }
        self.last_seq += count;
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        let attempt = (text("taskRun"), number("attempt"));
        if text("reason").starts_with("infra/") {
            self.lost.insert((text("taskRun"), attempt.1, number("placement")));
        }
        if matches!(event["status"].as_str(), Some("cancelled" | "timeout")) {
            self.stopped.insert(attempt.clone());
        }
        let kind = text("kind");
        if event.get("step").is_some() && self.tasks.get(&attempt) != Some(&1) {
            return wrong("an event of a step outside of its task");
        }
        let sidecar = kind.starts_with("sidecar-");
        let container = (text("taskRun"), attempt.1, number("placement"), text("step"), sidecar);
        match kind.as_str() {
            "task-start" => {
                self.decided.push(text("task"));
                if self.tasks.insert(attempt, 1).is_some() {
                    return wrong("an attempt begins twice");
                }
            }
            "task-skip" => self.decided.push(text("task")),
            "task-retry" | "task-end" => {
                let before = self.tasks.insert(attempt, 2);
                if before != Some(1) {
                    return wrong("an attempt ends that does not run");
                }
            }
            "step-start" | "sidecar-start" => {
                let before = self.steps.insert(container, 1);
                if before.is_some() {
                    return wrong("a step begins twice");
                }
            }
            "step-log" | "sidecar-log" => {
                let state = self.steps.get(&container);
                if state != Some(&1) {
                    return wrong("lines of a step that does not run");
                }
            }
            "step-end" | "sidecar-end" => {
                let before = self.steps.insert(container, 2);
                if before == Some(2) {
                    return wrong("a step ends twice");
                }
            }
            "run-end" => self.ended = Some(text("status")),
            _ => {}
        }
        Ok(())
    }

    /// Its objects are in the history.
    pub fn archived(&mut self) -> Result<(), Violation> {
        if self.ended.is_none() || std::mem::replace(&mut self.archived, true) {
            let what = format!("{} is archived before its end, or twice", self.name);
            return Err(Violation::new("order of events", what));
        }
        Ok(())
    }

    /// It must be over, and all of it.
    pub fn is_over(&self, run: RunId) -> Result<(), Violation> {
        let name = &self.name;
        let Some(status) = &self.ended else {
            return Err(Violation::new("every run ends", format!("run {run} ({name}) does not")));
        };
        let whole = self.archived
            && self.steps.values().all(|state| *state == 2)
            && self.tasks.values().all(|state| *state == 2);
        if !whole {
            let what = format!("run {run} ({name}) ended before everything in it");
            return Err(Violation::new("order of events", what));
        }
        let orderly = matches!(status.as_str(), "succeeded") && !self.tasks.is_empty();
        let forgotten = self.finals.iter().find(|task| orderly && !self.decided.contains(task));
        match forgotten {
            Some(task) => Err(Violation::new(
                "finally runs whatever happens",
                format!("{task} of run {run} ({name}) was forgotten"),
            )),
            None => Ok(()),
        }
    }
}
