//! From the files that the user names to documents that are decoded and checked.
//!
//! Reading is here; decoding and the rules are the `tekton` crate's.

pub mod flags;
mod read;

use tenon_coordinator::intake::{Input, check};
use tenon_tekton::load::{Bundle, Diagnostic};

use crate::args::FileArgs;
use crate::exit::{Exit, Failure};
use crate::terminal;

pub use read::read;

/// Reads, decodes and checks what the user named.
pub fn load(files: &FileArgs) -> Result<Input, Failure> {
    let sources = read(&files.file)?;
    Ok(check(&sources, &flags::parse(&files.feature_flag)?))
}

/// Like [`load`], but what is wrong is the failure: for commands that need valid input.
pub fn load_valid(files: &FileArgs) -> Result<Bundle, Failure> {
    let input = load(files)?;
    refuse(&input)?;
    Ok(input.bundle)
}

/// The failure that says everything that is wrong with `input`; warnings become remarks.
pub fn refuse(input: &Input) -> Result<(), Failure> {
    if input.has_errors() {
        return Err(refused(&input.diagnostics));
    }
    let color = terminal::stderr_style().has_color();
    for warning in &input.diagnostics {
        terminal::remark(&warning.render(color));
    }
    Ok(())
}

/// The failure that says all of this.
pub fn refused(diagnostics: &[Diagnostic]) -> Failure {
    let color = terminal::stderr_style().has_color();
    let texts: Vec<String> = diagnostics.iter().map(|found| found.render(color)).collect();
    Failure::located(Exit::Validation, texts.join("\n"))
}
