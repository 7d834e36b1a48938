//! `tenon run`: reads the files, chooses what runs, starts the parts, shows what happens.

mod backend;
mod choose;
mod debug;
mod execute;
mod params;
mod prepare;
mod show;
mod signals;
mod workspaces;

use tenon_engine::RunId;
use tenon_engine::event::Status;
use tenon_engine::outcome::RunOutcome;
use tenon_reporter::history::Store;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::Bundle;

use crate::args::RunArgs;
use crate::exit::{Exit, Failure};
use crate::{input, terminal};

/// Everything that a run needs to know besides what runs.
pub struct Settings {
    /// The command line.
    pub args: RunArgs,
    /// Where everything is stored.
    pub state_dir: std::path::PathBuf,
    /// Tekton's flags.
    pub flags: FeatureFlags,
}

/// Runs the command.
pub fn run(args: RunArgs, state_dir: std::path::PathBuf) -> Result<Exit, Failure> {
    let flags = input::flags::parse(&args.files.feature_flag)?;
    let sources = input::read(&args.files.file)?;
    let mut input = input::check(&sources, &flags)?;
    input::refuse(&input)?;
    let settings = Settings { args, state_dir, flags };
    let chosen = choose::choose(&settings, &sources, &mut input.bundle)?;
    let prepared = prepare::prepare(&settings, &input.bundle, &chosen)?;
    execute::execute(&settings, prepared)
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

/// A new run id: the time, and random bits from the kernel.
fn new_run_id() -> RunId {
    let millis = u64::try_from(terminal::now().0).unwrap_or_default();
    RunId(ulid::Ulid::from_parts(millis, u128::from(random()) << 64 | u128::from(random())))
}

/// Random bits for ids and names.
fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said; the kernel fills it.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match filled {
        8 => u64::from_ne_bytes(bytes),
        // Only a kernel older than any that runs containers has no such call.
        _ => {
            u64::try_from(terminal::now().0).unwrap_or_default()
                ^ u64::from(std::process::id()) << 32
        }
    }
}

/// The store of runs, by `--state-dir`.
pub fn store(state_dir: &std::path::Path) -> Store {
    Store::new(state_dir)
}

/// Names of all documents of a kind.
fn names(bundle: &Bundle, kind: &str) -> Vec<String> {
    bundle.of_kind(kind).map(|document| document.name().to_owned()).collect()
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
