//! A short chaos run, so that every change meets it: `cargo xtask chaos` is the long one.

use std::path::{Path, PathBuf};

use tenon_chaos::{Backend, Options, run};

#[test]
fn a_cluster_survives_ten_leaders() {
    let test = std::env::current_exe().expect("this test is a program");
    let profile = test.parent().and_then(Path::parent);
    let beside = profile.map(|profile| profile.join("tenon"));
    let binary = std::env::var_os("TENON_BIN").map(PathBuf::from).or(beside);
    let binary = binary.filter(|binary| binary.is_file());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(10);
    let options = Options {
        kills: 10,
        seed,
        backend: Backend::Host,
        users: 4,
        binary: binary.expect("tenon is built: `cargo build -p tenon`, or `cargo xtask test`"),
        keep: false,
    };
    let outcome = run(&options).expect("root, ip and iptables are there");
    println!("{outcome}");
    assert!(outcome.is_good(), "SEED={seed}: {outcome:#?}");
}
