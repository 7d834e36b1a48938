//! The engine: all runs, and the two things that happen to them: commands come in, events go out.
//!
//! Deterministic (invariant 2): the same commands in the same order give the same state and the same
//! events. It never waits, never sends, and never reads a clock.

use std::collections::BTreeMap;

use tenon_tekton::Object;
use tenon_tekton::pod::Pod;

use crate::work::Work;
use crate::{AttemptId, Command, Event, RunId, RunOutcome, Time};

/// All runs and their state.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    runs: BTreeMap<RunId, ()>,
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
        Engine {
            runs: BTreeMap::new(),
            next_seq,
        }
    }

    /// Applies one command and says what happened. A command that makes no sense any more (a report
    /// of a superseded placement, a run that is unknown or over) changes nothing and yields nothing.
    pub fn apply(&mut self, command: Command) -> Vec<Event> {
        let _ = command;
        Vec::new()
    }

    /// Everything that remains to be done, derived from the state alone: ask again after any command.
    /// In order: runs by id (that is by age), tasks in the order in which they became ready.
    pub fn pending_work(&self) -> Vec<Work> {
        Vec::new()
    }

    /// When the next `Command::Tick` is due, if anything waits for time to pass.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// What the agent runs for this attempt; there while the attempt is the current one.
    pub fn pod(&self, attempt: &AttemptId) -> Option<&Pod> {
        let _ = attempt;
        None
    }

    /// The run object, then its TaskRuns and CustomRuns in the order of their creation, with
    /// Tekton's status as of now. Empty for an unknown run.
    pub fn objects(&self, run: RunId) -> Vec<Object> {
        let _ = run;
        Vec::new()
    }

    /// How the run ended; `None` while it goes on, or when it is unknown.
    pub fn outcome(&self, run: RunId) -> Option<RunOutcome> {
        let _ = run;
        None
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
        self.runs.remove(&run);
        true
    }
}
