//! The durable log of commands of one local coordinator: what consensus will be for a fleet.
//!
//! `<state>/local/<id>/` holds `lock`, locked while the process lives, and `log/`, a journal. A
//! command counts as agreed on once [`CommandLog::commit`] has returned. The directory goes when the
//! coordinator closes; one whose lock is free belongs to a dead process (see [`crate::recovery`]).
//! `<state>/local/lock` is held while a log is made or removed and while dead ones are recovered, so
//! that one which is not yet locked, or half gone, is not taken for a dead one.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use tenon_engine::Command;
use tenon_journal::Journal;

use crate::codec;
use crate::error::{Error, Result};

/// Waits for the right to make or to recover logs; it ends when the file is dropped.
pub(crate) fn lock_directory(state_dir: &Path) -> Result<File> {
    let local = state_dir.join("local");
    fs::create_dir_all(&local).map_err(Error::io("create", &local))?;
    let path = local.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// An open command log, locked.
pub(crate) struct CommandLog {
    dir: PathBuf,
    journal: Journal,
    _lock: File,
}

impl CommandLog {
    /// Makes a new log below `<state>/local`.
    pub(crate) fn create(state_dir: &Path, id: &str) -> Result<CommandLog> {
        let _making = lock_directory(state_dir)?;
        let dir = state_dir.join("local").join(id);
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        match CommandLog::open(&dir)? {
            Some((log, _)) => Ok(log),
            None => Err(Error::Busy(dir)),
        }
    }

    /// Opens an existing log and reads its commands; `None` while another process holds it.
    pub(crate) fn open(dir: &Path) -> Result<Option<(CommandLog, Vec<Command>)>> {
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &lock_path)(source)),
        }
        let (journal, _) = Journal::open(dir.join("log"), tenon_journal::Options::default())?;
        let mut commands = Vec::new();
        for record in journal.iter(journal.first_index()) {
            commands.push(codec::decode(&record?.1)?);
        }
        Ok(Some((CommandLog { dir: dir.to_owned(), journal, _lock: lock }, commands)))
    }

    /// Appends the commands and returns when they are on the disk.
    pub(crate) fn commit(&mut self, commands: &[Command]) -> Result<()> {
        let records: Vec<Vec<u8>> = commands.iter().map(codec::encode).collect();
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        self.journal.append(&slices)?;
        self.journal.sync()?;
        Ok(())
    }

    /// Removes the log: everything in it is finished.
    pub(crate) fn close(self, state_dir: &Path) -> Result<()> {
        let _removing = lock_directory(state_dir)?;
        self.remove()
    }

    /// As [`CommandLog::close`], for one who holds the directory's lock.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).map_err(Error::io("remove", &self.dir))
    }
}
