//! Where runs are stored, and how one is made, opened and listed.
//!
//! The store is only directories: it keeps nothing in memory, so any number of processes may use
//! it at the same time. Only a run's own writer writes in the run's directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tenon_engine::RunId;

use super::{RunReader, RunStatus, RunWriter, Summary};
use crate::{Error, Result};

/// `$TENON_STATE_DIR`, else `$XDG_STATE_HOME/tenon`, else `~/.local/state/tenon`; relative to the
/// working directory where not even a home is known.
pub fn default_state_dir() -> PathBuf {
    let dir = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("TENON_STATE_DIR")
        .or_else(|| dir("XDG_STATE_HOME").map(|state| state.join("tenon")))
        .or_else(|| dir("HOME").map(|home| home.join(".local/state/tenon")))
        .unwrap_or_else(|| PathBuf::from(".tenon-state"))
}

/// The runs of one state directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The runs below `state_dir`. Nothing is read or made until it is needed.
    pub fn new(state_dir: &Path) -> Store {
        Store { root: state_dir.join("runs") }
    }

    /// The directory that holds the runs.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one run.
    pub fn run_dir(&self, run: RunId) -> PathBuf {
        self.root.join(run.to_string())
    }

    /// Starts the history of a new run.
    pub fn create(&self, summary: Summary) -> Result<RunWriter> {
        RunWriter::create(self.run_dir(summary.id), summary)
    }

    /// Opens the history of a run whose process died, to append what ended it. [`Error::Busy`] if
    /// its writer lives.
    pub fn resume(&self, run: RunId) -> Result<RunWriter> {
        RunWriter::resume(self.run_dir(run), self.summary(run)?)
    }

    /// Reads the events of a run from its first one; follows if it is still being written.
    pub fn reader(&self, run: RunId) -> Result<RunReader> {
        RunReader::open(self.run_dir(run), run)
    }

    /// The summary of one run. `running` becomes `interrupted` when its writer is gone.
    pub fn summary(&self, run: RunId) -> Result<Summary> {
        let dir = self.run_dir(run);
        let path = dir.join("run.json");
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound(run.to_string()),
            _ => Error::io("read", &path)(source),
        })?;
        let mut summary: Summary =
            serde_json::from_slice(&text).map_err(|source| Error::Summary { path, source })?;
        if summary.status == RunStatus::Running && !is_live(&dir) {
            summary.status = RunStatus::Interrupted;
        }
        Ok(summary)
    }

    /// The final objects of a run as YAML; `None` while it goes on or if it never ended.
    pub fn objects(&self, run: RunId) -> Result<Option<String>> {
        let path = self.run_dir(run).join("objects.yaml");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Ids of all runs, newest first.
    pub fn ids(&self) -> Result<Vec<RunId>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.root)(error)),
        };
        let mut ids: Vec<RunId> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.root))?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Summaries of all runs, newest first. A run that cannot be read is in the second list: one
    /// damaged directory hides no other run.
    pub fn list(&self) -> Result<(Vec<Summary>, Vec<Error>)> {
        let mut summaries = Vec::new();
        let mut errors = Vec::new();
        for id in self.ids()? {
            match self.summary(id) {
                Ok(summary) => summaries.push(summary),
                Err(error) => errors.push(error),
            }
        }
        Ok((summaries, errors))
    }
}

/// Whether somebody writes the run in `dir`.
pub(super) fn is_live(dir: &Path) -> bool {
    match File::open(dir.join("lock")) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Replaces `path` so that a reader sees the old content or the new, never a part.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        drop(file);
        fs::rename(&temporary, path)
    };
    write().map_err(Error::io("write", path))
}
