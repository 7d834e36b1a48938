//! One run: a PipelineRun with its tasks, or a TaskRun of its own. What commands do to it, and what
//! follows from that until nothing more follows.

mod held;
mod objects;
mod resolve;
mod submit;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::k8s::ServiceAccount;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::StepAction;

use crate::claims::RunClaims;
use crate::command::{CancelMode, Submission};
use crate::due::Due;
use crate::event::{Kind, Status};
use crate::log::{Header, Log};
use crate::outcome::RunOutcome;
use crate::pipeline::{Child, CustomRunState, PipelineState};
use crate::policy::Policy;
use crate::taskrun::{Change, Context, Phase, TaskRunState, VerdictKind, Written};
use crate::work::{StopReason, Usage};
use crate::{AttemptId, Report, Rerun, RunId, Time};

/// What a run keeps of its submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Materials {
    pub(crate) run_uid: String,
    pub(crate) step_actions: BTreeMap<String, StepAction>,
    pub(crate) service_accounts: BTreeMap<String, ServiceAccount>,
    pub(crate) flags: FeatureFlags,
    pub(crate) parallel: Option<u32>,
    pub(crate) rerun: Option<Rerun>,
    #[serde(default)]
    pub(crate) policy: Policy,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) header: Header,
    pub(crate) name: String,
    pub(crate) materials: Materials,
    /// `None` for a TaskRun of its own, which is then the only one below.
    pub(crate) pipeline: Option<PipelineState>,
    pub(crate) task_runs: Vec<TaskRunState>,
    pub(crate) custom_runs: Vec<CustomRunState>,
    pub(crate) by_name: BTreeMap<String, usize>,
    /// TaskRuns whose attempt may start as soon as the run's limit allows.
    pub(crate) queue: VecDeque<usize>,
    /// TaskRuns whose attempt has left the queue and is not over.
    pub(crate) active: BTreeSet<usize>,
    /// Those of them for which something is to be done.
    to_do: BTreeSet<usize>,
    /// Deadlines of attempts, by TaskRun.
    due: Due<usize>,
    /// Every agent that was ever given an attempt.
    agents: BTreeSet<String>,
    #[serde(alias = "claim_homes")]
    pub(crate) claims: RunClaims,
    /// The time of the latest command: no later one is earlier.
    clock: Time,
    /// Which agents got an attempt (true) or lost one since the engine last counted, and what it takes.
    #[serde(skip)]
    pub(crate) moved: Vec<(String, Usage, bool)>,
    /// A run that is held back: what begins when it may.
    held: Option<Box<Submission>>,
    /// Its group is full, as it was when the run came; `None` for a run that is pending.
    #[serde(default)]
    held_by_group: Option<String>,
    pub(crate) start: Time,
    pub(crate) outcome: Option<RunOutcome>,
    pub(crate) ended_at: Option<Time>,
}

/// The TaskRun at this index and what a command may touch besides it.
macro_rules! with_task_run {
    ($run:ident, $index:expr, $now:expr, $log:expr) => {{
        let Run { header, materials, task_runs, .. } = &mut *$run;
        let context = Context { now: $now, header, log: $log, materials };
        (&mut task_runs[$index], context)
    }};
}

impl Run {
    pub(crate) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Adds a TaskRun; its first attempt joins the queue.
    pub(crate) fn add_task_run(&mut self, task_run: TaskRunState) -> usize {
        let index = self.task_runs.len();
        self.by_name.insert(task_run.name().to_owned(), index);
        self.queue.push_back(index);
        self.task_runs.push(task_run);
        index
    }

    pub(crate) fn place(&mut self, now: Time, log: &mut Log, id: &AttemptId, agent: &str) {
        let Some(&index) = self.by_name.get(&id.task_run) else {
            return;
        };
        let run = self;
        let attempt = &run.task_runs[index].attempt;
        let current = attempt.number == id.attempt && attempt.placement == id.placement;
        if !current || attempt.phase != Phase::Waiting {
            return;
        }
        // Since it was decided, another attempt may have begun to use a claim elsewhere.
        let needs = run.task_runs[index].requirements().clone();
        if !run.claims.allow(&needs.namespace, &needs.claims, agent) {
            return;
        }
        if !run.agents.contains(agent) {
            run.agents.insert(agent.to_owned());
        }
        let (task_run, _) = with_task_run!(run, index, now, log);
        task_run.place(agent);
        run.claims.take(run.header.run, &needs.namespace, &needs.claims, agent, index);
        run.index(index);
    }

