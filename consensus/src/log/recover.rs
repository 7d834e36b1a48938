//! Finding the log again: what the records of a journal mean, read from the oldest one that is left.

use std::collections::VecDeque;
use std::path::Path;

use raft::eraftpb::{Entry, HardState};
use tenon_journal::Journal;

use super::record::{self, Record};
use super::view::Slot;
use crate::{Error, Position};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last known term.
    pub term: u64,
    /// For whom this node voted in that term.
    pub vote: Option<crate::NodeId>,
    /// Entries up to here are known to be committed. There may be more.
    pub commit: u64,
    /// The first entry.
    pub first: u64,
    /// The last entry; `first - 1` if there is none.
    pub last: u64,
    /// A torn tail that was cut off: it was never acknowledged.
    pub cut: Option<tenon_journal::Cut>,
}

/// The state that the records lead to.
#[derive(Default)]
pub(super) struct Replay {
    /// Unknown as long as the oldest records are gone and no mark was read.
    base: Option<Position>,
    first: u64,
    slots: VecDeque<Slot>,
    pub hard_state: HardState,
}

impl Replay {
    /// Reads all records.
    pub fn of(dir: &Path, journal: &Journal) -> Result<Replay, Error> {
        let mut replay = Replay::default();
        for item in journal.iter(journal.first_index()) {
            let (at, payload) = item?;
            let damaged = |problem| Error::Damaged { dir: dir.to_owned(), position: at, problem };
            match record::decode(&payload).map_err(damaged)? {
                Record::Entry(entry) => replay.entry(&entry, at).map_err(damaged)?,
                Record::HardState(state) => replay.hard_state = state,
                Record::Reset(after) => {
                    replay.slots.clear();
                    replay.begin_after(after);
                }
                Record::Compacted(up_to) => replay.compacted(up_to),
            }
        }
        replay.finish().map_err(|problem| Error::Damaged {
            dir: dir.to_owned(),
            position: journal.first_index(),
            problem,
        })
    }

    pub fn base(&self) -> Position {
        self.base.unwrap_or_default()
    }

    pub fn into_slots(self) -> VecDeque<Slot> {
        self.slots
    }

    fn begin_after(&mut self, base: Position) {
        self.base = Some(base);
        self.first = base.index + 1;
    }

    fn entry(&mut self, entry: &Entry, record: u64) -> Result<(), String> {
        let index = entry.index;
        if let Some(base) = self.base.filter(|base| index <= base.index) {
            return Err(format!("is entry {index}, but the log begins after {}", base.index));
        }
        let next = self.first + self.slots.len() as u64;
        if self.slots.is_empty() || index < self.first {
            // The records of the entries before it may be gone; `finish` sees whether they are missed.
            self.slots.clear();
            self.first = index;
        } else if index > next {
            return Err(format!("is entry {index} where {next} should follow"));
        }
        self.slots.truncate((index - self.first) as usize);
        self.slots.push_back(Slot { term: entry.term, record });
        Ok(())
    }

    fn compacted(&mut self, up_to: Position) {
        let next = self.first + self.slots.len() as u64;
        if next <= up_to.index + 1 {
            self.slots.clear();
            self.begin_after(up_to);
            return;
        }
        if self.first <= up_to.index {
            self.slots.drain(..(up_to.index + 1 - self.first) as usize);
            self.first = up_to.index + 1;
        }
        self.base = Some(up_to);
    }

    /// Checks that nothing is missing, and makes the hard state fit: it is written after the entries it speaks of, so a
    /// torn tail leaves it behind them.
    fn finish(mut self) -> Result<Replay, String> {
        if self.base.is_none() && self.slots.is_empty() {
            self.first = 1;
        }
        let base = self.base();
        if self.first != base.index + 1 {
            return Err(format!(
                "is the oldest that is left; the log begins with entry {} and should with {}",
                self.first,
                base.index + 1
            ));
        }
        let last = base.index + self.slots.len() as u64;
        let last_term = self.slots.back().map_or(base.term, |slot| slot.term);
        if self.hard_state.term < last_term {
            self.hard_state.term = last_term;
            self.hard_state.vote = 0;
        }
        self.hard_state.commit = self.hard_state.commit.clamp(base.index, last);
        Ok(self)
    }
}
