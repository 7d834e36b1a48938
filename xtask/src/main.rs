//! Contributors' tasks: `cargo xtask <task>`. The Justfile and CI only name what is here.
//!
//! Tasks say what they do while they do it, ask before they install anything (unless CI=true or --yes), and end, by its
//! id, every process that they started. It depends on next to nothing, so that it builds in seconds.

mod backends;
mod bench;
mod chaos;
mod command;
mod daemon;
mod images;
mod packages;
mod registry;
mod source;
mod suite;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK [--yes]

  test [WORD..]   install, build and start what is needed; run all tests (with WORDs: only tests whose names contain one)
  ci              verify, then test
  verify          formatting, lints, generated files, forbidden words; writes nothing
  fix             format, and apply what the lints can mend by themselves
  images          build the stand-in images of the tests from the distribution's packages
  registry        run a registry with them on a loopback port until standard input ends
  chaos           a fleet of real processes that are killed and cut off: --kills N, --agent-faults N, --partitions N,
                  --around -- COMMAND, --conformance, --calm, --seed S, --backend docker|host, --release
  bench SUITE     print the figures of docs/performance.md as measured here; --json for programs
  traces-backend  traces in a real backend, which is fetched from the Python package index
  blobs-backend   workspaces in a bucket of a server that speaks S3, which is fetched likewise
  simulate        run schedules of the deterministic simulation: [--seeds N] [--from S] [--bug NAME] [--nodes N] [--trace]

  --yes           do not ask before installing packages (CI=true means the same)
";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let ask = args.iter().all(|arg| arg != "--yes") && std::env::var("CI").as_deref() != Ok("true");
    args.retain(|arg| arg != "--yes");
    let (task, rest) =
        args.split_first().map_or(("", &[][..]), |(task, rest)| (task.as_str(), rest));
    let outcome = match task {
        "test" => suite::test(rest, ask),
        "ci" => source::verify().and_then(|()| suite::test(rest, ask)),
        "verify" => source::verify(),
        "fix" => source::fix(),
        "images" => daemon::ensure(ask)
            .and_then(|_daemon| images::build(rest.iter().any(|arg| arg == "--force"))),
        "registry" => registry::serve_until_end_of_input(ask),
        "simulate" => return simulate(rest),
        "chaos" => chaos::chaos(rest, ask),
        "traces-backend" => backends::traces(),
        "blobs-backend" => backends::blobs(),
        "bench" => return ExitCode::from(bench::run(rest) as u8),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Its last line and its exit code say how the simulation went.
fn simulate(args: &[String]) -> ExitCode {
    let mut cargo = command::cargo(&["run", "--quiet", "--locked", "--profile", "simulation"]);
    cargo.args(["--package", "tenon-simulation", "--bin", "simulate", "--"]).args(args);
    match cargo.status() {
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("xtask simulate: {error}");
            ExitCode::FAILURE
        }
    }
}
