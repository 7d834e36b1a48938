//! How a PipelineTask ends, and how the PipelineRun does: Tekton's counts, reasons and messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_tekton::matrix;
use tenon_tekton::results::{matrix_values, pipeline_results};
use tenon_tekton::v1::{ParamValue, TaskRunResult};

use super::custom::CustomRunState;
use super::skip::Skip;
use super::state::{Child, PipelineState, PipelineTaskState, TaskFinish};
use crate::Time;
use crate::command::CancelMode;
use crate::event::Status;
use crate::log::Log;
use crate::outcome::RunOutcome;
use crate::run::Run;
use crate::taskrun::{TaskRunState, VerdictKind};
use crate::work::StopReason;

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// A condition that is not yet dated: status, reason, message.
pub(crate) type Verdict = (Truth, String, String);

/// Sums up the children of a task, all of which are over.
pub(super) fn sum_up(
    state: &PipelineTaskState,
    task_runs: &[TaskRunState],
    custom_runs: &[CustomRunState],
) -> TaskFinish {
    let ends: Vec<(VerdictKind, &str)> = state
        .children
        .iter()
        .filter_map(|child| match child {
            Child::TaskRun(index) => {
                let end = task_runs[*index].end()?;
                Some((end.kind, end.reason.as_str()))
            }
            Child::CustomRun(index) => {
                let (why, reason) = custom_runs[*index].end()?;
                let kind = match why {
                    StopReason::Cancelled => VerdictKind::Cancelled,
                    StopReason::TaskTimeout => VerdictKind::TimedOut,
                    StopReason::PipelineTimeout => VerdictKind::CancelledByTimeout,
                };
                Some((kind, reason))
            }
        })
        .collect();
    if let Some(kept) = &state.kept {
        let reason = kept.reason.clone();
        let results = gather(state, task_runs);
        return TaskFinish { succeeded: true, reason, results, ..TaskFinish::default() };
    }
    let failed = |end: &&(VerdictKind, &str)| end.0 != VerdictKind::Succeeded;
    let first_failed = ends.iter().find(failed);
    let any = |kind: VerdictKind| ends.iter().any(|end| end.0 == kind);
    let mut failures = ends.iter().filter(failed);
    TaskFinish {
        succeeded: first_failed.is_none(),
        cancelled: any(VerdictKind::Cancelled),
        timed_out: any(VerdictKind::CancelledByTimeout),
        infra: first_failed.is_some() && failures.all(|end| end.0 == VerdictKind::Infra),
        reason: first_failed.or(ends.first()).map(|end| end.1.to_owned()).unwrap_or_default(),
        results: gather(state, task_runs),
    }
}

/// The results of a task; those of a fan-out become arrays.
fn gather(state: &PipelineTaskState, task_runs: &[TaskRunState]) -> Vec<TaskRunResult> {
    let runs = state.runs(task_runs);
    if !matrix::is_matrixed(state.task.matrix.as_ref()) {
        return runs.first().map(|run| run.1.to_vec()).unwrap_or_default();
    }
    let written = runs.iter().flat_map(|(_, results)| results.iter());
    let names: std::collections::BTreeSet<&str> =
        written.map(|result| result.name.as_str()).collect();
    let gathered = names.into_iter().map(|name| TaskRunResult {
        name: name.to_owned(),
        r#type: "array".to_owned(),
        value: ParamValue::Array(matrix_values(&runs, name)),
    });
    gathered.collect()
}

/// How many tasks came to what.
#[derive(Debug, Default)]
struct Counts {
    succeeded: usize,
    failed: usize,
    ignored: usize,
    cancelled: usize,
    invalid: usize,
    skipped: usize,
    skipped_by_timeout: usize,
    incomplete: usize,
}

