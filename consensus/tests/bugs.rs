//! The tests are tested: deliberate bugs are caught.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{Cluster, Weather};
use tenon_journal::bugs::{Bug, switch_on};

/// Much dies, and elections are many.
fn story(seed: u64) {
    let mut cluster = Cluster::new(seed, 3);
    cluster.weather = Weather { crashes: 150, partitions: 100, ..Weather::STORM };
    for _ in 0..2000 {
        cluster.step();
        if cluster.random.one_in(4) {
            let at = 1 + cluster.random.below(3);
            cluster.propose(at);
        }
    }
    cluster.settle_and_check();
}

fn is_caught(bug: Bug) -> Option<u64> {
    let _on = switch_on(bug);
    (0..1000).find(|seed| catch_unwind(AssertUnwindSafe(|| story(*seed))).is_err())
}

#[test]
fn without_a_bug_the_story_ends_well() {
    (0..20).for_each(story);
}

#[test]
fn a_log_that_is_not_synced_is_caught() {
    let caught = is_caught(Bug::SkipLogSync);
    assert!(caught.is_some());
    println!("caught with seed {caught:?}");
}

#[test]
fn a_forgotten_vote_is_caught() {
    let caught = is_caught(Bug::ForgetVote);
    assert!(caught.is_some());
    println!("caught with seed {caught:?}");
}
