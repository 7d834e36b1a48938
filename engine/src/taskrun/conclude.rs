//! How an attempt gets an agent, is stopped, and ends: retries, re-placements, and the end of the
//! TaskRun.

use std::sync::Arc;

use super::{
    Attempt, Change, Context, MAX_REPLACEMENTS, Phase, TaskRunState, Verdict, VerdictKind, Waits,
    verdict,
};
use crate::event::{Kind, Status};
use crate::plan::required_terms;
use crate::report::{Ending, Outcome};
use crate::work::{Requirements, StopReason};
use crate::{RunId, Time};

/// What a TaskRun becomes when it is stopped for this reason.
pub(super) fn kind_of(reason: StopReason) -> VerdictKind {
    match reason {
        StopReason::Cancelled => VerdictKind::Cancelled,
        StopReason::TaskTimeout => VerdictKind::TimedOut,
        StopReason::PipelineTimeout => VerdictKind::CancelledByTimeout,
    }
}

impl TaskRunState {
    /// Leaves the queue: its time begins to count, and its Pod is planned. A plan that Tekton would
    /// refuse ends the attempt.
    pub(crate) fn release(&mut self, ctx: &mut Context<'_>) -> Change {
        let attempt = &mut self.attempt;
        attempt.phase = Phase::Waiting;
        attempt.start = Some(ctx.now);
        self.begun.get_or_insert(ctx.now);
        attempt.deadline = self.timeout.map(|timeout| ctx.now.plus_millis(timeout.as_millis()));
        match super::plan::plan_pod(self, ctx) {
            Ok(plan) => {
                let attempt = &mut self.attempt;
                let priority = ctx.materials.policy.priority;
                let requirements = requirements_of(&self.object, &plan.pod, priority);
                attempt.requirements = Arc::new(requirements);
                attempt.task_spec = Some(Arc::new(plan.task_spec));
                attempt.pod_name.clone_from(&plan.pod.name);
                attempt.pod = Some(Arc::new(plan.pod));
                attempt.placement -= 1;
                attempt.next_placement(ctx.header.run, &self.object.metadata.name);
                Change::None
            }
            Err(refusal) => {
                let spec = self.resolved.spec.clone();
                self.attempt.task_spec = Some(Arc::new(spec));
                let verdict = Verdict {
                    kind: VerdictKind::Failed,
                    reason: refusal.reason.to_owned(),
                    message: refusal.message,
                };
                self.conclude(ctx, ctx.now, verdict)
            }
        }
    }

    /// Gives the attempt to an agent.
    pub(crate) fn place(&mut self, agent: &str) {
        self.attempt.phase = Phase::Placed;
        self.attempt.agent = Some(agent.to_owned());
        self.attempt.waits = None;
    }

    /// No agent can take the attempt now; told once for each reason.
    pub(crate) fn defer(&mut self, ctx: &mut Context<'_>, reason: String, message: String) {
        let waits = Waits { reason, message };
        if self.attempt.waits.as_ref() == Some(&waits) {
            return;
        }
        let mut event = self.task_event(ctx.header, Kind::TaskQueued, ctx.now);
        event.reason = crate::log::non_empty(&waits.reason);
        event.message = crate::log::non_empty(&waits.message);
        ctx.log.push(ctx.header, event);
        self.attempt.waits = Some(waits);
    }

    /// Wants the TaskRun to stop. An attempt that no agent has ends at once; any other when its agent
    /// confirms. The first reason stays, but a cancel replaces the TaskRun's own timeout.
    pub(crate) fn request_stop(
        &mut self,
        ctx: &mut Context<'_>,
        reason: StopReason,
        message: &str,
    ) -> Change {
        if self.attempt.phase == Phase::Over {
            return Change::None;
        }
        if reason != StopReason::TaskTimeout && !self.is_cancelled_by_spec() {
            self.object.spec.status = "TaskRunCancelled".to_owned();
            self.object.spec.status_message = message.to_owned();
            self.attempt.stopping = Some(reason);
        }
        let reason = *self.attempt.stopping.get_or_insert(reason);
        match self.attempt.phase {
            Phase::Queued | Phase::Waiting => {
                let verdict = self.stopped_verdict(reason);
                self.conclude(ctx, ctx.now, verdict)
            }
            _ => Change::None,
        }
    }

