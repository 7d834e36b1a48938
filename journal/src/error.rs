//! What can go wrong with a journal, each kind with a stable code and with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Any failure of a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another live process or handle writes this journal.
    #[error("{}: another process is using this journal; stop it first", .dir.display())]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{}: damaged at byte {offset}: {reason}. Nothing was changed. Restore the directory from a copy; or, to go on with \
         the records before the damage, move this file and all later ones of the directory away",
        .file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The disk is full. Nothing acknowledged is lost; what is buffered stays buffered and the next `sync` tries again.
    #[error("{}: No space left on device; nothing stored is lost, make room and try again", .path.display())]
    NoSpace {
        /// The file that could not grow.
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
    /// An earlier write-back failed, so what the disk holds is unknown until the journal is opened again.
    #[error("{}: the journal stopped after a failed write ({reason}); open it again", .dir.display())]
    Failed {
        /// The journal's directory.
        dir: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// The record was there once, and was deleted or truncated.
    #[error("record {index} is gone; the journal begins at {first}")]
    Gone {
        /// The index that was asked for.
        index: u64,
        /// The first index that can be read.
        first: u64,
    },
    /// The record is over the limit.
    #[error("a record of {length} bytes is over the limit of {}", crate::MAX_RECORD)]
    TooLarge {
        /// Its length.
        length: usize,
    },
}

impl Error {
    /// The stable identifier of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Locked { .. } => "journal/locked",
            Error::Damaged { .. } => "journal/damaged",
            Error::NoSpace { .. } => "journal/no-space",
            Error::Io { .. } => "journal/io",
            Error::Failed { .. } => "journal/failed",
            Error::Gone { .. } => "journal/gone",
            Error::TooLarge { .. } => "journal/too-large",
        }
    }

    /// Wraps an I/O error with what was tried; for use in `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { path: path.to_owned() }
            }
            _ => Error::Io { action, path: path.to_owned(), source },
        }
    }
}
