//! Random pipelines, random agents, random cancels: invariants 2, 3, 5 and 6 hold whatever happens.
//!
//! `SEED=n cargo test -p tenon-engine random` repeats one schedule exactly.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::events::check_order;
use super::sim::*;
use crate::command::{CancelMode, RunObject};
use crate::event::Kind;
use crate::report::{Ending, Outcome, Report, StepEnd};
use crate::rerun::{KEPT, Rerun};
use crate::{AttemptId, Command, Engine, Event, RunId, Submission, Time, Work};

/// SplitMix64: enough for tests, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn random_task(random: &mut Random, index: u64, earlier: u64, finals: bool) -> Value {
    let mut more = json!({});
    if earlier > 0 && random.one_in(2) && !finals {
        more["runAfter"] = json!([format!("t{}", random.below(earlier))]);
    }
    if earlier > 0 && random.one_in(3) {
        let from = random.below(earlier);
        more["params"] = json!([{"name": "p", "value": format!("$(tasks.t{from}.results.r)")}]);
    } else if random.one_in(5) {
        let values: Vec<String> = (0..random.below(4)).map(|i| format!("{i}")).collect();
        more["matrix"] = json!({"params": [{"name": "m", "value": values}]});
    }
    if random.one_in(6) {
        more["when"] = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
    }
    if random.one_in(4) {
        more["onError"] = json!("continue");
    }
    if random.one_in(4) {
        more["retries"] = json!(random.below(3));
    }
    if random.one_in(8) {
        more["timeout"] = json!(format!("{}s", 1 + random.below(5)));
    }
    let name = if finals { format!("f{index}") } else { format!("t{index}") };
    task(&name, &["r"], more)
}

fn random_submission(random: &mut Random) -> Submission {
    let count = 1 + random.below(8);
    let mut tasks: Vec<Value> = Vec::new();
    for index in 0..count {
        // Results of a fan-out may be used as a whole only: such a reference would be refused.
        let mut next = random_task(random, index, index, false);
        let text = next["params"].to_string();
        let matrixed = tasks.iter().filter(|task| task.get("matrix").is_some());
        let of_matrix = matrixed
            .filter_map(|task| task["name"].as_str())
            .any(|name| text.contains(&format!(".{name}.")));
        if of_matrix {
            next["params"] = json!([{"name": "p", "value": "v"}]);
        }
        tasks.push(next);
    }
    let finals: Vec<Value> =
        (0..random.below(3)).map(|index| random_task(random, index, 0, true)).collect();
    let mut spec = json!({"pipelineSpec": {"tasks": tasks, "finally": finals}});
    if random.one_in(3) {
        spec["timeouts"] = json!({"pipeline": "30s", "tasks": "12s"});
    }
    let mut submission = pipeline_run(spec);
    if random.one_in(3) {
        submission.parallel = Some(1 + u32::try_from(random.below(3)).expect("small"));
    }
    submission
}

/// What an agent still has to say about an attempt.
fn reports(random: &mut Random, time: Time, steps: &[String]) -> Vec<Report> {
    let mut all = vec![Report::Started { time }];
    if random.one_in(12) {
        let (reason, message) = ("infra/random".to_owned(), "lost".to_owned());
        all.push(Report::Ended {
            time,
            outcome: Outcome::Infra { reason, message },
            workspaces: Vec::new(),
        });
        return all;
    }
    if random.one_in(15) {
        let (reason, message) = ("PullImageFailed".to_owned(), "no".to_owned());
        all.push(Report::Ended {
            time,
            outcome: Outcome::Refused { reason, message },
            workspaces: Vec::new(),
        });
        return all;
    }
    for step in steps {
        let fails = random.one_in(5);
        all.push(Report::StepStarted { time, step: step.clone() });
        let lines = 1 + u32::try_from(random.below(3)).expect("small");
        let container = step.clone();
        all.push(Report::Output { time, container, sidecar: false, lines, chunk: vec![0] });
        let mut end = StepEnd { step: step.clone(), ..StepEnd::default() };
        if fails {
            (end.exit_code, end.ending) = (1, Ending::Error);
        } else if !random.one_in(6) {
            end.task_results.insert("r".to_owned(), "v".to_owned());
        }
        if !random.one_in(20) {
            all.push(Report::StepEnded { time, end });
        }
    }
    all.push(Report::Ended { time, outcome: Outcome::Ran, workspaces: Vec::new() });
    all
}

