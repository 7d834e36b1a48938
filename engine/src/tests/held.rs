//! Pending runs, clocks that go back, and what a run says of itself.

use serde_json::json;
use tenon_tekton::Object;

use super::events::check_order;
use super::sim::*;
use crate::command::{CancelMode, RunObject};
use crate::event::{Kind, Status};
use crate::explain::{RunState, TaskState};
use crate::report::{Outcome, Report};
use crate::{Command, Engine, Submission, Time, Undecodable, Work};

fn pending(mut submission: Submission) -> Submission {
    submission.can_be_released = true;
    match &mut submission.run {
        RunObject::PipelineRun(run) => run.spec.status = "PipelineRunPending".to_owned(),
        RunObject::TaskRun(run) => run.spec.status = "TaskRunPending".to_owned(),
    }
    submission
}

fn one_task() -> Submission {
    pipeline(json!({"tasks": [task("t", &[], json!({"timeout": "10s"}))]}))
}

#[test]
fn a_pending_run_waits_until_it_is_released() {
    let mut sim = Sim::new(pending(one_task()));
    assert_eq!(sim.told(), ["run-queued"]);
    assert_eq!(sim.events[0].reason.as_deref(), Some("PipelineRunPending"));
    assert_eq!(sim.events[0].pipeline_run.as_deref(), Some("pr"));
    let (status, reason, message) = sim.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PipelineRunPending"));
    assert_eq!(message, "PipelineRun \"pr\" is pending");
    assert!(sim.engine.pending_work().is_empty() && sim.engine.next_deadline().is_none());
    sim.pass_seconds(3600);
    let explained = sim.engine.explain(RUN).expect("a run");
    assert_eq!((explained.state, explained.kind.as_str()), (RunState::Pending, "PipelineRun"));
    for _ in 0..2 {
        sim.apply(Command::Release { time: sim.now, run: RUN });
    }
    assert_eq!(sim.told()[1..], ["run-start"]);
    assert_eq!(sim.status().start_time, Some(sim.now.to_seconds_string()));
    assert_eq!(sim.pipeline_run().spec.status, "");
    assert_eq!(sim.finish().status, Status::Succeeded);
    check_order(&sim.events);
}

#[test]
fn a_pending_run_can_be_cancelled_and_abandoned() {
    let mut sim = Sim::new(pending(one_task()));
    sim.cancel(CancelMode::Cancelled);
    assert_eq!(sim.told(), ["run-queued", "run-start", "run-end cancelled"]);
    assert_eq!(sim.condition().1, "Cancelled");
    check_order(&sim.events);

    let steps = json!([{"name": "s", "image": "busybox", "script": "echo"}]);
    let single = || pending(task_run(json!({"taskSpec": {"steps": steps}})));
    let mut sim = Sim::new(single());
    assert_eq!(sim.condition().1, "TaskRunPending");
    sim.cancel(CancelMode::Cancelled);
    assert_eq!(sim.condition().1, "TaskRunCancelled");
    let mut sim = Sim::new(single());
    sim.apply(Command::Release { time: sim.now, run: RUN });
    assert_eq!(sim.finish().status, Status::Succeeded);

    let mut sim = Sim::new(single());
    let message = "gone".to_owned();
    sim.apply(Command::Abandon { time: sim.now, run: RUN, message });
    sim.apply(Command::Release { time: sim.now, run: RUN });
    assert_eq!(sim.told(), ["run-queued", "run-start", "run-end infrafailed"]);
    assert!(matches!(sim.engine.objects(RUN)[..], [Object::TaskRun(_)]));
    assert_eq!(sim.condition().2, "gone");
}

#[test]
fn the_clock_of_a_run_never_goes_back() {
    let mut sim = Sim::new(one_task());
    let start = sim.now;
    let deadline = start.plus_millis(10_000);
    assert_eq!(sim.engine.deadline_of(RUN), Some(deadline));
    // A new leader's clock is a minute behind.
    sim.now = start.plus_millis(-60_000);
    sim.settle();
    let told: Vec<Time> = sim.events.iter().filter(|e| e.step.is_none()).map(|e| e.time).collect();
    assert!(sim.engine.outcome(RUN).is_some());
    assert_eq!(sim.status().start_time, Some(start.to_seconds_string()));
    assert_eq!(sim.status().completion_time, Some(start.to_seconds_string()));
    assert_eq!(told.first(), Some(&start));
    assert_eq!(told.last(), Some(&start), "run-end is not before run-start");
}

#[test]
fn times_that_no_clock_can_show_are_not_believed() {
    let mut sim = Sim::new(one_task());
    let works = sim.engine.pending_work();
    let [Work::Place { attempt, .. }] = &works[..] else { panic!("{works:?}") };
    let agent = "a".to_owned();
    sim.apply(Command::Place { time: Time(i64::MIN), attempt: attempt.clone(), agent });
    sim.report(attempt, Report::Started { time: Time(i64::MAX) });
    sim.end(attempt, Outcome::Ran);
    assert!(sim.events.iter().all(|event| event.time == sim.now));
    let bytes = sim.engine.export(RUN).expect("a run");
    let mut moved = Engine::starting_at(sim.engine.next_seq());
    assert_eq!(moved.import(&bytes), Ok(RUN));
    assert_eq!(moved, sim.engine);
}

