//! `tenon dev`: a fleet for trying out, from its start to the end of everything.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;
use tenon_tests::{KillOnPanic, Tenon, finish, processes_with, signal, wait_until};

const ECHO: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: echo}\nspec:\n  \
                    taskSpec:\n    steps: [{name: s, image: busybox, script: echo hello}]\n";

/// Starts a fleet and waits until it says where it is.
fn up(tenon: &Tenon, args: &[&str]) -> (Child, Value) {
    let all = [&["dev", "up", "--backend", "host", "-o", "json"], args].concat();
    let mut child = tenon.command(&all).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let fleet = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    (child, fleet)
}

/// Processes of the fleet in that directory, without the one that keeps it.
fn parts(tenon: &Tenon) -> Vec<u32> {
    processes_with(&tenon.state_dir().join("dev").display().to_string())
}

#[test]
fn a_fleet_comes_up_works_and_ends_and_nothing_of_it_is_left() {
    let tenon = Tenon::host();
    let nothing = tenon.tenon(&["dev", "status"]).expect(0).stdout;
    assert!(nothing.contains("tenon dev up"), "{nothing}");

    let (child, fleet) = up(&tenon, &["--coordinators", "3", "--agents", "2"]);
    let _guard = KillOnPanic(child.id());
    let server = fleet["server"].as_str().unwrap();
    assert_eq!(server.split(',').count(), 3);
    let said = tenon.run(ECHO, &["--server", server, "-o", "json"]).expect(0);
    assert_eq!(said.log(), ["hello"]);

    let second = tenon.tenon(&["dev", "up"]).expect(3);
    assert!(second.stderr.contains("runs already") && second.stderr.contains(server), "{second:?}");
    let status = tenon.tenon(&["dev", "status", "-o", "json"]).expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let states = |of: &str| -> Vec<&str> {
        status[of].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect()
    };
    assert_eq!(states("agents"), ["up", "up"], "{status}");
    assert_eq!(states("coordinators").iter().filter(|state| **state == "leads").count(), 1);
    assert!(parts(&tenon).len() >= 5);

    tenon.tenon(&["dev", "down"]).expect(0);
    finish(child).expect(0);
    wait_until("all parts to be gone", || parts(&tenon).is_empty());

    // What it stored is there at the next start, which somebody kills.
    let (child, fleet) = up(&tenon, &["--coordinators", "3", "--agents", "1"]);
    assert_eq!(fleet["server"], server);
    let runs = tenon.tenon(&["runs", "list", "--server", server]).expect(0).stdout;
    assert!(runs.contains("echo"), "{runs}");
    signal(child.id(), libc::SIGKILL);
    finish(child);
    wait_until("all parts to be gone with the one that kept them", || parts(&tenon).is_empty());

    let other = tenon.tenon(&["dev", "up", "--coordinators", "1"]).expect(2);
    assert!(other.stderr.contains("--fresh"), "{}", other.stderr);
}
