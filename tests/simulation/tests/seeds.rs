//! A few schedules, for every day; `cargo xtask simulate --seeds N` runs as many as one likes.

use tenon_simulation::settings::Choice;
use tenon_simulation::trace::Words;
use tenon_simulation::{catch_panics, run};

/// Seeds that have found something in the product. They stay.
const FOUND: &str = include_str!("found.txt");

fn holds(seed: u64) {
    let outcome = run(seed, &Choice::default(), Words::None);
    if let Some(violation) = outcome.violation {
        panic!("seed {seed}: {violation}\n  again: cargo xtask simulate --seeds 1 --from {seed}");
    }
}

#[test]
fn twenty_five_schedules_hold() {
    (10_000..10_025).for_each(holds);
}

#[test]
fn schedules_that_found_something_hold() {
    let lines = FOUND.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).for_each(holds);
}

/// All nodes were started with the same old state in the moment in which it was looked whether all is over.
#[test]
fn a_schedule_is_not_over_before_all_is_applied_again() {
    holds(11_538);
}

#[test]
fn a_seed_is_one_schedule() {
    catch_panics();
    for seed in 20_000..20_005 {
        let first = run(seed, &Choice::default(), Words::None);
        let second = run(seed, &Choice::default(), Words::Story);
        assert_eq!(first.digest, second.digest, "seed {seed}");
        let other = run(seed + 100, &Choice::default(), Words::None);
        assert_ne!(first.digest, other.digest, "seeds {seed} and {}", seed + 100);
    }
}
