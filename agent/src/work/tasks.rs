//! The attempts themselves: how they start, are told to stop, and end.

use std::time::Duration;

use tenon_proto::agent::v1::{EndRun, Ended, Infra, RunSpec, Stop, Stopped, TaskInvocation, ended};
use tokio::task::{Id, JoinError};

use super::{SHUTDOWN_GRACE, Work};
use crate::attempt::{self, AttemptSink};
use crate::backend::Cancel;
use crate::clock::now_ms;

impl Work {
    /// A request to stop an attempt that was not made yet.
    pub(super) fn cancel(&self) -> Cancel {
        Cancel { lease: self.contact.lease.view(), ..Cancel::default() }
    }

    pub(super) fn start(&mut self, task: TaskInvocation) {
        let Some(attempt) = task.attempt.clone() else {
            return;
        };
        // A coordinator that has not yet heard of it, or has forgotten that it sent this, repeats it.
        let known = self.live.contains_key(&attempt) || self.ended.contains(&attempt);
        if known || self.stopping {
            return;
        }
        let cancel = self.cancel();
        self.live.insert(attempt.clone(), cancel.clone());
        let sink = AttemptSink { attempt: attempt.clone(), reports: self.reports.clone() };
        let unprepared = || RunSpec { run_id: attempt.run_id.clone(), ..RunSpec::default() };
        let run = self.runs.entry(attempt.run_id.clone()).or_insert_with(unprepared).clone();
        let (backend, workspaces) = (self.backend.clone(), self.workspaces.clone());
        let slots = self.slots.clone();
        let handle = self.tasks.spawn(async move {
            attempt::run(&*backend, &workspaces, &slots, &run, &task, &sink, &cancel).await;
        });
        self.task_attempts.insert(handle.id(), attempt);
    }

    pub(super) fn stop(&mut self, stop: &Stop) {
        let Some(attempt) = &stop.attempt else {
            return;
        };
        if let Some(cancel) = self.live.get(attempt) {
            let cancel = cancel.clone();
            if stop.grace_ms == 0 {
                // First, so that nothing is asked to end before it is killed.
                cancel.kill.cancel();
                cancel.stop.cancel();
                return;
            }
            cancel.stop.cancel();
            let grace = Duration::from_millis(stop.grace_ms);
            self.tasks.spawn(attempt::kill_after(cancel, grace));
        } else if !self.ended.contains(attempt) {
            // It never came, or another process had it: nothing of it runs here.
            self.ended.insert(attempt);
            let stopped = attempt::ended(ended::Outcome::Stopped(Stopped {}));
            self.outgoing.report(attempt.clone(), now_ms(), stopped, None);
        }
    }

    pub(super) fn stop_all(&mut self) {
        for cancel in self.live.values() {
            cancel.stop.cancel();
            self.tasks.spawn(attempt::kill_after(cancel.clone(), SHUTDOWN_GRACE));
        }
    }

    /// Nobody is left to wait for an end with grace.
    pub(super) fn kill_all(&mut self) {
        for cancel in self.live.values() {
            cancel.unwanted.cancel();
            cancel.stop.cancel();
            cancel.kill.cancel();
        }
    }

    pub(super) fn task_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(attempt) = self.task_attempts.remove(&id) else {
            return;
        };
        self.ended.insert(&attempt);
        if let Some(cancel) = self.live.remove(&attempt) {
            // Ends the timer of a stop that is no longer needed.
            cancel.kill.cancel();
        }
        if panicked {
            let sink = AttemptSink { attempt: attempt.clone(), reports: self.reports.clone() };
            let backend = self.backend.clone();
            let outcome = ended::Outcome::Infra(Infra {
                reason: "infra/agent-fault".to_owned(),
                message: "the agent failed while it ran this attempt; this is a bug in Tenon"
                    .to_owned(),
            });
            // Behind what the attempt itself has said.
            self.tasks.spawn(async move {
                sink.end(Ended { outcome: Some(outcome), ..Ended::default() }).await;
                backend.forget(&attempt).await;
            });
        }
        self.end_runs();
    }

    /// Cleans up after the runs that have ended and of which nothing is live any more.
    pub(super) fn end_runs(&mut self) {
        let live = &self.live;
        let (waiting, ready): (Vec<_>, Vec<_>) = self
            .ending_runs
            .drain(..)
            .partition(|end| live.keys().any(|attempt| attempt.run_id == end.run_id));
        self.ending_runs = waiting;
        for EndRun { run_id: run, keep_claims } in ready {
            self.runs.remove(&run);
            self.ended.forget_run(&run);
            let backend = self.backend.clone();
            self.tasks.spawn(async move {
                if let Err(error) = backend.cleanup(&run, keep_claims).await {
                    tracing::warn!(%run, %error, "could not clean up after a run");
                }
            });
        }
    }
}
