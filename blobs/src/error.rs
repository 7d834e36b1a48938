//! What can go wrong with chunks and directories, each kind with a stable code and with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::ChunkId;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another live process or handle writes this store.
    #[error("{}: another process is using this store of chunks; stop it first", .dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The disk is full, or has less room than is to be left free. What was acknowledged stays, nothing else does.
    #[error("{}: No space left on device; nothing stored is lost, make room and try again", .path.display())]
    NoSpace {
        /// What could not grow.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write-back failed, so what the disk holds is unknown until the store is opened again.
    #[error("{}: the store of chunks stopped after a failed write ({reason}); open it again", .dir.display())]
    Failed {
        /// The store's directory.
        dir: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// A chunk that is needed is in no place where it was looked for.
    #[error("chunk {id} is not in the store; save the directory again")]
    Missing {
        /// The chunk.
        id: ChunkId,
    },
    /// The bytes of a chunk are not what its id promises.
    #[error("chunk {id} is damaged: {reason}; save the directory again")]
    Damaged {
        /// The chunk.
        id: ChunkId,
        /// What is wrong.
        reason: &'static str,
    },
    /// A manifest does not describe a directory. It was made by something else, or to do harm; nothing more of it is
    /// restored.
    #[error("the manifest of snapshot {snapshot} is not one: {reason}")]
    Manifest {
        /// The snapshot.
        snapshot: ChunkId,
        /// What is wrong.
        reason: String,
    },
    /// A restore into this directory was broken off, so it is no directory that could be saved.
    #[error(
        "{}: a restore into this directory was broken off; restore it again, or empty it", .dir.display()
    )]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has more levels than can be saved.
    #[error("{}: directories lie more than {} deep, which cannot be saved", .path.display(), crate::options::MAX_DEPTH)]
    TooDeep {
        /// The first that does.
        path: PathBuf,
    },
    /// The address of an object store cannot be used.
    #[error("{url}: {reason}")]
    Address {
        /// What was given, without passwords.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A store elsewhere did not do what was asked.
    #[error("cannot {action}: {reason}")]
    Remote {
        /// What was asked.
        action: String,
        /// What it said.
        reason: String,
    },
    /// The caller wanted to go no further.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// The stable identifier of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Locked { .. } => "blobs/locked",
            Error::NoSpace { .. } => "blobs/no-space",
            Error::Io { .. } => "blobs/io",
            Error::Failed { .. } => "blobs/failed",
            Error::Missing { .. } => "blobs/missing-chunk",
            Error::Damaged { .. } => "blobs/damaged-chunk",
            Error::Manifest { .. } => "blobs/bad-manifest",
            Error::Unfinished { .. } => "blobs/unfinished-restore",
            Error::TooDeep { .. } => "blobs/too-deep",
            Error::Address { .. } => "blobs/address",
            Error::Remote { .. } => "blobs/remote",
            Error::Cancelled => "blobs/cancelled",
        }
    }

    /// Whether the same may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Remote { .. } | Error::NoSpace { .. })
    }

    /// Wraps an I/O error with what was tried; for use in `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Error {
        move |source| {
            let source = source.into();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Error::NoSpace { path: path.to_owned() }
                }
                _ => Error::Io { action, path: path.to_owned(), source },
            }
        }
    }
}
