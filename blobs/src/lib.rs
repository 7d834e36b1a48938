//! Directories as content-addressed chunks: what a workspace is when it moves from one agent to another.
//!
//! [`save`] cuts a directory into chunks, named by the BLAKE3 hash of what is in them, and gives a [`ChunkStore`] those
//! that it lacks; [`restore`] makes a directory equal to what was saved. A [`SnapshotId`] names one saved directory.
//! Stores are [`LocalStore`] (pack files on a disk), [`ObjectStore`] (whatever has an `s3://`, `gs://`, `az://`,
//! `http://`, `file://` or `memory://` address), and what others make of the trait. Everything here blocks: call it from
//! a thread that may wait. The crate knows nothing of runs, agents or networks of its own.

mod chunk;
mod error;
mod index;
mod local;
mod manifest;
mod object;
mod options;
mod restore;
mod save;
mod store;
mod sys;

pub use chunk::{ChunkId, MAX_CHUNK, MAX_PACKED, Packed, SnapshotId};
pub use error::Error;
pub use index::SnapshotIndex;
pub use local::{Damage, LocalStore, Size, Swept};
pub use object::ObjectStore;
pub use options::Options;
pub use restore::{Restored, chunks_of, is_unfinished, restore};
pub use save::{Saved, save};
pub use store::ChunkStore;

/// What may fail here.
pub type Result<T> = std::result::Result<T, Error>;
