//! Chunks on their way to the store: asked for in batches, and only those packed and put that it lacks.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use crate::{ChunkId, ChunkStore, Options, Packed, Result};

/// How much is gathered before the store is asked.
const BATCH_BYTES: usize = 4 << 20;
/// How many chunks are.
const BATCH_CHUNKS: usize = 256;

/// How many ids one question has.
const IDS: usize = 4096;

/// What all threads of a save share.
pub(crate) struct Upload<'a> {
    store: &'a dyn ChunkStore,
    options: &'a Options,
    /// Chunks that were met in this save: the store is asked once for each.
    met: Mutex<HashSet<ChunkId>>,
    /// Chunks of files that have not changed.
    unchanged: Mutex<Vec<ChunkId>>,
    /// When all of them were last asked for.
    asked: Mutex<Instant>,
    pub new_chunks: AtomicU64,
    pub new_bytes: AtomicU64,
}

impl<'a> Upload<'a> {
    pub fn new(store: &'a dyn ChunkStore, options: &'a Options) -> Upload<'a> {
        Upload {
            store,
            options,
            met: Mutex::default(),
            unchanged: Mutex::default(),
            asked: Mutex::new(Instant::now()),
            new_chunks: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
        }
    }

    /// Takes note of chunks that an unchanged file has; they are asked for as if they had been read.
    pub fn lacks(&self, ids: &[ChunkId]) -> Result<HashSet<ChunkId>> {
        let mut lacking = HashSet::new();
        for ids in ids.chunks(IDS) {
            self.options.check()?;
            lacking.extend(self.store.missing(ids)?);
        }
        lock(&self.unchanged).extend(ids);
        Ok(lacking)
    }

    /// Asks again for all that was met, if that is long ago. Those that are on their way are missing, and come.
    fn ask_again(&self) -> Result<()> {
        let mut asked = lock(&self.asked);
        if asked.elapsed() < self.options.ask_again {
            return Ok(());
        }
        *asked = Instant::now();
        drop(asked);
        let mut all: Vec<ChunkId> = lock(&self.met).iter().copied().collect();
        all.extend_from_slice(&lock(&self.unchanged));
        for ids in all.chunks(IDS) {
            self.options.check()?;
            self.store.missing(ids)?;
        }
        Ok(())
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.store.put(chunks)?;
        let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        self.new_chunks.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        self.new_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the chunk that comes last.
    pub fn finish(&self, root: &Packed) -> Result<()> {
        self.ask_again()?;
        match self.store.missing(&[root.id])?.is_empty() {
            true => Ok(()),
            false => self.put(std::slice::from_ref(root)),
        }
    }
}

/// What one thread has gathered.
pub(crate) struct Batch<'a> {
    upload: &'a Upload<'a>,
    chunks: Vec<(ChunkId, Bytes)>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub fn new(upload: &'a Upload<'a>) -> Batch<'a> {
        Batch { upload, chunks: Vec::new(), bytes: 0 }
    }

    /// Takes a chunk, which is in the store when [`Batch::flush`] has returned.
    pub fn add(&mut self, content: Bytes) -> Result<ChunkId> {
        let id = ChunkId::of(&content);
        let is_new = lock(&self.upload.met).insert(id);
        if is_new {
            self.bytes += content.len();
            self.chunks.push((id, content));
            if self.bytes >= BATCH_BYTES || self.chunks.len() >= BATCH_CHUNKS {
                self.flush()?;
            }
        }
        Ok(id)
    }

    /// Sends what was gathered, as far as the store lacks it.
    pub fn flush(&mut self) -> Result<()> {
        self.upload.options.check()?;
        self.bytes = 0;
        let chunks = std::mem::take(&mut self.chunks);
        if chunks.is_empty() {
            return Ok(());
        }
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        let missing: HashSet<ChunkId> = self.upload.store.missing(&ids)?.into_iter().collect();
        let packed: Vec<Packed> = chunks
            .iter()
            .filter(|(id, _)| missing.contains(id))
            .map(|(id, content)| Packed::pack(*id, content))
            .collect();
        drop(chunks);
        self.upload.put(&packed)?;
        self.upload.ask_again()
    }
}

/// Nothing is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
