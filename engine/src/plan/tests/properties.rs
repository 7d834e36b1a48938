//! What holds for every snapshot.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use tenon_tekton::pod::image_is_allowed;

use super::*;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const ZONES: [&str; 3] = ["x", "y", "z"];
const IMAGES: [&str; 4] = ["r/one", "r/two", "s/three", "s/four"];

const GRANTS: [&str; 3] = ["privileged", "host-path=/data", "capability=ALL"];
const DEMANDS: [&str; 3] = ["privileged", "host-path=/data/a", "capability=BPF"];

type DrawnAgent = (
    &'static str,
    u32,
    u64,
    u64,
    (u32, u64, u64),
    Vec<&'static str>,
    (Vec<String>, Vec<&'static str>),
    Option<Closed>,
);

fn agents() -> impl Strategy<Value = Vec<Agent>> {
    let closed = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Closed::Cordoned)),
        1 => Just(Some(Closed::Down)),
    ];
    let allowed = prop_oneof![4 => Just(vec![]), 1 => Just(vec!["r/*".to_owned()])];
    let one = (
        select(&ZONES[..]),
        1..5u32,
        prop_oneof![Just(0), 1_000..8_000u64],
        prop_oneof![Just(0), 1_000..8_000u64],
        (0..3u32, 0..3_000u64, 0..3_000u64),
        subsequence(&IMAGES[..], 0..4),
        (allowed, subsequence(&GRANTS[..], 0..3)),
        closed,
    );
    vec(one, 0..9).prop_map(|agents| {
        let make = |(index, drawn): (usize, DrawnAgent)| {
            let (zone, slots, cpu, memory, used, images, (allowed, grants), closed) = drawn;
            Agent {
                name: format!("agent-{index}"),
                labels: [("zone".to_owned(), str::to_owned(zone))].into(),
                slots,
                cpu_millis: cpu,
                memory_bytes: memory,
                used: Usage { attempts: used.0, cpu_millis: used.1, memory_bytes: used.2 },
                images: images.into_iter().map(str::to_owned).collect(),
                allowed_images: allowed,
                grants: grants.into_iter().map(|grant| grant.parse().unwrap()).collect(),
                closed,
                cannot_restore: index % 4 == 3,
            }
        };
        agents.into_iter().enumerate().map(make).collect()
    })
}

