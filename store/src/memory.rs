//! A store in memory, whose unsynced batches can be lost and which can be made to fail: for simulations and tests.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Batch, Change, Error, Range, Replacement, Result, Store, Visit, is_empty};

/// A store in memory. Clones are handles of the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

/// How a [`MemoryStore`] is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writes and syncs find the disk full.
    NoSpace,
    /// Writes and syncs fail otherwise.
    Io,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    content: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
    /// For each batch since the last sync, how to take it back: its keys' former values, newest change first.
    unsynced: Vec<Vec<Change>>,
    fault: Option<Fault>,
}

impl Inner {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Change {
        let length = key.len() as u64;
        let old = match value {
            Some(value) => {
                self.bytes += length + value.len() as u64;
                self.content.insert(key.clone(), value)
            }
            None => self.content.remove(&key),
        };
        self.bytes -= old.as_ref().map_or(0, |old| length + old.len() as u64);
        (key, old)
    }

    fn apply(&mut self, batch: Batch) -> Vec<Change> {
        let mut undo: Vec<_> =
            batch.into_changes().into_iter().map(|(key, value)| self.set(key, value)).collect();
        undo.reverse();
        undo
    }

    fn check(&self) -> Result<()> {
        let dir = PathBuf::from("memory");
        match self.fault {
            None => Ok(()),
            Some(Fault::NoSpace) => Err(Error::NoSpace { dir }),
            Some(Fault::Io) => {
                let source = io::Error::other("input/output error");
                Err(Error::Io { action: "write", dir, source })
            }
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Loses power: `keep` is told how many batches are not synced and says how many of them, from the oldest on, survive.
    /// A fault ends.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        let mut inner = self.inner();
        let kept = keep(inner.unsynced.len());
        while inner.unsynced.len() > kept {
            let undo = inner.unsynced.pop().unwrap_or_default();
            for (key, old) in undo {
                inner.set(key, old);
            }
        }
        inner.unsynced.clear();
        inner.fault = None;
    }

    /// From now on fails so, or no more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.inner().fault = fault;
    }

    /// An independent copy.
    pub fn copy(&self) -> MemoryStore {
        MemoryStore { inner: Arc::new(Mutex::new(self.inner().clone())) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.inner().content.get(key).cloned())
    }

    fn scan(&self, range: Range, reverse: bool, visit: &mut Visit<'_>) -> Result<()> {
        if is_empty(&range) {
            return Ok(());
        }
        let inner = self.inner();
        let mut entries = inner.content.range(range);
        let mut next = || if reverse { entries.next_back() } else { entries.next() };
        while let Some((key, value)) = next() {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        let undo = inner.apply(batch);
        inner.unsynced.push(undo);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        inner.unsynced.clear();
        Ok(())
    }

    fn begin_replacement(&self) -> Result<Box<dyn Replacement>> {
        self.inner().check()?;
        Ok(Box::new(MemoryReplacement { store: self.clone(), content: Inner::default() }))
    }

    fn disk_bytes(&self) -> u64 {
        self.inner().bytes
    }
}

struct MemoryReplacement {
    store: MemoryStore,
    content: Inner,
}

impl Replacement for MemoryReplacement {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.store.inner().check()?;
        self.content.apply(batch);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        let mut inner = self.store.inner();
        inner.check()?;
        *inner = self.content;
        Ok(())
    }
}