    /// The coordinator that ran it is gone, and with it everything: an infrastructure failure that
    /// nobody confirms.
    pub(crate) fn abandon(&mut self, ctx: &mut Context<'_>, message: &str) -> Change {
        if self.attempt.phase == Phase::Over {
            return Change::None;
        }
        let verdict = Verdict {
            kind: VerdictKind::Infra,
            reason: "infra/abandoned".to_owned(),
            message: message.to_owned(),
        };
        self.conclude(ctx, ctx.now, verdict)
    }

    /// The agent says that nothing of the placement runs any more.
    pub(super) fn attempt_ended(
        &mut self,
        ctx: &mut Context<'_>,
        time: Time,
        outcome: Outcome,
    ) -> Change {
        let steps = &self.attempt.steps;
        let cut_short = steps.iter().any(|step| match &step.end {
            Some((_, end)) => end.ending == Ending::Cancelled,
            None => true,
        });
        let verdict = match (self.attempt.stopping, outcome) {
            // Every step ended by itself: what happened counts, not what was wished too late.
            (None, Outcome::Ran) => {
                self.attempt.phase = Phase::Running;
                self.verdict_of_containers(ctx, time)
            }
            (Some(_), Outcome::Ran) if !cut_short => self.verdict_of_containers(ctx, time),
            (Some(reason), _) => self.stopped_verdict(reason),
            (None, Outcome::Stopped) if self.agent_timed_out(time) => {
                self.stopped_verdict(StopReason::TaskTimeout)
            }
            (None, Outcome::Stopped) => {
                return self.lost(ctx, time, "infra/stopped", "the agent stopped the attempt");
            }
            (None, Outcome::Infra { reason, message }) => {
                return self.lost(ctx, time, &reason, &message);
            }
            (None, Outcome::Refused { reason, message }) => Verdict {
                kind: VerdictKind::Failed,
                reason: verdict::refused_reason(&reason).to_owned(),
                message,
            },
        };
        self.conclude(ctx, time, verdict)
    }

    fn verdict_of_containers(&mut self, ctx: &mut Context<'_>, time: Time) -> Verdict {
        self.announce(ctx, time);
        // A step without a report counts as failed: say so before judging.
        self.close_steps(ctx, time, Status::Failed, "");
        verdict::of_containers(self)
    }

    /// The agent enforces the timeout too, by its own clock, which may tick a little differently.
    fn agent_timed_out(&self, time: Time) -> bool {
        match (self.timeout, self.attempt.agent_start) {
            (Some(timeout), Some(start)) => time.0 - start.0 + 1000 >= timeout.as_millis(),
            _ => false,
        }
    }

    fn stopped_verdict(&self, reason: StopReason) -> Verdict {
        let kind = kind_of(reason);
        let name = self.name();
        let (reason, message) = match kind {
            VerdictKind::TimedOut => {
                let timeout = self.timeout.unwrap_or_default();
                let message = format!("TaskRun \"{name}\" failed to finish within \"{timeout}\"");
                ("TaskRunTimeout", message)
            }
            _ => {
                let why = &self.object.spec.status_message;
                let message = format!("TaskRun \"{name}\" was cancelled. {why}");
                ("TaskRunCancelled", message)
            }
        };
        Verdict { kind, reason: reason.to_owned(), message }
    }

