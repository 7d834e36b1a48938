//! The engine: all runs, and the two things that happen to them: commands come in, events go out.
//!
//! Deterministic (invariant 2): the same commands in the same order give the same state and the same
//! events. It never waits, never sends, and never reads a clock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tenon_tekton::Object;
use tenon_tekton::pod::Pod;

use crate::log::Log;
use crate::run::Run;
use crate::work::Work;
use crate::{AttemptId, Command, Event, RunId, RunOutcome, Time};

/// All runs and their state.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    runs: BTreeMap<RunId, Run>,
    next_seq: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new()
    }
}

impl Engine {
    /// An engine without runs; its first event has `seq` 1.
    pub fn new() -> Self {
        Engine::starting_at(1)
    }

    /// An engine without runs whose first event has this `seq`: for a coordinator that goes on after
    /// older events.
    pub fn starting_at(next_seq: u64) -> Self {
        Engine { runs: BTreeMap::new(), next_seq }
    }

    /// Applies one command and says what happened. A command that makes no sense any more (a report
    /// of a superseded placement, a run that is unknown or over) changes nothing and yields nothing.
    pub fn apply(&mut self, command: Command) -> Vec<Event> {
        let now = command.time();
        let mut log = Log::starting_at(self.next_seq);
        match command {
            Command::Submit { submission, .. } => {
                if let Entry::Vacant(entry) = self.runs.entry(submission.run_id) {
                    entry.insert(Run::submit(now, &mut log, *submission));
                }
            }
            Command::Place { attempt, agent, .. } => {
                if let Some(run) = self.runs.get_mut(&attempt.run) {
                    run.place(now, &mut log, &attempt, &agent);
                }
            }
            Command::Report { attempt, report, .. } => {
                if let Some(run) = self.runs.get_mut(&attempt.run) {
                    run.report(now, &mut log, &attempt, report);
                }
            }
            Command::Cancel { run, mode, message, .. } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.cancel(now, &mut log, mode, &message);
                }
            }
            Command::Tick { .. } => {
                for run in self.runs.values_mut() {
                    run.tick(now, &mut log);
                }
            }
            Command::Abandon { run, message, .. } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.abandon(now, &mut log, &message);
                }
            }
        }
        let (next_seq, events) = log.finish();
        self.next_seq = next_seq;
        events
    }

    /// Everything that remains to be done, derived from the state alone: ask again after any command.
    /// In order: runs by id (that is by age), tasks in the order of their creation.
    pub fn pending_work(&self) -> Vec<Work> {
        let mut work = Vec::new();
        for run in self.runs.values() {
            run.pending_work(&mut work);
        }
        work
    }

    /// When the next `Command::Tick` is due, if anything waits for time to pass.
    pub fn next_deadline(&self) -> Option<Time> {
        self.runs.values().filter_map(Run::next_deadline).min()
    }

    /// What the agent runs for this attempt; there while the attempt is the current one.
    pub fn pod(&self, attempt: &AttemptId) -> Option<&Pod> {
        let run = self.runs.get(&attempt.run)?;
        let task_run = run.task_run(&attempt.task_run)?;
        let current = task_run.attempt.number == attempt.attempt
            && task_run.attempt.placement == attempt.placement;
        task_run.pod().filter(|_| current)
    }

    /// Every attempt that is placed on an agent and has not ended, with the agent's name.
    pub fn placed(&self) -> impl Iterator<Item = (AttemptId, &str)> + '_ {
        self.runs.values().flat_map(Run::placed)
    }

    /// The run object, then its TaskRuns and CustomRuns in the order of their creation, with
    /// Tekton's status as of now. Empty for an unknown run.
    pub fn objects(&self, run: RunId) -> Vec<Object> {
        self.runs.get(&run).map(Run::objects).unwrap_or_default()
    }

    /// How the run ended; `None` while it goes on, or when it is unknown.
    pub fn outcome(&self, run: RunId) -> Option<RunOutcome> {
        self.runs.get(&run)?.outcome.clone()
    }

    /// The runs there are, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.keys().copied()
    }

    /// The `seq` that the next event will have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Forgets a run that is over; one that goes on stays. Says whether the run is gone.
    pub fn remove(&mut self, run: RunId) -> bool {
        if self.runs.get(&run).is_some_and(|run| !run.is_over()) {
            return false;
        }
        self.runs.remove(&run);
        true
    }
}
