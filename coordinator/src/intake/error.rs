//! Why a request cannot be made into runs.

use tenon_tekton::load::Diagnostic;

/// Result of everything in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with a request.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The documents have faults; with them, the warnings.
    #[error("the documents are not valid")]
    Documents(Vec<Diagnostic>),
    /// The documents hold nothing that could run.
    #[error("the files hold no PipelineRun, TaskRun, Pipeline or Task: nothing to run")]
    NothingToRun,
    /// A part of the request makes no sense.
    #[error("{message}")]
    Request {
        /// Which part, by its name in the API: `params`, `timeout`, …
        field: &'static str,
        /// Stable, for programs.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A fault of Tenon itself.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(super) fn request(field: &'static str, code: &'static str, message: String) -> Error {
        Error::Request { field, code, message, hint: None }
    }

    pub(super) fn hint(mut self, text: impl Into<String>) -> Error {
        if let Error::Request { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Documents(_) => "invalid/manifest",
            Error::NothingToRun => "invalid/nothing-to-run",
            Error::Request { code, .. } => code,
            Error::Internal(_) => "internal/intake",
        }
    }
}
