//! Placements: what waits for an agent, and which one it gets.

use std::collections::BTreeSet;

use tenon_engine::plan::{Explanation, Placement, Waiting};
use tenon_engine::{AttemptId, Engine, RunId, Time};

use super::{Agents, Duties};

/// At most so many placements are proposed together.
const WAVE: usize = 1000;

impl Duties {
    /// Takes note of what waits in a run.
    pub(super) fn set_waiting(&mut self, run: RunId, waiting: Vec<Waiting>) {
        let now: BTreeSet<AttemptId> = waiting.iter().map(|it| it.attempt.clone()).collect();
        let before = self.waiting.remove(&run).unwrap_or_default();
        for attempt in before.difference(&now) {
            self.board.forget(attempt);
            self.queued.remove(attempt);
        }
        for attempt in self.board.under_way_of(run) {
            if !now.contains(&attempt) {
                self.board.settle(&attempt);
            }
        }
        for waiting in waiting {
            self.queued.add(&waiting.attempt, waiting.since);
            self.board.wait(waiting);
        }
        if !now.is_empty() {
            self.waiting.insert(run, now);
        }
    }

    /// What the attempts take that these agents have now.
    pub(crate) fn count(&mut self, moved: &BTreeSet<String>, engine: &Engine, agents: &Agents) {
        for agent in moved {
            let used = engine.used().get(agent).copied().unwrap_or_default();
            self.board.set_used(agent, used);
            self.plan_due = true;
            // It was on its way when the drain was decided.
            if agents.get(agent).is_some_and(|record| record.drain.is_some()) {
                self.draining.insert(agent.clone());
            }
        }
    }

    /// Placements that can be made now: attempts and their agents.
    pub(crate) fn placements(&mut self, now: Time) -> Vec<Placement> {
        let waited_long = self.next_wave().is_some_and(|due| due <= now);
        if !std::mem::take(&mut self.plan_due) && !waited_long {
            return Vec::new();
        }
        let wave = self.board.wave(now, WAVE);
        // There may be room for more.
        self.plan_due = wave.len() == WAVE;
        wave
    }

    /// When time alone lets something be placed.
    pub(crate) fn next_wave(&self) -> Option<Time> {
        self.board.next_wave()
    }

    /// A proposed placement was not taken.
    pub(crate) fn not_placed(&mut self, attempt: &AttemptId) {
        self.board.settle(attempt);
        self.changed.insert(attempt.run);
        self.plan_due = true;
    }

    /// How many attempts wait for an agent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum()
    }

    /// Why the attempts of a run wait for an agent, as of now.
    pub(crate) fn explain(&self, run: RunId) -> Vec<Explanation> {
        let attempts: Vec<AttemptId> =
            self.waiting.get(&run).into_iter().flatten().cloned().collect();
        self.board.explain(&attempts)
    }

    /// When [`Duties::deferrals`] is due, if anything waits.
    pub(crate) fn next_deferral(&self) -> Option<Time> {
        self.queued.next().filter(|_| !self.any_agent)
    }

    /// The attempts whose waiting is to be explained by an event, and why they wait.
    pub(crate) fn deferrals(&mut self, now: Time) -> Vec<Explanation> {
        if self.next_deferral().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due = self.queued.take_due(now);
        let mut explanations = self.board.explain(&due);
        explanations.retain(|told| self.queued.is_news(&told.attempt, &told.message));
        explanations
    }
}
