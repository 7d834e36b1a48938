//! Reports of agents become events, in the contract's order whatever order they come in
//! (invariant 6): a step's start before its lines, its lines before its end, nothing twice.

use super::{Change, Context, Phase, SidecarEnd, TaskRunState};
use crate::event::{Kind, Output, Status};
use crate::report::{Ending, Report, StepEnd};
use crate::usage::ResourceUsage;
use crate::{AttemptId, Time};

impl TaskRunState {
    /// Whether a report of this placement may still change anything.
    pub(crate) fn listens_to(&self, id: &AttemptId) -> bool {
        self.attempt.number == id.attempt
            && self.attempt.placement == id.placement
            && matches!(self.attempt.phase, Phase::Placed | Phase::Running)
    }

    /// Applies a report of the current placement.
    pub(crate) fn report(&mut self, ctx: &mut Context<'_>, report: Report) -> Change {
        if self.attempt.phase == Phase::Placed && !matches!(report, Report::Ended { .. }) {
            self.started(ctx, report.time());
        }
        match report {
            Report::Started { .. } => Change::None,
            Report::StepStarted { time, step } => {
                if let Some(index) = self.step_index(&step) {
                    self.step_started(ctx, index, time);
                }
                Change::None
            }
            Report::Output { time, container, sidecar, lines, chunk } => {
                let output = Output { lines, chunk };
                if sidecar {
                    self.sidecar_output(ctx, &container, time, output);
                } else {
                    self.step_output(ctx, &container, time, output);
                }
                Change::None
            }
            Report::StepEnded { time, end } => {
                if let Some(index) = self.step_index(&end.step) {
                    self.step_ended(ctx, index, time, end);
                }
                Change::None
            }
            Report::SidecarStarted { time, sidecar } => {
                if let Some(index) = self.sidecar_index(&sidecar) {
                    self.sidecar_started(ctx, index, time);
                }
                Change::None
            }
            Report::SidecarEnded {
                time,
                sidecar,
                exit_code,
                stopped,
                oom_killed,
                image_id,
                container_id,
            } => {
                if let Some(index) = self.sidecar_index(&sidecar) {
                    let end =
                        SidecarEnd { time, exit_code, stopped, oom_killed, image_id, container_id };
                    self.sidecar_ended(ctx, index, end);
                }
                Change::None
            }
            Report::Ended { time, outcome, workspaces } => {
                self.attempt.workspaces = workspaces;
                self.attempt_ended(ctx, time, outcome)
            }
        }
    }

    fn step_index(&self, name: &str) -> Option<usize> {
        self.attempt.steps.iter().position(|step| step.name == name)
    }

    fn sidecar_index(&self, name: &str) -> Option<usize> {
        let sidecars = &self.attempt.sidecars;
        sidecars.iter().position(|sidecar| sidecar.name == name)
    }

    /// The agent works on it: `task-start`, once for each attempt.
    fn started(&mut self, ctx: &mut Context<'_>, time: Time) {
        self.attempt.phase = Phase::Running;
        self.attempt.agent_start = Some(time);
        self.announce(ctx, time);
    }

    /// `task-start`, unless this attempt had it already: every `task-retry` and `task-end` has one
    /// before it, also when nothing ever ran.
    pub(super) fn announce(&mut self, ctx: &mut Context<'_>, time: Time) {
        if self.attempt.announced {
            return;
        }
        self.attempt.announced = true;
        let mut event = self.task_event(ctx.header, Kind::TaskStart, time);
        event.description = self.description.clone();
        ctx.log.push(ctx.header, event);
    }

    fn step_event(
        &self,
        ctx: &Context<'_>,
        kind: Kind,
        time: Time,
        index: usize,
    ) -> crate::event::Event {
        let step = &self.attempt.steps[index];
        let mut event = self.event(ctx.header, kind, time);
        event.step = Some(step.name.clone());
        event.display_name = step.display_name.clone();
        event.span_id = Some(step.span_id.clone());
        event
    }

    fn step_started(&mut self, ctx: &mut Context<'_>, index: usize, time: Time) {
        let step = &mut self.attempt.steps[index];
        if step.started.is_some() || step.end.is_some() {
            return;
        }
        step.started = Some(time);
        let event = self.step_event(ctx, Kind::StepStart, time, index);
        ctx.log.push(ctx.header, event);
    }

    fn step_output(&mut self, ctx: &mut Context<'_>, name: &str, time: Time, output: Output) {
        let Some(index) = self.step_index(name) else {
            return;
        };
        if output.lines == 0 || self.attempt.steps[index].end.is_some() {
            return;
        }
        self.step_started(ctx, index, time);
        let mut event = self.step_event(ctx, Kind::StepLog, time, index);
        event.output = Some(output);
        ctx.log.push(ctx.header, event);
    }

