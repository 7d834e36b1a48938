//! The program that Tenon puts into every container: `tenon-entrypoint run SPEC` runs one step or
//! sidecar as its spec file says and records what happens; `pause` only holds a container open.
//!
//! It is meant to be process 1 of its container, but does not depend on it. It uses nothing of the
//! image: built static, it runs where there is no file but itself. It never waits by polling, and
//! never drops output.

mod pause;
mod run;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let subcommand = arguments.next().unwrap_or_default();
    match (subcommand.to_str(), arguments.next(), arguments.next()) {
        (Some("run"), Some(spec), None) => run::run(spec.as_ref()),
        (Some("pause"), None, None) => pause::pause(),
        _ => {
            eprintln!("usage: tenon-entrypoint run SPEC | pause");
            ExitCode::from(2)
        }
    }
}