impl PipelineState {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for state in &self.tasks {
            let ignored = state.is_failure_ignored();
            match (&state.finish, &state.invalid, state.skip) {
                (Some(finish), ..) if finish.succeeded => counts.succeeded += 1,
                (Some(finish), ..) if finish.timed_out => counts.failed += 1,
                (Some(finish), ..) if finish.cancelled => counts.cancelled += 1,
                (Some(_), ..) if ignored => counts.ignored += 1,
                (Some(_), ..) => counts.failed += 1,
                (None, Some(_), _) => counts.invalid += 1,
                (None, None, Some(why)) => {
                    counts.skipped += 1;
                    let by_timeout = matches!(why, Skip::TasksTimeout | Skip::FinallyTimeout);
                    counts.skipped_by_timeout += usize::from(by_timeout);
                }
                (None, None, None) => counts.incomplete += 1,
            }
        }
        counts
    }

    /// The condition as of now.
    pub(crate) fn verdict(&self) -> Verdict {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let name = self.name();
        let finals_done = self.finals().iter().all(PipelineTaskState::is_done);
        if self.tasks_timed_out && self.is_dag_done() && finals_done {
            let timeout = self.tasks_timeout().unwrap_or_default();
            let message = format!(
                "PipelineRun \"{name}\" failed due to tasks failed to finish within \"{timeout}\""
            );
            return (Truth::False, "PipelineRunTimeout".to_owned(), message);
        }
        let counts = self.counts();
        if counts.incomplete == 0 {
            self.final_verdict(&counts)
        } else {
            self.running_verdict(&counts, finals_done)
        }
    }

    fn final_verdict(&self, counts: &Counts) -> Verdict {
        let completed = counts.succeeded + counts.failed + counts.cancelled + counts.ignored;
        let failed = counts.failed + counts.ignored;
        let ignored = match counts.ignored {
            0 => String::new(),
            ignored => format!(" (Ignored: {ignored})"),
        };
        let (cancelled, skipped) = (counts.cancelled, counts.skipped);
        let mut message = format!(
            "Tasks Completed: {completed} (Failed: {failed}{ignored}, Cancelled {cancelled}), Skipped: {skipped}"
        );
        if counts.invalid > 0 {
            message.push_str(&self.invalid_message(counts.invalid));
        }
        let gracefully = self.cancel.is_some();
        let (status, reason) = match counts {
            Counts { invalid: 1.., .. } => (Truth::False, "PipelineValidationFailed"),
            Counts { failed: 1.., .. } | Counts { skipped_by_timeout: 1.., .. } => {
                (Truth::False, "Failed")
            }
            _ if gracefully => {
                message = format!("PipelineRun \"{}\" was cancelled", self.name());
                (Truth::False, "Cancelled")
            }
            Counts { cancelled: 1.., .. } => (Truth::False, "Cancelled"),
            Counts { skipped: 1.., .. } => (Truth::True, "Completed"),
            _ => (Truth::True, "Succeeded"),
        };
        (status, reason.to_owned(), message)
    }

    /// Which tasks could not start for want of a result, by name.
    fn invalid_message(&self, count: usize) -> String {
        let by_name: BTreeMap<&str, &str> = self
            .tasks
            .iter()
            .filter_map(|state| Some((state.task.name.as_str(), state.invalid.as_deref()?)))
            .collect();
        let messages: Vec<&str> = by_name.into_values().collect();
        let mut joined = messages.join("; ");
        if joined.len() > 1024 {
            let end = (0..=1024).rev().find(|end| joined.is_char_boundary(*end));
            joined.truncate(end.unwrap_or(0));
            joined.push_str("...");
        }
        format!(", Failed Validation: {count} ({joined})")
    }

    fn running_verdict(&self, counts: &Counts, finals_done: bool) -> Verdict {
        let reason = if self.tasks_timed_out && !self.finals().is_empty() && !finals_done {
            "PipelineRunTimeoutRunningFinally"
        } else if self.cancel == Some(CancelMode::CancelledRunFinally) {
            "CancelledRunningFinally"
        } else if self.cancel == Some(CancelMode::StoppedRunFinally) {
            "StoppedRunningFinally"
        } else if counts.cancelled > 0 || (counts.failed > 0 && finals_done) {
            "PipelineRunStopping"
        } else {
            "Running"
        };
        let completed = counts.succeeded + counts.failed + counts.cancelled + counts.ignored;
        let message = format!(
            "Tasks Completed: {completed} (Failed: {}, Cancelled {}), Incomplete: {}, Skipped: {}",
            counts.failed, counts.cancelled, counts.incomplete, counts.skipped
        );
        (Truth::Unknown, reason.to_owned(), message)
    }

    /// For `finally`: each DAG task with `$(tasks.X.status)` and `$(tasks.X.reason)`, and
    /// `$(tasks.status)`.
    pub(super) fn execution_status(&self) -> (Vec<(String, &'static str, String)>, &'static str) {
        let of = |state: &PipelineTaskState| {
            let finish = state.finish.as_ref();
            let reason = finish.map(|finish| finish.reason.clone());
            let name = state.task.name.clone();
            (name, status_word(state), reason.unwrap_or_default())
        };
        let statuses = self.dag().iter().map(of).collect();
        let aggregate = if !self.is_dag_done() {
            "None"
        } else if self.dag().iter().any(|state| state.some_failed) {
            "Failed"
        } else if self.dag().iter().any(|state| state.skip.is_some()) {
            "Completed"
        } else {
            "Succeeded"
        };
        (statuses, aggregate)
    }
}