/// The command as it is read back from a log; a chunk is stored beside the JSON.
fn stored(command: Command) -> Command {
    let json = serde_json::to_string(&command).expect("JSON");
    let mut read: Command = serde_json::from_str(&json).expect("a command");
    if let Command::Report { report: Report::Output { chunk, .. }, .. } = &mut read
        && let Command::Report { report: Report::Output { chunk: kept, .. }, .. } = command
    {
        *chunk = kept;
    }
    read
}

/// An engine, a twin that reads its commands back from a log, a third that is exported and imported
/// all the time, and somebody who follows what is pending by asking for changed runs only.
struct World {
    engine: Engine,
    twin: Engine,
    moved: Engine,
    pending: BTreeMap<RunId, Vec<Work>>,
    events: Vec<Event>,
    /// One move for so many commands.
    moves_every: usize,
    commands: usize,
}

impl World {
    fn new(moves_every: usize) -> World {
        World {
            engine: Engine::new(),
            twin: Engine::new(),
            moved: Engine::new(),
            pending: BTreeMap::new(),
            events: Vec::new(),
            moves_every,
            commands: 0,
        }
    }

    fn apply(&mut self, command: Command) {
        let told = self.engine.apply(command.clone());
        assert_eq!(told, self.twin.apply(stored(command.clone())), "two engines say the same");
        assert!(self.engine == self.twin, "two engines are the same");
        assert_eq!(told, self.moved.apply(command), "a moved engine goes on as the first");
        self.events.extend(told);
        self.commands += 1;
        if self.commands.is_multiple_of(self.moves_every) {
            let mut moved = Engine::starting_at(self.moved.next_seq());
            for run in self.moved.runs() {
                let bytes = self.moved.export(run).expect("a run");
                assert_eq!(moved.import(&bytes), Ok(run));
            }
            self.moved = moved;
        }
        assert!(self.engine == self.moved, "a moved engine is the same");
        for run in self.engine.take_changed() {
            self.pending.insert(run, self.engine.pending_work_of(run));
        }
        let all: Vec<&Work> = self.pending.values().flatten().collect();
        assert_eq!(all, self.engine.pending_work().iter().collect::<Vec<_>>());
        let mut used = BTreeMap::new();
        for (_, agent) in self.engine.placed() {
            *used.entry(agent.to_owned()).or_insert(0) += 1;
        }
        let counted = self.engine.used().iter().map(|(name, usage)| (name.clone(), usage.attempts));
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), used);
        let deadlines = self.engine.runs().filter_map(|run| self.engine.deadline_of(run));
        assert_eq!(deadlines.min(), self.engine.next_deadline());
        for run in self.engine.runs() {
            let explained = self.engine.explain(run).expect("a run");
            assert_eq!(explained.ended.is_some(), self.engine.outcome(run).is_some());
        }
    }

    fn is_over(&self) -> bool {
        self.engine.runs().all(|run| self.engine.outcome(run).is_some())
    }
}

fn run_id(number: u64) -> RunId {
    RunId(ulid::Ulid(u128::from(number) + 7))
}

