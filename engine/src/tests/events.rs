//! The order of events, whatever order reports come in (invariants 3 and 6).

use serde_json::json;

use super::sim::*;
use crate::event::{Event, Kind};
use crate::report::{Ending, Outcome, Report, StepEnd};
use crate::usage::ResourceUsage;
use crate::{AttemptId, Work};

/// `seq` rises, `runSeq` has no gap, Output takes as many numbers as it has lines; starts come before
/// lines before ends before the task's end; `run-end` is last and once.
pub(super) fn check_order(events: &[Event]) {
    use std::collections::BTreeMap;
    let mut next = 1;
    let mut last_seq = 0;
    let mut steps: BTreeMap<(String, u32, u32, String, bool), u8> = BTreeMap::new();
    let mut tasks: BTreeMap<(String, u32), u8> = BTreeMap::new();
    let mut ended = false;
    for event in events {
        assert!(!ended, "nothing follows run-end: {event:?}");
        assert_eq!(event.run_seq, Some(next), "runSeq has no gap");
        assert!(event.seq > last_seq, "seq rises");
        let numbers = event.output.as_ref().map_or(1, |output| u64::from(output.lines));
        next += numbers;
        last_seq = event.seq + numbers - 1;
        let task_run = event.task_run.clone().unwrap_or_default();
        let attempt = (task_run.clone(), event.attempt.unwrap_or(0));
        let sidecar =
            matches!(event.kind, Kind::SidecarStart | Kind::SidecarLog | Kind::SidecarEnd);
        let placement = event.placement.unwrap_or(0);
        let name = event.step.clone().unwrap_or_default();
        let container = (task_run, attempt.1, placement, name, sidecar);
        if event.step.is_some() {
            assert_eq!(tasks.get(&attempt), Some(&1), "inside its task: {event:?}");
        }
        match event.kind {
            Kind::TaskStart => assert_eq!(tasks.insert(attempt, 1), None),
            Kind::TaskRetry | Kind::TaskEnd => assert_eq!(tasks.insert(attempt, 2), Some(1)),
            Kind::StepStart | Kind::SidecarStart => {
                assert_eq!(steps.insert(container, 1), None);
            }
            Kind::StepLog | Kind::SidecarLog => assert_eq!(steps.get(&container), Some(&1)),
            Kind::StepEnd | Kind::SidecarEnd => {
                assert!(event.exit_code.is_some() && event.duration_ms.is_some());
                assert_ne!(steps.insert(container, 2), Some(2), "one end: {event:?}");
            }
            Kind::RunEnd => ended = true,
            _ => {}
        }
    }
    assert!(steps.values().all(|state| *state == 2), "every step has an end");
    assert!(tasks.values().all(|state| *state == 2), "every task has an end");
}

fn simple() -> (Sim, AttemptId) {
    let mut sim = Sim::new(task_run(json!({"taskSpec": {
        "steps": [
            {"name": "one", "image": "busybox", "script": "echo"},
            {"name": "two", "image": "busybox", "script": "echo"},
        ],
        "sidecars": [{"name": "db", "image": "busybox"}],
    }})));
    let works = sim.engine.pending_work();
    let [Work::Place { attempt, .. }] = &works[..] else {
        panic!("{works:?}");
    };
    let attempt = attempt.clone();
    sim.apply(crate::Command::Place {
        time: sim.now,
        attempt: attempt.clone(),
        agent: "local".to_owned(),
    });
    (sim, attempt)
}

fn output(sim: &Sim, container: &str, sidecar: bool, lines: u32) -> Report {
    Report::Output {
        time: sim.now,
        container: container.to_owned(),
        sidecar,
        lines,
        chunk: vec![1, 2, 3],
    }
}

fn ended(step: &str) -> StepEnd {
    StepEnd { step: step.to_owned(), ..StepEnd::default() }
}

#[test]
fn lines_take_numbers_and_late_ones_change_nothing() {
    let (mut sim, attempt) = simple();
    let time = sim.now;
    // No Started, no StepStarted: both are told all the same, and first.
    let report = output(&sim, "one", false, 5);
    sim.report(&attempt, report);
    assert_eq!(
        sim.events.iter().map(short).collect::<Vec<_>>(),
        ["run-start tr", "task-start tr", "step-start tr one", "step-log tr one"]
    );
    sim.step_ended(&attempt, ended("one"));
    assert_eq!(sim.events[4].run_seq, Some(4 + 5));
    let before = sim.events.len();
    for report in [
        output(&sim, "one", false, 1),
        output(&sim, "nobody", false, 1),
        Report::StepStarted { time, step: "one".into() },
        Report::StepEnded { time, end: ended("one") },
        Report::Started { time },
    ] {
        sim.report(&attempt, report);
    }
    assert_eq!(sim.events.len(), before);
    let report = output(&sim, "db", true, 2);
    sim.report(&attempt, report);
    sim.end(&attempt, Outcome::Ran);
    let told: Vec<String> = sim.events[before..].iter().map(short).collect();
    assert_eq!(
        told,
        [
            "sidecar-start tr db",
            "sidecar-log tr db",
            "step-end tr two not-run",
            "sidecar-end tr db succeeded",
            "task-end tr failed",
            "run-end tr failed"
        ]
    );
    check_order(&sim.events);
    let after = sim.events.len();
    sim.end(&attempt, Outcome::Ran);
    let report = output(&sim, "two", false, 1);
    sim.report(&attempt, report);
    assert_eq!(sim.events.len(), after, "nothing follows run-end");
}

