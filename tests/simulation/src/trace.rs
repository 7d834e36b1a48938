//! What has happened: a hash of all of it, and on request the words.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::queue::Micros;

/// So many of the last lines are the story that a failing seed prints.
const STORY: usize = 60;

/// How much is kept in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Nothing: it costs time.
    None,
    /// The last lines.
    Story,
    /// Everything is printed at once.
    All,
}

/// The trace of a schedule.
pub struct Trace {
    hasher: DefaultHasher,
    words: Words,
    lines: VecDeque<String>,
}

impl Trace {
    /// Nothing has happened.
    pub fn new(words: Words) -> Trace {
        Trace { hasher: DefaultHasher::new(), words, lines: VecDeque::new() }
    }

    /// Takes something into the hash.
    pub fn hash(&mut self, what: impl Hash) {
        what.hash(&mut self.hasher);
    }

    /// Says what has happened; `line` is called only if somebody listens.
    pub fn say(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if self.words == Words::None {
            return;
        }
        let line = format!("{:>11.3} ms  {}", now as f64 / 1000.0, line());
        if self.words == Words::All {
            println!("{line}");
        }
        if self.lines.len() >= STORY {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The hash of everything.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// The last lines.
    pub fn story(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// The hash of some bytes.
pub fn hash_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
