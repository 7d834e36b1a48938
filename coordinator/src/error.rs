//! What can go wrong in a coordinator.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a coordinator could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something in the state directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process holds the log.
    #[error("{} is in use by another process", .0.display())]
    Busy(PathBuf),
    /// The command log refused.
    #[error("command log: {0}")]
    Log(#[from] tenon_journal::Error),
    /// The command log holds something else.
    #[error(transparent)]
    Undecodable(#[from] crate::codec::Undecodable),
    /// A run's history could not be written.
    #[error(transparent)]
    History(#[from] tenon_reporter::Error),
    /// The coordinator has stopped; the first error said why.
    #[error("the coordinator has stopped")]
    Stopped,
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Io { .. } => "state/io",
            Error::Busy(_) => "state/busy",
            Error::Log(error) => error.code(),
            Error::Undecodable(_) => "state/undecodable",
            Error::History(error) => error.code(),
            Error::Stopped => "coordinator/stopped",
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
