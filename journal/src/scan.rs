//! Reading ranges of a journal that this process writes, durable or not.
//!
//! Whoever reads range after range goes on where it stopped: the place (an open file and what was read ahead of it) is kept
//! for a few such readers. Changes to what is stored forget all places.

use std::sync::{Arc, MutexGuard};

use crate::Error;
use crate::journal::{Journal, Shared, lock};
use crate::reader::Reader;
use crate::source::Frames;

/// So many places are kept, each with its read-ahead (some hundred KiB).
const PLACES: usize = 4;

/// Where earlier scans stopped.
#[derive(Default)]
pub(crate) struct Places {
    /// Counts the changes that made places invalid.
    changes: u64,
    kept: Vec<Frames>,
}

impl Places {
    pub fn forget(&mut self) {
        self.changes += 1;
        self.kept.clear();
    }
}

impl Journal {
    /// The records from `from` on, as many as fit into `max_bytes` of payload, but at least one if there is one. Sees what
    /// was appended, durable or not (it is written to the file first if need be). Empty: nothing was appended yet at
    /// `from`. May return fewer than would fit; ask again from the next index. [`Error::Gone`] if `from` was deleted.
    pub fn read_range(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let (first, file_next, next) = {
            let state = lock(&self.shared.state);
            (state.first(), state.file_next, state.next)
        };
        if from < first {
            return Err(Error::Gone { index: from, first });
        }
        if from >= next {
            return Ok(Vec::new());
        }
        if from >= file_next {
            self.flush()?;
        }
        let until = lock(&self.shared.state).file_next;
        let (changes, frames) = {
            let mut places = self.shared.places();
            let at = places.kept.iter().position(|frames| frames.next_index() == from);
            (places.changes, at.map(|at| places.kept.remove(at)))
        };
        let mut reader = Reader::of(Arc::clone(&self.shared), from, Some(until)).at(frames);
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes || records.is_empty() {
            let Some(record) = reader.next()? else { break };
            bytes += record.payload.len();
            if bytes > max_bytes && !records.is_empty() {
                // The reader is past it now; the next range finds its place anew.
                return Ok(records);
            }
            records.push((record.index, record.payload.to_vec()));
        }
        let mut places = self.shared.places();
        if let Some(frames) = reader.into_frames().filter(|_| places.changes == changes) {
            if places.kept.len() >= PLACES {
                places.kept.remove(0);
            }
            places.kept.push(frames);
        }
        Ok(records)
    }
}

impl Shared {
    /// The places where scans stopped.
    pub fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }
}