    /// No agent can take the attempt now.
    pub(crate) fn defer(
        &mut self,
        now: Time,
        log: &mut Log,
        id: &AttemptId,
        reason: String,
        message: String,
    ) {
        let Some(&index) = self.by_name.get(&id.task_run) else {
            return;
        };
        let run = self;
        let attempt = &run.task_runs[index].attempt;
        let current = attempt.number == id.attempt && attempt.placement == id.placement;
        if current && attempt.phase == Phase::Waiting {
            let (task_run, mut context) = with_task_run!(run, index, now, log);
            task_run.defer(&mut context, reason, message);
        }
    }

    /// The time of a command, or that of the latest before it if that is later.
    pub(crate) fn clock(&mut self, now: Time) -> Time {
        self.clock = self.clock.max(now);
        self.clock
    }

    pub(crate) fn report(&mut self, now: Time, log: &mut Log, id: &AttemptId, mut report: Report) {
        let Some(&index) = self.by_name.get(&id.task_run) else {
            return;
        };
        if !self.task_runs[index].listens_to(id) {
            return;
        }
        report.believe(now);
        let run = self;
        let written = run.task_runs[index].written(&report);
        let (task_run, mut context) = with_task_run!(run, index, now, log);
        let change = task_run.report(&mut context, report);
        if let Some(Written { namespace, claims, uses, counts }) = written {
            let counts = counts && change != Change::None;
            run.claims.ended(&namespace, &claims, &uses, counts);
        }
        run.changed(index, change);
        if change != Change::None {
            run.advance(now, log);
        }
    }

    /// The agent that may report of this attempt.
    pub(crate) fn agent_of(&self, id: &AttemptId) -> Option<&str> {
        let task_run = &self.task_runs[*self.by_name.get(&id.task_run)?];
        task_run.attempt.agent.as_deref().filter(|_| task_run.listens_to(id))
    }

    pub(crate) fn cancel(&mut self, now: Time, log: &mut Log, mode: CancelMode, message: &str) {
        if self.is_over() {
            return;
        }
        if self.held.is_some() {
            self.cancel_held(now, log, mode, message);
            return;
        }
        if self.pipeline.is_some() {
            self.cancel_pipeline(now, log, mode);
        } else {
            self.stop(now, log, 0, StopReason::Cancelled, message);
        }
        self.advance(now, log);
    }

    /// Time has come this far: all that is due happens.
    pub(crate) fn tick(&mut self, now: Time, log: &mut Log) {
        if self.is_over() || self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.pipeline.is_some() {
            self.tick_pipeline(now, log);
        }
        for index in self.due.until(now) {
            self.stop(now, log, index, StopReason::TaskTimeout, "");
        }
        self.advance(now, log);
    }

    /// Nobody will continue this run.
    pub(crate) fn abandon(&mut self, now: Time, log: &mut Log, message: &str) {
        if self.is_over() {
            return;
        }
        for index in 0..self.task_runs.len() {
            let run = &mut *self;
            let (task_run, mut context) = with_task_run!(run, index, now, log);
            let change = task_run.abandon(&mut context, message);
            self.changed(index, change);
        }
        let outcome = RunOutcome {
            status: Status::InfraFailed,
            reason: "infra/abandoned".to_owned(),
            message: message.to_owned(),
            rejected: false,
            timed_out: false,
        };
        if self.held.is_some() {
            let event = self.run_event(Kind::RunStart, now);
            log.push(&mut self.header, event);
        }
        if self.pipeline.is_some() {
            self.abandon_pipeline(now, log, message);
        }
        self.end(now, log, outcome, None);
    }

    /// Wants one TaskRun to stop; what follows for the run is `advance`'s business.
    pub(crate) fn stop(
        &mut self,
        now: Time,
        log: &mut Log,
        index: usize,
        reason: StopReason,
        message: &str,
    ) {
        let run = self;
        let (task_run, mut context) = with_task_run!(run, index, now, log);
        let change = task_run.request_stop(&mut context, reason, message);
        run.changed(index, change);
    }

    /// Keeps the books after a TaskRun's attempt ended.
    fn changed(&mut self, index: usize, change: Change) {
        match change {
            Change::None => {}
            Change::Retry => {
                self.active.remove(&index);
                self.queue.retain(|queued| *queued != index);
                self.queue.push_front(index);
            }
            Change::Ended => {
                self.active.remove(&index);
                self.queue.retain(|queued| *queued != index);
                self.child_ended(Child::TaskRun(index));
            }
        }
        self.index(index);
    }