/// `$(tasks.X.status)`.
fn status_word(state: &PipelineTaskState) -> &'static str {
    match &state.finish {
        Some(finish) if finish.succeeded => "Succeeded",
        _ if state.some_failed => "Failed",
        _ => "None",
    }
}

impl Run {
    /// Ends the run when nothing of it goes on and nothing more can start.
    pub(super) fn end_when_quiet(&mut self, now: Time, log: &mut Log) {
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        if pipeline.books.running > 0 {
            return;
        }
        let halted = pipeline.is_halted();
        if !halted && pipeline.books.undone() > 0 {
            return;
        }
        let minutes = self.materials.flags.default_timeout_minutes;
        let rest = if halted {
            let (verdict, rest) = halted_verdict(pipeline, minutes);
            pipeline.end = Some(verdict);
            Some(rest)
        } else {
            pipeline.end = Some(pipeline.verdict());
            None
        };
        let cancelled = pipeline.cancel == Some(CancelMode::Cancelled) && !pipeline.timed_out;
        if !cancelled && pipeline.fatal.is_none() {
            collect_results(pipeline);
        }
        self.tell_skips(now, log, rest);
        self.end_pipeline(now, log, false);
    }

    /// `run-end` out of the final condition.
    pub(crate) fn end_pipeline(&mut self, now: Time, log: &mut Log, rejected: bool) {
        let Some(pipeline) = &self.pipeline else {
            return;
        };
        let (status, reason, message) = pipeline.verdict();
        let timed_out = reason == "PipelineRunTimeout";
        let failures = pipeline.tasks.iter().filter(|state| {
            let failed = state.finish.as_ref().is_some_and(|f| !f.succeeded);
            failed && !state.is_failure_ignored()
        });
        let mut infra = failures
            .map(|state| state.finish.as_ref().is_some_and(|finish| finish.infra))
            .peekable();
        let only_infra = infra.peek().is_some() && infra.all(|infra| infra);
        let status = match (status, reason.as_str()) {
            (Truth::True, _) => Status::Succeeded,
            _ if timed_out => Status::Timeout,
            (_, "Cancelled") => Status::Cancelled,
            _ if only_infra => Status::InfraFailed,
            _ => Status::Failed,
        };
        let results = pipeline.results.iter();
        let results = results.map(|result| (result.name.clone(), result.value.clone()));
        let results = Some(results.collect());
        let outcome = RunOutcome { status, reason, message, rejected, timed_out };
        self.end(now, log, outcome, results);
    }

    /// The condition of a run whose coordinator died.
    pub(crate) fn abandon_pipeline(&mut self, now: Time, log: &mut Log, message: &str) {
        for index in 0..self.custom_runs.len() {
            self.stop_custom_run(now, log, index, StopReason::Cancelled);
        }
        if let Some(pipeline) = &mut self.pipeline {
            let reason = "infra/abandoned".to_owned();
            pipeline.end = Some((Truth::False, reason, message.to_owned()));
        }
        self.tell_skips(now, log, Some("infra/abandoned"));
    }
}

/// The condition of a run that was cut off, and why what never started did not.
fn halted_verdict(pipeline: &PipelineState, default_minutes: u32) -> (Verdict, &'static str) {
    let name = pipeline.name();
    if pipeline.timed_out {
        let timeout = pipeline.pipeline_timeout(default_minutes);
        let message = format!("PipelineRun \"{name}\" failed to finish within \"{timeout}\"");
        let verdict = (Truth::False, "PipelineRunTimeout".to_owned(), message);
        return (verdict, "PipelineRun timeout has been reached");
    }
    if let Some((reason, message)) = &pipeline.fatal {
        return ((Truth::False, reason.clone(), message.clone()), Skip::Stopping.as_str());
    }
    let message = format!("PipelineRun \"{name}\" was cancelled");
    let verdict = (Truth::False, "Cancelled".to_owned(), message);
    (verdict, "PipelineRun was cancelled")
}

/// The Pipeline's results; one that refers to nothing fails the run, even if its tasks succeeded.
fn collect_results(pipeline: &mut PipelineState) {
    let Some(spec) = &pipeline.spec else {
        return;
    };
    let task = |name: &str| pipeline.index.get(name).map(|index| &pipeline.tasks[*index]);
    let found = pipeline_results(
        &spec.results,
        |name| {
            let finish = task(name)?.finish.as_ref()?;
            Some(finish.results.as_slice())
        },
        |name| task(name).map(status_word),
    );
    if let Some(rejection) = found.rejection(pipeline.name()) {
        let reason = rejection.reason.to_owned();
        pipeline.end = Some((Truth::False, reason, rejection.message));
        return;
    }
    pipeline.results = found.results;
}