    /// Lost through no fault of its own: placed anew while its own budget lasts, never at the cost of
    /// the user's retries.
    fn lost(&mut self, ctx: &mut Context<'_>, time: Time, reason: &str, message: &str) -> Change {
        if self.attempt.placement > MAX_REPLACEMENTS {
            let verdict = Verdict {
                kind: VerdictKind::Infra,
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            return self.conclude(ctx, time, verdict);
        }
        self.close_steps_if_announced(ctx, time, Status::InfraFailed, reason);
        let mut event = self.task_event(ctx.header, Kind::TaskLost, time);
        event.duration_ms = self.attempt.agent_start.map(|began| (time.0 - began.0).max(0));
        event.reason = Some(reason.to_owned());
        event.message = crate::log::non_empty(message);
        event.workspaces = std::mem::take(&mut self.attempt.workspaces);
        ctx.log.push(ctx.header, event);
        self.attempt.phase = Phase::Waiting;
        let name = self.object.metadata.name.clone();
        self.attempt.next_placement(ctx.header.run, &name);
        Change::None
    }

    fn close_steps_if_announced(
        &mut self,
        ctx: &mut Context<'_>,
        time: Time,
        status: Status,
        why: &str,
    ) {
        if self.attempt.announced {
            self.close_steps(ctx, time, status, why);
        }
    }

    /// Ends the attempt: one more if Tekton would retry, else the TaskRun is over.
    pub(super) fn conclude(
        &mut self,
        ctx: &mut Context<'_>,
        time: Time,
        verdict: Verdict,
    ) -> Change {
        // One that no agent was given has not begun before, and is told now.
        let was_given = self.attempt.announced || self.attempt.agent.is_some();
        let began = self.attempt.agent_start.or(self.attempt.start.filter(|_| was_given));
        let began = began.unwrap_or(time);
        let time = Time(time.0.max(began.0));
        let status = verdict.kind.event_status();
        self.close_steps_if_announced(ctx, time, status, &verdict.reason);
        self.announce(ctx, began);
        let retry = self.may_retry(&verdict);
        let kind = if retry { Kind::TaskRetry } else { Kind::TaskEnd };
        let mut event = self.task_event(ctx.header, kind, time);
        event.status = Some(status);
        event.reason = crate::log::non_empty(&verdict.reason);
        event.message = crate::log::non_empty(&verdict.message);
        event.duration_ms = Some(time.0 - began.0);
        event.workspaces = std::mem::take(&mut self.attempt.workspaces);
        event.usage = self.attempt.usage().known();
        if !retry {
            let begun = self.begun.unwrap_or(began).0.min(began.0);
            event.task_duration_ms = Some(time.0 - begun);
        }
        if !retry && !self.attempt.results.is_empty() {
            let results = self.attempt.results.iter();
            let results = results.map(|result| (result.name.clone(), result.value.clone()));
            event.results = Some(results.collect());
        }
        ctx.log.push(ctx.header, event);
        let attempt = &mut self.attempt;
        attempt.phase = Phase::Over;
        attempt.pod = None;
        attempt.requirements = Arc::default();
        attempt.completion = Some(time);
        attempt.verdict = Some(verdict);
        if !retry {
            return Change::Ended;
        }
        self.retry(ctx.header.run);
        Change::Retry
    }

    /// Tekton retries whatever failed, validation included, unless it was cancelled; a loss of
    /// infrastructure has its own budget and never uses this one.
    fn may_retry(&self, verdict: &Verdict) -> bool {
        let budget = usize::try_from(self.object.spec.retries).unwrap_or(0);
        let retriable = matches!(verdict.kind, VerdictKind::Failed | VerdictKind::TimedOut);
        retriable && !self.is_cancelled_by_spec() && self.retries_status.len() < budget
    }

    pub(super) fn retry(&mut self, run: RunId) {
        let mut archived = self.status();
        archived.retries_status = Vec::new();
        self.retries_status.push(archived);
        let next = Attempt::new(run, self.name(), self.attempt.number + 1);
        self.attempt = next;
    }
}

fn requirements_of(
    object: &tenon_tekton::v1::TaskRun,
    pod: &tenon_tekton::pod::Pod,
    priority: u8,
) -> Requirements {
    let requests = pod.requests();
    let images = pod
        .steps
        .iter()
        .map(|step| &step.image)
        .chain(pod.sidecars.iter().map(|sidecar| &sidecar.image));
    let template = object.spec.pod_template.as_ref();
    Requirements {
        namespace: pod.namespace.clone(),
        node_selector: template.map(|template| template.node_selector.clone()).unwrap_or_default(),
        images: images.cloned().collect(),
        demands: pod.demands(),
        claims: pod.claims().into_keys().map(str::to_owned).collect(),
        home: None,
        apart: None,
        unsaved: false,
        near: None,
        affinity: template.map(|it| required_terms(&it.affinity)).unwrap_or_default(),
        cpu_millis: requests.cpu_millis,
        memory_bytes: requests.memory_bytes,
        priority,
    }
}
