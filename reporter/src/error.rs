//! What can go wrong between stored events and their reader.
//!
//! Every error says which file or which run it is about and has a stable code. Nothing is printed
//! here: that is done once, at the edge.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why history could not be written, read, found or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `create`, `read` …
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The journal of a run's events refused.
    #[error("events of run {run}: {source}")]
    Journal {
        /// The run's id.
        run: String,
        /// What the journal says.
        source: tenon_journal::Error,
    },
    /// A stored record is not what this version writes.
    #[error("events of run {run}: record {index} cannot be read: {detail}")]
    Record {
        /// The run's id.
        run: String,
        /// The record's index in the run's journal.
        index: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// `run.json` is not what this version writes.
    #[error("{}: {source}", path.display())]
    Summary {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is no such run.
    #[error("no run matches \"{0}\"")]
    NotFound(String),
    /// There is no run at all.
    #[error("no runs are stored in {}", .0.display())]
    Empty(PathBuf),
    /// A prefix of an id fits several runs.
    #[error("\"{what}\" fits {} runs: {}", ids.len(), ids.join(", "))]
    Ambiguous {
        /// What was looked for.
        what: String,
        /// The ids that it fits.
        ids: Vec<String>,
    },
    /// The run is being written by another process.
    #[error("run {0} is still being written by a running process")]
    Busy(String),
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Io { .. } => "history/io",
            Error::Journal { source, .. } => source.code(),
            Error::Record { .. } => "history/record",
            Error::Summary { .. } => "history/summary",
            Error::NotFound(_) => "history/not-found",
            Error::Empty(_) => "history/empty",
            Error::Ambiguous { .. } => "history/ambiguous",
            Error::Busy(_) => "history/busy",
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