type Drawn = (u128, i64, DrawnRequirements);
type DrawnRequirements = (
    &'static str,
    Option<&'static str>,
    BTreeSet<&'static str>,
    Option<&'static str>,
    Option<(usize, bool)>,
    ((u64, u64), Option<&'static str>),
    u8,
);

fn attempts() -> impl Strategy<Value = Vec<Waiting>> {
    let requirements = (
        select(&NAMESPACES[..]),
        proptest::option::weighted(0.3, select(&ZONES[..])),
        btree_set(select(&IMAGES[..]), 0..3),
        proptest::option::weighted(0.3, select(&["p", "q"][..])),
        proptest::option::weighted(0.2, (0..9usize, any::<bool>())),
        ((0..4_000u64, 0..4_000u64), proptest::option::weighted(0.2, select(&DEMANDS[..]))),
        0..=100u8,
    );
    let one = (0..6u128, 0..200_000i64, requirements);
    vec(one, 0..30).prop_map(|attempts| {
        let make = |(index, (run, since, requirements)): (usize, Drawn)| {
            let (namespace, zone, images, claim, home, (size, demand), priority) = requirements;
            let (cpu_millis, memory_bytes) = size;
            let agent = |near: bool| {
                let drawn = home.filter(|(_, is_near)| *is_near == near);
                drawn.map(|(index, _)| format!("agent-{index}"))
            };
            let label = |zone: &str| ("zone".to_owned(), zone.to_owned());
            let mut waiting = waiting(
                run,
                Requirements {
                    namespace: namespace.to_owned(),
                    node_selector: zone.map(label).into_iter().collect(),
                    images: BTreeSet::from_iter(images.into_iter().map(str::to_owned)),
                    claims: claim.map(str::to_owned).into_iter().collect(),
                    home: agent(false),
                    apart: None,
                    unsaved: false,
                    near: agent(true).filter(|_| claim.is_some()),
                    cpu_millis,
                    memory_bytes,
                    priority,
                    affinity: Vec::new(),
                    demands: demand.into_iter().map(|demand| demand.parse().unwrap()).collect(),
                },
            );
            waiting.attempt.task_run = format!("t{index}");
            waiting.since = Time(since);
            waiting
        };
        attempts.into_iter().enumerate().map(make).collect()
    })
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let packing = prop_oneof![Just(Packing::Spread), Just(Packing::Pack)];
    (agents(), attempts(), packing, 0..400_000i64).prop_map(|(agents, waiting, packing, now)| {
        Snapshot { now: Time(now), packing, agents, waiting }
    })
}

/// The snapshot after the placements.
fn after(snapshot: &Snapshot, plan: &Plan) -> BTreeMap<String, Agent> {
    let mut agents: BTreeMap<String, Agent> =
        snapshot.agents.iter().map(|agent| (agent.name.clone(), agent.clone())).collect();
    let needs: BTreeMap<&AttemptId, &Requirements> =
        snapshot.waiting.iter().map(|it| (&it.attempt, &*it.requirements)).collect();
    for placement in &plan.placements {
        let agent = agents.get_mut(&placement.agent).unwrap();
        agent.used = agent.used.plus(needs[&placement.attempt].usage());
    }
    agents
}

proptest! {
    #[test]
    fn nothing_is_placed_over_capacity_or_against_a_constraint(snapshot in snapshots()) {
        let plan = plan(&snapshot);
        let agents = after(&snapshot, &plan);
        let mut placed: BTreeMap<&AttemptId, &str> = BTreeMap::new();
        for placement in &plan.placements {
            prop_assert_eq!(placed.insert(&placement.attempt, &placement.agent), None);
        }
        let before: BTreeMap<&str, &Agent> =
            snapshot.agents.iter().map(|agent| (agent.name.as_str(), agent)).collect();
        let mut homes: BTreeMap<(RunId, &str), &str> = BTreeMap::new();
        for waiting in &snapshot.waiting {
            let Some(name) = placed.get(&waiting.attempt) else { continue };
            let (needs, agent) = (&waiting.requirements, &agents[*name]);
            prop_assert_eq!(before[name].closed, None);
            for (key, value) in &needs.node_selector {
                prop_assert_eq!(agent.labels.get(key), Some(value));
            }
            for demand in &needs.demands {
                prop_assert!(demand.is_granted(&agent.grants), "{} on {}", demand, name);
            }
            for image in &needs.images {
                prop_assert!(image_is_allowed(&agent.allowed_images, image));
            }
            if let Some(home) = &needs.home {
                prop_assert_eq!(home, name);
            }
            for claim in &needs.claims {
                let home = *homes.entry((waiting.attempt.run, claim.as_str())).or_insert(name);
                prop_assert_eq!(home, *name, "a claim has one home");
            }
            prop_assert!(agent.used.attempts <= agent.slots);
            prop_assert!(agent.cpu_millis == 0 || agent.used.cpu_millis <= agent.cpu_millis
                || needs.cpu_millis == 0);
            prop_assert!(agent.memory_bytes == 0 || agent.used.memory_bytes <= agent.memory_bytes
                || needs.memory_bytes == 0);
        }
        let explained = plan.explanations.len();
        prop_assert_eq!(explained + placed.len(), snapshot.waiting.len());
    }

    #[test]
    fn files_stay_where_they_are_while_that_is_worth_waiting_for(snapshot in snapshots()) {
        let plan = plan(&snapshot);
        let known: BTreeMap<&str, &Agent> =
            snapshot.agents.iter().map(|agent| (agent.name.as_str(), agent)).collect();
        let placed: BTreeMap<&AttemptId, &str> =
            plan.placements.iter().map(|it| (&it.attempt, it.agent.as_str())).collect();
        for waiting in &snapshot.waiting {
            let (needs, run) = (&waiting.requirements, waiting.attempt.run);
            let Some(near) = needs.near.as_deref().and_then(|near| known.get(near)) else { continue };
            let Some(at) = placed.get(&waiting.attempt) else { continue };
            let worth = match fit::could_fit(near, needs) {
                Ok(()) | Err(Refusal::Closed(Closed::Down)) => {
                    waiting.since.plus_millis(AFFINITY_MS) > snapshot.now
                }
                Err(_) => false,
            };
            let follows = snapshot.waiting.iter().any(|other| {
                other.attempt != waiting.attempt
                    && other.attempt.run == run
                    && !other.requirements.claims.is_disjoint(&needs.claims)
                    && placed.get(&other.attempt) == Some(at)
            });
            prop_assert!(!worth || follows || *at == near.name, "{:?} at {}", waiting, at);
        }
    }

    #[test]
    fn nothing_waits_that_has_room(snapshot in snapshots()) {
        let plan = plan(&snapshot);
        let agents = after(&snapshot, &plan);
        let placed: BTreeSet<&AttemptId> = plan.placements.iter().map(|it| &it.attempt).collect();
        // Reservations keep room free on purpose, and claims may be about to live elsewhere.
        let patient = snapshot.waiting.iter().any(|it| it.since.plus_millis(PATIENCE_MS) <= snapshot.now);
        for waiting in snapshot.waiting.iter().filter(|it| !placed.contains(&it.attempt)) {
            let needs = &waiting.requirements;
            let fits = agents.values().any(|agent| {
                fit::could_fit(agent, needs).is_ok() && fit::has_room(agent, needs).is_ok()
            });
            prop_assert!(!fits || patient || !needs.claims.is_empty(), "{:?}", waiting);
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        snapshot in snapshots(),
        seed in any::<u64>(),
    ) {
        let mut shuffled = snapshot.clone();
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for last in (1..shuffled.agents.len()).rev() {
            shuffled.agents.swap(last, random(last + 1));
        }
        for last in (1..shuffled.waiting.len()).rev() {
            shuffled.waiting.swap(last, random(last + 1));
        }
        prop_assert_eq!(plan(&snapshot), plan(&shuffled));
    }

    /// Attempts keep coming, take a while and end. Whatever the mix, who could run at all does.
    #[test]
    fn nobody_starves(
        sizes in vec((1..4u64, 0..3usize, 0..=100u8), 10..40),
        agents in 1..4usize,
        length in 1..5i64,
    ) {
        let waited = minutes_until_the_large_one_is_placed(&sizes, agents, length);
        // A hundred minutes are the head start of others; then what came before it has to end.
        prop_assert!(waited.is_some(), "it waits since minute 0");
    }
}

/// What the property above has found: wherever all attempts end in the same minute there is room for the large one,
/// and it is gone before its namespace, whose small ones go on meanwhile, has saved enough turns.
#[test]
fn nobody_starves_who_has_room_and_never_the_turn() {
    let sizes = [
        (2, 2, 39),
        (2, 1, 0),
        (1, 1, 2),
        (2, 1, 3),
        (3, 0, 14),
        (2, 1, 0),
        (3, 0, 0),
        (2, 0, 0),
        (2, 2, 0),
        (3, 0, 2),
    ];
    assert!(minutes_until_the_large_one_is_placed(&sizes, 3, 1).is_some());
}

/// A fleet that always has enough small attempts to fill it twice, and one attempt that needs a whole
/// agent, came first and has the least priority. `None` if that waits too long.
fn minutes_until_the_large_one_is_placed(
    sizes: &[(u64, usize, u8)],
    agents: usize,
    length: i64,
) -> Option<i64> {
    let mut board = Board::new(Packing::Spread);
    for index in 0..agents {
        board.set_agent(Agent { cpu_millis: 4_000, ..agent(&format!("a{index}"), 8, 0) });
    }
    // One that needs a whole agent comes first, with the least priority.
    let large = waiting(0, Requirements { cpu_millis: 4_000, priority: 0, ..needs() });
    board.wait(large.clone());
    let mut running: Vec<(i64, AttemptId, String, Usage)> = Vec::new();
    let mut used: BTreeMap<String, Usage> = BTreeMap::new();
    let (mut next, mut minute) = (1u128, 0i64);
    loop {
        // Always enough small ones to fill the fleet twice.
        while board.len() < agents * 8 {
            let (cpu, namespace, priority) = sizes[next as usize % sizes.len()];
            let namespace = if namespace == 0 { "ns" } else { NAMESPACES[namespace] };
            let needs = Requirements {
                namespace: namespace.to_owned(),
                cpu_millis: cpu * 1000,
                priority,
                ..needs()
            };
            board.wait(Waiting { since: Time(minute * 60_000), ..waiting(next, needs) });
            next += 1;
        }
        let (over, on): (Vec<_>, Vec<_>) = running.into_iter().partition(|it| it.0 <= minute);
        running = on;
        for (_, _, agent, usage) in over {
            let left = used[&agent].minus(usage);
            used.insert(agent.clone(), left);
            board.set_used(&agent, left);
        }
        let sizes: BTreeMap<AttemptId, Usage> =
            board.waiting().map(|attempt| (attempt.clone(), board.usage_of(attempt))).collect();
        for placement in board.wave(Time(minute * 60_000), usize::MAX) {
            let usage = sizes[&placement.attempt];
            let sum = used.entry(placement.agent.clone()).or_default().plus(usage);
            used.insert(placement.agent.clone(), sum);
            board.settle(&placement.attempt);
            board.set_used(&placement.agent, sum);
            let end = minute + length + i64::try_from(running.len()).unwrap() % 3;
            running.push((end, placement.attempt.clone(), placement.agent, usage));
            if placement.attempt == large.attempt {
                return Some(minute);
            }
        }
        minute += 1;
        if minute > 400 {
            return None;
        }
    }
}
