//! The program that Tenon puts into every container: `tenon-entrypoint run SPEC` runs one step or
//! sidecar as its spec file says and records what happens; `pause` only holds a container open;
//! `launch` makes the namespaces of a container where there is no container engine; `purge` empties
//! directories in which steps of another user wrote.
//!
//! It is meant to be process 1 of its container, but does not depend on it. It uses nothing of the
//! image: built static, it runs where there is no file but itself. It never waits by polling, and
//! never drops output.

mod launcher;
mod pause;
mod purge;
mod run;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let subcommand = arguments.next().unwrap_or_default();
    match (subcommand.to_str(), arguments.next(), arguments.next()) {
        (Some("run"), Some(spec), None) => run::run(spec.as_ref()),
        (Some("pause"), None, None) => pause::pause(),
        (Some("launch"), None, None) => launcher::launch(),
        (Some("enter"), Some(keeper), Some(program)) => {
            launcher::enter(&keeper, program, arguments)
        }
        (Some("purge"), Some(first), second) => {
            purge::purge([first].into_iter().chain(second).chain(arguments))
        }
        _ => {
            eprintln!(
                "usage: tenon-entrypoint run SPEC | pause | launch | enter PID COMMAND... | purge DIR..."
            );
            ExitCode::from(2)
        }
    }
}
