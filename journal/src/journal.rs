//! The writer's side: append, group commit, reading back.
//!
//! Two locks: `state` is held for moments only, `writer` while files are written and synced. Callers of `sync` queue at
//! `writer`; the first takes everything that is buffered, and the others find themselves covered by its `fdatasync`.
//! Lock order: `maintenance` before `writer` before `state`; `places` is held alone.
//! Invariants: `durable_next <= file_next <= next`; records below `durable_next` survive a power cut; records from
//! `file_next` on are in `pending`, whole and in order, also after a write failed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::active::Active;
use crate::disk::{self, DirectoryLock, Disk};
use crate::frame::{self, HEAD, Head, MAX_RECORD};
use crate::reader::Reader;
use crate::recover::{Recovered, recover};
use crate::scan::Places;
use crate::segment::{SEGMENT_HEAD, SegmentFile, SegmentHead};
use crate::{Error, directory};

/// One seek point for each so many bytes of a segment.
const SEEK_EVERY: u64 = 32 << 10;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment that has grown to this size is sealed and the next one begins.
    pub segment_bytes: u64,
    /// Compress segments when they are sealed, at this zstd level. It is done by the caller whose write sealed the segment,
    /// after its records are safe; callers who cannot wait use [`Journal::compress_sealed`] from a thread of their own.
    pub compress_sealed: Option<i32>,
    /// What to check at open.
    pub verify: Verify,
    /// The index of the first record of a new journal.
    pub first_index: u64,
    /// So many bytes after the records are filled with zeros in advance: a sync of what is written over them need not
    /// change the file's length and blocks, which takes about half of its time. 0 for none.
    pub prepare_bytes: u64,
    /// `append` writes through (without sync) when so much is buffered.
    pub buffer_limit: usize,
    /// The file system that it is kept on.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 64 << 20,
            compress_sealed: None,
            verify: Verify::All,
            first_index: 1,
            prepare_bytes: 0,
            buffer_limit: 8 << 20,
            disk: disk::real(),
        }
    }
}

/// How much of a journal is read at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every record.
    All,
    /// The newest segment; damage in older ones is reported when they are read.
    Tail,
}

/// A journal opened for writing. Clones are handles of the same journal.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

type Listener = Arc<dyn Fn(u64) + Send + Sync>;

pub(crate) struct Shared {
    pub dir: PathBuf,
    pub options: Options,
    pub salt: u32,
    pub state: Mutex<State>,
    pub durable_changed: Condvar,
    pub writer: Mutex<Writer>,
    /// Held while segments are removed, shortened or replaced.
    pub maintenance: Mutex<()>,
    listeners: Mutex<Vec<Listener>>,
    /// Where ranges were read last.
    pub places: Mutex<Places>,
    /// The locked directory handle: one writer at a time.
    _lock: DirectoryLock,
}

pub(crate) struct State {
    pub next: u64,
    pub file_next: u64,
    pub durable_next: u64,
    pub pending: Vec<u8>,
    pub segments: Vec<Segment>,
    pub failed: Option<String>,
}

impl State {
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(self.file_next, |segment| segment.file.first)
    }
}

/// A segment and where in it one can start reading.
#[derive(Clone)]
pub(crate) struct Segment {
    pub file: SegmentFile,
    points: Vec<(u64, u64)>,
}

impl Segment {
    pub fn new(file: SegmentFile) -> Segment {
        Segment { points: vec![(file.first, SEGMENT_HEAD)], file }
    }

    /// A record (or block) that begins with `index` is at `offset`.
    pub fn note(&mut self, index: u64, offset: u64) {
        if self.points.last().is_none_or(|(_, last)| offset >= last + SEEK_EVERY) {
            self.points.push((index, offset));
        }
    }

    /// Where to start in order to find `index`.
    pub fn seek(&self, index: u64) -> (u64, u64) {
        let after = self.points.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map_or((self.file.first, SEGMENT_HEAD), |at| self.points[at])
    }

    pub fn forget_from(&mut self, index: u64) {
        let first = self.file.first;
        self.points.retain(|(at, _)| *at < index || *at == first);
    }
}

