//! Segment files: their names and their 32-byte head.
//!
//! `<first index, 20 digits>.log` holds records one after the other; `.zst` is the same, sealed: blocks of whole records, each
//! compressed. A name ending in `.tmp` is unfinished and never read; `.reset` is a segment that takes the place of all others.
//! The salt is the same in all segments of a journal; it
//! keeps bytes of other journals, which a payload may contain, from passing for records of this one.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::disk::{Disk, DiskFile};

/// Bytes before the first record or block.
pub(crate) const SEGMENT_HEAD: u64 = 32;
const MAGIC: &[u8; 8] = b"TNNJRNL1";
const SEALED: u32 = 1;

/// A segment file as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub first: u64,
    pub sealed: bool,
    pub path: PathBuf,
}

impl SegmentFile {
    /// The file of a segment that begins with `first`.
    pub fn new(dir: &Path, first: u64, sealed: bool) -> SegmentFile {
        let suffix = if sealed { "zst" } else { "log" };
        SegmentFile { first, sealed, path: dir.join(format!("{first:020}.{suffix}")) }
    }

    /// The same segment as the beginning of a journal that was reset, while the reset is not complete.
    pub fn announced(&self) -> SegmentFile {
        SegmentFile { path: self.path.with_extension("reset"), ..self.clone() }
    }

    /// The segment that a file announces, if it does that.
    pub fn parse_announced(path: &Path) -> Option<SegmentFile> {
        let (stem, suffix) = path.file_name()?.to_str()?.split_once('.')?;
        let first = (stem.len() == 20 && suffix == "reset").then(|| stem.parse().ok())??;
        Some(SegmentFile { first, sealed: false, path: path.to_owned() })
    }

    fn parse(path: &Path) -> Option<SegmentFile> {
        let (stem, suffix) = path.file_name()?.to_str()?.split_once('.')?;
        let sealed = match suffix {
            "log" => false,
            "zst" => true,
            _ => return None,
        };
        let first = (stem.len() == 20).then(|| stem.parse().ok())??;
        Some(SegmentFile { first, sealed, path: path.to_owned() })
    }

    /// A damage report about this file.
    pub fn damaged(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::Damaged { file: self.path.clone(), offset, reason: reason.into() }
    }

    /// Opens for reading.
    pub fn open(&self, disk: &dyn Disk) -> Result<Box<dyn DiskFile>, Error> {
        disk.open_read(&self.path).map_err(Error::io("open the file", &self.path))
    }
}

/// What a segment file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub salt: u32,
    pub first: u64,
    pub sealed: bool,
}

impl SegmentHead {
    /// The head's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEAD as usize] {
        let mut bytes = [0; SEGMENT_HEAD as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&if self.sealed { SEALED } else { 0 }.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the head of a file. `Ok(None)`: the file was created, but its head never reached the disk.
    pub fn read(segment: &SegmentFile, file: &dyn DiskFile) -> Result<Option<SegmentHead>, Error> {
        let mut bytes = [0; SEGMENT_HEAD as usize];
        let read = file.read_full_at(&mut bytes, 0);
        let read = read.map_err(Error::io("read the file", &segment.path))?;
        if read < bytes.len() || bytes == [0; SEGMENT_HEAD as usize] {
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(28) != crc32c::crc32c(&bytes[..28]) {
            return Err(segment.damaged(0, "the head of the file has a wrong checksum"));
        }
        if &bytes[..8] != MAGIC {
            return Err(segment.damaged(0, "not a journal, or one of a newer version of Tenon"));
        }
        let first = u64::from(word(16)) | u64::from(word(20)) << 32;
        let head = SegmentHead { salt: word(12), first, sealed: word(8) == SEALED };
        if head.first != segment.first || head.sealed != segment.sealed {
            return Err(
                segment.damaged(0, "the file's name and its head disagree; was it renamed?")
            );
        }
        Ok(Some(head))
    }
}

/// All segments of a directory in order of their first index. Of a segment that exists in both forms (a crash came between
/// sealing it and unlinking the plain form) only the sealed form is listed, because it was complete before it got its name.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentFile>, Error> {
    let paths = disk.read_dir(dir).map_err(Error::io("read the directory", dir))?;
    let mut found: Vec<_> = paths.iter().filter_map(|path| SegmentFile::parse(path)).collect();
    found.sort_by_key(|segment| (segment.first, !segment.sealed));
    found.dedup_by_key(|segment| segment.first);
    Ok(found)
}