#[test]
fn a_lost_placement_is_told_and_its_reports_count_no_more() {
    let (mut sim, first) = simple();
    let time = sim.now;
    sim.report(&first, Report::StepStarted { time, step: "one".into() });
    let (reason, message) = ("infra/daemon".to_owned(), "gone".to_owned());
    sim.end(&first, Outcome::Infra { reason, message });
    let second = AttemptId { placement: 2, ..first.clone() };
    assert!(sim.engine.pod(&first).is_none() && sim.engine.pod(&second).is_some());
    let before = sim.events.len();
    sim.step_ended(&first, ended("one"));
    sim.end(&first, Outcome::Ran);
    assert_eq!(sim.events.len(), before);
    let outcome = sim.finish();
    assert_eq!(outcome.status, crate::event::Status::Succeeded);
    check_order(&sim.events);
    let told: Vec<String> = sim.events.iter().map(short).collect();
    assert_eq!(
        told[3..6],
        ["step-end tr one infrafailed", "step-end tr two not-run", "task-lost tr"]
    );
}

#[test]
fn work_is_pending_until_it_is_confirmed() {
    let (mut sim, attempt) = simple();
    for _ in 0..2 {
        assert!(matches!(sim.engine.pending_work()[..], [Work::Start { .. }]));
    }
    let time = sim.now;
    sim.report(&attempt, Report::Started { time });
    assert!(sim.engine.pending_work().is_empty());
    sim.cancel(crate::command::CancelMode::Cancelled);
    for _ in 0..2 {
        assert!(matches!(sim.engine.pending_work()[..], [Work::Stop { .. }]));
    }
    let mut end = ended("one");
    end.ending = Ending::Cancelled;
    sim.step_ended(&attempt, end);
    sim.end(&attempt, Outcome::Stopped);
    let works = sim.engine.pending_work();
    let [Work::EndRun { agents, .. }] = &works[..] else {
        panic!("{works:?}");
    };
    assert!(agents.contains("local"));
    assert!(sim.engine.remove(sim.run) && sim.engine.pending_work().is_empty());
}

#[test]
fn every_event_names_its_trace_and_its_agent() {
    let (mut sim, _) = simple();
    sim.finish();
    let trace = sim.run.trace_id();
    for event in &sim.events {
        assert_eq!(event.trace_id.as_ref(), Some(&trace));
        assert_eq!(event.span_id.as_ref().map(String::len), Some(16));
        if event.attempt.is_some() {
            assert_eq!(event.agent.as_deref(), Some("local"));
            assert_eq!((event.attempt, event.placement), (Some(1), Some(1)));
        }
    }
}

#[test]
fn a_run_goes_on_with_the_trace_of_whoever_submitted_it() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut submission = pipeline(json!({"tasks": [task("build", &[], json!({}))]}));
    let traceparent = format!("00-{trace}-b7ad6b7169203331-00");
    crate::trace::continue_trace(&mut submission.run, &traceparent);
    let mut sim = Sim::new(submission);
    sim.finish();
    let its_own = sim.run.span_id();
    for event in &sim.events {
        assert_eq!(event.trace_id.as_deref(), Some(trace));
        assert_eq!(event.trace_flags.as_deref(), Some("00"));
        let of_run = matches!(event.kind, Kind::RunStart | Kind::RunEnd);
        assert_eq!(event.parent_span_id.as_deref(), of_run.then_some("b7ad6b7169203331"));
        assert_eq!(event.span_id.as_deref() == Some(&*its_own), of_run);
    }
}

#[test]
fn a_thousand_tasks_are_cheap() {
    let tasks: Vec<_> = (0..1000)
        .map(|i| {
            let after: Vec<String> = [i - 1, i / 2]
                .into_iter()
                .filter(|j| *j >= 0 && *j < i)
                .map(|j| format!("t{j}"))
                .collect();
            task(&format!("t{i}"), &[], json!({"runAfter": after}))
        })
        .collect();
    let mut sim = Sim::new(pipeline(json!({"tasks": tasks})));
    assert_eq!(sim.finish().status, crate::event::Status::Succeeded);
    check_order(&sim.events);
}

#[test]
fn an_end_without_a_beginning_is_told_in_order() {
    let (mut sim, attempt) = simple();
    sim.end(&attempt, Outcome::Ran);
    let told: Vec<String> = sim.events.iter().map(short).collect();
    assert_eq!(
        told,
        [
            "run-start tr",
            "task-start tr",
            "step-end tr one not-run",
            "step-end tr two not-run",
            "task-end tr failed",
            "run-end tr failed"
        ]
    );
    check_order(&sim.events);
}