pub(crate) struct Writer {
    pub active: Option<Active>,
    /// The active file holds bytes that were not synced.
    pub unsynced: bool,
    /// A write failed and was taken back, and that is not synced.
    pub torn: bool,
    /// A file was created and the directory is not synced.
    pub dirty_directory: bool,
    spare: Vec<u8>,
    sealed: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens or creates the journal in a directory, mends a torn tail, and locks the directory against other writers.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<(Journal, Recovered), Error> {
        let dir = dir.as_ref().to_owned();
        directory::create(&*options.disk, &dir)?;
        let lock = options.disk.lock_dir(&dir).map_err(Error::io("lock the directory", &dir))?;
        let Some(lock) = lock else {
            return Err(Error::Locked { dir });
        };
        let start = recover(&dir, &options)?;
        let state = State {
            next: start.next,
            file_next: start.next,
            durable_next: start.next,
            pending: Vec::new(),
            segments: start.segments,
            failed: None,
        };
        let recovered =
            Recovered { first_index: state.first(), last_index: start.next - 1, cut: start.cut };
        let writer = Writer {
            active: start.active,
            unsynced: false,
            torn: false,
            dirty_directory: false,
            spare: Vec::new(),
            sealed: false,
        };
        let shared = Shared {
            dir,
            options,
            salt: start.salt,
            state: Mutex::new(state),
            durable_changed: Condvar::new(),
            writer: Mutex::new(writer),
            maintenance: Mutex::new(()),
            listeners: Mutex::new(Vec::new()),
            places: Mutex::default(),
            _lock: lock,
        };
        Ok((Journal { shared: Arc::new(shared) }, recovered))
    }

    /// Buffers records and returns the index of the first. They are safe once `sync` has returned. An error means that none
    /// of them was taken.
    pub fn append(&self, records: &[&[u8]]) -> Result<u64, Error> {
        if let Some(record) = records.iter().find(|record| record.len() > MAX_RECORD) {
            return Err(Error::TooLarge { length: record.len() });
        }
        let mut state = self.shared.usable_state()?;
        if state.pending.len() >= self.shared.options.buffer_limit {
            drop(state);
            self.flush()?;
            state = self.shared.usable_state()?;
        }
        let first = state.next;
        let durable = state.durable_next - 1;
        for record in records {
            let index = state.next;
            frame::encode(&mut state.pending, self.shared.salt, index, durable, record);
            state.next += 1;
        }
        Ok(first)
    }

    /// Writes what is buffered, so that readers of other processes see it. Not safe against a power cut: that is `sync`.
    pub fn flush(&self) -> Result<(), Error> {
        self.shared.commit(false).map(drop)
    }

    /// Makes everything that was appended before this call durable and returns the last durable index. Concurrent callers
    /// share one `fdatasync`. After [`Error::NoSpace`] the records are still buffered and the next `sync` tries again.
    pub fn sync(&self) -> Result<u64, Error> {
        self.shared.commit(true)
    }

    /// One record; `None` if it was not appended yet, [`Error::Gone`] if it was deleted.
    pub fn read(&self, index: u64) -> Result<Option<Vec<u8>>, Error> {
        if index > self.last_index() {
            return Ok(None);
        }
        match self.iter(index).next() {
            Some(Ok((_, record))) => Ok(Some(record)),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// The records from `from` up to what is appended now.
    pub fn iter(&self, from: u64) -> Iter {
        let flushed = self.flush();
        let until = lock(&self.shared.state).file_next;
        Iter {
            reader: Reader::of(Arc::clone(&self.shared), from, Some(until)),
            failed: flushed.err(),
            over: false,
        }
    }

    /// A reader that follows this journal; it sees records once they are durable.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::of(Arc::clone(&self.shared), from, None)
    }

    /// The first index that can be read (or will be written, in an empty journal).
    pub fn first_index(&self) -> u64 {
        lock(&self.shared.state).first()
    }

    /// The last index that was appended; `first_index() - 1` in an empty journal.
    pub fn last_index(&self) -> u64 {
        lock(&self.shared.state).next - 1
    }

    /// The last index that is durable.
    pub fn durable_index(&self) -> u64 {
        lock(&self.shared.state).durable_next - 1
    }

    /// The bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        let files: Vec<_> =
            lock(&self.shared.state).segments.iter().map(|s| s.file.path.clone()).collect();
        files.iter().filter_map(|file| self.shared.disk().length(file).ok()).sum()
    }

