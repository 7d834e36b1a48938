//! Where the reading of a record stands, exactly: so that another process can go on there.
//!
//! A report and the mark behind it become durable as one. What follows a mark is reported after it,
//! and nothing before it again. A mark holds positions and never text: what a line has so far may be
//! the first half of a secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the reading of one container's record stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mark {
    /// The container's place in its attempt: the steps, then the sidecars.
    #[prost(uint32, tag = "1")]
    pub container: u32,
    /// That the command has begun was reported.
    #[prost(bool, tag = "2")]
    pub begun: bool,
    /// The end was reported: nothing of the record is read any more.
    #[prost(bool, tag = "3")]
    pub over: bool,
    /// Where in the file the next frame is that was not reported in full.
    #[prost(uint64, tag = "4")]
    pub next: u64,
    /// How many lines (and parts of lines) came of that frame already.
    #[prost(uint32, tag = "5")]
    pub given: u32,
    /// What stdout has printed since its last newline, as of `next`.
    #[prost(message, optional, tag = "6")]
    pub stdout: Option<Pending>,
    /// The same of stderr.
    #[prost(message, optional, tag = "7")]
    pub stderr: Option<Pending>,
}

/// A line that has begun, and that no newline has ended yet.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pending {
    /// The frame in which its first byte that was not reported is; none where nothing is left over.
    #[prost(uint64, optional, tag = "1")]
    pub frame: Option<u64>,
    /// Which byte of that frame's output.
    #[prost(uint32, tag = "2")]
    pub byte: u32,
    /// The time of the line.
    #[prost(int64, tag = "3")]
    pub since_ms: i64,
    /// A part of the line was reported already.
    #[prost(bool, tag = "4")]
    pub continued: bool,
}

impl Mark {
    /// The first byte of the file that somebody who goes on here needs.
    pub fn first_needed(&self) -> u64 {
        let pending = [&self.stdout, &self.stderr].into_iter().flatten();
        pending.filter_map(|pending| pending.frame).fold(self.next, u64::min)
    }
}

/// The mark of the container at that place of its attempt; where there is none, nothing was reported.
pub fn of(marks: &BTreeMap<u32, Mark>, index: usize) -> Mark {
    let container = u32::try_from(index).unwrap_or(u32::MAX);
    let mark = marks.get(&container).cloned().unwrap_or_default();
    Mark { container, ..mark }
}

/// A mark on its way to where it becomes durable, and whom to tell then.
#[derive(Clone, Debug)]
pub struct Marked {
    /// The mark.
    pub mark: Mark,
    pub(super) kept: Arc<AtomicU64>,
}

impl Marked {
    /// A mark of nobody's reading.
    #[cfg(test)]
    pub(crate) fn new(mark: Mark) -> Marked {
        Marked { mark, kept: Arc::default() }
    }

    /// Up to where the record is not needed any more.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// The mark is durable, as far as it has to be: nobody needs the record before it any more.
    pub fn keep(&self) {
        self.kept.fetch_max(self.mark.first_needed(), Ordering::Release);
    }
}