/// The lines of a run, byte for byte: they are stored, so that whoever reads old ones depends on them.
#[test]
fn the_lines_of_a_run_never_change() {
    let mut sim = Sim::new(pipeline(json!({"tasks": [
        task("build", &["r"], json!({"matrix": {"params": [{"name": "m", "value": ["x", "y"]}]}})),
        task("skip", &[], json!({"when": [{"input": "a", "operator": "in", "values": ["b"]}]})),
    ]})))
    .does("build-0", &[Does::Succeeds(writes(&[("r", "v")]))])
    .does("build-1", &[fails()]);
    sim.finish();
    let lines: Vec<String> = sim
        .events
        .iter()
        .map(|event| serde_json::to_string(event).expect("JSON").replace(&sim.run.trace_id(), "T"))
        .collect();
    let run = r#""runId":"00000000000000000000000007","namespace":"default","pipeline":"pr","pipelineRun":"pr""#;
    let time = "2023-11-14T22:13:20.000Z";
    let line = |kind: &str, seq: u32, rest: &str| {
        format!(r#"{{"kind":"{kind}","time":"{time}","seq":{seq},"runSeq":{seq},{run}{rest}}}"#)
    };
    let first = r#","task":"build","taskRun":"pr-build-0","attempt":1,"placement":1"#;
    let second = r#","task":"build","taskRun":"pr-build-1","attempt":1,"placement":1"#;
    let cell = |index: u32, value: &str| {
        format!(
            r#","matrix":{{"parent":"build","index":{index},"of":2,"params":{{"m":"{value}"}}}}"#
        )
    };
    let spans: Vec<&str> =
        sim.events.iter().map(|event| event.span_id.as_deref().unwrap_or_default()).collect();
    let of = |seq: usize| format!(r#","traceId":"T","spanId":"{}""#, spans[seq - 1]);
    let agent = r#","agent":"local""#;
    let expected = [
        line("run-start", 1, &of(1)),
        line(
            "task-skip",
            2,
            r#","task":"skip","status":"skipped","reason":"When Expressions evaluated to false","traceId":"T""#,
        ),
        line("task-start", 3, &format!("{first}{}{agent}{}", cell(0, "x"), of(3))),
        line("step-start", 4, &format!(r#"{first},"step":"s"{agent}{}"#, of(4))),
        line(
            "step-end",
            5,
            &format!(
                r#"{first},"step":"s","status":"succeeded","reason":"Completed","exitCode":0,"durationMs":0{agent}{}"#,
                of(5)
            ),
        ),
        line(
            "task-end",
            6,
            &format!(
                r#"{first}{},"status":"succeeded","reason":"Succeeded","message":"All Steps have completed executing","durationMs":0,"taskDurationMs":0,"results":{{"r":"v"}}{agent}{}"#,
                cell(0, "x"),
                of(6)
            ),
        ),
        line("task-start", 7, &format!("{second}{}{agent}{}", cell(1, "y"), of(7))),
        line("step-start", 8, &format!(r#"{second},"step":"s"{agent}{}"#, of(8))),
        line(
            "step-end",
            9,
            &format!(
                r#"{second},"step":"s","status":"failed","reason":"Error","exitCode":1,"durationMs":0{agent}{}"#,
                of(9)
            ),
        ),
        line(
            "task-end",
            10,
            &format!(
                r#"{second}{},"status":"failed","reason":"StepFailed","message":"\"step-s\" exited with code 1: Error","durationMs":0,"taskDurationMs":0{agent}{}"#,
                cell(1, "y"),
                of(10)
            ),
        ),
        line(
            "run-end",
            11,
            &format!(
                r#","status":"failed","reason":"Failed","message":"Tasks Completed: 1 (Failed: 1, Cancelled 0), Skipped: 1","durationMs":0{}"#,
                of(11)
            ),
        ),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
}

#[test]
fn what_steps_have_used_is_summed_for_their_task() {
    let (mut sim, attempt) = simple();
    let usage = |cpu, memory| ResourceUsage {
        cpu_micros: Some(cpu),
        memory_peak_bytes: Some(memory),
        ..ResourceUsage::default()
    };
    sim.step_ended(&attempt, StepEnd { usage: Some(usage(2_000_000, 700)), ..ended("one") });
    // More than any machine has: a counter that went wrong.
    let wrong = ResourceUsage { io_read_bytes: Some(u64::MAX), ..usage(500_000, 300) };
    sim.step_ended(&attempt, StepEnd { usage: Some(wrong), ..ended("two") });
    sim.end(&attempt, Outcome::Ran);
    let told = |kind| {
        let of_kind = sim.events.iter().filter(move |event| event.kind == kind);
        of_kind.map(|event| event.usage).collect::<Vec<_>>()
    };
    let steps = [Some(usage(2_000_000, 700)), Some(usage(500_000, 300))];
    assert_eq!(told(Kind::StepEnd), steps);
    assert_eq!(told(Kind::TaskEnd), [Some(usage(2_500_000, 700))]);
}