#[test]
fn damaged_bytes_are_no_run() {
    let sim = Sim::new(one_task());
    let bytes = sim.engine.export(RUN).expect("a run");
    let mut engine = Engine::new();
    assert_eq!(engine.import(&[]), Err(Undecodable::Empty));
    assert_eq!(engine.import(&[9, b'{', b'}']), Err(Undecodable::Version(9)));
    let cut = &bytes[..bytes.len() / 2];
    assert_eq!(engine.import(cut).map_err(|error| error.code()), Err("engine/damaged-state"));
    let text = String::from_utf8(bytes[1..].to_vec()).expect("JSON");
    let wrong = text.replace("\"queue\":[]", "\"queue\":[77]");
    assert_ne!(wrong, text);
    let mut wrong_bytes = vec![1];
    wrong_bytes.extend_from_slice(wrong.as_bytes());
    assert!(matches!(engine.import(&wrong_bytes), Err(Undecodable::Damaged(_))));
    assert!(sim.engine.export(crate::RunId(ulid::Ulid(1))).is_none());
}

#[test]
fn notes_are_numbered_among_the_events_of_runs() {
    let mut sim = Sim::new(one_task());
    let before = sim.engine.next_seq();
    let event = sim.engine.note(Kind::LeaderChange, Time(0), |event| {
        event.node = Some("2".to_owned());
        event.term = Some(7);
    });
    assert_eq!(
        serde_json::to_string(&event).expect("JSON"),
        format!(
            r#"{{"kind":"leader-change","time":"1970-01-01T00:00:00.000Z","seq":{before},"node":"2","term":7}}"#
        )
    );
    let event = sim.engine.note(Kind::AgentDown, Time(0), |event| {
        event.agent = Some("builder".to_owned());
        event.reason = Some("agent/silent".to_owned());
    });
    assert_eq!(event.seq, before + 1);
    let text = serde_json::to_string(&event).expect("JSON");
    assert!(text.ends_with(r#","reason":"agent/silent","agent":"builder"}"#), "{text}");
    assert_eq!(serde_json::from_str::<crate::Event>(&text).expect("an event"), event);
    sim.finish();
    assert_eq!(sim.events[1].seq, before + 2);
    assert_eq!(sim.events[1].run_seq, Some(2));
}

#[test]
fn an_attempt_that_nobody_takes_says_why_once() {
    let mut sim = Sim::new(one_task());
    let works = sim.engine.pending_work();
    let [Work::Place { attempt, .. }] = &works[..] else { panic!("{works:?}") };
    let defer = |message: &str| Command::Defer {
        time: Time(1_700_000_000_500),
        attempt: attempt.clone(),
        reason: "agent/full".to_owned(),
        message: message.to_owned(),
    };
    for message in ["1 agent is full", "1 agent is full", "2 agents are full"] {
        sim.apply(defer(message));
    }
    assert_eq!(sim.told(), ["run-start", "task-queued t", "task-queued t"]);
    let task = &sim.engine.explain(RUN).expect("a run").tasks[0];
    assert_eq!(task.state, TaskState::Unplaced);
    assert_eq!(task.message, "waits for an agent: 2 agents are full");
    sim.apply(Command::Place { time: sim.now, attempt: attempt.clone(), agent: "x".to_owned() });
    sim.apply(defer("too late"));
    assert_eq!(sim.told().len(), 3);
    let task = &sim.engine.explain(RUN).expect("a run").tasks[0];
    assert_eq!(task.message, "given to agent x, which has not begun yet");
}

#[test]
fn a_run_explains_every_task() {
    let mut submission = pipeline(json!({
        "tasks": [
            task("fan", &["r"], json!({"matrix": {"params": [{"name": "m", "value": ["x", "y", "z"]}]}, "retries": 2})),
            task("next", &[], json!({"runAfter": ["fan", "quick"]})),
            task("quick", &[], json!({})),
            task("never", &[], json!({"when": [{"input": "a", "operator": "in", "values": ["b"]}]})),
        ],
        "finally": [task("report", &[], json!({}))],
    }));
    submission.parallel = Some(2);
    let mut sim =
        Sim::new(submission).does("fan-0", &[fails(), Does::Hangs]).does("fan-1", &[Does::Hangs]);
    sim.settle();
    let explained = sim.engine.explain(RUN).expect("a run");
    assert_eq!(explained.state, RunState::Running);
    let short = |name: &str| {
        let task = explained.tasks.iter().find(|task| task.task == name).expect("the task");
        (task.state, task.message.clone())
    };
    assert_eq!(
        short("fan"),
        (TaskState::Running, "0 of 3 ended; pr-fan-1: runs step s on agent local".to_owned())
    );
    assert_eq!(short("next"), (TaskState::Waiting, "waits for fan, quick".to_owned()));
    assert_eq!(
        short("quick"),
        (TaskState::Queued, "the run lets 2 attempt(s) run at a time".to_owned())
    );
    let never = "When Expressions evaluated to false".to_owned();
    assert_eq!(short("never"), (TaskState::Skipped, never));
    let report = "waits until all other tasks are done".to_owned();
    assert_eq!(short("report"), (TaskState::Waiting, report));
    let first = &explained.tasks[0].task_runs[0];
    assert_eq!((first.attempt, first.attempts, first.agent.as_deref()), (2, 3, Some("local")));
    assert_eq!(first.message, "runs step s on agent local (attempt 2 of 3)");
    assert_eq!(first.step.as_deref(), Some("s"));
    sim.cancel(CancelMode::Cancelled);
    let explained = sim.engine.explain(RUN).expect("a run");
    assert_eq!(explained.state, RunState::Stopping);
    let first = &explained.tasks[0].task_runs[0];
    assert_eq!(first.message, "agent local is to stop it: cancelled (attempt 2 of 3)");
    sim.finish();
    let explained = sim.engine.explain(RUN).expect("a run");
    assert_eq!((explained.state, explained.status), (RunState::Ended, Some(Status::Cancelled)));
    assert!(explained.tasks.iter().all(|task| task.status.is_some()));
    let text = serde_json::to_string(&explained).expect("JSON");
    assert_eq!(serde_json::from_str::<crate::Explanation>(&text).expect("one"), explained);
}