    fn step_ended(&mut self, ctx: &mut Context<'_>, index: usize, time: Time, mut end: StepEnd) {
        if self.attempt.steps[index].end.is_some() {
            return;
        }
        let failed = matches!(
            end.ending,
            Ending::Error | Ending::OomKilled | Ending::TimeoutExceeded | Ending::Cancelled
        );
        if failed && end.exit_code == 0 {
            end.exit_code = 1;
        }
        // One that was skipped, or stopped before its turn, never began.
        let never_began = end.ending == Ending::Skipped
            || (end.ending == Ending::Cancelled && end.started_at.is_none());
        if !never_began {
            let began = end.started_at.unwrap_or(time);
            self.step_started(ctx, index, began);
        }
        let status = match end.ending {
            Ending::Completed => Status::Succeeded,
            Ending::Error | Ending::OomKilled | Ending::Continued => Status::Failed,
            Ending::Skipped => Status::Skipped,
            Ending::TimeoutExceeded => Status::Timeout,
            Ending::Cancelled => self.stopped_status(),
        };
        let step = &mut self.attempt.steps[index];
        let began = end.started_at.or(step.started).unwrap_or(time);
        let mut event = self.step_event(ctx, Kind::StepEnd, time, index);
        event.status = Some(status);
        event.reason = Some(end.ending.as_str().to_owned());
        event.message = crate::log::non_empty(&end.message);
        event.exit_code = Some(end.exit_code);
        event.duration_ms = Some((time.0 - began.0).max(0));
        event.usage = end.usage.and_then(ResourceUsage::known);
        self.attempt.steps[index].end = Some((time, end));
        ctx.log.push(ctx.header, event);
    }

    /// The status of whatever a wish to stop has cut short.
    fn stopped_status(&self) -> Status {
        match self.attempt.stopping {
            Some(reason) => super::conclude::kind_of(reason).event_status(),
            None => Status::Cancelled,
        }
    }

    /// A `step-end` for every step that never reported one; part of ending a placement.
    pub(super) fn close_steps(
        &mut self,
        ctx: &mut Context<'_>,
        time: Time,
        status: Status,
        why: &str,
    ) {
        for index in 0..self.attempt.steps.len() {
            let step = &mut self.attempt.steps[index];
            if step.end.is_some() || step.closed {
                continue;
            }
            step.closed = true;
            let started = step.started;
            let duration = started.map_or(0, |started| (time.0 - started.0).max(0));
            let status = if started.is_some() { status } else { Status::NotRun };
            let mut event = self.step_event(ctx, Kind::StepEnd, time, index);
            event.status = Some(status);
            event.reason = crate::log::non_empty(why);
            event.exit_code = Some(1);
            event.duration_ms = Some(duration);
            ctx.log.push(ctx.header, event);
        }
        for index in 0..self.attempt.sidecars.len() {
            let sidecar = &self.attempt.sidecars[index];
            if sidecar.started.is_some() && sidecar.end.is_none() {
                let end = SidecarEnd {
                    time,
                    exit_code: 0,
                    stopped: true,
                    oom_killed: false,
                    image_id: String::new(),
                    container_id: String::new(),
                };
                self.sidecar_ended(ctx, index, end);
            }
        }
    }

    fn sidecar_event(
        &self,
        ctx: &Context<'_>,
        kind: Kind,
        time: Time,
        index: usize,
    ) -> crate::event::Event {
        let sidecar = &self.attempt.sidecars[index];
        let mut event = self.event(ctx.header, kind, time);
        event.step = Some(sidecar.name.clone());
        event.span_id = Some(sidecar.span_id.clone());
        event
    }

    fn sidecar_started(&mut self, ctx: &mut Context<'_>, index: usize, time: Time) {
        let sidecar = &mut self.attempt.sidecars[index];
        if sidecar.started.is_some() || sidecar.end.is_some() {
            return;
        }
        sidecar.started = Some(time);
        let event = self.sidecar_event(ctx, Kind::SidecarStart, time, index);
        ctx.log.push(ctx.header, event);
    }

    fn sidecar_output(&mut self, ctx: &mut Context<'_>, name: &str, time: Time, output: Output) {
        let Some(index) = self.sidecar_index(name) else {
            return;
        };
        if output.lines == 0 || self.attempt.sidecars[index].end.is_some() {
            return;
        }
        self.sidecar_started(ctx, index, time);
        let mut event = self.sidecar_event(ctx, Kind::SidecarLog, time, index);
        event.output = Some(output);
        ctx.log.push(ctx.header, event);
    }

    fn sidecar_ended(&mut self, ctx: &mut Context<'_>, index: usize, end: SidecarEnd) {
        if self.attempt.sidecars[index].end.is_some() {
            return;
        }
        let time = end.time;
        self.sidecar_started(ctx, index, time);
        let began = self.attempt.sidecars[index].started.unwrap_or(time);
        let mut event = self.sidecar_event(ctx, Kind::SidecarEnd, time, index);
        let failed = !end.stopped && end.exit_code != 0;
        event.status = Some(if failed { Status::Failed } else { Status::Succeeded });
        event.reason = end.oom_killed.then(|| "OOMKilled".to_owned());
        event.exit_code = Some(end.exit_code);
        event.duration_ms = Some((time.0 - began.0).max(0));
        self.attempt.sidecars[index].end = Some(end);
        ctx.log.push(ctx.header, event);
    }
}
