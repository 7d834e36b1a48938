//! The fuzz target's smoke test: replays its corpus, then mutations of it, with the stable compiler.
//!
//! The seed is printed; `LOAD_SEED=n` repeats a run, `LOAD_ROUNDS=n` prolongs it.

use std::path::Path;

use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Source, load};

/// A small generator (xorshift64*): reproducible from its seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).expect("usize fits in 64 bits");
        usize::try_from(self.next() % limit).expect("less than a usize")
    }
}

fn check(bytes: &[u8]) {
    let source = match Source::from_bytes("corpus.yaml", bytes) {
        Ok(source) => source,
        Err(found) => {
            assert!(found.render(false).contains("UTF-8"));
            return;
        }
    };
    for found in load(&[source], &FeatureFlags::default()).diagnostics {
        assert!(found.span.line > 0, "{found:?}");
        assert!(!found.render(true).is_empty());
    }
}

/// One to four edits: overwrite, insert, delete, repeat, or splice in a piece of another input.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: &[u8] = b"\n\n  \t:-?[]{}&*!|>%@'\"#,~<0x1.eE\0\x7f\xc3\xa9\xef\xbb\xbf\xff";
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(16)).min(bytes.len());
        let byte = TELLING[random.below(TELLING.len())];
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].repeat(1 + random.below(20));
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn corpus_and_its_mutations_never_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("LOAD_SEED").unwrap_or(0x7e40_0001);
    let rounds: u64 = number("LOAD_ROUNDS").unwrap_or(5_000);
    println!("LOAD_SEED={seed} LOAD_ROUNDS={rounds}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/load");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus is part of the repository")
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> =
        paths.iter().map(|path| std::fs::read(path).expect("the corpus can be read")).collect();
    corpus.iter().for_each(|bytes| check(bytes));
    let mut random = Random(seed.max(1));
    for _ in 0..rounds {
        check(&mutate(&mut random, &corpus));
    }
}
