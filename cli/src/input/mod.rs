//! From the files that the user names to documents that are decoded and checked.
//!
//! Reading is here; decoding and the rules are the `tekton` crate's.

pub mod flags;
mod read;

use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{self, Bundle, Diagnostic, Severity};
use tenon_tekton::validate;

use crate::args::FileArgs;
use crate::exit::{Exit, Failure};
use crate::terminal;

pub use read::read;

/// Files that were read, decoded and checked.
#[derive(Debug, Default)]
pub struct Input {
    /// The documents that could be decoded.
    pub bundle: Bundle,
    /// What is wrong, or worth saying.
    pub diagnostics: Vec<Diagnostic>,
}

impl Input {
    /// Whether anything is refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|found| found.severity == Severity::Error)
    }
}

/// Reads, decodes and checks what the user named.
pub fn load(files: &FileArgs) -> Result<Input, Failure> {
    check(&read(&files.file)?, &flags::parse(&files.feature_flag)?)
}

/// Decodes and checks texts.
pub fn check(sources: &[load::Source], flags: &FeatureFlags) -> Result<Input, Failure> {
    let loaded = load::load(sources, flags);
    let mut diagnostics = loaded.diagnostics;
    diagnostics.extend(validate::check(&loaded.bundle.documents, flags));
    Ok(Input { bundle: loaded.bundle, diagnostics })
}

/// Like [`load`], but what is wrong is the failure: for commands that need valid input.
pub fn load_valid(files: &FileArgs) -> Result<Bundle, Failure> {
    let input = load(files)?;
    refuse(&input)?;
    Ok(input.bundle)
}

/// The failure that says everything that is wrong with `input`; warnings become remarks.
pub fn refuse(input: &Input) -> Result<(), Failure> {
    let color = terminal::stderr_style().has_color();
    if !input.has_errors() {
        for warning in &input.diagnostics {
            terminal::remark(&warning.render(color));
        }
        return Ok(());
    }
    let texts: Vec<String> = input.diagnostics.iter().map(|found| found.render(color)).collect();
    Err(Failure::located(Exit::Validation, texts.join("\n")))
}
