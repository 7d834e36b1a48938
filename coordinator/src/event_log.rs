//! The history of all runs: one journal with every event in the order of `seq`, and beside the
//! events of a run two documents, its submission and its final objects.
//!
//! What is applied is appended at once and shown to readers; it is durable at the next
//! [`EventLog::sync`], which comes before the replica's state may say that it was applied. After a
//! crash entries are applied again: a record that is already there is compared, not written twice. One
//! that differs means that applying was not deterministic, and stops the node (invariant 2).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenon_engine::{Event, RunId};
use tenon_journal::disk::Disk;
use tenon_journal::{Journal, Options, bugs};
use tenon_reporter::history::{self, Stored};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::pack::pack;

/// Bytes of the newest records that are kept in memory for those who follow.
const TAIL_BYTES: usize = 4 << 20;
/// A segment of this size is sealed, and then compressed.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Begins a document, where an event has the length of its header (which is never this long).
const DOCUMENT: u32 = 0xFFFF_FF00;

/// The documents of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// [`tenon_engine::Submission`] as JSON, with the sealed materials behind it.
    Submission = 1,
    /// The final objects as YAML.
    Objects = 2,
}

/// A record of the log.
#[derive(Clone, Debug)]
pub enum Record {
    /// An event, or packed lines of output.
    Event(Stored),
    /// A document of a run.
    Document {
        /// Which document.
        kind: DocumentKind,
        /// Of which run.
        run: RunId,
        /// Its content.
        content: Vec<u8>,
    },
}

impl Record {
    /// Takes the bytes of a record apart; what is wrong with them otherwise.
    pub fn parse(bytes: &[u8]) -> Result<Record, String> {
        let head = bytes.first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head));
        let kind = match head.checked_sub(DOCUMENT) {
            None => return Stored::new(bytes.to_vec()).map(Record::Event),
            Some(1) => DocumentKind::Submission,
            Some(2) => DocumentKind::Objects,
            Some(other) => return Err(format!("a document of unknown kind {other}")),
        };
        let (run, packed) = bytes[4..].split_first_chunk::<16>().ok_or("a document cut short")?;
        let content = zstd::decode_all(packed).map_err(|error| error.to_string())?;
        Ok(Record::Document { kind, run: RunId(ulid::Ulid::from_bytes(*run)), content })
    }
}

/// Whether the bytes are those of an event, without looking further.
pub fn is_event(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|head| u32::from_le_bytes(*head) < DOCUMENT)
}

/// The one writer.
pub struct EventLog {
    journal: Journal,
    /// Index of the next record that applying makes.
    next: u64,
    /// Records that are there already, to compare with what is applied again.
    again: VecDeque<(u64, Vec<u8>)>,
    tail: Arc<Mutex<Tail>>,
    visible: watch::Sender<u64>,
}

/// Reads the log while it grows; cheap to clone.
#[derive(Clone)]
pub struct EventLogReader {
    journal: Journal,
    tail: Arc<Mutex<Tail>>,
    visible: watch::Receiver<u64>,
}

/// The newest records.
#[derive(Default)]
struct Tail {
    /// Index of the first record in it.
    first: u64,
    bytes: usize,
    records: VecDeque<Arc<[u8]>>,
}

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventLog {
    /// Opens the log; `next` is the index of the record that will be applied next.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, next: u64) -> Result<EventLog> {
        EventLog::open_with(disk, dir, next, SEGMENT_BYTES)
    }

    /// Likewise, with segments of another size.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        next: u64,
        segment_bytes: u64,
    ) -> Result<EventLog> {
        let options = Options {
            disk,
            segment_bytes,
            verify: tenon_journal::Verify::Tail,
            ..Options::default()
        };
        let (journal, recovered) = Journal::open(dir, options)?;
        if recovered.last_index + 1 < next {
            return Err(Error::Diverged(format!(
                "{} ends with record {}, but the state has applied up to record {}",
                dir.display(),
                recovered.last_index,
                next - 1
            )));
        }
        let (visible, _) = watch::channel(next - 1);
        let tail = Tail { first: next, ..Tail::default() };
        let tail = Arc::new(Mutex::new(tail));
        Ok(EventLog { journal, next, again: VecDeque::new(), tail, visible })
    }

    /// A reader of this log.
    pub fn reader(&self) -> EventLogReader {
        EventLogReader {
            journal: self.journal.clone(),
            tail: self.tail.clone(),
            visible: self.visible.subscribe(),
        }
    }

    /// Index of the record that will be applied next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends an event; returns the record's index.
    pub fn append_event(&mut self, event: &Event) -> Result<u64> {
        self.append(history::encode(event))
    }

    /// Appends a document; returns the record's index.
    pub fn append_document(
        &mut self,
        kind: DocumentKind,
        run: RunId,
        content: &[u8],
    ) -> Result<u64> {
        let mut record = (DOCUMENT | kind as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&run.0.to_bytes());
        record.extend_from_slice(&pack(content));
        self.append(record)
    }

    fn append(&mut self, record: Vec<u8>) -> Result<u64> {
        let index = self.next;
        if index <= self.journal.last_index() {
            self.compare(index, &record)?;
        } else {
            self.journal.append(&[&record])?;
        }
        self.next += 1;
        lock(&self.tail).push(index, record.into());
        Ok(index)
    }

    /// What is applied again must be what was applied before.
    fn compare(&mut self, index: u64, record: &[u8]) -> Result<()> {
        if self.again.front().is_none_or(|(at, _)| *at != index) {
            self.again = self.journal.read_range(index, TAIL_BYTES)?.into();
        }
        match self.again.pop_front() {
            Some((at, before)) if at == index && before == record => Ok(()),
            _ => Err(Error::Diverged(format!(
                "applying the log again gave another record {index} than before"
            ))),
        }
    }

    /// Shows what was appended to those who read.
    pub fn publish(&mut self) {
        let last = self.next - 1;
        self.visible.send_if_modified(|visible| std::mem::replace(visible, last) != last);
    }

    /// Makes everything that was appended durable.
    pub fn sync(&mut self) -> Result<()> {
        if !bugs::is_on(bugs::Bug::SkipHistorySync) {
            self.journal.sync()?;
        }
        Ok(())
    }

    /// Bytes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.journal.disk_bytes()
    }

    /// Index of the first record that is still there.
    pub fn first_index(&self) -> u64 {
        self.journal.first_index()
    }

    /// The last record that is there, applied or received.
    pub fn last_index(&self) -> u64 {
        self.journal.last_index()
    }

    /// Takes records that another member has applied. Those that are here already are left alone;
    /// a gap in front of them means that the other has dropped older ones, and so does this one.
    pub fn receive(&mut self, first: u64, records: &[bytes::Bytes]) -> Result<()> {
        if first > self.journal.last_index() + 1 {
            self.journal.reset(first)?;
        }
        let known = (self.journal.last_index() + 1 - first) as usize;
        let new: Vec<&[u8]> = records.iter().skip(known).map(AsRef::as_ref).collect();
        if !new.is_empty() {
            self.journal.append(&new)?;
        }
        Ok(())
    }

    /// Goes on after the state of another member was installed, which had applied up to before
    /// `next`.
    pub fn installed(&mut self, next: u64) {
        self.next = next;
        self.again.clear();
        *lock(&self.tail) = Tail { first: next, ..Tail::default() };
        self.publish();
    }

    /// Drops whole segments of records below `keep_from`.
    pub fn drop_before(&mut self, keep_from: u64) -> Result<()> {
        Ok(self.journal.delete_prefix(keep_from)?)
    }
}

