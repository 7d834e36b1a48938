//! What a directory was like when it was last saved or restored, so that what has not changed since is not read again.
//!
//! A file's size, times and inode tell whether it changed. A change within the same tick of the kernel's clock would not
//! show; so a file enters the index only if its last change is older than the moment at which it was looked at. The file
//! form is a start, the entries, and a CRC-32C of both; one that is damaged or of another version is as good as none.

use std::collections::HashMap;
use std::path::Path;

use crate::manifest::{Decode, Encode, Record, Segment, Xattrs};
use crate::{Error, Result};

/// What a file begins with; the last byte is the version.
const START: [u8; 8] = *b"TNNINDX\x01";

/// Segments that are remembered; files beyond are read again. Some 200 MB of memory.
const MOST_SEGMENTS: usize = 4 << 20;

/// For each file of a directory, what tells whether it was changed (size, times, inode), and its content's chunks.
///
/// It is worth nothing for any other directory, and does no harm there: no file of it looks the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotIndex {
    files: HashMap<Box<[u8]>, Known>,
    segments: usize,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub seen: Seen,
    pub xattrs: Xattrs,
    pub content: Vec<Segment>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub size: u64,
    pub inode: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
}

impl SnapshotIndex {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Known> {
        self.files.get(path)
    }

    pub(crate) fn insert(&mut self, path: &[u8], known: Known) {
        if self.segments + known.content.len() <= MOST_SEGMENTS {
            self.segments += known.content.len();
            self.files.insert(path.into(), known);
        }
    }

    /// Forgets files that were changed at or after this moment.
    pub(crate) fn forget_since(&mut self, moment: (i64, u32)) {
        self.files.retain(|_, known| known.seen.ctime < moment);
    }

    /// From a file that [`store`](SnapshotIndex::store) wrote; `None` if it is not there, damaged or of another version.
    pub fn load(file: &Path) -> Option<SnapshotIndex> {
        SnapshotIndex::parse(&std::fs::read(file).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<SnapshotIndex> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = Decode(body.strip_prefix(START.as_slice())?);
        let mut index = SnapshotIndex::default();
        while !rest.0.is_empty() {
            let path = rest.bytes(1 << 20).ok()?;
            let mut time = || Some((rest.number().ok()? as i64, rest.small().ok()?));
            let (mtime, ctime) = (time()?, time()?);
            let seen = Seen { size: rest.number().ok()?, inode: rest.number().ok()?, mtime, ctime };
            let xattrs = rest.xattrs().ok()?;
            let count = rest.number().ok()?;
            let segment = |_| match rest.record().ok()? {
                Record::Segment(segment) => Some(segment),
                _ => None,
            };
            let content = (0..count).map(segment).collect::<Option<_>>()?;
            index.insert(&path, Known { seen, xattrs, content });
        }
        Some(index)
    }

    /// Replaces the file.
    pub fn store(&self, file: &Path) -> Result<()> {
        let mut bytes = START.to_vec();
        for (path, known) in &self.files {
            bytes.bytes(path);
            for (seconds, nanoseconds) in [known.seen.mtime, known.seen.ctime] {
                bytes.number(seconds as u64);
                bytes.number(u64::from(nanoseconds));
            }
            bytes.number(known.seen.size);
            bytes.number(known.seen.inode);
            bytes.xattrs(&known.xattrs);
            bytes.number(known.content.len() as u64);
            known.content.iter().for_each(|segment| bytes.segment(segment));
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        let new = Path::new(&new);
        std::fs::write(new, &bytes).map_err(Error::io("write", new))?;
        // Not synced: a torn one is as good as none.
        std::fs::rename(new, file).map_err(Error::io("replace", file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChunkId;

    #[test]
    fn an_index_comes_back_and_a_damaged_one_is_none() {
        let mut index = SnapshotIndex::default();
        let id = ChunkId::of(b"x");
        for (number, path) in [&b"a"[..], b"a/\xff", b"b"].into_iter().enumerate() {
            let seen =
                Seen { size: 5, inode: number as u64, mtime: (-5, 3), ctime: (7, 999_999_999) };
            let content = vec![Segment::Chunk { id, length: 3 }, Segment::Hole { length: 2 }];
            let xattrs = vec![(b"user.x".to_vec(), b"\0y".to_vec())];
            index.insert(path, Known { seen, xattrs, content });
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        assert_eq!(SnapshotIndex::load(&file), None);
        index.store(&file).unwrap();
        assert_eq!(SnapshotIndex::load(&file), Some(index));
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert_eq!(SnapshotIndex::parse(&bytes), None);
            assert_eq!(SnapshotIndex::parse(&whole[..at]), None);
        }
    }
}
