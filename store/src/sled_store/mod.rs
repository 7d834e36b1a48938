//! The store on disk: one sled tree, made durable by our own `fdatasync`.
//!
//! The directory holds a pointer file, `current`, and the sled directory that it names (`state-<number>`). A replacement is
//! a new sled directory and then, atomically, a new pointer; directories that it does not name are left-overs and removed.
//! `synced` says how far it was synced ([`mark`]).
//! Sled panics on bytes that it does not expect and hides errors of background writes, so every call into it is fenced
//! ([`tree`]); after the first failure of a write the store does nothing more, and a new
//! process must open it again (a failed sled cannot always be closed).
//! It never removes or changes what the pointer names, also when that is damaged.

mod mark;
mod pointer;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tenon_journal::disk::{self, DirectoryLock, Disk};

use self::mark::Mark;
use self::pointer::Pointer;
use self::tree::Tree;
use crate::{Batch, Error, Range, Replacement, Result, Store, Visit, is_empty};

/// A store in a directory. Clones are handles of the same store.
#[derive(Clone)]
pub struct SledStore {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    tree: RwLock<Arc<Tree>>,
    mark: Mark,
    /// The numbers of the present sled directory and of the next.
    numbers: Mutex<(u64, u64)>,
    failed: Mutex<Option<String>>,
    _lock: DirectoryLock,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SledStore {
    /// Opens or creates the store in a directory, reads all of it once to see that it is whole, and locks the directory.
    /// Damage is [`Error::Damaged`] and changes nothing.
    pub fn open(dir: impl AsRef<Path>) -> Result<SledStore> {
        let dir = dir.as_ref().to_owned();
        let disk = disk::real();
        let lock = Self::lock_directory(&*disk, &dir)?;
        let at = match Pointer::read(&*disk, &dir)? {
            Some(Pointer { number, complete: true }) => number,
            // Whoever began it died before anything could be acknowledged: begin again.
            None | Some(Pointer { complete: false, .. }) => {
                Pointer { number: 1, complete: false }.write(&*disk, &dir)?;
                pointer::remove_others(&*disk, &dir, None)?;
                Tree::create(&*disk, &Pointer::directory(&dir, 1))?.close();
                Mark::create(&*disk, &dir, 1)?;
                disk.sync_dir(&dir).map_err(io_error("sync the directory", &dir))?;
                Pointer { number: 1, complete: true }.write(&*disk, &dir)?;
                1
            }
        };
        let path = Pointer::directory(&dir, at);
        if !disk.exists(&path) {
            let reason = format!("{} is missing", path.display());
            return Err(Error::Damaged { dir, reason });
        }
        let (mark, synced) = Mark::open(&*disk, &dir, at)?;
        let tree = Tree::open(&path)?;
        if tree.batch() < synced {
            let reason =
                format!("it went back to batch {} although {synced} was synced", tree.batch());
            return Err(Error::Damaged { dir, reason });
        }
        pointer::remove_others(&*disk, &dir, Some(at))?;
        let inner = Inner {
            dir,
            disk,
            tree: RwLock::new(Arc::new(tree)),
            mark,
            numbers: Mutex::new((at, at + 1)),
            failed: Mutex::new(None),
            _lock: lock,
        };
        Ok(SledStore { inner: Arc::new(inner) })
    }

    /// Moves a (damaged) store's directory aside, durably, and returns its new name; the next `open` begins an empty one.
    /// Only for a node that joins its cluster again under a new identity: what it had voted and stored is forgotten.
    pub fn set_aside(dir: impl AsRef<Path>) -> Result<PathBuf> {
        let dir = dir.as_ref();
        let disk = disk::real();
        let _lock = Self::lock_directory(&*disk, dir)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let aside = (1u32..)
            .map(|number| dir.with_file_name(format!("{name}.damaged-{number}")))
            .find(|aside| !disk.exists(aside))
            .unwrap_or_default();
        disk.rename(dir, &aside).map_err(io_error("rename the directory", dir))?;
        if let Some(parent) = aside.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_dir(parent).map_err(io_error("sync the directory", parent))?;
        }
        Ok(aside)
    }

    fn lock_directory(disk: &dyn Disk, dir: &Path) -> Result<DirectoryLock> {
        let existed = disk.exists(dir);
        disk.create_dir_all(dir).map_err(io_error("create the directory", dir))?;
        if let Some(parent) =
            dir.parent().filter(|parent| !existed && !parent.as_os_str().is_empty())
        {
            disk.sync_dir(parent).map_err(io_error("sync the directory", parent))?;
        }
        let lock = disk.lock_dir(dir).map_err(io_error("lock the directory", dir))?;
        lock.ok_or_else(|| Error::Locked { dir: dir.to_owned() })
    }

