//! Measures planning: 10,000 agents, 100,000 attempts that wait, a wave of 1,000 placements.
//!
//! `cargo xtask bench planning` builds and runs it. It prints one JSON object a line for each figure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tenon_engine::plan::{Agent, Board, Packing, Placement, Waiting};
use tenon_engine::work::{Requirements, Usage};
use tenon_engine::{AttemptId, RunId, Time};

const AGENTS: u64 = 10_000;
const WAITING: u64 = 100_000;
const WAVE: usize = 1_000;
const ROUNDS: usize = 11;
const NOW: Time = Time(1_700_000_000_000);

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn main() {
    let mut random = Random(7);
    let began = Instant::now();
    let mut board = Board::new(Packing::Spread);
    for index in 0..AGENTS {
        board.set_agent(agent(index, &mut random));
    }
    for index in 0..WAITING {
        board.wait(waiting(index, &mut random));
    }
    figure("planning: everything put on the board", millis(began), "ms", None);

    // A new leader's first wave makes the lists that later ones find.
    let mut first = board.clone();
    let took = wave(&mut first, WAVE);
    figure("planning: the first wave of a new leader, 1,000 placements", took, "ms", None);
    let mut waves: Vec<f64> = (0..ROUNDS).map(|_| wave(&mut first, WAVE)).collect();
    let goal = Some(50.0);
    figure(
        "planning: 10,000 agents × 100,000 queued, 1,000 placements",
        median(&mut waves),
        "ms",
        goal,
    );

    // All that has room is placed; from now on a slot gets free here and there.
    loop {
        let placements = first.wave(NOW, WAVE);
        if placements.is_empty() {
            break;
        }
        apply(&mut first, &placements);
    }
    let mut singles = Vec::new();
    let mut placed = 0;
    for round in 0..100 {
        let name = name(round * 97 % AGENTS);
        let used = first.agent(&name).map(|agent| agent.used).unwrap_or_default();
        let less = Usage { attempts: 1, cpu_millis: 2_000, memory_bytes: 4 << 30 };
        let began = Instant::now();
        first.set_used(&name, used.minus(less));
        let placements = first.wave(NOW, WAVE);
        singles.push(millis(began));
        placed += placements.len();
        apply(&mut first, &placements);
    }
    assert!(placed > 0, "what gets free is used");
    figure("planning: one slot gets free in a full fleet", median(&mut singles), "ms", None);

    let some: Vec<AttemptId> = first.waiting().take(100).cloned().collect();
    let began = Instant::now();
    let explained = first.explain(&some).len();
    assert_eq!(explained, some.len());
    figure("planning: why 100 attempts wait", millis(began), "ms", None);
}

/// How long a wave took, in milliseconds; it places as many as it may.
fn wave(board: &mut Board, limit: usize) -> f64 {
    let began = Instant::now();
    let placements = board.wave(NOW, limit);
    let took = millis(began);
    assert_eq!(placements.len(), limit, "there is room for more");
    apply(board, &placements);
    took
}

/// What a leader does when the placements are agreed on.
fn apply(board: &mut Board, placements: &[Placement]) {
    for Placement { attempt, agent } in placements {
        let used = board.agent(agent).map(|agent| agent.used).unwrap_or_default();
        board.settle(attempt);
        board.set_used(agent, used);
    }
}

fn name(index: u64) -> String {
    format!("agent-{index:05}")
}

/// Eight slots, 16 CPUs, 64 GiB, a third of it in use; 20 of 200 images; one in twenty has a GPU.
fn agent(index: u64, random: &mut Random) -> Agent {
    let name = name(index);
    let mut labels = vec![
        ("kubernetes.io/hostname", name.clone()),
        ("zone", format!("z{}", index % 10)),
        ("kubernetes.io/arch", if index.is_multiple_of(4) { "arm64" } else { "amd64" }.to_owned()),
    ];
    if index.is_multiple_of(20) {
        labels.push(("gpu", "true".to_owned()));
    }
    let attempts = random.below(6);
    let used = Usage {
        attempts: u32::try_from(attempts).unwrap_or(0),
        cpu_millis: attempts * 2_000,
        memory_bytes: attempts << 32,
    };
    Agent {
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        slots: 8,
        cpu_millis: 16_000,
        memory_bytes: 64 << 30,
        used,
        images: (0..20).map(|_| format!("registry.example/image-{}", random.below(200))).collect(),
        name,
        ..Agent::default()
    }
}

/// Of 50 namespaces and 200 tasks: each has its image, its size, and one in five a selector. One in
/// ten goes to the agent where its volume is.
fn waiting(index: u64, random: &mut Random) -> Waiting {
    let task = random.below(200);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let selector = match task % 20 {
        0 => Some(label("gpu", "true")),
        1 | 2 => Some(label("zone", "z3")),
        3 => Some(label("kubernetes.io/arch", "arm64")),
        _ => None,
    };
    let home = (random.below(10) == 0).then(|| name(random.below(AGENTS)));
    let requirements = Requirements {
        namespace: format!("team-{}", random.below(50)),
        node_selector: selector.into_iter().collect(),
        images: BTreeSet::from([format!("registry.example/image-{task}")]),
        claims: home.iter().map(|_| "work".to_owned()).collect(),
        home,
        cpu_millis: [0, 500, 1_000, 2_000, 4_000][usize::try_from(task % 5).unwrap_or(0)],
        memory_bytes: (task % 7) << 30,
        priority: if task.is_multiple_of(10) { 80 } else { 50 },
        ..Requirements::default()
    };
    let run = RunId(ulid::Ulid(u128::from(index)));
    let attempt =
        AttemptId { run, task_run: format!("run-{index}-build"), attempt: 1, placement: 1 };
    let since = NOW.plus_millis(-i64::try_from(random.below(600_000)).unwrap_or(0));
    Waiting { attempt, since, requirements: Arc::new(requirements) }
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figure(name: &str, value: f64, unit: &str, at_most: Option<f64>) {
    let goal = if at_most.is_some() { "atMost" } else { "none" };
    let rival: Option<f64> = None;
    println!(
        "{}",
        json!({"name": name, "value": value, "unit": unit, "rival": rival, "goal": goal,
               "limit": at_most})
    );
}
