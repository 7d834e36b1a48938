//! The log as it will be when everything is written: what raft-rs reads.
//!
//! Terms and journal positions of all entries since the last compaction are in memory, 16 bytes an entry. The data of the
//! newest ones is too, up to a bound; older data is read back from the journal. Only the core's thread adds, truncates and
//! compacts (raft-rs reads first index, terms and entries in several calls, which must fit together); the log's thread only
//! notes positions and what is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::eraftpb::{self, Entry, HardState};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use tenon_journal::Journal;

use super::record::{self, Record};
use crate::{Position, SnapshotMeta};

/// What an entry costs in memory besides its data.
const OVERHEAD: usize = 192;
/// As much is read from the journal at once, in bytes.
const READ: usize = 1 << 20;

/// The log in memory, shared by the core and the log's writer. Clones are handles of the same log.
#[derive(Clone)]
pub struct LogView {
    shared: Arc<Mutex<Inner>>,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub term: u64,
    /// Its record's index in the journal; 0: not written yet.
    pub record: u64,
}

pub(crate) struct Inner {
    journal: Journal,
    /// The place after which the log begins.
    base: Position,
    /// The entries from `base.index + 1` on.
    slots: VecDeque<Slot>,
    /// The newest entries, with their data.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    memory_bytes: usize,
    /// Records of the journal up to here are durable.
    durable_record: u64,
    pub hard_state: HardState,
    pub conf_state: eraftpb::ConfState,
    pub offered: Option<SnapshotMeta>,
    /// A peer asked for a snapshot and there was none to offer.
    pub snapshot_wanted: bool,
    /// The log begins anew here, and the writer has not written that yet.
    pub reset_pending: bool,
    pub failure: Option<String>,
}

impl Inner {
    pub fn new(journal: Journal, base: Position, slots: VecDeque<Slot>, memory: usize) -> Inner {
        let durable_record = journal.durable_index();
        Inner {
            journal,
            base,
            slots,
            recent: VecDeque::new(),
            recent_bytes: 0,
            memory_bytes: memory,
            durable_record,
            hard_state: HardState::default(),
            conf_state: eraftpb::ConfState::default(),
            offered: None,
            snapshot_wanted: false,
            reset_pending: false,
            failure: None,
        }
    }

    pub fn base(&self) -> Position {
        self.base
    }

    pub fn first(&self) -> u64 {
        self.base.index + 1
    }

    pub fn last(&self) -> u64 {
        self.base.index + self.slots.len() as u64
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first())?).ok()?)
    }

    /// The term of an entry of the log, or of its base.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.slot(index).map(|slot| slot.term)
    }

    /// The journal's record of the first entry from `index` on that is written.
    pub fn record_of(&self, index: u64) -> Option<u64> {
        self.slot(index).map(|slot| slot.record).filter(|record| *record > 0)
    }

    /// Puts entries at the end, in place of those that are there from the first one's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        debug_assert!(first > self.base.index && first <= self.last() + 1, "a gap in the log");
        self.slots.truncate((first - self.first()) as usize);
        while self.recent.back().is_some_and(|entry| entry.index >= first) {
            let dropped = self.recent.pop_back();
            self.recent_bytes -= dropped.as_ref().map_or(0, weight);
        }
        for entry in entries {
            self.slots.push_back(Slot { term: entry.term, record: 0 });
            self.recent_bytes += weight(entry);
            self.recent.push_back(entry.clone());
        }
        self.evict();
    }

    /// Entries whose data is in memory.
    fn recent(&self, low: u64, high: u64, max_bytes: u64) -> Vec<Entry> {
        let from = self.recent.front().map_or(high, |entry| entry.index);
        let newest = self.recent.range((low - from) as usize..(high - from) as usize);
        let mut bytes = 0;
        let fitting = newest.take_while(|entry| {
            let first = bytes == 0;
            bytes += size(entry);
            first || bytes <= max_bytes
        });
        fitting.cloned().collect()
    }

    /// Notes where an entry was written, unless another has taken its place meanwhile.
    pub fn written(&mut self, entry: &Entry, record: u64) {
        let Some(at) = entry.index.checked_sub(self.first()) else { return };
        if let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| slot.term == entry.term) {
            slot.record = record;
        }
    }

    /// Records of the journal up to this one are durable.
    pub fn durable(&mut self, record: u64) {
        self.durable_record = record;
        self.evict();
    }

    /// Lets data of old entries go that can be read back.
    fn evict(&mut self) {
        while self.recent_bytes > self.memory_bytes {
            let Some(oldest) = self.recent.front() else { break };
            let record = self.record_of(oldest.index);
            if record.is_none_or(|record| record > self.durable_record) {
                break;
            }
            let dropped = self.recent.pop_front();
            self.recent_bytes -= dropped.as_ref().map_or(0, weight);
        }
    }

    /// Forgets the entries up to `index`.
    pub fn compact(&mut self, index: u64) {
        let Some(term) = self.term(index).filter(|_| index > self.base.index) else { return };
        self.slots.drain(..(index - self.base.index) as usize);
        while self.recent.front().is_some_and(|entry| entry.index <= index) {
            let dropped = self.recent.pop_front();
            self.recent_bytes -= dropped.as_ref().map_or(0, weight);
        }
        self.base = Position { index, term };
        if self.offered.as_ref().is_some_and(|offered| offered.position.index < index) {
            self.offered = None;
        }
    }

    /// The log begins anew after a place.
    pub fn reset(&mut self, base: Position) {
        self.base = base;
        self.slots.clear();
        self.recent.clear();
        self.recent_bytes = 0;
        self.offered = None;
    }
}

