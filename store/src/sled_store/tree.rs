//! One sled directory, behind a fence: no panic gets out, and what is synced is on the disk.
//!
//! `flush` of sled 0.34 calls `sync_file_range`, which is not power-safe, so we sync the database file after it. Nodes that
//! are larger than a segment (half a MiB) go into files of their own, `blobs/`, which sled never syncs: we do.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tenon_journal::disk::Disk;

use super::io_error;
use crate::{Batch, Error, Range, Result, Visit};

/// What sled may keep in memory, in bytes.
const CACHE: u64 = 64 << 20;

/// An open sled directory.
pub(super) struct Tree {
    path: PathBuf,
    db: Option<sled::Db>,
    file: File,
    /// The newest file of `blobs/` that is known to be durable: they are numbered in the order of their creation.
    synced_blob: Mutex<Option<u64>>,
}

impl Tree {
    /// Makes a new one. Whatever is in the directory is removed first.
    pub fn create(disk: &dyn Disk, path: &Path) -> Result<Tree> {
        if disk.exists(path) {
            disk.remove_dir_all(path).map_err(io_error("remove the directory", path))?;
        }
        disk.create_dir_all(path).map_err(io_error("create the directory", path))?;
        let tree = Tree::open(path)?;
        tree.sync(disk)?;
        // Written by sled and not synced by it: without this file it would not know its own segment size.
        let conf = path.join("conf");
        let synced = File::open(&conf).and_then(|file| file.sync_all());
        synced.map_err(io_error("sync the file", &conf))?;
        disk.sync_dir(path).map_err(io_error("sync the directory", path))?;
        Ok(tree)
    }

    /// Opens an existing one.
    pub fn open(path: &Path) -> Result<Tree> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
        let db = fence(path, "open the store", || config.open())?;
        let file = File::open(path.join("db")).map_err(io_error("open the store", path))?;
        Ok(Tree { path: path.to_owned(), db: Some(db), file, synced_blob: Mutex::new(None) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything.
    pub fn verify(&self) -> Result<()> {
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
        self.with("read the store", |db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    pub fn scan(&self, range: Range, reverse: bool, visit: &mut Visit<'_>) -> Result<()> {
        let db = self.db()?;
        let mut entries = fence(&self.path, "read the store", || Ok(db.range(range)))?;
        // Only sled's part is fenced: a panic of the visitor is none of our business.
        while let Some((key, value)) = fence(&self.path, "read the store", || {
            if reverse { entries.next_back().transpose() } else { entries.next().transpose() }
        })? {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn write(&self, batch: Batch) -> Result<()> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.into_changes() {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.with("write to the store", |db| db.apply_batch(changes))
    }

    pub fn sync(&self, disk: &dyn Disk) -> Result<()> {
        self.with("flush the store", |db| db.flush().map(drop))?;
        self.sync_blobs(disk)?;
        self.file.sync_data().map_err(io_error("sync the store", &self.path))
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

    fn db(&self) -> Result<&sled::Db> {
        self.db.as_ref().ok_or_else(|| Error::Failed {
            dir: self.path.clone(),
            reason: "it was closed".to_owned(),
        })
    }

    fn with<T>(
        &self,
        action: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T> {
        let db = self.db()?;
        fence(&self.path, action, || call(db))
    }

    /// Closes it; its lock is free afterwards.
    pub fn close(self) {}
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Sled unwraps the result of its last sync.
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
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
