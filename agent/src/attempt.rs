//! One attempt between the agent's loop and a backend: waits for a slot, runs, and ends with the
//! one report that says how.

use std::collections::BTreeMap;
use std::time::Duration;

use tenon_proto::agent::v1::{
    AttemptId, Ended, Infra, Progress, RunSpec, Started, Stopped, TaskInvocation, ended, report,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::backend::{Backend, BoxFuture, Cancel, Sink};
use crate::clock::now_ms;
use crate::record::{Mark, Marked};
use crate::workspaces::{Used, Workspaces};

/// What an attempt tells the loop.
pub(crate) enum Said {
    Report(Box<Reported>),
    Progress(Progress),
    /// Whoever says this is told when everything that it has said before is safe.
    Flush(oneshot::Sender<()>),
}

/// A report that has no number yet.
pub(crate) struct Reported {
    pub(crate) attempt: AttemptId,
    pub(crate) time_ms: i64,
    pub(crate) what: report::What,
    pub(crate) marked: Option<Marked>,
    /// Told when the report is safe.
    pub(crate) safe: Option<oneshot::Sender<()>>,
}

/// The report that an attempt has ended so.
pub(crate) fn ended(outcome: ended::Outcome) -> report::What {
    report::What::Ended(Ended { outcome: Some(outcome), ..Ended::default() })
}

/// Runs one attempt to its end, once a slot is free.
pub(crate) async fn run(
    backend: &dyn Backend,
    workspaces: &Workspaces,
    slots: &Semaphore,
    run: &RunSpec,
    task: &TaskInvocation,
    sink: &AttemptSink,
    cancel: &Cancel,
) {
    let may_begin = async {
        let permit = slots.acquire().await.ok();
        cancel.lease.wait().await;
        permit
    };
    let permit = tokio::select! {
        permit = may_begin => permit,
        () = cancel.stop.cancelled() => None,
    };
    let mut used = Used::default();
    let outcome = if permit.is_none() {
        ended::Outcome::Stopped(Stopped {})
    } else {
        sink.report(now_ms(), report::What::Started(Started {}), None).await;
        let ready = match backend.prepare(run).await {
            Ok(()) => workspaces.begin(backend, task, sink, cancel).await,
            Err(error) => Err(ended::Outcome::Infra(Infra {
                reason: error.code.to_owned(),
                message: error.message,
            })),
        };
        match ready {
            Ok(ready) => {
                used = ready;
                backend.run_task(task, sink, cancel).await
            }
            Err(outcome) => outcome,
        }
    };
    end(backend, workspaces, used, outcome, sink, cancel).await;
}

/// Saves what is to be saved, tells the end, and removes what is left.
async fn end(
    backend: &dyn Backend,
    workspaces: &Workspaces,
    mut used: Used,
    outcome: ended::Outcome,
    sink: &AttemptSink,
    cancel: &Cancel,
) {
    let uses = workspaces.end(&mut used, &outcome, sink, cancel).await;
    sink.end(Ended { outcome: Some(outcome), workspaces: uses }).await;
    drop(used);
    backend.forget(&sink.attempt).await;
    workspaces.forget(&sink.attempt);
}

/// Goes on with an attempt of an earlier process.
pub(crate) async fn adopt(
    backend: &dyn Backend,
    workspaces: &Workspaces,
    (used, outcome): (Used, Option<ended::Outcome>),
    slots: &Semaphore,
    marks: &BTreeMap<u32, Mark>,
    sink: &AttemptSink,
    cancel: &Cancel,
) {
    // It runs already, whatever the agent is told about slots now.
    let _permit = slots.try_acquire();
    sink.report(now_ms(), report::What::Started(Started {}), None).await;
    if !cancel.kill.is_cancelled()
        && let Err(error) = backend.thaw(&sink.attempt).await
    {
        tracing::warn!(task_run = %sink.attempt.task_run, %error, "an attempt cannot be thawed");
    }
    let outcome = match outcome {
        // It had ended, and all that was left to do was to save its claims.
        Some(outcome) => outcome,
        None => backend.adopt(&sink.attempt, marks, sink, cancel).await,
    };
    end(backend, workspaces, used, outcome, sink, cancel).await;
}

/// Kills when `grace` is over, unless that was done before or is no longer needed.
pub(crate) async fn kill_after(cancel: Cancel, grace: Duration) {
    tokio::select! {
        () = tokio::time::sleep(grace) => cancel.kill.cancel(),
        () = cancel.kill.cancelled() => {}
    }
}

/// Where an attempt's reports go: to the loop.
pub(crate) struct AttemptSink {
    pub(crate) attempt: AttemptId,
    pub(crate) reports: mpsc::Sender<Said>,
}

impl AttemptSink {
    /// Reports the end, and waits until that is safe: from then on nothing of the attempt is needed.
    pub(crate) async fn end(&self, ended: Ended) {
        let (safe, is_safe) = oneshot::channel();
        let reported = Reported {
            attempt: self.attempt.clone(),
            time_ms: now_ms(),
            what: report::What::Ended(ended),
            marked: None,
            safe: Some(safe),
        };
        let _ = self.reports.send(Said::Report(Box::new(reported))).await;
        self.until(is_safe).await;
    }

    /// Waits until all that was said before is safe.
    pub(crate) async fn flush(&self) {
        let (safe, is_safe) = oneshot::channel();
        let _ = self.reports.send(Said::Flush(safe)).await;
        self.until(is_safe).await;
    }

    async fn until(&self, is_safe: oneshot::Receiver<()>) {
        // A loop that ends without an answer leaves the attempt to the next process.
        if is_safe.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Sink for AttemptSink {
    fn report(
        &self,
        time_ms: i64,
        what: report::What,
        marked: Option<Marked>,
    ) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let attempt = self.attempt.clone();
            let reported = Reported { attempt, time_ms, what, marked, safe: None };
            // The loop outlives its attempts, so the channel is open.
            let _ = self.reports.send(Said::Report(Box::new(reported))).await;
        })
    }

    fn progress(&self, what: &str, done: u64, total: u64) {
        let _ = self.reports.try_send(Said::Progress(Progress {
            attempt: Some(self.attempt.clone()),
            what: what.to_owned(),
            done,
            total,
            note: false,
        }));
    }

    fn note<'a>(&'a self, what: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let note = Progress {
                attempt: Some(self.attempt.clone()),
                what: what.to_owned(),
                note: true,
                ..Progress::default()
            };
            // As with reports.
            let _ = self.reports.send(Said::Progress(note)).await;
        })
    }
}
