//! Chunks into records, all of them checked.

use std::collections::VecDeque;

use super::codec::Bad;
use super::{Decode, MAX_HEIGHT, MAX_LIST, Record, START};
use crate::options::MAX_DEPTH;
use crate::{ChunkId, ChunkStore, Error, Result, SnapshotId};

/// How many chunks are asked for at a time.
const BATCH: usize = 16;

/// Reads a snapshot's records in order.
pub(crate) struct ManifestReader<'a> {
    id: ChunkId,
    store: &'a dyn ChunkStore,
    /// Ids that are still to be read, the highest list first; the last one is of the stream itself.
    lists: Vec<VecDeque<ChunkId>>,
    /// What was read of the stream but is no record yet begins at `at`.
    stream: Vec<u8>,
    at: usize,
    /// Chunks of the stream that were got together with others.
    got: VecDeque<Vec<u8>>,
    order: Order,
    /// Ids of the manifest's chunks, since they were last taken.
    pub chunks: Vec<ChunkId>,
}

impl<'a> ManifestReader<'a> {
    pub fn new(id: SnapshotId, store: &'a dyn ChunkStore) -> Result<ManifestReader<'a>> {
        let mut reader = ManifestReader {
            id: id.0,
            store,
            lists: Vec::new(),
            stream: Vec::new(),
            at: 0,
            got: VecDeque::new(),
            order: Order::default(),
            chunks: Vec::new(),
        };
        let root = reader.get(&[id.0])?.pop().unwrap_or_default();
        let body = root.strip_prefix(START.as_slice());
        let body = body.ok_or_else(|| reader.bad("it begins otherwise"))?;
        match body.split_first() {
            Some((0, stream)) => reader.stream = stream.to_vec(),
            Some((height, list)) if *height <= MAX_HEIGHT => {
                reader.lists = vec![VecDeque::new(); usize::from(*height)];
                reader.lists[0] = reader.list(list)?;
            }
            _ => return Err(reader.bad("it has too many lists above each other")),
        }
        Ok(reader)
    }

    /// The next record, `None` after the last.
    pub fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let mut rest = Decode(&self.stream[self.at..]);
            if rest.0.is_empty() && !self.more()? {
                return match self.order.is_whole() {
                    true => Ok(None),
                    false => Err(self.bad("it ends too early")),
                };
            }
            rest = Decode(&self.stream[self.at..]);
            match rest.record() {
                Ok(record) => {
                    self.at = self.stream.len() - rest.0.len();
                    self.order.check(&record).map_err(|reason| self.bad(reason))?;
                    return Ok(Some(record));
                }
                Err(Bad::Short) if self.more()? => {}
                Err(Bad::Short) => return Err(self.bad("its last record is cut off")),
                Err(Bad::Wrong(reason)) => return Err(self.bad(reason)),
            }
        }
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> Result<bool> {
        if self.got.is_empty() {
            let Some(leaves) = self.leaves()? else { return Ok(false) };
            self.got = self.get(&leaves)?.into();
        }
        self.stream.drain(..self.at);
        self.at = 0;
        self.stream.extend(self.got.pop_front().unwrap_or_default());
        Ok(true)
    }

    /// The next ids of the stream's chunks.
    fn leaves(&mut self) -> Result<Option<Vec<ChunkId>>> {
        let Some(lowest) = self.lists.len().checked_sub(1) else { return Ok(None) };
        while self.lists[lowest].is_empty() {
            let Some(level) = (0..lowest).rev().find(|level| !self.lists[*level].is_empty()) else {
                return Ok(None);
            };
            if let Some(id) = self.lists[level].pop_front() {
                let list = self.get(&[id])?.pop().unwrap_or_default();
                self.lists[level + 1] = self.list(&list)?;
            }
        }
        let batch = self.lists[lowest].len().min(BATCH);
        Ok(Some(self.lists[lowest].drain(..batch).collect()))
    }

    fn list(&self, bytes: &[u8]) -> Result<VecDeque<ChunkId>> {
        let ids: VecDeque<ChunkId> = bytes.chunks(32).map_while(ChunkId::from_bytes).collect();
        match ids.len() * 32 == bytes.len() && (1..=MAX_LIST).contains(&ids.len()) {
            true => Ok(ids),
            false => Err(self.bad("a list of chunks is none")),
        }
    }

    fn get(&mut self, ids: &[ChunkId]) -> Result<Vec<Vec<u8>>> {
        self.chunks.extend_from_slice(ids);
        let mut buffer = Vec::new();
        let packed = self.store.get(ids)?;
        packed.iter().map(|packed| packed.unpack(&mut buffer).map(<[u8]>::to_vec)).collect()
    }

    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Manifest { snapshot: self.id, reason: reason.into() }
    }
}

/// What may follow what.
#[derive(Default)]
struct Order {
    begun: bool,
    /// The last name in each directory that is open.
    open: Vec<Vec<u8>>,
    /// Bytes of the file before that its segments have yet to make up.
    owed: u64,
    linked: u64,
}

impl Order {
    fn is_whole(&self) -> bool {
        self.begun && self.open.is_empty() && self.owed == 0
    }

    fn check(&mut self, record: &Record) -> std::result::Result<(), &'static str> {
        if let Record::Segment(segment) = record {
            let rest = self.owed.checked_sub(segment.length());
            self.owed = rest.ok_or("a file has more segments than bytes")?;
            return Ok(());
        }
        if self.owed > 0 {
            return Err("a file has fewer segments than bytes");
        }
        let name = match record {
            Record::Directory { name, .. } if !self.begun => {
                if !name.is_empty() {
                    return Err("it begins with something else than the directory itself");
                }
                self.begun = true;
                self.open.push(Vec::new());
                return Ok(());
            }
            Record::End => {
                return self.open.pop().map(|_| ()).ok_or("it goes on after its end");
            }
            Record::Segment(_) => return Ok(()),
            Record::Directory { name, .. }
            | Record::File { name, .. }
            | Record::Symlink { name, .. }
            | Record::Link { name, .. }
            | Record::Fifo { name, .. }
            | Record::Device { name, .. } => name,
        };
        let at_top = self.open.len() == 1;
        let before = self.open.last_mut().ok_or("it goes on after its end")?;
        if *name <= *before {
            return Err("names are not in order");
        }
        if at_top && name == crate::restore::MARKER.as_bytes() {
            return Err("it has a name that is not saved");
        }
        before.clone_from(name);
        match record {
            Record::Directory { .. } if self.open.len() >= MAX_DEPTH => {
                return Err("its directories lie too deep");
            }
            Record::Directory { .. } => self.open.push(Vec::new()),
            Record::File { size, linked, .. } => {
                self.owed = *size;
                self.linked += u64::from(*linked);
            }
            Record::Link { to, .. } if *to >= self.linked => {
                return Err("a hard link leads to nothing before it");
            }
            _ => {}
        }
        Ok(())
    }
}
