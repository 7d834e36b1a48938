//! What becomes a span.

use tenon_engine::event::Status;
use tenon_engine::{AttemptId, Event, Kind};

use super::{Span, Value, of};
use crate::fixture::{event, run_id};

fn ended(kind: Kind, status: Status) -> Event {
    let mut event = event(kind, 9);
    event.trace_id = Some(run_id().trace_id());
    event.placement = Some(1);
    event.agent = Some("a".to_owned());
    event.status = Some(status);
    event.duration_ms = Some(1_500);
    event
}

fn id(attempt: u32, placement: u32) -> AttemptId {
    AttemptId { run: run_id(), task_run: "p-run-t".to_owned(), attempt, placement }
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
        Value::Text(text) => Some(text.as_str()),
        Value::Number(_) | Value::Decimal(_) => None,
    })
}

#[test]
fn each_end_is_a_span_below_the_one_of_its_whole() {
    let mut step = ended(Kind::StepEnd, Status::Succeeded);
    step.step = Some("s".to_owned());
    step.span_id = Some(id(1, 1).container_span_id("step-s"));
    let mut task = ended(Kind::TaskEnd, Status::Succeeded);
    task.task_duration_ms = Some(4_000);
    let mut run = ended(Kind::RunEnd, Status::Succeeded);
    run.span_id = Some(run_id().span_id());
    run.parent_span_id = Some("b7ad6b7169203331".to_owned());

    let spans: Vec<Span> = [&step, &task, &run].into_iter().flat_map(of).collect();
    let told: Vec<(&str, i64)> =
        spans.iter().map(|span| (&*span.name, span.end.0 - span.start.0)).collect();
    assert_eq!(told, [("s", 1_500), ("t", 4_000), ("attempt 1", 1_500), ("p", 1_500)]);
    let [step, task, attempt, run] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(step.parent.as_ref(), Some(&attempt.span_id));
    assert_eq!(attempt.parent.as_ref(), Some(&task.span_id));
    assert_eq!(task.parent.as_ref(), Some(&run.span_id));
    assert_eq!(run.parent.as_deref(), Some("b7ad6b7169203331"));
    assert!(run.parent_is_remote && spans.iter().all(|span| span.error.is_none()));
    assert_eq!(text(run, "cicd.pipeline.result"), Some("success"));
    assert_eq!(text(step, "cicd.worker.name"), Some("a"));
}

#[test]
fn every_attempt_and_every_placement_has_a_span() {
    let mut lost = ended(Kind::TaskLost, Status::InfraFailed);
    (lost.status, lost.reason) = (None, Some("infra/agent-lost".to_owned()));
    let mut retry = ended(Kind::TaskRetry, Status::Failed);
    (retry.placement, retry.message) = (Some(2), Some("exit 1".to_owned()));
    let mut end = ended(Kind::TaskEnd, Status::Succeeded);
    end.attempt = Some(2);

    let lost = &of(&lost)[0];
    assert_eq!((&lost.span_id, lost.error.is_some()), (&id(1, 1).span_id(), true));
    assert_eq!(text(lost, "error.type"), Some("infra/agent-lost"));
    let retry = &of(&retry)[0];
    assert_eq!((&retry.span_id, retry.error.as_deref()), (&id(1, 2).span_id(), Some("exit 1")));
    assert_eq!(retry.follows, Some(id(1, 1).span_id()));
    assert_eq!(of(&end)[1].span_id, id(2, 1).span_id());
    assert!(of(&ended(Kind::StepEnd, Status::NotRun)).is_empty());
    // Of a task that no agent ever had there is no attempt to show.
    let mut refused = ended(Kind::TaskEnd, Status::Failed);
    refused.agent = None;
    assert_eq!(of(&refused).len(), 1);
}

#[test]
fn what_the_submitter_does_not_record_is_not_sent() {
    let mut run = ended(Kind::RunEnd, Status::Succeeded);
    run.span_id = Some(run_id().span_id());
    assert_eq!(of(&run).len(), 1);
    run.trace_flags = Some("00".to_owned());
    assert_eq!(of(&run), []);
}
