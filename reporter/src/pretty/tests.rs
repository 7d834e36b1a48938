//! Golden tests: a whole run, plain and live.

use std::collections::BTreeMap;

use tenon_engine::Time;
use tenon_engine::event::{Event, Kind, MatrixCell, Status};
use tenon_journal::output::Stream::{Stderr, Stdout};

use super::{Options, Pretty, Size, Style};
use crate::fixture::{chunk, event};

const SIZE: Size = Size { columns: 80, rows: 24 };

fn at(seq: u64, kind: Kind, change: impl FnOnce(&mut Event)) -> Event {
    let mut event = event(kind, seq);
    change(&mut event);
    event
}

fn story() -> Vec<Event> {
    let linux = MatrixCell {
        parent: "build".into(),
        index: 0,
        of: 2,
        params: BTreeMap::from([("os".into(), "linux".into()), ("v".into(), "1".into())]),
    };
    let build = |event: &mut Event| {
        event.task = Some("build".into());
        event.task_run = Some("p-run-build-0".into());
    };
    let run = |event: &mut Event| {
        event.task = None;
        event.task_run = None;
        event.attempt = None;
    };
    vec![
        at(1, Kind::RunStart, run),
        at(2, Kind::TaskStart, |e| {
            build(e);
            e.matrix = Some(linux.clone());
        }),
        at(3, Kind::TaskStart, |_| ()),
        at(4, Kind::StepStart, |e| {
            build(e);
            e.step = Some("compile".into());
        }),
        at(5, Kind::StepLog, |e| {
            build(e);
            e.step = Some("compile".into());
            let lines = [(0, Stdout, false, "hello"), (1, Stderr, false, "\x1b[2Jwörld")];
            e.output = Some(chunk(&lines));
        }),
        at(7, Kind::StepEnd, |e| {
            build(e);
            e.step = Some("compile".into());
            e.status = Some(Status::Failed);
            e.exit_code = Some(7);
        }),
        at(8, Kind::TaskRetry, |e| {
            build(e);
            e.matrix = Some(linux.clone());
            e.reason = Some("StepFailed".into());
        }),
        at(9, Kind::TaskStart, |e| {
            build(e);
            e.matrix = Some(linux.clone());
            e.attempt = Some(2);
        }),
        at(10, Kind::TaskEnd, |e| {
            build(e);
            e.matrix = Some(linux.clone());
            e.attempt = Some(2);
            e.status = Some(Status::Failed);
            e.reason = Some("Failed".into());
            e.message = Some("\"step-compile\" exited with code 7".into());
            e.duration_ms = Some(3100);
        }),
        at(11, Kind::TaskEnd, |e| {
            e.status = Some(Status::Succeeded);
            e.duration_ms = Some(8000);
        }),
        at(12, Kind::TaskSkip, |e| {
            e.task = Some("deploy".into());
            e.task_run = None;
            e.attempt = None;
            e.status = Some(Status::Skipped);
            e.reason = Some("When Expressions evaluated to false".into());
        }),
        at(13, Kind::RunEnd, |e| {
            run(e);
            e.status = Some(Status::Failed);
            e.reason = Some("Failed".into());
            e.message = Some("Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 1".into());
            e.duration_ms = Some(12_000);
            e.results = Some(BTreeMap::from([("digest".into(), "sha256:1".into())]));
        }),
    ]
}

fn pretty(color: bool, live: bool) -> Pretty {
    Pretty::new(Options {
        style: Style::new(color),
        live,
        quiet: false,
        logs_only: false,
        refusals_told: false,
    })
}

fn show(pretty: &mut Pretty, events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        let chunk = event.output.as_ref().map_or(&[][..], |output| &output.chunk);
        pretty.event(event, chunk, true, SIZE).unwrap();
        pretty.frame(event.time, SIZE, &mut out);
    }
    out
}

#[test]
fn a_run_without_a_terminal() {
    let want = "\
p-run (p)  run 01HF7YAT00000000000000000A
[build(os=linux,v=1)] started
[t] started
[build(os=linux,v=1) : compile] hello
[build(os=linux,v=1) : compile] wörld
[build(os=linux,v=1) : compile] ✗ exit code 7
[build(os=linux,v=1)] ↻ attempt 1 failed (StepFailed), trying again
[build(os=linux,v=1)] started, attempt 2
[build(os=linux,v=1)] ✗ failed in 3.1s: Failed: \"step-compile\" exited with code 7
[t] ✓ succeeded in 8.0s
[deploy] ○ skipped: When Expressions evaluated to false

build(os=linux,v=1) : compile ended with exit code 7, last 2 lines:
  hello
  wörld

  TASK                STATUS        DURATION ATTEMPTS  REASON
  build(os=linux,v=1) ✗ failed          8.0s        2  Failed
  t                   ✓ succeeded       8.0s        1
  deploy              ○ skipped            -        -  When Expressions evaluat…

  digest = sha256:1

✗ p-run failed in 12.0s: Failed: Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 1
";
    assert_eq!(show(&mut pretty(false, false), &story()), want);
}

#[test]
fn a_run_that_goes_on_is_summed_up_so_far() {
    let mut pretty = pretty(false, false);
    pretty.options.quiet = true;
    let mut out = show(&mut pretty, &story()[..4]);
    pretty.close(SIZE, &mut out);
    let want = "
  TASK                STATUS        DURATION ATTEMPTS  REASON
  build(os=linux,v=1) ▸ running                     1  step compile
  t                   ▸ running                     1

";
    assert_eq!(out, want);
}

#[test]
fn a_task_of_which_no_step_failed_says_why() {
    let mut events = story();
    events.truncate(3);
    events.push(at(4, Kind::TaskEnd, |e| {
        e.status = Some(Status::Failed);
        e.reason = Some("TaskRunImagePullFailed".into());
        e.message = Some("failed to pull image \"nosuch\"".into());
    }));
    events.extend(story().pop());
    let out = show(&mut pretty(false, false), &events);
    assert!(out.contains("\nt failed:\n  failed to pull image \"nosuch\"\n\n"), "{out}");
}

#[test]
fn the_block_says_what_runs_and_goes_away() {
    let mut pretty = pretty(false, true);
    let events = story();
    show(&mut pretty, &events[..4]);
    pretty.progress("p-run-t", "pulling busybox:1.36", 12_000_000, 30_000_000);
    let mut out = String::new();
    pretty.frame(Time(1_700_000_006_500), SIZE, &mut out);
    let plain = out.replace("\x1b[K", "").replace("\x1b[?2026h", "").replace("\x1b[?2026l", "");
    assert_eq!(
        plain,
        "\r\x1b[3A⠴ p-run 5.5s · 2 running · 0 done\n  \
         build(os=linux,v=1)  compile  2.5s\n  \
         t                    pulling busybox:1.36 40% of 30.0 MB  3.5s\n"
    );
    let rest = show(&mut pretty, &events[4..]);
    assert!(rest.ends_with("Skipped: 1\n\x1b[?2026l"), "the last thing written is the summary");
}

#[test]
fn every_row_fits_the_terminal() {
    for columns in [20, 40, 80, 200] {
        let size = Size { columns, rows: 10 };
        let mut pretty = pretty(false, true);
        let mut out = String::new();
        for event in &story()[..4] {
            pretty.event(event, &[], true, size).unwrap();
        }
        pretty.pending.clear();
        pretty.frame(Time(1_700_000_006_500), size, &mut out);
        for line in out.replace("\x1b[?2026h", "").lines() {
            let line = line.split("\x1b[K").next().unwrap_or_default();
            assert!(super::width(line) < columns, "{line:?} in {columns}");
        }
    }
}
