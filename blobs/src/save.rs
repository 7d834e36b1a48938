//! Saving a directory.

use std::path::Path;

use crate::{ChunkStore, Error, Options, Result, SnapshotId, SnapshotIndex};

/// What a save did.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The snapshot's name. All of its chunks are durable in the store.
    pub id: SnapshotId,
    /// For the next save of this directory, or a restore into it.
    pub index: SnapshotIndex,
    /// Files, symbolic links and other things that are no directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files' contents, holes not counted.
    pub bytes: u64,
    /// Bytes of the files that were read; the others had not changed.
    pub read_bytes: u64,
    /// Chunks that the store lacked.
    pub new_chunks: u64,
    /// Bytes that were put into the store, packed.
    pub new_bytes: u64,
    /// Sockets, and what this user may not read or make again, which are not in the snapshot.
    pub skipped: u64,
    /// Files that changed or went while they were read.
    pub changed: u64,
}

/// Saves a directory into a store.
pub fn save(
    dir: &Path,
    _store: &dyn ChunkStore,
    _previous: Option<&SnapshotIndex>,
    options: &Options,
) -> Result<Saved> {
    options.check()?;
    Err(Error::Unfinished { dir: dir.to_owned() })
}
