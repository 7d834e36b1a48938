//! How many task completions a second the engine takes, everything included but the network and the
//! disk: five commands for each task (placed, started, step started, step ended, ended), duties looked
//! up for changed runs only, as a leader does.
//!
//! `cargo run --release -p tenon-engine --example engine_throughput`

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::json;
use tenon_engine::command::RunObject;
use tenon_engine::report::{Outcome, Report, StepEnd};
use tenon_engine::{Command, Engine, RunId, Submission, Time, Work};

const START: Time = Time(1_700_000_000_000);

fn submission(number: usize, tasks: usize) -> Submission {
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let after: Vec<String> = match task % 10 {
                0 => Vec::new(),
                _ => vec![format!("t{}", task - 1)],
            };
            json!({
                "name": format!("t{task}"),
                "runAfter": after,
                "params": [{"name": "who", "value": "$(params.who)"}],
                "taskSpec": {
                    "params": [{"name": "who", "type": "string"}],
                    "steps": [{"name": "s", "image": "busybox", "script": "echo $(params.who)"}],
                },
            })
        })
        .collect();
    let object = json!({
        "metadata": {"name": format!("run-{number}"), "namespace": "default"},
        "spec": {
            "params": [{"name": "who", "value": "world"}],
            "pipelineSpec": {"params": [{"name": "who", "type": "string"}], "tasks": tasks},
        },
    });
    let object = serde_json::from_value(object).expect("a PipelineRun");
    Submission {
        run_id: RunId(ulid::Ulid(number as u128 + 1)),
        run: RunObject::PipelineRun(Box::new(object)),
        tasks: Default::default(),
        pipelines: Default::default(),
        step_actions: Default::default(),
        service_accounts: Default::default(),
        flags: Default::default(),
        parallel: None,
        rerun: None,
        can_be_released: false,
    }
}

/// How long this thread had a processor: what other programs take does not count. The wall clock
/// where the system does not say.
fn busy(began: Instant) -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| began.elapsed(), Duration::from_nanos)
}

fn scenario(runs: usize, tasks: usize) {
    let submissions: Vec<_> = (0..runs).map(|run| submission(run, tasks)).collect();
    let mut engine = Engine::new();
    let begin = Instant::now();
    for submission in submissions {
        engine.apply(Command::Submit { time: START, submission: Box::new(submission) });
    }
    let submitted = begin.elapsed();
    let mut turns: VecDeque<(RunId, Vec<Work>)> = VecDeque::new();
    for run in engine.take_changed() {
        turns.push_back((run, engine.pending_work_of(run)));
    }
    let began = Instant::now();
    let begin = busy(began);
    let (mut completions, mut events, mut exports, mut exported) = (0_usize, 0, 0_usize, 0);
    let mut in_exports = Duration::ZERO;
    let mut time = START;
    while let Some((run, work)) = turns.pop_front() {
        match work.into_iter().next() {
            Some(Work::Place { attempt, .. }) => {
                time = time.plus_millis(1);
                let agent = format!("agent-{}", completions % 50);
                let step = "s".to_owned();
                let report =
                    |report: Report| Command::Report { time, attempt: attempt.clone(), report };
                let end = StepEnd { step: step.clone(), ..StepEnd::default() };
                for command in [
                    Command::Place { time, attempt: attempt.clone(), agent },
                    report(Report::Started { time }),
                    report(Report::StepStarted { time, step }),
                    report(Report::StepEnded { time, end }),
                    report(Report::Ended { time, outcome: Outcome::Ran, workspaces: Vec::new() }),
                ] {
                    events += engine.apply(command).len();
                }
                completions += 1;
            }
            Some(Work::EndRun { run, .. }) => {
                engine.remove(run);
                continue;
            }
            other => panic!("nothing else is to be done: {other:?}"),
        }
        if completions.is_multiple_of(997) {
            let begin = busy(began);
            exported += engine.export(run).map_or(0, |bytes| bytes.len());
            exports += 1;
            in_exports += busy(began) - begin;
        }
        for run in engine.take_changed() {
            turns.push_back((run, engine.pending_work_of(run)));
        }
    }
    let took = busy(began) - begin - in_exports;
    assert_eq!((completions, engine.runs().count()), (runs * tasks, 0));
    let rate = completions as f64 / took.as_secs_f64();
    println!(
        "{runs} runs x {tasks} tasks: submitted in {submitted:.2?}; {completions} completions, \
         {events} events in {took:.2?} of processor time: {rate:.0} completions/s; \
         an export takes {:.2?} and {} bytes",
        in_exports / u32::try_from(exports.max(1)).expect("few"),
        exported / exports.max(1),
    );
}

fn main() {
    let only = std::env::args().nth(1);
    for (runs, tasks) in [(100, 100), (10_000, 1), (10, 1_000)] {
        if only.as_ref().is_none_or(|only| *only == tasks.to_string()) {
            scenario(runs, tasks);
        }
    }
}
