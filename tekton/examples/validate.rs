//! `validate FILE…`: loads and validates documents as `tenon validate -o json` does, without the
//! command line around it; for measuring and for comparing with Tekton.
//!
//! Exit 0: valid. Exit 4: not valid.

use std::sync::Arc;

use serde_json::json;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Severity, Source, load};

fn main() -> std::io::Result<()> {
    let mut sources = Vec::new();
    for name in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        let text = Arc::from(std::fs::read_to_string(&name)?);
        sources.push(Source { name, text });
    }
    let flags = FeatureFlags::default();
    let loaded = load(&sources, &flags);
    let mut found = loaded.diagnostics;
    found.extend(tenon_tekton::validate::check(&loaded.bundle.documents, &flags));
    found.retain(|diagnostic| diagnostic.severity == Severity::Error);
    let errors: Vec<_> = found
        .iter()
        .map(|it| {
            eprintln!("{}", it.render(false));
            json!({
                "code": it.code, "message": it.message, "path": it.path, "details": it.details,
                "file": it.source.name, "line": it.span.line, "column": it.span.column,
                "help": it.help,
            })
        })
        .collect();
    let documents = loaded.bundle.documents.len();
    println!("{}", json!({ "errors": errors, "documents": documents }));
    std::process::exit(if errors.is_empty() { 0 } else { 4 });
}
