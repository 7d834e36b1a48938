//! `run`: one step or sidecar from its spec to its end.
//!
//! The order of what a step leaves behind is a promise: `exitCode`, then the last frame of the
//! record, then the post file that opens the next step's gate. So whoever sees a step begin has
//! already been told how the one before it ended.

mod command;
mod credentials;
mod gate;
mod json;
mod outcome;
mod record;
mod results;
mod sidecar;
mod step;
mod substitute;
mod supervise;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use tenon_entrypoint::{Mode, Spec};

use self::record::Record;
use crate::sys::Signals;

/// What every part of a run needs.
struct Context {
    signals: Signals,
    record: Record,
}

/// Runs what the spec file says. The exit code is the container's.
pub fn run(spec_file: &Path) -> ExitCode {
    match start(spec_file) {
        Ok((spec, mut context)) => {
            let code = match spec.mode {
                Mode::Step => step::run(spec, &mut context),
                Mode::Sidecar => sidecar::run(&spec, &mut context),
            };
            // An exit status has eight bits: -1 becomes 255.
            ExitCode::from(code.to_le_bytes()[0])
        }
        Err(message) => {
            // There is no record to write to: only the container's own log is left.
            eprintln!("tenon-entrypoint: {message}");
            ExitCode::from(125)
        }
    }
}

fn start(spec_file: &Path) -> Result<(Spec, Context), String> {
    let signals = Signals::take_over().map_err(|e| format!("cannot take over signals: {e}"))?;
    let bytes = std::fs::read(spec_file)
        .map_err(|e| format!("cannot read {}: {e}", spec_file.display()))?;
    if std::fs::remove_file(spec_file).is_err() {
        // Not this user's directory: the secrets in the file must go all the same, where possible.
        let _ = std::fs::File::create(spec_file);
    }
    let spec = Spec::decode(&bytes).map_err(|e| format!("{}: {e}", spec_file.display()))?;
    let record = Record::open(spec.record.as_ref())
        .map_err(|e| format!("cannot open {}: {e}", spec.record))?;
    Ok((spec, Context { signals, record }))
}
