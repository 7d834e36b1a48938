//! What can go wrong with a store, each kind with a stable code and with what to do about it.

use std::io;
use std::path::PathBuf;

/// Any failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another live process or handle uses this store.
    #[error("{}: another process is using this store; stop it first", .dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// What is stored is not what was written.
    #[error(
        "{}: the store is damaged: {reason}. Nothing was changed. Restore the directory from a backup; or move it away and let \
         this node join its cluster again as a new member (its raft log belongs to the store and must go with it)",
        .dir.display()
    )]
    Damaged {
        /// The store's directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk is full. What was synced before is safe; a new process must open the store when there is room.
    #[error("{}: No space left on device; nothing that was synced is lost, make room and start again", .dir.display())]
    NoSpace {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The operating system refused something. What was synced before is safe.
    #[error("{}: cannot {action}: {source}", .dir.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The store's directory, or the file.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier failure left the store in an unknown state until a new process opens it again.
    #[error("{}: the store stopped after a failure ({reason}); start this node again", .dir.display())]
    Failed {
        /// The store's directory.
        dir: PathBuf,
        /// The first failure.
        reason: String,
    },
}

impl Error {
    /// The stable identifier of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Locked { .. } => "store/locked",
            Error::Damaged { .. } => "store/damaged",
            Error::NoSpace { .. } => "store/no-space",
            Error::Io { .. } => "store/io",
            Error::Failed { .. } => "store/failed",
        }
    }
}

/// What the methods of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
