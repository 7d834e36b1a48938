//! The engine: all runs, and the two things that happen to them: commands come in, events go out.
//!
//! Deterministic (invariant 2): the same commands in the same order give the same state and the same
//! events. It never waits, never sends, and never reads a clock.
//!
//! What one command costs depends on the run it is for, never on how many runs there are.

use std::collections::{BTreeMap, BTreeSet};

use tenon_tekton::Object;
use tenon_tekton::pod::Pod;

use crate::due::Due;
use crate::explain::Explanation;
use crate::groups::{GroupId, Groups};
use crate::log::Log;
use crate::run::Run;
use crate::state::{self, Undecodable};
use crate::work::{Usage, Work};
use crate::{AttemptId, Command, Event, Kind, RunId, RunOutcome, Time, TraceContext};

/// All runs and their state.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) runs: BTreeMap<RunId, Run>,
    next_seq: u64,
    /// Of every run that waits for time to pass.
    due: Due<RunId>,
    /// What the attempts take that each agent has.
    used: BTreeMap<String, Usage>,
    pub(crate) groups: Groups,
    /// Groups in which there may be room for another run.
    pub(crate) loosened: BTreeSet<GroupId>,
    changed: BTreeSet<RunId>,
    /// Agents that got an attempt or lost one.
    moved: BTreeSet<String>,
}

