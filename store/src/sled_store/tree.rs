//! One sled directory, behind a fence: no panic gets out, no failed write hangs, and what is synced is on the disk.
//!
//! `flush` of sled 0.34 calls `sync_file_range`, which is not power-safe, so we sync the database file after it. Nodes that
//! are larger than a segment (half a MiB) go into files of their own, `blobs/`, which sled never syncs: we do. When a write
//! of its background threads fails, sled remembers the error but does not wake who waits for that write: a watcher does.
//! Each batch carries its number, so that one can tell how much of the past a directory shows.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tenon_journal::disk::Disk;

use super::io_error;
use crate::{Batch, Error, Range, Result, Visit};

/// What sled may keep in memory, in bytes.
const CACHE: u64 = 64 << 20;
/// How often a call in progress is looked after.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How long closing may take: after a failure sled may wait for ever.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How often a lock is tried that is about to be free.
const TRY_AGAIN: Duration = Duration::from_millis(2);
/// Where the number of the newest batch is kept. Users' keys begin with [`USER`].
const BATCH: &[u8] = b"\0batch";
const USER: u8 = 1;

/// An open sled directory.
pub(super) struct Tree {
    path: PathBuf,
    config: sled::Config,
    db: Option<sled::Db>,
    file: File,
    /// The number of the newest batch.
    batch: Mutex<u64>,
    /// The newest file of `blobs/` that is known to be durable: they are numbered in the order of their creation.
    synced_blob: Mutex<Option<u64>>,
    failed: AtomicBool,
}

impl Tree {
    /// Makes a new one. Whatever is in the directory is removed first.
    pub fn create(disk: &dyn Disk, path: &Path) -> Result<Tree> {
        if disk.exists(path) {
            disk.remove_dir_all(path).map_err(io_error("remove the directory", path))?;
        }
        disk.create_dir_all(path).map_err(io_error("create the directory", path))?;
        let tree = Tree::open_sled(path)?;
        tree.with("write to the store", |db| db.insert(BATCH, &0u64.to_be_bytes()))?;
        tree.sync(disk)?;
        // Written by sled and not synced by it: without this file it would not know its own segment size.
        let conf = path.join("conf");
        let synced = File::open(&conf).and_then(|file| file.sync_all());
        synced.map_err(io_error("sync the file", &conf))?;
        disk.sync_dir(path).map_err(io_error("sync the directory", path))?;
        Ok(tree)
    }

