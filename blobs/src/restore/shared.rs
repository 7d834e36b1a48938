//! What all threads of a restore share.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::index::Known;
use crate::{ChunkStore, Error, Options, Result, SnapshotIndex, sys};

pub(super) struct Shared<'a> {
    pub root: &'a Path,
    pub top: &'a OwnedFd,
    pub store: &'a dyn ChunkStore,
    pub previous: Option<&'a SnapshotIndex>,
    pub options: &'a Options,
    pub bytes: AtomicU64,
    pub kept_bytes: AtomicU64,
    pub fetched_bytes: AtomicU64,
    index: Mutex<SnapshotIndex>,
    /// The first error; all stop then.
    error: Mutex<Option<Error>>,
    stopped: AtomicBool,
}

impl<'a> Shared<'a> {
    pub fn new(
        root: &'a Path,
        top: &'a OwnedFd,
        store: &'a dyn ChunkStore,
        previous: Option<&'a SnapshotIndex>,
        options: &'a Options,
    ) -> Shared<'a> {
        Shared {
            root,
            top,
            store,
            previous,
            options,
            bytes: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            index: Mutex::default(),
            error: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Takes note of how something ended.
    pub fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.error).get_or_insert(error);
            self.stopped.store(true, Ordering::Release);
        }
    }

    /// Whether there is no use in going on.
    pub fn has_failed(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// An error, if the caller wants no more or another thread failed.
    pub fn check(&self) -> Result<()> {
        // What is told in the end is the first error, which is there already.
        if self.has_failed() { Err(Error::Cancelled) } else { self.options.check() }
    }

    pub fn outcome(&self) -> Result<()> {
        lock(&self.error).take().map_or(Ok(()), Err)
    }

    pub fn remember(&self, path: &[u8], known: Known) {
        lock(&self.index).insert(path, known);
    }

    pub fn take_index(&self) -> SnapshotIndex {
        std::mem::take(&mut lock(&self.index))
    }

    pub fn path(&self, path: &[u8]) -> PathBuf {
        sys::path_of(self.root, path)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
