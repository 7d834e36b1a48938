//! Loading: YAML or JSON text in, typed and defaulted `tekton.dev/v1` objects out, each with the
//! tree it came from, so that whoever finds a fault later can point at its line.
//!
//! [`load`] never panics and is bounded in time, memory and depth, whatever the text. It reports
//! what Tekton's API would refuse while *decoding* (unknown fields, wrong types); what Tekton's
//! webhook refuses afterwards is [`crate::validate`]'s affair. It reads no files.

mod bundle;
mod diagnostic;
mod locate;
mod node;

use std::sync::Arc;

pub use bundle::Bundle;
pub use diagnostic::{Diagnostic, Related, Severity};
pub use node::{Entry, Node, Span, Value};

use crate::flags::FeatureFlags;
use crate::object::Object;

/// A text and the name it is shown under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the user gave it, or `<stdin>`.
    pub name: String,
    /// The whole text, decoded from UTF-8.
    pub text: Arc<str>,
}

/// One YAML document of a source.
#[derive(Clone, Debug)]
pub struct Document {
    /// The text it came from.
    pub source: Arc<Source>,
    /// Its index among the documents of the source, empty ones counted.
    pub index: usize,
    /// The tree as it was written (before conversion and defaulting).
    pub root: Node,
    /// The object: decoded, converted to v1, defaulted.
    pub object: Object,
    /// `apiVersion` as written, e.g. `tekton.dev/v1beta1`.
    pub declared_api_version: String,
    /// Fields that only v1beta1 has and that the conversion moved, renamed or dropped, as paths
    /// of the document as written, e.g. `spec.resources`, `spec.steps[0].resources`,
    /// `spec.taskRef.bundle`; sorted. For the rules that only v1beta1 has.
    pub v1beta1_fields: Vec<String>,
}

/// What [`load`] found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// All documents that could be decoded, in order.
    pub bundle: Bundle,
    /// What is wrong, in source order. Empty: everything was decoded.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads all documents of all sources: parse, decode, convert to v1, default.
///
/// Tekton stops at its first decode error; this goes on, but within one document the first
/// diagnostic is the one Tekton would give. A document with a diagnostic is not in the bundle.
pub fn load(sources: &[Source], flags: &FeatureFlags) -> Loaded {
    let _ = (sources, flags);
    Loaded::default()
}

impl Document {
    /// Where the field is that a Tekton message names, e.g. `spec.tasks[0].taskSpec.steps[1].image`.
    ///
    /// Understands indices, keys in brackets and names in brackets (`spec.params[url]`), any case;
    /// what does not exist is located at its nearest existing parent.
    pub fn locate(&self, field_path: &str) -> Span {
        locate::locate(&self.root, field_path)
    }

    /// A diagnostic of this document, located by its field path.
    pub fn diagnostic(
        &self,
        code: &'static str,
        message: impl Into<String>,
        field_path: impl Into<String>,
    ) -> Diagnostic {
        let path = field_path.into();
        Diagnostic {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: self.locate(&path),
            path,
            source: Arc::clone(&self.source),
            help: None,
            related: Vec::new(),
        }
    }
}