    /// Opens an existing one and reads all of it.
    pub fn open(path: &Path) -> Result<Tree> {
        let mut tree = Tree::open_sled(path)?;
        tree.verify()?;
        let batch = tree.with("read the store", |db| db.get(BATCH))?;
        let batch = batch.and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)));
        let missing = || tree.damaged("the number of the last batch is missing");
        tree.batch = Mutex::new(batch.ok_or_else(missing)?);
        Ok(tree)
    }

    fn open_sled(path: &Path) -> Result<Tree> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
        let began = Instant::now();
        let db = loop {
            match fence(path, "open the store", || config.open()) {
                // No other process has it: the store's directory is locked. A thread of sled's that has written something
                // may hold what was closed for a moment longer, and what failed for ever.
                Err(Error::Io { dir, source, .. }) if is_locked(&source) => {
                    if began.elapsed() > CLOSE_WITHIN {
                        return Err(Error::Locked { dir });
                    }
                    std::thread::park_timeout(TRY_AGAIN);
                }
                opened => break opened?,
            }
        };
        let file = File::open(path.join("db")).map_err(io_error("open the store", path))?;
        Ok(Tree {
            path: path.to_owned(),
            config,
            db: Some(db),
            file,
            batch: Mutex::new(0),
            synced_blob: Mutex::new(None),
            failed: AtomicBool::new(false),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the newest batch.
    pub fn batch(&self) -> u64 {
        *self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self) -> Result<()> {
        self.with("read the store", |db| {
            let mut last: Option<sled::IVec> = None;
            for entry in db.iter() {
                let (key, _) = entry?;
                if last.is_some_and(|last| last >= key) {
                    return Err(sled::Error::ReportableBug("keys are out of order".to_owned()));
                }
                last = Some(key);
            }
            Ok(())
        })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = user_key(key);
        self.with("read the store", |db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    pub fn scan(&self, (start, end): Range, reverse: bool, visit: &mut Visit<'_>) -> Result<()> {
        let range = (
            match start {
                Bound::Unbounded => Bound::Included(vec![USER]),
                bound => bound.map(|key| user_key(&key)),
            },
            match end {
                Bound::Unbounded => Bound::Excluded(vec![USER + 1]),
                bound => bound.map(|key| user_key(&key)),
            },
        );
        let mut entries = self.with("read the store", |db| Ok(db.range(range)))?;
        // Only sled's part is fenced: a panic of the visitor is none of our business.
        while let Some((key, value)) = fence(&self.path, "read the store", || {
            if reverse { entries.next_back().transpose() } else { entries.next().transpose() }
        })? {
            if visit(&key[1..], &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn write(&self, batch: Batch) -> Result<()> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.into_changes() {
            let key = user_key(&key);
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        let mut number = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert(BATCH, &(*number + 1).to_be_bytes());
        self.watched(|| self.with("write to the store", |db| db.apply_batch(changes)))?;
        *number += 1;
        Ok(())
    }

    /// Makes everything durable that was written before, and returns the number of the last batch that is.
    pub fn sync(&self, disk: &dyn Disk) -> Result<u64> {
        let batch = self.batch();
        self.watched(|| {
            self.with("flush the store", |db| db.flush().map(drop))?;
            self.sync_blobs(disk)?;
            self.file.sync_data().map_err(io_error("sync the store", &self.path))
        })?;
        Ok(batch)
    }

    fn sync_blobs(&self, disk: &dyn Disk) -> Result<()> {
        let dir = self.path.join("blobs");
        let mut synced = self.synced_blob.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blobs = disk.read_dir(&dir).map_err(io_error("read the directory", &dir))?;
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        blobs.retain(|path| {
            number(path).is_none_or(|number| synced.is_none_or(|last| number > last))
        });
        if blobs.is_empty() {
            return Ok(());
        }
        for blob in &blobs {
            match File::open(blob).and_then(|file| file.sync_all()) {
                // Sled removes blobs that nothing refers to any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(io_error("sync the file", blob))?,
            }
        }
        disk.sync_dir(&dir).map_err(io_error("sync the directory", &dir))?;
        *synced = blobs.iter().filter_map(number).max().max(*synced);
        Ok(())
    }

    /// Runs a change; should a background write fail meanwhile, whoever waits for it is woken.
    fn watched<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let (running, over) = mpsc::channel::<()>();
        let result = std::thread::scope(|scope| {
            let watch = move || {
                while over.recv_timeout(WATCH_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if self.config.global_error().is_err() {
                        // It fails at once, and wakes all who wait on its way out.
                        let _ = self.with("flush the store", |db| db.flush());
                    }
                }
            };
            let name = "store-watch".to_owned();
            let watcher = std::thread::Builder::new().name(name).spawn_scoped(scope, watch);
            watcher.map_err(io_error("start a thread for the store", &self.path))?;
            let result = change();
            drop(running);
            result
        });
        result.inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }

    fn with<T>(
        &self,
        action: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T> {
        let closed =
            || Error::Failed { dir: self.path.clone(), reason: "it was closed".to_owned() };
        let db = self.db.as_ref().ok_or_else(closed)?;
        fence(&self.path, action, || call(db))
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Damaged { dir: self.path.clone(), reason: reason.to_owned() }
    }

    /// Closes it; its lock is free afterwards.
    pub fn close(self) {}
}

impl Drop for Tree {
    fn drop(&mut self) {
        let db = self.db.take();
        // Sled unwraps the result of its last sync.
        let close = || drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
        if !self.failed.load(Ordering::Relaxed) {
            return close();
        }
        let (closed, wait) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store-close".to_owned());
        let started = thread.spawn(move || {
            close();
            let _ = closed.send(());
        });
        if started.is_ok() {
            let _ = wait.recv_timeout(CLOSE_WITHIN);
        }
    }
}

/// Whether sled could not lock its file.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("acquire lock")
}

fn user_key(key: &[u8]) -> Vec<u8> {
    [&[USER], key].concat()
}

/// Calls sled and translates what comes out: errors, and panics too.
fn fence<T>(
    path: &Path,
    action: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T> {
    let damaged = |reason: String| Error::Damaged { dir: path.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => match error.kind() {
            // How sled says that a file is shorter or other than it should be.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                Err(damaged(error.to_string()))
            }
            _ => Err(io_error(action, path)(error)),
        },
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(damaged(format!("sled gave up: {}", said.unwrap_or("it did not say why"))))
        }
    }
}

/// The bytes of a directory's files.
pub(super) fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0,
        })
        .sum()
}
