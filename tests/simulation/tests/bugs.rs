//! The simulator is tested, too: each deliberate bug must be caught within a thousand seeds.

use tenon_journal::bugs::{Bug, switch_on};
use tenon_simulation::settings::Choice;
use tenon_simulation::trace::Words;
use tenon_simulation::{catch_panics, run};

/// So many seeds must do.
const SEEDS: u64 = 1000;

fn is_caught(bug: Bug) {
    catch_panics();
    let _on = switch_on(bug);
    for seed in 0..SEEDS {
        if let Some(violation) = run(seed, &Choice::default(), Words::None).violation {
            println!("{bug:?} is caught at seed {seed}: {violation}");
            return;
        }
    }
    panic!("{bug:?} is not caught by {SEEDS} seeds");
}

#[test]
fn a_log_that_is_not_synced_is_caught() {
    is_caught(Bug::SkipLogSync);
}

#[test]
fn a_state_that_is_not_synced_is_caught() {
    is_caught(Bug::SkipStateSync);
}

#[test]
fn a_history_that_is_not_synced_is_caught() {
    is_caught(Bug::SkipHistorySync);
}

#[test]
fn a_forgotten_vote_is_caught() {
    is_caught(Bug::ForgetVote);
}

#[test]
fn applying_twice_is_caught() {
    is_caught(Bug::ApplyTwice);
}

#[test]
fn acknowledging_early_is_caught() {
    is_caught(Bug::AcknowledgeEarly);
}

#[test]
fn dropping_what_was_acknowledged_is_caught() {
    is_caught(Bug::DropAcknowledged);
}

#[test]
fn placing_again_what_is_only_out_of_contact_is_caught() {
    is_caught(Bug::ReplaceWithoutLease);
}

#[test]
fn showing_before_the_commit_is_caught() {
    is_caught(Bug::ShowBeforeCommit);
}

#[test]
fn an_old_directory_that_is_taken_for_the_current_one_is_caught() {
    is_caught(Bug::StaleWorkspace);
}

#[test]
fn an_old_snapshot_that_is_taken_for_the_newest_is_caught() {
    is_caught(Bug::OldSnapshot);
}

#[test]
fn applying_differently_is_caught() {
    is_caught(Bug::NondeterministicApply);
}
