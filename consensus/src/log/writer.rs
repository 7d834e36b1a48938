//! Writing the log. Everything here may block on the disk; it runs on a thread of its own.
//!
//! Order within a write: a reset, then entries, then the hard state. A torn tail then never leaves a commit index that speaks of
//! entries which are not there, or of older ones that were being replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::HardState;
use tenon_journal::bugs::{self, Bug};
use tenon_journal::disk::{self, Disk};
use tenon_journal::{Journal, Options};

use super::record;
use super::recover::{Recovered, Replay};
use super::view::{Inner, LogView};
use crate::{ConfState, Error, Position, Write};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The size of the journal's segments, in bytes: compaction frees whole segments.
    pub segment_bytes: u64,
    /// So many bytes are prepared at a time for what is written next; 0 for none. See the journal's option.
    pub prepare_bytes: u64,
    /// Data of the newest entries that is kept in memory, in bytes.
    pub memory_bytes: usize,
    /// The file system it is kept on.
    pub disk: Arc<dyn Disk>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: 16 << 20,
            prepare_bytes: 0,
            memory_bytes: 32 << 20,
            disk: disk::real(),
        }
    }
}

/// Leave to forget the entries up to a place: given out by the core, carried out by [`LogWriter::compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The last entry that is not needed any more.
    pub up_to: Position,
}

/// What [`LogWriter::repair`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The log holds what was applied (or begins right after it).
    Unneeded,
    /// The log did not reach the applied state: a snapshot was installed and the node died before the log began anew. Now it
    /// begins after the applied entry.
    BegunAnew,
}

/// The log's writer. Exactly one lives for a directory.
pub struct LogWriter {
    dir: PathBuf,
    journal: Journal,
    view: LogView,
    /// The newest hard state that was appended.
    hard_state: HardState,
    /// The number of the newest write that was appended.
    number: u64,
}

impl LogWriter {
    /// Begins the log of a new group: after an entry 1 of term 1, which nobody ever saw, with this membership. All first members
    /// begin with the same one. (A node that is added to a group later begins with nothing: it just opens an empty directory.)
    /// The owner stores `Position { index: 1, term: 1 }` as applied, with the membership.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a log; [`Error::Invalid`] if the membership contradicts itself.
    pub fn bootstrap(
        dir: &Path,
        options: LogOptions,
        members: &ConfState,
    ) -> Result<Position, Error> {
        if let Some(problem) = members.problem() {
            return Err(Error::Invalid(format!("the first membership: {problem}")));
        }
        let (mut writer, _, recovered) = LogWriter::open(dir, options)?;
        let first = Position { index: 1, term: 1 };
        // A crash on the way leaves a log that begins as it should and holds nothing; then this is a second try.
        let begun = recovered.first == 2
            && recovered.last == 1
            && recovered.term == 1
            && recovered.vote.is_none();
        if !begun && !recovered.is_empty() {
            return Err(Error::Exists { dir: dir.to_owned() });
        }
        writer.begin_anew(first)?;
        Ok(first)
    }

    /// Opens the log of a directory, which may be empty or missing.
    ///
    /// # Errors
    /// Those of the journal, and [`Error::Damaged`] if its records make no log.
    pub fn open(dir: &Path, options: LogOptions) -> Result<(LogWriter, LogView, Recovered), Error> {
        let journal_options = Options {
            segment_bytes: options.segment_bytes,
            prepare_bytes: options.prepare_bytes,
            disk: options.disk,
            ..Options::default()
        };
        let (journal, found) = Journal::open(dir, journal_options)?;
        let replay = Replay::of(dir, &journal)?;
        let hard_state = replay.hard_state.clone();
        let base = replay.base();
        let mut inner =
            Inner::new(journal.clone(), base, replay.into_slots(), options.memory_bytes);
        inner.hard_state = hard_state.clone();
        let recovered = Recovered {
            term: hard_state.term,
            vote: Some(hard_state.vote).filter(|vote| *vote != 0),
            commit: hard_state.commit,
            first: inner.first(),
            last: inner.last(),
            cut: found.cut,
        };
        let view = LogView::new(inner);
        let writer =
            LogWriter { dir: dir.to_owned(), journal, view: view.clone(), hard_state, number: 0 };
        Ok((writer, view, recovered))
    }

