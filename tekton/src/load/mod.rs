//! Loading: YAML or JSON text in, typed and defaulted `tekton.dev/v1` objects out, each with the
//! tree it came from, so that whoever finds a fault later can point at its line.
//!
//! [`load`] never panics and is bounded in time, memory and depth, whatever the text. It reports
//! what Tekton's API would refuse while *decoding* (unknown fields, wrong types); what Tekton's
//! webhook refuses afterwards is validation's affair. It reads no files.

mod bundle;
mod decode;
mod defaults;
mod diagnostic;
mod go;
mod kinds;
mod locate;
mod node;
mod scalar;
mod secret;
mod suggest;
#[cfg(test)]
mod tests;
mod v1beta1;
mod yaml;

use std::sync::Arc;

pub use bundle::Bundle;
pub use diagnostic::{Diagnostic, Related, Severity};
pub use node::{Entry, Node, Span, Value};
pub(crate) use scalar::go_float;
pub use suggest::nearest;
pub use yaml::{MAX_BYTES, MAX_DEPTH, MAX_NODES};

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

impl Source {
    /// A source out of a file's bytes; what is not UTF-8 is refused where it begins not to be.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Result<Source, Box<Diagnostic>> {
        let name = name.into();
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                let text = text.into();
                return Ok(Source { name, text });
            }
            Err(error) => error,
        };
        let wide = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        Err(Box::new(Diagnostic::not_utf8(name, bytes, error.valid_up_to(), wide)))
    }
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
    /// What is wrong: source by source, document by document; of a document, Tekton's own first
    /// complaint comes first. Warnings refuse nothing.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether anything was refused.
    pub fn has_errors(&self) -> bool {
        let is_error = |found: &Diagnostic| found.severity == Severity::Error;
        self.diagnostics.iter().any(is_error)
    }
}

/// Reads all documents of all sources: parse, decode, convert to v1, default.
///
/// Tekton stops at its first decode error; this goes on, but within one document the first
/// diagnostic is the one Tekton would give. A document with an error is not in the bundle.
pub fn load(sources: &[Source], flags: &FeatureFlags) -> Loaded {
    let mut loaded = Loaded::default();
    for source in sources {
        let source = Arc::new(source.clone());
        let parsed = yaml::parse(&source.text);
        let mut faults = parsed.faults.into_iter().peekable();
        for (index, root) in parsed.documents {
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at < index) {
                let found = Diagnostic::from_yaml(fault, &source);
                loaded.diagnostics.push(found);
            }
            for root in kinds::list_items(root) {
                load_document(&source, index, root, flags, &mut loaded);
            }
        }
        loaded.diagnostics.extend(faults.map(|(_, fault)| Diagnostic::from_yaml(fault, &source)));
    }
    loaded
}

fn load_document(
    source: &Arc<Source>,
    index: usize,
    root: Node,
    flags: &FeatureFlags,
    loaded: &mut Loaded,
) {
    if root.is_null() {
        return;
    }
    let decoded = match kinds::decode(&root) {
        Ok(decoded) => decoded,
        Err(found) => {
            let found = Diagnostic::from_decode(found, source);
            loaded.diagnostics.push(found);
            return;
        }
    };
    let refused = decoded.found.iter().any(|found| !found.warning);
    loaded.diagnostics.extend(diagnostic::in_order(decoded.found, source));
    if refused {
        return;
    }
    let mut object = decoded.object;
    defaults::set_defaults(&mut object, flags);
    let document = Document {
        source: Arc::clone(source),
        index,
        root,
        object,
        declared_api_version: decoded.api_version,
        v1beta1_fields: decoded.v1beta1_fields,
    };
    if let Err((document, first)) = loaded.bundle.insert(document) {
        let found = Diagnostic::duplicate(&document, first);
        loaded.diagnostics.push(found);
    }
}

/// Whether a plain scalar with this text is a string and not a boolean, number or null.
pub(crate) fn is_plain_string(text: &str) -> bool {
    matches!(scalar::resolve(text), Ok(Value::String(_)))
}

/// The first document of a text as JSON, without knowing what it is.
#[cfg(test)]
pub(crate) fn parse_tree(text: &str) -> Result<serde_json::Value, String> {
    let mut parsed = yaml::parse(text);
    if let Some((_, fault)) = parsed.faults.pop() {
        return Err(fault.message);
    }
    let mode = decode::Mode { strict: true, v1beta1: false };
    let document = parsed.documents.first();
    document
        .map(|(_, root)| decode::decode(root, mode).value)
        .ok_or_else(|| "no document".to_owned())
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
            details: String::new(),
            source: Arc::clone(&self.source),
            help: None,
            related: Vec::new(),
        }
    }
}
