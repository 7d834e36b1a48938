//! Between the session's messages and the engine's types. Total in both directions: a message that
//! lacks a part is refused, never guessed at.

use tenon_engine::report::{Ending, Outcome, StepEnd, Transfer, WorkspaceUse};
use tenon_engine::usage::ResourceUsage;
use tenon_engine::{AttemptId, Report, RunId, Time};
use tenon_proto::agent::v1 as proto;

/// A message that cannot be understood: a bug of the sender or another version of it.
#[derive(Debug, thiserror::Error)]
#[error("an agent's message lacks {0}")]
pub struct Incomplete(&'static str);

/// The wire form of an attempt's identity.
pub fn attempt_to_wire(attempt: &AttemptId) -> proto::AttemptId {
    proto::AttemptId {
        run_id: attempt.run.to_string(),
        task_run: attempt.task_run.clone(),
        attempt: attempt.attempt,
        placement: attempt.placement,
    }
}

/// The identity out of its wire form.
pub fn attempt_from_wire(attempt: Option<proto::AttemptId>) -> Result<AttemptId, Incomplete> {
    let attempt = attempt.ok_or(Incomplete("the attempt"))?;
    let run: RunId = attempt.run_id.parse().map_err(|_| Incomplete("a valid run id"))?;
    Ok(AttemptId {
        run,
        task_run: attempt.task_run,
        attempt: attempt.attempt,
        placement: attempt.placement,
    })
}

/// An agent's report as the engine knows it.
pub fn report_from_wire(report: proto::Report) -> Result<(AttemptId, Report), Incomplete> {
    use proto::report::What;
    let time = Time(report.time_ms);
    let attempt = attempt_from_wire(report.attempt)?;
    let report = match report.what.ok_or(Incomplete("what it reports"))? {
        What::Started(proto::Started {}) => Report::Started { time },
        What::StepStarted(started) => Report::StepStarted { time, step: started.step },
        What::Output(output) => Report::Output {
            time,
            container: output.container,
            sidecar: output.sidecar,
            lines: output.lines,
            chunk: output.chunk,
        },
        What::StepEnded(ended) => Report::StepEnded { time, end: step_end_from_wire(ended) },
        What::SidecarStarted(started) => Report::SidecarStarted { time, sidecar: started.sidecar },
        What::SidecarEnded(ended) => Report::SidecarEnded {
            time,
            sidecar: ended.sidecar,
            exit_code: ended.exit_code,
            stopped: ended.stopped,
            oom_killed: ended.oom_killed,
            image_id: ended.image_id,
            container_id: ended.container_id,
        },
        What::Ended(ended) => {
            use proto::ended::Outcome as Wire;
            let outcome = match ended.outcome.ok_or(Incomplete("the outcome"))? {
                Wire::Ran(proto::Ran {}) => Outcome::Ran,
                Wire::Stopped(proto::Stopped {}) => Outcome::Stopped,
                Wire::Refused(refused) => {
                    Outcome::Refused { reason: refused.reason, message: refused.message }
                }
                Wire::Infra(infra) => {
                    Outcome::Infra { reason: infra.reason, message: infra.message }
                }
            };
            let workspaces = ended.workspaces.into_iter().map(use_from_wire).collect();
            Report::Ended { time, outcome, workspaces }
        }
    };
    Ok((attempt, report))
}

fn use_from_wire(used: proto::WorkspaceUse) -> WorkspaceUse {
    let transfer = |it: proto::Transfer| Transfer {
        snapshot: it.snapshot,
        bytes: it.bytes,
        new_bytes: it.new_bytes,
        duration_ms: i64::try_from(it.duration_ms).unwrap_or(i64::MAX),
    };
    WorkspaceUse {
        claim: used.claim,
        restored: used.restored.map(transfer),
        // One that has no name was not made.
        saved: used.saved.map(transfer).filter(|saved| !saved.snapshot.is_empty()),
        message: Some(used.message).filter(|message| !message.is_empty()),
    }
}

fn step_end_from_wire(ended: proto::StepEnded) -> StepEnd {
    let ending = match ended.ending() {
        proto::Ending::Completed => Ending::Completed,
        proto::Ending::Error => Ending::Error,
        proto::Ending::Continued => Ending::Continued,
        proto::Ending::OomKilled => Ending::OomKilled,
        proto::Ending::Skipped => Ending::Skipped,
        proto::Ending::TimeoutExceeded => Ending::TimeoutExceeded,
        proto::Ending::Cancelled => Ending::Cancelled,
    };
    StepEnd {
        step: ended.step,
        exit_code: ended.exit_code,
        ending,
        started_at: ended.started_at_ms.map(Time),
        task_results: ended.task_results.into_iter().collect(),
        step_results: ended.step_results.into_iter().collect(),
        message: ended.message,
        image_id: ended.image_id,
        container_id: ended.container_id,
        usage: ended.usage.map(|used| ResourceUsage {
            cpu_micros: used.cpu_micros,
            memory_peak_bytes: used.memory_peak_bytes,
            io_read_bytes: used.io_read_bytes,
            io_write_bytes: used.io_write_bytes,
        }),
    }
}