    /// Keeps the indices after a TaskRun may have changed.
    fn index(&mut self, index: usize) {
        let task_run = &mut self.task_runs[index];
        if task_run.counted_on.as_deref() != task_run.placed_on() {
            let now_on = task_run.placed_on().map(str::to_owned);
            let before = std::mem::replace(&mut task_run.counted_on, now_on.clone());
            self.moved.extend(before.map(|agent| (agent, task_run.counted, false)));
            task_run.counted = task_run.requirements().usage();
            self.moved.extend(now_on.map(|agent| (agent, task_run.counted, true)));
        }
        let task_run = &self.task_runs[index];
        if task_run.placed_on().is_none() {
            self.claims.leave(index);
        }
        self.due.set(index, task_run.due());
        if task_run.is_to_do() {
            self.to_do.insert(index);
        } else {
            self.to_do.remove(&index);
        }
    }

    /// Does all that follows from the state: new tasks, attempts out of the queue, the end.
    pub(crate) fn advance(&mut self, now: Time, log: &mut Log) {
        while !self.is_over() {
            if self.pipeline.is_some() {
                self.advance_pipeline(now, log);
            } else {
                self.advance_task_run(now, log);
            }
            if self.is_over() || !self.release_queued(now, log) {
                return;
            }
        }
    }

    /// Whether a Pod can be made of a TaskRun at all; asked before anything of the run is told.
    fn check_plan(&mut self, now: Time, log: &mut Log, index: usize) -> Result<(), Rejection> {
        let run = self;
        let (task_run, context) = with_task_run!(run, index, now, log);
        task_run.check_plan(&context)
    }

    /// Lets attempts out of the queue, as many as the run's limit allows. Says whether one of them
    /// ended at once, so that more may follow.
    fn release_queued(&mut self, now: Time, log: &mut Log) -> bool {
        let limit = self.materials.parallel.unwrap_or(u32::MAX).max(1);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut again = false;
        while self.active.len() < limit {
            let Some(index) = self.queue.pop_front() else {
                break;
            };
            self.active.insert(index);
            let run = &mut *self;
            let (task_run, mut context) = with_task_run!(run, index, now, log);
            let change = task_run.release(&mut context);
            self.changed(index, change);
            again |= change != Change::None;
        }
        again
    }

    fn advance_task_run(&mut self, now: Time, log: &mut Log) {
        let Some(verdict) = self.task_runs.first().and_then(TaskRunState::end) else {
            return;
        };
        let timed_out = verdict.kind == VerdictKind::TimedOut;
        let outcome = RunOutcome {
            status: verdict.kind.event_status(),
            reason: verdict.reason.clone(),
            message: verdict.message.clone(),
            rejected: false,
            timed_out,
        };
        let results = self.task_runs[0].attempt.results.iter();
        let results = results.map(|result| (result.name.clone(), result.value.clone()));
        let results = results.collect::<BTreeMap<_, _>>();
        self.end(now, log, outcome, Some(results));
    }

    /// `run-end`: the last event, once.
    pub(crate) fn end(
        &mut self,
        now: Time,
        log: &mut Log,
        mut outcome: RunOutcome,
        results: Option<BTreeMap<String, tenon_tekton::v1::ParamValue>>,
    ) {
        // A failure before any agent got anything: what was asked for cannot be run, unless it only
        // waited for too long.
        let verdicts = self.task_runs.iter().filter_map(TaskRunState::end);
        let waited = verdicts.into_iter().any(|verdict| verdict.kind == VerdictKind::TimedOut);
        outcome.rejected |= outcome.status == Status::Failed && self.agents.is_empty() && !waited;
        let mut event = self.run_event(Kind::RunEnd, now);
        event.status = Some(outcome.status);
        event.reason = crate::log::non_empty(&outcome.reason);
        event.message = crate::log::non_empty(&outcome.message);
        event.duration_ms = Some((now.0 - self.start.0).max(0));
        event.results = results.filter(|results| !results.is_empty());
        log.push(&mut self.header, event);
        self.ended_at = Some(now);
        self.outcome = Some(outcome);
        self.queue.clear();
        debug_assert!(self.active.is_empty(), "every attempt is over at run-end");
    }

    pub(crate) fn run_event(&self, kind: Kind, time: Time) -> crate::event::Event {
        let mut event = self.header.event(kind, time);
        event.span_id = Some(self.header.run.span_id());
        event.parent_span_id = self.header.trace.parent.clone();
        if let Some(pipeline) = &self.pipeline {
            event.display_name = pipeline.display_name();
        } else if let Some(task_run) = self.task_runs.first() {
            event.task = Some(task_run.task.clone());
            event.task_run = Some(task_run.name().to_owned());
            event.display_name = task_run.display_name.clone();
        }
        event
    }

    pub(crate) fn task_run(&self, name: &str) -> Option<&TaskRunState> {
        self.by_name.get(name).map(|index| &self.task_runs[*index])
    }

    pub(crate) fn id(&self) -> RunId {
        self.header.run
    }
}
