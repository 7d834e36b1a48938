//! `tenon run`: reads the files, chooses what runs, starts the parts, shows what happens. On a
//! cluster the parts run already.

pub mod backend;
mod debug;
mod execute;
mod prepare;
pub mod show;
pub mod signals;
mod traces;

use tenon_engine::event::Status;
use tenon_engine::outcome::RunOutcome;
use tenon_reporter::history::Store;
use tenon_tekton::flags::FeatureFlags;

use crate::args::RunArgs;
use crate::exit::{Exit, Failure};
use crate::{input, remote};

/// Everything that a run needs to know besides what runs.
pub struct Settings {
    /// The command line.
    pub args: RunArgs,
    /// Where everything is stored.
    pub state_dir: std::path::PathBuf,
    /// Tekton's flags.
    pub flags: FeatureFlags,
}

/// Runs the command, on the cluster that `server` names or on this machine.
pub fn run(
    args: RunArgs,
    server: Option<&str>,
    state_dir: std::path::PathBuf,
) -> Result<Exit, Failure> {
    let flags = input::flags::parse(&args.files.feature_flag)?;
    let sources = input::read(&args.files.file)?;
    let settings = Settings { args, state_dir, flags };
    let request = prepare::request(&settings, sources)?;
    // What is wrong is said here, with its place, before anything is sent.
    let prepared = prepare::prepare(&request)?;
    match server {
        Some(server) => remote::with_patience(server, settings.args.quiet, async |remote| {
            remote::run(&remote, &settings.args, &request, prepared.len()).await
        }),
        None if settings.args.detach => Err(remote::needs_cluster("run --detach")),
        None => execute::execute(&settings, prepared),
    }
}

/// The exit code that belongs to the end of a run (docs/events.md).
pub fn exit_of(outcome: &RunOutcome) -> Exit {
    if outcome.rejected {
        return Exit::Validation;
    }
    match outcome.status {
        Status::Succeeded | Status::Skipped => Exit::Success,
        Status::Cancelled => Exit::Cancelled,
        Status::Timeout => Exit::Timeout,
        Status::InfraFailed => Exit::Environment,
        Status::Failed | Status::NotRun if outcome.timed_out => Exit::Timeout,
        Status::Failed | Status::NotRun => Exit::TaskFailed,
    }
}

/// The store of runs, by `--state-dir`.
pub fn store(state_dir: &std::path::Path) -> Store {
    Store::new(state_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let outcome = |status, rejected, timed_out| RunOutcome {
            status,
            reason: String::new(),
            message: String::new(),
            rejected,
            timed_out,
        };
        for (status, rejected, timed_out, want) in [
            (Status::Succeeded, false, false, 0),
            (Status::Failed, false, false, 5),
            (Status::Failed, true, false, 4),
            (Status::Failed, false, true, 6),
            (Status::Timeout, false, true, 6),
            (Status::Cancelled, false, false, 130),
            (Status::InfraFailed, false, false, 3),
        ] {
            assert_eq!(exit_of(&outcome(status, rejected, timed_out)) as u8, want, "{status:?}");
        }
    }
}
