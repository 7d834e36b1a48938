//! The program that Tenon puts into every container: `tenon-entrypoint run SPEC` runs one step or
//! sidecar as its spec file says and records what happens; `pause` only holds a container open;
//! `launch` makes the namespaces of a container where there is no container engine; `purge` empties
//! directories in which steps of another user wrote; `kill-all` kills every process that it sees;
//! `relay` and `ask` stand in for an agent that shares neither files nor a network with the daemon.
//!
//! It is meant to be process 1 of its container, but does not depend on it. It uses nothing of the
//! image: built static, it runs where there is no file but itself. It never waits by polling, and
//! never drops output.

mod launcher;
mod pause;
mod purge;
mod relay_server;
mod run;
mod sys;

use std::process::ExitCode;
use std::time::Duration;

/// The pid name space of the machine itself: its number is the kernel's constant.
const MACHINE: &str = "pid:[4026531836]";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let subcommand = arguments.next().unwrap_or_default();
    match (subcommand.to_str(), arguments.next(), arguments.next()) {
        (Some("run"), Some(spec), None) => run::run(spec.as_ref()),
        (Some("pause"), None, None) => pause::pause(None),
        (Some("pause"), Some(seconds), None) => match seconds.to_string_lossy().parse() {
            Ok(seconds) => pause::pause(Some(Duration::from_secs(seconds))),
            Err(_) => usage(),
        },
        (Some("launch"), None, None) => launcher::launch(),
        (Some("relay"), None, None) => relay_server::relay(),
        (Some("ask"), Some(host), Some(port)) => {
            relay_server::ask(&host.to_string_lossy(), &port.to_string_lossy())
        }
        (Some("enter"), Some(keeper), Some(program)) => {
            launcher::enter(&keeper, program, arguments)
        }
        (Some("purge"), Some(first), second) => {
            purge::purge([first].into_iter().chain(second).chain(arguments))
        }
        (Some("kill-all"), None, None) => kill_all(),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: tenon-entrypoint run SPEC | pause [SECONDS] | launch | enter PID:START COMMAND... | \
         purge DIR... | kill-all | relay | ask HOST PORT"
    );
    ExitCode::from(2)
}

/// Kills every process of the pid name space, but this one and process 1, which only its parent can kill.
fn kill_all() -> ExitCode {
    // Outside of a container it would be everything.
    let own = std::fs::read_link("/proc/self/ns/pid");
    if own.is_ok_and(|own| own.as_os_str() == MACHINE) {
        eprintln!("tenon-entrypoint: kill-all is for containers");
        return ExitCode::FAILURE;
    }
    // SAFETY: no memory is involved.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
