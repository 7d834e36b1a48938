//! One attempt between the agent's loop and a backend: waits for a slot, runs, and ends with the
//! one report that says how.

use std::time::Duration;

use tenon_proto::agent::v1::{
    AttemptId, Ended, Infra, Progress, RunSpec, Started, Stopped, TaskInvocation, ended, report,
};
use tokio::sync::{Semaphore, mpsc};

use crate::backend::{Backend, BoxFuture, Cancel, Sink};
use crate::clock::now_ms;

/// What an attempt tells the loop.
pub(crate) enum Said {
    Report { attempt: AttemptId, time_ms: i64, what: report::What },
    Progress(Progress),
}

/// The report that an attempt has ended so.
pub(crate) fn ended(outcome: ended::Outcome) -> report::What {
    report::What::Ended(Ended { outcome: Some(outcome) })
}

/// Runs one attempt to its end, once a slot is free.
pub(crate) async fn run(
    backend: &dyn Backend,
    slots: &Semaphore,
    run: &RunSpec,
    task: &TaskInvocation,
    sink: &AttemptSink,
    cancel: &Cancel,
) {
    let permit = tokio::select! {
        permit = slots.acquire() => permit.ok(),
        () = cancel.stop.cancelled() => None,
    };
    let outcome = if permit.is_none() {
        ended::Outcome::Stopped(Stopped {})
    } else {
        sink.report(now_ms(), report::What::Started(Started {})).await;
        match backend.prepare(run).await {
            Ok(()) => backend.run_task(task, sink, cancel).await,
            Err(error) => ended::Outcome::Infra(Infra {
                reason: error.code.to_owned(),
                message: error.message,
            }),
        }
    };
    sink.report(now_ms(), ended(outcome)).await;
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

impl Sink for AttemptSink {
    fn report(&self, time_ms: i64, what: report::What) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The loop outlives its attempts, so the channel is open.
            let _ = self
                .reports
                .send(Said::Report { attempt: self.attempt.clone(), time_ms, what })
                .await;
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