/// Runs one schedule and returns its events.
fn simulate(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut world = World::new(if seed.is_multiple_of(16) { 1 } else { 37 });
    let mut now = Time(1_700_000_000_000);
    let mut submissions = BTreeMap::new();
    for number in 0..1 + random.below(2) {
        let mut submission = random_submission(&mut random);
        submission.run_id = run_id(number);
        if random.one_in(6) {
            submission.can_be_released = true;
            if let RunObject::PipelineRun(run) = &mut submission.run {
                run.spec.status = "PipelineRunPending".to_owned();
            }
        }
        submissions.insert(submission.run_id, submission.clone());
        world.apply(Command::Submit { time: now, submission: Box::new(submission) });
    }
    let mut waiting: BTreeMap<AttemptId, Vec<Report>> = BTreeMap::new();
    let mut said: Vec<(AttemptId, Report)> = Vec::new();
    for _ in 0..5_000 {
        if world.is_over() && !run_again(&mut random, &mut world, now, &mut submissions) {
            break;
        }
        now = now.plus_millis(i64::try_from(random.below(400)).expect("small"));
        // A leader whose clock is behind: it does not matter.
        let skewed = now.plus_millis(-i64::try_from(random.below(300)).expect("small"));
        for work in world.engine.pending_work() {
            if random.one_in(3) {
                continue;
            }
            match work {
                Work::Place { attempt, .. } if random.one_in(5) => {
                    let (reason, message) = ("agent/full".to_owned(), "no free slot".to_owned());
                    world.apply(Command::Defer { time: skewed, attempt, reason, message });
                }
                Work::Place { attempt, .. } => {
                    let agent = format!("agent-{}", random.below(3));
                    world.apply(Command::Place { time: skewed, attempt, agent });
                }
                Work::Start { attempt, .. } => {
                    let pod = world.engine.pod(&attempt).expect("a pod to start");
                    let steps: Vec<String> = pod.steps.iter().map(|s| s.name.clone()).collect();
                    waiting.entry(attempt).or_insert_with(|| reports(&mut random, now, &steps));
                }
                Work::Stop { attempt, .. } => {
                    let outcome = Outcome::Stopped;
                    waiting.insert(
                        attempt,
                        vec![Report::Ended { time: now, outcome, workspaces: Vec::new() }],
                    );
                }
                Work::EndRun { .. } => {}
            }
        }
        let attempts: Vec<AttemptId> = waiting.keys().cloned().collect();
        for attempt in attempts {
            let Some(all) = waiting.get_mut(&attempt) else {
                continue;
            };
            if all.is_empty() || random.one_in(2) {
                continue;
            }
            let report = all.remove(0);
            said.push((attempt.clone(), report.clone()));
            world.apply(Command::Report { time: skewed, attempt, report });
        }
        if !said.is_empty() && random.one_in(3) {
            let index = usize::try_from(random.below(said.len() as u64)).expect("small");
            let (attempt, report) = said[index].clone();
            // Said twice, or of an old placement: at worst it is the same end again.
            if !matches!(report, Report::Ended { .. }) {
                world.apply(Command::Report { time: now, attempt, report });
            }
        }
        let run = run_id(random.below(3));
        if random.one_in(60) {
            let mode = match random.below(3) {
                0 => CancelMode::Cancelled,
                1 => CancelMode::CancelledRunFinally,
                _ => CancelMode::StoppedRunFinally,
            };
            let message = "random".to_owned();
            world.apply(Command::Cancel { time: skewed, run, mode, message });
        }
        if random.one_in(10) {
            world.apply(Command::Release { time: skewed, run });
        }
        if world.engine.next_deadline().is_some_and(|deadline| deadline <= now) {
            world.apply(Command::Tick { time: now });
            assert!(world.engine.next_deadline().is_none_or(|deadline| deadline > now));
        }
    }
    assert!(world.is_over(), "every run ends");
    assert_eq!(world.engine.placed().count(), 0);
    world.events
}

/// Sometimes runs one of the failed runs again, from its failed tasks on; once.
fn run_again(
    random: &mut Random,
    world: &mut World,
    now: Time,
    submissions: &mut BTreeMap<RunId, Submission>,
) -> bool {
    let id = run_id(2);
    if submissions.contains_key(&id) || random.one_in(2) {
        return false;
    }
    let old = &submissions[&run_id(0)];
    let Ok(rerun) = Rerun::from_failed(old, &world.engine.objects(run_id(0))) else {
        return false;
    };
    let submission = old.again(id, rerun);
    submissions.insert(id, submission.clone());
    world.apply(Command::Submit { time: now, submission: Box::new(submission) });
    true
}

#[test]
fn random_schedules_keep_the_invariants() {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = match given {
        Some(seed) => vec![seed],
        None => (0..300).collect(),
    };
    let mut kinds = BTreeMap::new();
    let mut kept = 0;
    for seed in seeds {
        println!("SEED={seed}");
        let events = simulate(seed);
        assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "seq rises");
        for number in 0..3 {
            let id = Some(run_id(number));
            let of_run: Vec<Event> = events.iter().filter(|e| e.run_id == id).cloned().collect();
            check_order(&of_run);
            assert!(of_run.is_empty() || of_run.last().map(|e| e.kind) == Some(Kind::RunEnd));
            let told = |kind: Kind| of_run.iter().filter(move |event| event.kind == kind);
            assert!(of_run.is_empty() || told(Kind::RunStart).count() == 1);
            for skip in told(Kind::TaskSkip).filter(|e| e.reason.as_deref() == Some(KEPT)) {
                kept += 1;
                assert!(told(Kind::TaskStart).all(|start| start.task != skip.task), "runs again");
            }
        }
        for event in &events {
            *kinds
                .entry(short(event).split(' ').next().unwrap_or_default().to_owned())
                .or_insert(0) += 1;
        }
    }
    println!("{kinds:?}, {kept} kept");
}