impl Tail {
    fn push(&mut self, index: u64, record: Arc<[u8]>) {
        if self.records.is_empty() {
            self.first = index;
        }
        self.bytes += record.len();
        self.records.push_back(record);
        while self.bytes > TAIL_BYTES {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }
}

impl EventLogReader {
    /// The journal itself, for those who copy it.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// The last record that may be read.
    pub fn visible(&self) -> u64 {
        *self.visible.borrow()
    }

    /// The last record that may be read, as it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.visible.clone()
    }

    /// `seq` of the first event that is still there.
    pub fn first_seq(&self) -> Option<u64> {
        let first = self.first_seq_from(self.first_index(), self.visible() + 1);
        first.ok().flatten().map(|(_, seq)| seq)
    }

    /// The first record that is still there.
    pub fn first_index(&self) -> u64 {
        self.journal.first_index()
    }

    /// Waits until more than `seen` is visible. False when the node has stopped.
    pub async fn wait(&mut self, seen: u64) -> bool {
        self.visible.wait_for(|visible| *visible > seen).await.is_ok()
    }

    /// Records from `from` on, at least one if there is one, at most about `max_bytes`. Reads files
    /// unless all of them are among the newest.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Arc<[u8]>)>> {
        let visible = self.visible();
        if let Some(records) = self.read_tail(from, visible, max_bytes) {
            return Ok(records);
        }
        let records = self.journal.read_range(from, max_bytes)?;
        let visible = records.into_iter().take_while(|(index, _)| *index <= visible);
        Ok(visible.map(|(index, record)| (index, record.into())).collect())
    }

    /// Likewise, if they are in memory.
    pub fn read_tail(
        &self,
        from: u64,
        visible: u64,
        max_bytes: usize,
    ) -> Option<Vec<(u64, Arc<[u8]>)>> {
        let tail = lock(&self.tail);
        if from > visible {
            return Some(Vec::new());
        }
        let start = usize::try_from(from.checked_sub(tail.first)?).ok()?;
        let mut records = Vec::new();
        let mut bytes = 0;
        for (index, record) in
            (from..=visible).zip(tail.records.range(start.min(tail.records.len())..))
        {
            bytes += record.len();
            records.push((index, record.clone()));
            if bytes >= max_bytes {
                break;
            }
        }
        Some(records)
    }

    /// The first record whose event comes after `seq`: an event of several numbers counts by its
    /// last one.
    pub fn after(&self, seq: u64) -> Result<u64> {
        let (mut low, mut high) = (self.first_index(), self.visible() + 1);
        // Everything below `low` ends at or before `seq`; everything from `high` on begins after.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_seq_from(middle, high)? {
                Some((at, first)) if first <= seq => low = at + 1,
                _ => high = middle,
            }
        }
        // The record before may be output of which some lines come after.
        Ok(self.last_event_before(low)?.unwrap_or(low))
    }

    /// Index and `seq` of the first event from `from` on.
    fn first_seq_from(&self, from: u64, until: u64) -> Result<Option<(u64, u64)>> {
        let mut at = from;
        while at < until {
            for (index, record) in self.read(at, 1)? {
                if is_event(&record) {
                    return seq_of(&record).map(|seq| Some((index, seq)));
                }
                at = index;
            }
            at += 1;
        }
        Ok(None)
    }

    fn last_event_before(&self, index: u64) -> Result<Option<u64>> {
        let mut at = index;
        while at > self.first_index() {
            at -= 1;
            if self.read(at, 1)?.first().is_some_and(|(_, record)| is_event(record)) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// The `seq` of an event's record.
pub fn seq_of(record: &[u8]) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let header = history::decode(record).map(|(header, _)| header).map_err(Error::Record)?;
    let numbered: Numbered =
        serde_json::from_slice(header).map_err(|error| Error::Record(error.to_string()))?;
    Ok(numbered.seq)
}
