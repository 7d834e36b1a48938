//! Feeds arbitrary bytes to the loader and shows what it says.
//!
//! `cargo +nightly fuzz run load` in this folder's parent. The corpus is replayed and mutated by an
//! ordinary test as well (`tekton/tests/load_corpus.rs`).
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Source, load};
use tenon_tekton::yaml_out::to_yaml;

fuzz_target!(|bytes: &[u8]| {
    let source = match Source::from_bytes("fuzz.yaml", bytes) {
        Ok(source) => source,
        Err(found) => {
            let _ = found.render(true);
            return;
        }
    };
    let loaded = load(&[source], &FeatureFlags::default());
    for found in &loaded.diagnostics {
        assert!(found.span.line > 0);
        let _ = found.render(true);
    }
    for document in &loaded.bundle.documents {
        let _ = to_yaml(&document.object.metadata());
        let _ = document.locate("spec.tasks[0].taskSpec.steps[0].image");
    }
});
