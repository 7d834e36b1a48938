//! What follows from the state of a PipelineRun: tasks that start, tasks that never will, `finally`,
//! and the end.

use tenon_tekton::pipelinerun::apply_statuses;

use super::skip::{self, Fate, Skip};
use super::state::Child;
use super::{CANCELLED_BY_PIPELINE, CANCELLED_BY_TIMEOUT};
use crate::Time;
use crate::command::CancelMode;
use crate::event::{Kind, Status};
use crate::log::Log;
use crate::rerun::KEPT;
use crate::run::Run;
use crate::work::StopReason;

impl Run {
    /// One pass; `Run::advance` repeats it while attempts end at once.
    pub(crate) fn advance_pipeline(&mut self, now: Time, log: &mut Log) {
        if self.is_halted() {
            self.end_when_quiet(now, log);
            return;
        }
        self.schedule_dag(now, log);
        #[cfg(test)]
        if let Some(pipeline) = self.pipeline.as_ref().filter(|p| p.tasks.len() < 64) {
            pipeline.audit(&self.task_runs);
        }
        let dag_done = self.pipeline.as_ref().is_some_and(|p| p.is_dag_done());
        if dag_done && !self.is_halted() {
            self.schedule_finally(now, log);
        }
        self.tell_skips(now, log, None);
        self.end_when_quiet(now, log);
    }

    fn is_halted(&self) -> bool {
        self.pipeline.as_ref().is_some_and(|p| p.is_halted())
    }

    /// Decides the fate of every DAG task that has not started, parents first, and starts those that
    /// may. A missing result keeps all of them from starting, as in Tekton.
    fn schedule_dag(&mut self, now: Time, log: &mut Log) {
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        let stopping = pipeline.is_stopping();
        let mut start = Vec::new();
        let mut found_invalid = false;
        while let Some(index) = pipeline.next_stale() {
            let state = &mut pipeline.tasks[index];
            if state.is_scheduled() || state.invalid.is_some() {
                continue;
            }
            let before = state.skip.take();
            match skip::fate_of_dag_task(pipeline, &self.task_runs, index, stopping) {
                Fate::Wait => {}
                Fate::Start => start.push(index),
                Fate::Skip(reason) => pipeline.tasks[index].skip = Some(reason),
                Fate::Invalid(message) => {
                    pipeline.tasks[index].invalid = Some(message);
                    pipeline.book(index);
                    found_invalid = true;
                }
                Fate::Fatal(reason, message) => {
                    self.halt(now, log, reason, message);
                    return;
                }
            }
            if pipeline.tasks[index].skip != before {
                pipeline.book(index);
            }
        }
        if found_invalid {
            // Nothing starts any more: what has not started is skipped, in a pass of its own.
            pipeline.look_at_all();
            self.schedule_dag(now, log);
            return;
        }
        start.sort_unstable();
        for index in start {
            if let Err(rejection) = self.start_task(now, log, index) {
                self.halt(now, log, rejection.reason.to_owned(), rejection.message);
                return;
            }
        }
    }

    /// All finally tasks, at once, when the DAG is done; once.
    fn schedule_finally(&mut self, now: Time, log: &mut Log) {
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        let finals = pipeline.dag_len..pipeline.tasks.len();
        let undecided = |state: &super::PipelineTaskState| {
            !state.is_scheduled() && state.skip.is_none() && state.invalid.is_none()
        };
        if !pipeline.finals().iter().any(undecided) {
            return;
        }
        let (statuses, aggregate) = pipeline.execution_status();
        let mut start = Vec::new();
        for index in finals {
            if !undecided(&pipeline.tasks[index]) {
                continue;
            }
            let known = statuses
                .iter()
                .map(|(name, status, reason)| (name.as_str(), *status, reason.as_str()));
            apply_statuses(&mut pipeline.tasks[index].task, known, aggregate);
            let fate = skip::fate_of_final_task(pipeline, &self.task_runs, index);
            if fate != Fate::Skip(Skip::Results) {
                pipeline.finally_start.get_or_insert(now);
            }
            match fate {
                Fate::Skip(reason) => {
                    pipeline.tasks[index].skip = Some(reason);
                    pipeline.book(index);
                }
                _ => start.push(index),
            }
        }
        for index in start {
            if let Err(rejection) = self.start_task(now, log, index) {
                self.halt(now, log, rejection.reason.to_owned(), rejection.message);
                return;
            }
        }
    }

