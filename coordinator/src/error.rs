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
    /// A journal refused.
    #[error(transparent)]
    Journal(#[from] tenon_journal::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] tenon_store::Error),
    /// The store of chunks refused.
    #[error(transparent)]
    Blobs(#[from] tenon_blobs::Error),
    /// The replicated log refused.
    #[error(transparent)]
    Log(#[from] tenon_consensus::Error),
    /// An entry of the log cannot be applied by this release.
    #[error("cannot apply entry {index} of the log: {reason}")]
    Undecodable {
        /// Its log index.
        index: u64,
        /// What is wrong with it.
        reason: crate::entry::Undecodable,
    },
    /// This node's copy differs from what it was.
    #[error(
        "this node's copy of the history has diverged: {0}; it stops rather than spread the \
         difference. Remove it from the cluster, empty its data directory and add it again; and \
         please report this as a bug"
    )]
    Diverged(String),
    /// The log has lost what it had acknowledged.
    #[error(
        "this node has lost entries that it had acknowledged ({0}): its disk does not keep what it \
         says is stored. Remove the node from the cluster, empty its data directory and add it again"
    )]
    Forgotten(String),
    /// Something that was stored cannot be read.
    #[error("a stored record cannot be read: {0}")]
    Record(String),
    /// A request was not done.
    #[error(transparent)]
    Request(#[from] crate::coordinator::RequestError),
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
            Error::Journal(error) => error.code(),
            Error::Store(error) => error.code(),
            Error::Blobs(error) => error.code(),
            Error::Log(error) => error.code(),
            Error::Undecodable { .. } => "state/undecodable",
            Error::Diverged(_) => "state/diverged",
            Error::Forgotten(_) => "state/forgotten",
            Error::Record(_) => "state/damaged",
            Error::Request(error) => error.code(),
            Error::History(error) => error.code(),
            Error::Stopped => "coordinator/stopped",
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
