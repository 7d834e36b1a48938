//! What describes a saved directory: a stream of records, kept as a tree of chunks.
//!
//! The stream goes through the directory depth first, names in the order of their bytes: a record for each entry,
//! [`Record::End`] after the last of a directory, and after a file its segments. It is cut where its content says, as
//! files are, so what did not change stays the same chunks. Lists of ids lead to them; the first one is the root, and
//! its id is the snapshot's. A manifest may come from anybody: [`read`] checks all of it and believes no length.

mod codec;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use codec::{Decode, Encode};
pub(crate) use read::ManifestReader;
pub(crate) use write::ManifestWriter;

use crate::ChunkId;

/// What the root chunk begins with; the last byte is the version.
const START: [u8; 8] = *b"TNNSNAP\x01";
/// Lists of ids above each other. Four of them list more chunks than any disk holds.
const MAX_HEIGHT: u8 = 4;
/// Ids in one list.
const MAX_LIST: usize = 8192;
/// Of Linux: bytes of a name, of a link's target, of an extended attribute's name and value.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;
const MAX_XATTR: usize = 65536;
/// Extended attributes of one file.
const MAX_XATTRS: usize = 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// What follows until its `End` is in it. The first record is one without a name: the directory that was saved.
    Directory { name: Vec<u8>, meta: Meta },
    /// Ends a directory.
    End,
    /// Segments of `size` bytes follow. A linked one has other names, which follow as `Link`.
    File { name: Vec<u8>, meta: Meta, size: u64, linked: bool },
    /// A piece of the file before.
    Segment(Segment),
    /// A symbolic link.
    Symlink { name: Vec<u8>, meta: Meta, target: Vec<u8> },
    /// Another name of a file: of the how manieth linked one, from 0.
    Link { name: Vec<u8>, to: u64 },
    /// A FIFO.
    Fifo { name: Vec<u8>, meta: Meta },
    /// A device node.
    Device { name: Vec<u8>, meta: Meta, block: bool, device: u64 },
}

/// What an entry has besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permissions, set-id and sticky bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Xattrs,
}

/// Extended attributes, by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Nothing is there, and nothing is stored.
    Hole { length: u64 },
    /// A whole chunk.
    Chunk { id: ChunkId, length: u32 },
    /// A part of a chunk that several small files share.
    Part(Box<Part>),
}

/// Where a small file's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub id: ChunkId,
    /// The length of the whole chunk.
    pub of: u32,
    pub offset: u32,
    pub length: u32,
    /// The hash of this part.
    pub hash: ChunkId,
}

impl Segment {
    /// How much of the file it is.
    pub fn length(&self) -> u64 {
        match self {
            Segment::Hole { length } => *length,
            Segment::Chunk { length, .. } => u64::from(*length),
            Segment::Part(part) => u64::from(part.length),
        }
    }

    /// The chunk it is in.
    pub fn chunk(&self) -> Option<ChunkId> {
        match self {
            Segment::Hole { .. } => None,
            Segment::Chunk { id, .. } => Some(*id),
            Segment::Part(part) => Some(part.id),
        }
    }
}