fn weight(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + OVERHEAD
}

impl LogView {
    pub(crate) fn new(inner: Inner) -> LogView {
        LogView { shared: Arc::new(Mutex::new(inner)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry that it holds.
    pub fn first(&self) -> u64 {
        self.lock().first()
    }

    /// The last entry that it holds; `first() - 1` if it is empty.
    pub fn last(&self) -> u64 {
        self.lock().last()
    }

    /// The data of all entries after a place that somebody proposed, committed or not: for the rescue of a group that has lost
    /// its majority for good.
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error) if they cannot be read.
    pub fn proposed_after(
        &self,
        index: u64,
    ) -> Result<Vec<(Position, bytes::Bytes)>, crate::Error> {
        use raft::Storage as _;
        let first = (index + 1).max(self.first());
        let last = self.last();
        if first > last {
            return Ok(Vec::new());
        }
        let entries = self.entries(first, last + 1, None, raft::GetEntriesContext::empty(false));
        let entries = entries.map_err(|error| crate::Error::Invalid(error.to_string()))?;
        let proposed =
            entries.into_iter().filter(|it| it.entry_type == raft::eraftpb::EntryType::EntryNormal);
        Ok(proposed.map(|it| (Position { index: it.index, term: it.term }, it.data)).collect())
    }

    /// The place of an entry, if the log holds it (or begins after it).
    pub fn position(&self, index: u64) -> Option<Position> {
        self.lock().term(index).map(|term| Position { index, term })
    }

    /// The entries from `low` up to (not with) `high`, as many as fit into `max_bytes`, but at least one.
    pub(crate) fn range(&self, low: u64, high: u64, max_bytes: u64) -> raft::Result<Vec<Entry>> {
        let inner = self.lock();
        if low < inner.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > inner.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        if low >= high {
            return Ok(Vec::new());
        }
        // Older data than this is in the journal only.
        let recent = inner.recent.front().map_or(high, |entry| entry.index).min(high);
        if low >= recent {
            return Ok(inner.recent(low, high, max_bytes));
        }
        let slots = inner.slots.range((low - inner.first()) as usize..);
        let wanted: Vec<Slot> = slots.take((recent - low) as usize).copied().collect();
        let journal = inner.journal.clone();
        // The log's thread need not wait for the disk.
        drop(inner);
        let read = read_back(&journal, low, &wanted, max_bytes).map_err(|problem| {
            self.lock().failure.get_or_insert(problem);
            // Whoever asks finds nothing to do; the core reports the failure.
            raft::Error::from(StorageError::LogTemporarilyUnavailable)
        });
        let mut entries = read?;
        let bytes = entries.iter().map(size).sum::<u64>();
        if entries.len() == wanted.len() && bytes < max_bytes && recent < high {
            // Data may have left the memory meanwhile; then this is all for now.
            let inner = self.lock();
            if inner.recent.front().is_some_and(|entry| entry.index <= recent) {
                entries.extend(inner.recent(recent, high, max_bytes - bytes));
            } else if max_bytes == u64::MAX {
                drop(inner);
                entries.extend(self.range(recent, high, max_bytes)?);
            }
        }
        Ok(entries)
    }
}

/// What an entry counts for where raft-rs limits bytes.
fn size(entry: &Entry) -> u64 {
    raft::util::entry_approximate_size(entry) as u64
}

/// Reads entries from the journal, at least one; says what is wrong if that fails.
fn read_back(
    journal: &Journal,
    low: u64,
    wanted: &[Slot],
    max_bytes: u64,
) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let Some(mut next) = wanted.first().map(|slot| slot.record) else { return Ok(entries) };
    while entries.len() < wanted.len() && (bytes < max_bytes || entries.is_empty()) {
        let most = usize::try_from(max_bytes - bytes).unwrap_or(usize::MAX).clamp(1, READ);
        let records = journal.read_range(next, most).map_err(|error| error.to_string())?;
        let Some((last, _)) = records.last() else {
            return Err(format!("record {next} of its journal is missing"));
        };
        next = last + 1;
        for (at, payload) in records {
            // Hard states and entries that were overridden lie between the wanted ones.
            let Some(slot) = wanted.get(entries.len()).filter(|slot| slot.record == at) else {
                continue;
            };
            let index = low + entries.len() as u64;
            match record::decode(&payload) {
                Ok(Record::Entry(entry)) if (entry.index, entry.term) == (index, slot.term) => {
                    bytes = bytes.saturating_add(size(&entry));
                    entries.push(entry);
                }
                other => {
                    return Err(format!("record {at} should be entry {index}, and is {other:?}"));
                }
            }
            if bytes >= max_bytes {
                break;
            }
        }
    }
    Ok(entries)
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let inner = self.lock();
        Ok(RaftState::new(inner.hard_state.clone(), inner.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        match self.range(low, high, max_size.into().unwrap_or(u64::MAX)) {
            // raft-rs would panic where it cannot wait; with no entries it does nothing.
            Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable))
                if !context.can_async() =>
            {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let inner = self.lock();
        match inner.term(index) {
            Some(term) => Ok(term),
            None if index < inner.base.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let mut inner = self.lock();
        // A peer with the snapshot goes on with the entry behind it, so the log must still have that.
        let needed = request_index.max(inner.base.index);
        // A peer refuses a snapshot from before it was a member.
        let of_use = |offered: &&SnapshotMeta| {
            offered.position.index >= needed && offered.conf_state.contains(to)
        };
        match inner.offered.as_ref().filter(of_use) {
            Some(offered) => Ok(offered.to_raft()),
            None => {
                inner.snapshot_wanted = true;
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}