    /// Rewrites everything into a new sled directory if the present one takes more than four times what is stored in it and
    /// more than `floor` bytes: sled does not give room back after a spike. Returns whether it did. Not to be called while
    /// others write.
    pub fn compact_if_wasteful(&self, floor: u64) -> Result<bool> {
        let taken = self.disk_bytes();
        if taken <= floor {
            return Ok(false);
        }
        let mut stored = 0;
        self.scan(
            (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
            false,
            &mut |key, value| {
                stored += (key.len() + value.len()) as u64;
                std::ops::ControlFlow::Continue(())
            },
        )?;
        if taken / 4 <= stored {
            return Ok(false);
        }
        let mut replacement = self.begin_replacement()?;
        let mut batch = Batch::new();
        let mut failed = None;
        self.scan(
            (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
            false,
            &mut |key, value| {
                batch.put(key, value);
                if batch.bytes() >= COPY_BATCH {
                    failed = replacement.write(std::mem::take(&mut batch)).err();
                }
                if failed.is_some() {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            },
        )?;
        failed.map_or(Ok(()), Err)?;
        replacement.write(batch)?;
        replacement.commit()?;
        Ok(true)
    }
}

/// Bytes of a batch when everything is copied.
const COPY_BATCH: usize = 256 << 10;

impl Inner {
    fn tree(&self) -> Arc<Tree> {
        Arc::clone(&self.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses everything once a change has failed: sled might wait for ever for what will never be written.
    fn check(&self) -> Result<()> {
        match &*lock(&self.failed) {
            Some(reason) => Err(Error::Failed { dir: self.dir.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        change().inspect_err(|error| {
            lock(&self.failed).get_or_insert_with(|| error.to_string());
        })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.check()?;
        self.inner.tree().get(key)
    }

    fn scan(&self, range: Range, reverse: bool, visit: &mut Visit<'_>) -> Result<()> {
        self.inner.check()?;
        if is_empty(&range) { Ok(()) } else { self.inner.tree().scan(range, reverse, visit) }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let tree = self.inner.tree();
        self.inner.change(|| tree.write(batch))
    }

    fn sync(&self) -> Result<()> {
        let inner = &self.inner;
        let (tree, number) = {
            // Under one lock: a replacement changes both.
            let tree = inner.tree.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&tree), lock(&inner.numbers).0)
        };
        inner.change(|| inner.mark.write(number, tree.sync(&*inner.disk)?))
    }

    fn begin_replacement(&self) -> Result<Box<dyn Replacement>> {
        let number = {
            let mut numbers = lock(&self.inner.numbers);
            numbers.1 += 1;
            numbers.1 - 1
        };
        let path = Pointer::directory(&self.inner.dir, number);
        let tree = Tree::create(&*self.inner.disk, &path)?;
        Ok(Box::new(SledReplacement {
            inner: Arc::clone(&self.inner),
            number,
            tree: Some(tree),
            path,
        }))
    }

    fn disk_bytes(&self) -> u64 {
        tree::size(self.inner.tree().path())
    }
}

struct SledReplacement {
    inner: Arc<Inner>,
    number: u64,
    tree: Option<Tree>,
    path: PathBuf,
}

impl SledReplacement {
    fn tree(&self) -> Result<&Tree> {
        self.tree.as_ref().ok_or_else(|| Error::Failed {
            dir: self.path.clone(),
            reason: "the replacement is over".to_owned(),
        })
    }
}

impl Replacement for SledReplacement {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.tree()?.write(batch)
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let batch = self.tree()?.sync(&*inner.disk)?;
        inner.disk.sync_dir(&inner.dir).map_err(io_error("sync the directory", &inner.dir))?;
        let Some(tree) = self.tree.take() else { return Ok(()) };
        // From here on the new content may be the one that the next start finds, so a failure must stop the store.
        inner.change(|| {
            let mut current = inner.tree.write().unwrap_or_else(PoisonError::into_inner);
            inner.mark.write(self.number, batch)?;
            Pointer { number: self.number, complete: true }.write(&*inner.disk, &inner.dir)?;
            lock(&inner.numbers).0 = self.number;
            let old = std::mem::replace(&mut *current, Arc::new(tree));
            drop(current);
            let path = old.path().to_owned();
            drop(old);
            // What cannot be removed now is removed at the next start.
            let _ = inner.disk.remove_dir_all(&path);
            Ok(())
        })
    }
}

impl Drop for SledReplacement {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.take() {
            drop(tree);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Wraps an I/O error with what was tried; for use in `map_err`.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { dir: path.to_owned() }
        }
        _ => Error::Io { action, dir: path.to_owned(), source },
    }
}