    /// Something came up that ends the run, whatever still runs: that is stopped first.
    fn halt(&mut self, now: Time, log: &mut Log, reason: String, message: String) {
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.fatal = Some((reason, message));
        }
        self.stop_tasks(now, log, StopReason::Cancelled, true, true);
    }

    /// Asks every running child of DAG or finally tasks to stop.
    pub(super) fn stop_tasks(
        &mut self,
        now: Time,
        log: &mut Log,
        reason: StopReason,
        dag: bool,
        finally: bool,
    ) {
        let Some(pipeline) = &self.pipeline else {
            return;
        };
        let mut children = Vec::new();
        for (index, state) in pipeline.tasks.iter().enumerate() {
            let is_dag = index < pipeline.dag_len;
            if (is_dag && dag) || (!is_dag && finally) {
                children.extend_from_slice(&state.children);
            }
        }
        let message = match reason {
            StopReason::PipelineTimeout => CANCELLED_BY_TIMEOUT,
            _ => CANCELLED_BY_PIPELINE,
        };
        for child in children {
            match child {
                Child::TaskRun(index) => self.stop(now, log, index, reason, message),
                Child::CustomRun(index) => self.stop_custom_run(now, log, index, reason),
            }
        }
    }

    /// `spec.status` of the PipelineRun was set. A later, harder mode replaces an earlier one.
    pub(crate) fn cancel_pipeline(&mut self, now: Time, log: &mut Log, mode: CancelMode) {
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        if pipeline.is_halted() || pipeline.cancel.is_some_and(|c| hardness(c) >= hardness(mode)) {
            return;
        }
        pipeline.cancel = Some(mode);
        pipeline.look_at_all();
        pipeline.object.metadata.generation += 1;
        pipeline.object.spec.status = mode.as_str().to_owned();
        match mode {
            CancelMode::Cancelled => self.stop_tasks(now, log, StopReason::Cancelled, true, true),
            CancelMode::CancelledRunFinally => {
                self.stop_tasks(now, log, StopReason::Cancelled, true, false);
            }
            CancelMode::StoppedRunFinally => {}
        }
    }

    /// `task-skip`, once for each task that does not run. `rest` says why those do not whose fate was
    /// never decided, when the run ends before it could be.
    pub(super) fn tell_skips(&mut self, now: Time, log: &mut Log, rest: Option<&'static str>) {
        let header = &mut self.header;
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        let mut untold = std::mem::take(&mut pipeline.books.untold);
        if rest.is_some() {
            untold = (0..pipeline.tasks.len()).collect();
        }
        for index in untold {
            let state = &mut pipeline.tasks[index];
            if state.skip_told || (state.is_scheduled() && state.kept.is_none()) {
                continue;
            }
            let Some((status, reason, message)) = why_skipped(state, rest) else {
                continue;
            };
            state.skip_told = true;
            let mut event = header.event(Kind::TaskSkip, now);
            event.task = Some(state.task.name.clone());
            event.status = Some(status);
            event.reason = Some(reason);
            event.message = message;
            event.display_name = crate::log::non_empty(&state.task.display_name);
            log.push(header, event);
        }
    }
}

fn hardness(mode: CancelMode) -> u8 {
    match mode {
        CancelMode::StoppedRunFinally => 0,
        CancelMode::CancelledRunFinally => 1,
        CancelMode::Cancelled => 2,
    }
}

/// Status, reason and message of a task's `task-skip`; `None` while its fate is open.
fn why_skipped(
    state: &super::PipelineTaskState,
    rest: Option<&'static str>,
) -> Option<(Status, String, Option<String>)> {
    if let Some(kept) = &state.kept {
        let message = format!("succeeded in run {}", kept.ran_in);
        return Some((Status::Skipped, KEPT.to_owned(), Some(message)));
    }
    if let Some(skip) = state.skip {
        return Some((skip.status(), skip.as_str().to_owned(), None));
    }
    if let Some(message) = &state.invalid {
        let reason = "PipelineValidationFailed".to_owned();
        return Some((Status::NotRun, reason, Some(message.clone())));
    }
    rest.map(|reason| (Status::NotRun, reason.to_owned(), None))
}