    /// Makes the log fit to what the owner has applied durably: call it after `open` and before `Core::new`, always. If the log
    /// does not hold the applied entry, a snapshot was installed and the log did not begin anew before a crash; that is made
    /// up for here, durably. Term and vote stay. (In an empty directory it begins the log of a state that comes from a backup.)
    ///
    /// # Errors
    /// [`Error::Apart`] if the log begins later than the applied state ends: entries are missing in between.
    pub fn repair(&mut self, applied: Position) -> Result<Repair, Error> {
        let (base, last, term) = {
            let inner = self.view.lock();
            (inner.base(), inner.last(), inner.term(applied.index))
        };
        if applied.index < base.index {
            let first = base.index + 1;
            return Err(Error::Apart { first, last, applied: applied.index });
        }
        if term == Some(applied.term) {
            return Ok(Repair::Unneeded);
        }
        self.begin_anew(applied)?;
        Ok(Repair::BegunAnew)
    }

    fn begin_anew(&mut self, after: Position) -> Result<(), Error> {
        let mut hard_state = self.hard_state.clone();
        if hard_state.term < after.term {
            hard_state.term = after.term;
            hard_state.vote = 0;
        }
        hard_state.commit = after.index;
        {
            let mut inner = self.view.lock();
            inner.reset(after);
            inner.hard_state = hard_state.clone();
        }
        let number = self.number;
        let write =
            Write { number, hard_state: Some(hard_state), reset: Some(after), entries: Vec::new() };
        self.write(&write)?;
        self.sync()?;
        Ok(())
    }

    /// Appends a write, in the order in which the core gave them out. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the journal. The node must stop: the core counts on every write.
    pub fn write(&mut self, write: &Write) -> Result<(), Error> {
        let reset = write.reset.map(record::reset);
        let entries = write.entries.iter().map(record::entry);
        let hard_state = write.hard_state.as_ref().map(|state| {
            let mut state = state.clone();
            if bugs::is_on(Bug::ForgetVote) {
                state.vote = 0;
            }
            record::hard_state(&state)
        });
        let records: Vec<Vec<u8>> = reset.into_iter().chain(entries).chain(hard_state).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let first = self.journal.append(&records)?;
        if let Some(state) = &write.hard_state {
            self.hard_state = state.clone();
        }
        let first_entry = first + u64::from(write.reset.is_some());
        {
            let mut inner = self.view.lock();
            // What is written before a reset that the view has seen already is gone with it.
            if write.reset.is_some() || !inner.reset_pending {
                for (entry, record) in write.entries.iter().zip(first_entry..) {
                    inner.written(entry, record);
                }
            }
        }
        self.number = write.number;
        if write.reset.is_some() {
            self.sync_journal()?;
            self.view.lock().reset_pending = false;
            self.journal.delete_prefix(first)?;
        }
        Ok(())
    }

    /// Makes everything durable that was written, and returns the number of the last write: pass it to `Core::persisted`.
    ///
    /// # Errors
    /// Those of the journal. After a full disk (`journal/no-space`) it may be tried again; nothing was acknowledged. After any
    /// other one the node must stop.
    pub fn sync(&mut self) -> Result<u64, Error> {
        if !bugs::is_on(Bug::SkipLogSync) {
            self.sync_journal()?;
        }
        Ok(self.number)
    }

    fn sync_journal(&mut self) -> Result<(), Error> {
        let durable = self.journal.sync()?;
        self.view.lock().durable(durable);
        Ok(())
    }

    /// Frees the disk of entries that are not needed any more. Nothing happens to what is needed, whenever it stops.
    ///
    /// # Errors
    /// Those of the journal; the node must stop, unless it is `journal/no-space`.
    pub fn compact(&mut self, compaction: &Compaction) -> Result<(), Error> {
        let (base, keep_from) = {
            let inner = self.view.lock();
            if inner.reset_pending || inner.base() < compaction.up_to {
                // A snapshot takes the place of all of it in a moment.
                return Ok(());
            }
            let oldest = inner.record_of(inner.first());
            if oldest.is_none() && inner.first() <= inner.last() {
                // The first entry that is kept takes the place of another one and is not written yet. What it replaces
                // may lie behind what would go, and would make no log without it. The next compaction does it.
                return Ok(());
            }
            // The view may have been compacted further by now, which is as good.
            (inner.base(), oldest)
        };
        let records = [record::hard_state(&self.hard_state), record::compacted(base)];
        let mark = self.journal.append(&[&records[0], &records[1]])?;
        self.sync_journal()?;
        self.journal.delete_prefix(keep_from.unwrap_or(mark).min(mark))?;
        Ok(())
    }

    /// The bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        self.journal.disk_bytes()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it shares with the core.
    pub fn view(&self) -> LogView {
        self.view.clone()
    }
}

impl Recovered {
    /// Nothing was found: this node has never been in a group.
    pub fn is_empty(&self) -> bool {
        self.term == 0 && self.first == 1 && self.last == 0
    }
}
