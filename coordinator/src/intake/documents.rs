//! Decoding and checking; the rules are the `tekton` crate's.

use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{self, Bundle, Diagnostic, Severity, Source};
use tenon_tekton::validate;

/// Documents that were decoded and checked.
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

    /// Names of all documents of a kind.
    pub(super) fn names(bundle: &Bundle, kind: &str) -> Vec<String> {
        bundle.of_kind(kind).map(|document| document.name().to_owned()).collect()
    }
}

/// Decodes and checks texts.
pub fn check(sources: &[Source], flags: &FeatureFlags) -> Input {
    let loaded = load::load(sources, flags);
    let mut diagnostics = loaded.diagnostics;
    diagnostics.extend(validate::check(&loaded.bundle.documents, flags));
    Input { bundle: loaded.bundle, diagnostics }
}