/// Equal state; what was asked of [`Engine::take_changed`] and the like is no part of it.
impl PartialEq for Engine {
    fn eq(&self, other: &Engine) -> bool {
        let Engine { runs, next_seq, due, used, groups, loosened: _, changed: _, moved: _ } = self;
        (runs, next_seq, due) == (&other.runs, &other.next_seq, &other.due)
            && (used, groups) == (&other.used, &other.groups)
    }
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
            due: Due::new(),
            used: BTreeMap::new(),
            groups: Groups::default(),
            loosened: BTreeSet::new(),
            changed: BTreeSet::new(),
            moved: BTreeSet::new(),
        }
    }

    /// Applies one command and says what happened. A command that makes no sense any more (a report
    /// of a superseded placement, a run that is unknown or over) changes nothing and yields nothing.
    ///
    /// Times that go back are no matter: inside a run the clock stands still until they have caught
    /// up.
    pub fn apply(&mut self, command: Command) -> Vec<Event> {
        let now = command.time().believable();
        let mut log = Log::starting_at(self.next_seq);
        match command {
            Command::Submit { submission, .. } => {
                let id = submission.run_id;
                if !self.runs.contains_key(&id) {
                    let admission = self.admission(now, &mut log, &submission);
                    self.runs.insert(id, Run::submit(now, &mut log, *submission, admission));
                    self.touched(id);
                }
            }
            Command::Place { attempt, agent, .. } => {
                self.change(attempt.run, now, |run, now| {
                    run.place(now, &mut log, &attempt, &agent);
                });
            }
            Command::Report { attempt, report, .. } => {
                self.change(attempt.run, now, |run, now| {
                    run.report(now, &mut log, &attempt, report);
                });
            }
            Command::Cancel { run, mode, message, .. } => {
                self.change(run, now, |run, now| run.cancel(now, &mut log, mode, &message));
            }
            Command::Release { run, .. } => self.release(run, now, &mut log),
            Command::Defer { attempt, reason, message, .. } => {
                self.change(attempt.run, now, |run, now| {
                    run.defer(now, &mut log, &attempt, reason, message);
                });
            }
            Command::Tick { .. } => {
                for run in self.due.until(now) {
                    self.change(run, now, |run, now| run.tick(now, &mut log));
                }
            }
            Command::Abandon { run, message, .. } => {
                self.change(run, now, |run, now| run.abandon(now, &mut log, &message));
            }
        }
        self.admit_waiting(now, &mut log);
        let (next_seq, events) = log.finish();
        self.next_seq = next_seq;
        events
    }

    pub(crate) fn change(&mut self, id: RunId, now: Time, change: impl FnOnce(&mut Run, Time)) {
        if let Some(run) = self.runs.get_mut(&id) {
            let now = run.clock(now);
            change(run, now);
            self.touched(id);
        }
    }

    /// Keeps the books after a run may have changed.
    fn touched(&mut self, id: RunId) {
        self.changed.insert(id);
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        self.due.set(id, run.next_deadline());
        self.loosened.extend(self.groups.set(id, run.standing()));
        for (agent, usage, placed) in run.moved.drain(..) {
            self.moved.insert(agent.clone());
            count(&mut self.used, agent, usage, placed);
        }
    }

    /// Numbers an event that belongs to no run: of the fleet. `fill` says what there is to say beside
    /// kind, time and `seq`. The same notes between the same commands get the same numbers.
    pub fn note(&mut self, kind: Kind, time: Time, fill: impl FnOnce(&mut Event)) -> Event {
        let mut event = Event::new(kind, time.believable());
        fill(&mut event);
        event.seq = self.next_seq;
        self.next_seq += 1;
        event
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

    /// The part of [`Engine::pending_work`] that is about this run; nothing for an unknown one.
    pub fn pending_work_of(&self, run: RunId) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(run) = self.runs.get(&run) {
            run.pending_work(&mut work);
        }
        work
    }

    /// The runs that commands were applied to since this was asked last, also those that are removed
    /// by now. Nothing else changes what is pending, so whoever knows the pending work of all runs
    /// need only ask again for these. Runs that were imported are not among them. Whoever never asks
    /// keeps the ids of all runs there ever were.
    pub fn take_changed(&mut self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.changed)
    }

    /// When the next `Command::Tick` is due, if anything waits for time to pass.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due.first()
    }

    /// When time changes something in this run.
    pub fn deadline_of(&self, run: RunId) -> Option<Time> {
        self.due.of(&run)
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

    /// The part of [`Engine::placed`] that is about this run.
    pub fn placed_of(&self, run: RunId) -> impl Iterator<Item = (AttemptId, &str)> + '_ {
        self.runs.get(&run).into_iter().flat_map(Run::placed)
    }

    /// The agent that an attempt was given to, while the engine listens to what is reported of it.
    pub fn agent_of(&self, attempt: &AttemptId) -> Option<&str> {
        self.runs.get(&attempt.run)?.agent_of(attempt)
    }

    /// What the attempts take that each agent has: what [`Engine::placed`] comes to, without a look at
    /// the runs. Who has none is not listed.
    pub fn used(&self) -> &BTreeMap<String, Usage> {
        &self.used
    }

    /// The agents that got an attempt or lost one since this was asked last. Runs that were imported
    /// do not count.
    pub fn take_moved(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.moved)
    }

    /// The run in whose directory agents keep the claims of this one.
    pub fn claims_run(&self, run: RunId) -> Option<RunId> {
        self.runs.get(&run).map(Run::claims_run)
    }

    /// Namespace and name of the run's object; `None` for an unknown one.
    pub fn name_of(&self, run: RunId) -> Option<(&str, &str)> {
        let run = self.runs.get(&run)?;
        Some((run.header.namespace.as_str(), run.name.as_str()))
    }

    /// Where the run stands in its trace.
    pub fn trace_of(&self, run: RunId) -> Option<&TraceContext> {
        self.runs.get(&run).map(|run| &run.header.trace)
    }

    /// The `traceparent` of each container of an attempt, as `step-<name>` or `sidecar-<name>`.
    pub fn traceparents(&self, attempt: &AttemptId) -> BTreeMap<String, String> {
        let (Some(trace), Some(pod)) = (self.trace_of(attempt.run), self.pod(attempt)) else {
            return BTreeMap::new();
        };
        let steps = pod.steps.iter().map(|step| format!("step-{}", step.name));
        let sidecars = pod.sidecars.iter().map(|sidecar| format!("sidecar-{}", sidecar.name));
        steps
            .chain(sidecars)
            .map(|container| {
                let traceparent = attempt.traceparent(trace, &container);
                (container, traceparent)
            })
            .collect()
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

    /// What the run does and what it waits for; `None` for an unknown one.
    pub fn explain(&self, run: RunId) -> Option<Explanation> {
        let mut explanation = self.runs.get(&run).map(Run::explain)?;
        if let Some((group, standing, ahead)) = self.groups.wait_of(run) {
            explanation.message = self.waits_in_group(group, standing, ahead);
        }
        Some(explanation)
    }

    /// Whether a `when` of the run has this text in it, with what is known so far of params and results.
    pub fn compares_with(&self, run: RunId, text: &str) -> bool {
        let pipeline = self.runs.get(&run).and_then(|run| run.pipeline.as_ref());
        let whens = pipeline.into_iter().flat_map(|pipeline| &pipeline.tasks);
        let mut whens = whens.flat_map(|task| &task.task.when);
        whens
            .any(|when| when.input.contains(text) || when.values.iter().any(|it| it.contains(text)))
    }

    /// How many runs wait because their concurrency group is full.
    pub fn waiting_in_groups(&self) -> usize {
        self.groups.waiting()
    }

    /// The runs there are, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.keys().copied()
    }

    /// Whether there is this run.
    pub fn contains(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// The `seq` that the next event will have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The exact state of one run; `None` for an unknown one.
    pub fn export(&self, run: RunId) -> Option<Vec<u8>> {
        state::encode(self.runs.get(&run)?)
    }

    /// Takes a run over from another engine, in place of one with this id; says which it was. `seq`
    /// is no part of it: see [`Engine::starting_at`].
    pub fn import(&mut self, bytes: &[u8]) -> Result<RunId, Undecodable> {
        let run = state::decode(bytes)?;
        let id = run.id();
        self.due.set(id, run.next_deadline());
        self.groups.set(id, run.standing());
        for (agent, usage) in run.placed_on() {
            count(&mut self.used, agent.to_owned(), usage, true);
        }
        let replaced = self.runs.insert(id, run);
        for (agent, usage) in replaced.iter().flat_map(Run::placed_on) {
            count(&mut self.used, agent.to_owned(), usage, false);
        }
        Ok(id)
    }

    /// Forgets a run that is over; one that goes on stays. Says whether the run is gone.
    pub fn remove(&mut self, run: RunId) -> bool {
        if self.runs.get(&run).is_some_and(|run| !run.is_over()) {
            return false;
        }
        if self.runs.remove(&run).is_some() {
            self.changed.insert(run);
        }
        self.due.set(run, None);
        self.groups.set(run, None);
        true
    }
}

/// Counts one attempt more or less; who has none is not listed.
fn count(used: &mut BTreeMap<String, Usage>, agent: String, usage: Usage, more: bool) {
    let before = used.get(&agent).copied().unwrap_or_default();
    let after = if more { before.plus(usage) } else { before.minus(usage) };
    if after.attempts == 0 {
        used.remove(&agent);
    } else {
        used.insert(agent, after);
    }
}
