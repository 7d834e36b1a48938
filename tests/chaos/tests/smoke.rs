//! Short chaos runs, so that every change meets them: `cargo xtask chaos` does the long ones.

use std::path::{Path, PathBuf};

use tenon_chaos::{Backend, Options, Work, run};

#[test]
fn a_fleet_survives_ten_leaders_and_ten_faults_of_agents() {
    survive(Work::Harm { kills: 10, agents: 10 }, 4);
}

#[test]
fn what_was_placed_again_never_acts_again() {
    survive(Work::Partitions(6), 6);
}

fn survive(work: Work, users: usize) {
    let test = std::env::current_exe().expect("this test is a program");
    let profile = test.parent().and_then(Path::parent);
    let beside = profile.map(|profile| profile.join("tenon"));
    let binary = std::env::var_os("TENON_BIN").map(PathBuf::from).or(beside);
    let binary = binary.filter(|binary| binary.is_file());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(10);
    let options = Options {
        work,
        seed,
        backend: Backend::Host,
        users,
        binary: binary.expect("tenon is built: `cargo build -p tenon`, or `cargo xtask test`"),
        keep: false,
    };
    let outcome = run(&options).expect("root, ip and iptables are there");
    println!("{outcome}");
    assert!(outcome.is_good(), "SEED={seed}: {outcome:#?}");
}