    /// Calls `listener` with the last durable index after each `sync` that moved it, on the thread that synced.
    pub fn on_durable(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        lock(&self.shared.listeners).push(Arc::new(listener));
    }
}

impl Shared {
    /// The file system that the journal is kept on.
    pub fn disk(&self) -> &dyn Disk {
        &*self.options.disk
    }

    /// The state, unless the journal has failed.
    pub fn usable_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = lock(&self.state);
        match &state.failed {
            Some(reason) => Err(Error::Failed { dir: self.dir.clone(), reason: reason.clone() }),
            None => Ok(state),
        }
    }

    /// What the disk holds is unknown after a failed sync or a half-done change: nothing more may be written.
    pub fn fail(&self, error: Error) -> Error {
        lock(&self.state).failed.get_or_insert_with(|| error.to_string());
        error
    }

    fn commit(&self, durable: bool) -> Result<u64, Error> {
        let target = {
            let state = self.usable_state()?;
            if durable && state.durable_next >= state.next {
                return Ok(state.durable_next - 1);
            }
            state.next
        };
        let mut writer = lock(&self.writer);
        let (batch, first) = {
            let mut state = self.usable_state()?;
            if durable && state.durable_next >= target {
                return Ok(state.durable_next - 1);
            }
            let spare = std::mem::take(&mut writer.spare);
            (std::mem::replace(&mut state.pending, spare), state.file_next)
        };
        if let Err((written, error)) = self.write(&mut writer, &batch, first) {
            let mut state = lock(&self.state);
            let later = std::mem::take(&mut state.pending);
            state.pending.extend_from_slice(&batch[written..]);
            state.pending.extend_from_slice(&later);
            return Err(error);
        }
        writer.spare = batch;
        writer.spare.clear();
        writer.spare.shrink_to(self.options.buffer_limit);
        let sealed = std::mem::take(&mut writer.sealed);
        let moved = if durable { Some(self.sync_files(&mut writer)?) } else { None };
        drop(writer);
        if let Some(last) = moved {
            let listeners: Vec<_> = lock(&self.listeners).clone();
            listeners.iter().for_each(|listener| listener(last));
        }
        if let Some(level) = self.options.compress_sealed.filter(|_| sealed) {
            // The records are safe either way: a segment that could not be compressed stays as it is.
            let _ = self.compress_sealed(level);
        }
        Ok(lock(&self.state).durable_next - 1)
    }

    /// Syncs what was written and publishes the new durable index.
    pub fn sync_files(&self, writer: &mut Writer) -> Result<u64, Error> {
        if let Some(active) = writer.active.as_ref().filter(|_| writer.unsynced) {
            let synced = active.file.sync_data().map_err(Error::io("sync the file", &active.path));
            synced.map_err(|error| self.fail(error))?;
            writer.unsynced = false;
        }
        if std::mem::take(&mut writer.dirty_directory) {
            directory::sync(self.disk(), &self.dir).map_err(|error| self.fail(error))?;
        }
        writer.torn = false;
        let mut state = lock(&self.state);
        state.durable_next = state.file_next;
        self.durable_changed.notify_all();
        Ok(state.durable_next - 1)
    }

    /// Writes whole records, beginning new segments as needed. On failure: how many bytes are in the files for good.
    fn write(&self, writer: &mut Writer, batch: &[u8], first: u64) -> Result<(), (usize, Error)> {
        let mut written = 0;
        let mut index = first;
        while written < batch.len() {
            let offset = writer.active.as_ref().map(|active| active.offset);
            if offset
                .is_none_or(|offset| offset >= self.options.segment_bytes && offset > SEGMENT_HEAD)
            {
                self.begin_segment(writer, index).map_err(|error| (written, error))?;
            }
            let Some(active) = writer.active.as_mut() else {
                break;
            };
            let mut points = Vec::new();
            let mut length = 0;
            let mut next = index;
            while let Some(head) = Head::parse(&batch[written + length..]) {
                let at = active.offset + length as u64;
                if length > 0 && at + head.total() as u64 > self.options.segment_bytes {
                    break;
                }
                points.push((next, at));
                length += head.total();
                next += 1;
            }
            let piece = &batch[written..written + length];
            let options = &self.options;
            active.prepare(length as u64, options.prepare_bytes, options.segment_bytes);
            if let Err(error) = active.file.write_all_at(piece, active.offset) {
                // Part of the piece may be there: without this, a shorter retry would leave its rest behind the tail.
                self.places().forget();
                let shortened = active.shorten();
                writer.unsynced = true;
                writer.torn = true;
                let error = Error::io("write the file", &active.path)(error);
                let error = if shortened.is_err() || !matches!(error, Error::NoSpace { .. }) {
                    self.fail(error)
                } else {
                    error
                };
                return Err((written, error));
            }
            active.offset += length as u64;
            active.length = active.length.max(active.offset);
            writer.unsynced = true;
            written += length;
            index = next;
            let mut state = lock(&self.state);
            state.file_next = index;
            if let Some(segment) = state.segments.last_mut() {
                points.iter().for_each(|(index, offset)| segment.note(*index, *offset));
            }
        }
        Ok(())
    }

    /// Seals the active segment, if there is one, and creates the next.
    pub fn begin_segment(&self, writer: &mut Writer, first: u64) -> Result<(), Error> {
        if let Some(active) = writer.active.as_mut().filter(|active| active.length > active.offset)
        {
            active.shorten().map_err(Error::io("shorten the file", &active.path))?;
            writer.unsynced = true;
        }
        // Only the last segment may have a torn tail, so this one must be safe before another exists.
        self.sync_files(writer)?;
        let segment = SegmentFile::new(&self.dir, first, false);
        let head = SegmentHead { salt: self.salt, first, sealed: false }.encode();
        let file = self.disk().create(&segment.path);
        let file = file.map_err(Error::io("create the file", &segment.path))?;
        if let Err(error) = file.write_all_at(&head, 0) {
            let error = Error::io("write the file", &segment.path)(error);
            writer.dirty_directory = true;
            writer.torn = true;
            // Left there, it would pass for the segment that follows whatever is written next.
            let removed = self.disk().remove_file(&segment.path);
            return Err(if removed.is_err() { self.fail(error) } else { error });
        }
        writer.sealed |= writer.active.is_some();
        let (path, offset) = (segment.path.clone(), SEGMENT_HEAD);
        writer.active = Some(Active { file, path, offset, length: offset });
        writer.unsynced = true;
        writer.dirty_directory = true;
        lock(&self.state).segments.push(Segment::new(segment));
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody was told that these records are safe; but losing them to a mere exit would be unkind.
        let _ = self.commit(false);
    }
}

/// Splits encoded records at an index: the byte where the record `at` begins, when `first` is the first one's index.
pub(crate) fn split_at_index(encoded: &[u8], first: u64, at: u64) -> usize {
    let mut offset = 0;
    for _ in first..at {
        let Some(head) = encoded.get(offset..).and_then(|rest| Head::parse(rest.get(..HEAD)?))
        else {
            break;
        };
        offset += head.total();
    }
    offset
}

/// Iterator over records; see [`Journal::iter`].
pub struct Iter {
    reader: Reader,
    failed: Option<Error>,
    over: bool,
}

impl Iterator for Iter {
    type Item = Result<(u64, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = match self.failed.take() {
            Some(error) => Err(error),
            None => self
                .reader
                .next()
                .map(|record| record.map(|record| (record.index, record.payload.to_vec()))),
        };
        self.over = !matches!(item, Ok(Some(_)));
        item.transpose()
    }
}
