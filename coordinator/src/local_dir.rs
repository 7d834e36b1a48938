//! The directory of one local coordinator's log: `<state>/local/<id>/`.
//!
//! `lock` in it is locked while its process lives. `<state>/local/lock` is held while a directory is
//! made or removed and while dead ones are recovered, so that one which is not yet locked, or half
//! gone, is not taken for a dead one.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Waits for the right to make or to recover logs; it ends when the file is dropped.
pub(crate) fn lock_all(state_dir: &Path) -> Result<File> {
    let local = state_dir.join("local");
    fs::create_dir_all(&local).map_err(Error::io("create", &local))?;
    let path = local.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// A locked directory.
pub(crate) struct LocalDir {
    state_dir: PathBuf,
    dir: PathBuf,
    _lock: File,
}

impl LocalDir {
    /// Makes a new one.
    pub(crate) fn create(state_dir: &Path) -> Result<LocalDir> {
        let _making = lock_all(state_dir)?;
        let dir = state_dir.join("local").join(process_unique_id());
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        match LocalDir::open(state_dir, &dir)? {
            Some(locked) => Ok(locked),
            None => Err(Error::Busy(dir)),
        }
    }

    /// Takes one that exists; `None` while its process lives.
    pub(crate) fn open(state_dir: &Path, dir: &Path) -> Result<Option<LocalDir>> {
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(LocalDir {
                state_dir: state_dir.to_owned(),
                dir: dir.to_owned(),
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// The directory of the log in it.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Removes it: every run in it is over.
    pub(crate) fn close(self) -> Result<()> {
        let _removing = lock_all(&self.state_dir)?;
        self.remove()
    }

    /// As [`LocalDir::close`], for one who holds the lock on all of them.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).map_err(Error::io("remove", &self.dir))
    }
}

/// A name that no other on this machine has: the time in nanoseconds and the process id.
fn process_unique_id() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let tail = u128::from(elapsed.subsec_nanos()) << 32 | u128::from(std::process::id());
    ulid::Ulid::from_parts(millis, tail).to_string()
}
