//! `timeouts.pipeline`, `.tasks` and `.finally` of a PipelineRun. Each TaskRun minds its own.

use tenon_tekton::duration::GoDuration;
use tenon_tekton::taskrun;

use super::state::{Child, PipelineState};
use crate::Time;
use crate::log::Log;
use crate::run::Run;
use crate::work::StopReason;

/// A limit of 0 is none.
fn limit(timeout: Option<GoDuration>) -> Option<GoDuration> {
    timeout.filter(|timeout| timeout.0 != 0)
}

impl PipelineState {
    /// The whole run's limit as Tekton prints it; 0 is none.
    pub(super) fn pipeline_timeout(&self, default_minutes: u32) -> GoDuration {
        let timeouts = self.object.spec.timeouts.as_ref();
        timeouts
            .and_then(|timeouts| timeouts.pipeline)
            .unwrap_or_else(|| GoDuration::from_secs(i64::from(default_minutes) * 60))
    }

    /// The DAG's limit: given, or what the others leave.
    pub(super) fn tasks_timeout(&self) -> Option<GoDuration> {
        let timeouts = self.object.spec.timeouts.as_ref()?;
        limit(taskrun::tasks_timeout(timeouts))
    }

    /// The limit of `finally`: given, or what the others leave.
    pub(super) fn finally_timeout(&self) -> Option<GoDuration> {
        let timeouts = self.object.spec.timeouts.as_ref()?;
        limit(taskrun::finally_timeout(timeouts))
    }
}

fn after(start: Time, timeout: Option<GoDuration>) -> Option<Time> {
    timeout.map(|timeout| start.plus_millis(timeout.as_millis()))
}

impl Run {
    fn pipeline_due(&self) -> Option<Time> {
        let pipeline = self.pipeline.as_ref()?;
        let default = self.materials.flags.default_timeout_minutes;
        let timeout = limit(Some(pipeline.pipeline_timeout(default)));
        after(self.start, timeout).filter(|_| !pipeline.is_halted())
    }

    /// Only while the DAG is not done: a limit of the tasks says nothing about `finally`.
    fn tasks_due(&self) -> Option<Time> {
        let pipeline = self.pipeline.as_ref()?;
        let waiting = !pipeline.tasks_timed_out
            && !pipeline.is_halted()
            && pipeline.finally_start.is_none()
            && !pipeline.is_dag_done();
        after(self.start, pipeline.tasks_timeout()).filter(|_| waiting)
    }

    fn finally_due(&self) -> Option<Time> {
        let pipeline = self.pipeline.as_ref()?;
        let start = pipeline.finally_start?;
        let waiting = !pipeline.finally_timed_out && !pipeline.is_halted();
        after(start, pipeline.finally_timeout()).filter(|_| waiting)
    }

    /// When the next limit of the PipelineRun, or of one of its CustomRuns, is reached.
    pub(crate) fn pipeline_deadline(&self) -> Option<Time> {
        let custom = self.custom_runs.iter().filter_map(|run| run.deadline());
        [self.pipeline_due(), self.tasks_due(), self.finally_due()]
            .into_iter()
            .flatten()
            .chain(custom)
            .min()
    }

    /// All limits that are reached take effect: running tasks are stopped; what follows from that is
    /// the scheduler's business.
    pub(crate) fn tick_pipeline(&mut self, now: Time, log: &mut Log) {
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        let (pipeline_due, tasks_due, finally_due) =
            (due(self.pipeline_due()), due(self.tasks_due()), due(self.finally_due()));
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        if tasks_due {
            pipeline.tasks_timed_out = true;
            pipeline.look_at_all();
        }
        pipeline.finally_timed_out |= finally_due;
        pipeline.timed_out |= pipeline_due;
        let reason = StopReason::PipelineTimeout;
        if pipeline_due {
            self.stop_tasks(now, log, reason, true, true);
        }
        if tasks_due {
            self.stop_tasks(now, log, reason, true, false);
        }
        if finally_due {
            self.stop_tasks(now, log, reason, false, true);
        }
        for index in 0..self.custom_runs.len() {
            if due(self.custom_runs[index].deadline()) {
                self.stop_custom_run(now, log, index, StopReason::TaskTimeout);
            }
        }
    }

    /// A child of a PipelineTask is over: keeps the task's books, and sums up when it was the last.
    pub(crate) fn child_ended(&mut self, child: Child) {
        let task = match child {
            Child::TaskRun(index) => self.task_runs[index].pipeline_task,
            Child::CustomRun(index) => Some(self.custom_runs[index].pipeline_task),
        };
        let (Some(pipeline), Some(task)) = (&mut self.pipeline, task) else {
            return;
        };
        let state = &mut pipeline.tasks[task];
        pipeline.books.running = pipeline.books.running.saturating_sub(1);
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            let finish = super::finish::sum_up(state, &self.task_runs, &self.custom_runs);
            state.some_failed = !finish.succeeded;
            state.finish = Some(finish);
            pipeline.book(task);
        } else if let Child::TaskRun(index) = child {
            let end = self.task_runs[index].end();
            let succeeded =
                |end: &crate::taskrun::Verdict| end.kind == crate::taskrun::VerdictKind::Succeeded;
            state.some_failed |= !end.is_some_and(succeeded);
        }
    }
}
