//! Records as bytes: a kind, and its fields; numbers are LEB128, bytes have their length before them.

use super::{MAX_NAME, MAX_TARGET, MAX_XATTR, MAX_XATTRS, Meta, Part, Record, Segment, Xattrs};
use crate::{ChunkId, MAX_CHUNK};

const DIRECTORY: u8 = 1;
const END: u8 = 2;
const FILE: u8 = 3;
const LINKED_FILE: u8 = 4;
const SYMLINK: u8 = 5;
const LINK: u8 = 6;
const FIFO: u8 = 7;
const CHARACTER_DEVICE: u8 = 8;
const BLOCK_DEVICE: u8 = 9;
const HOLE: u8 = 10;
const CHUNK: u8 = 11;
const PART: u8 = 12;

/// Appends fields.
pub(crate) trait Encode {
    fn number(&mut self, value: u64);
    fn bytes(&mut self, value: &[u8]);
    fn xattrs(&mut self, value: &Xattrs);
    fn meta(&mut self, value: &Meta);
    fn segment(&mut self, value: &Segment);
    fn record(&mut self, value: &Record);
}

impl Encode for Vec<u8> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.extend_from_slice(value);
    }

    fn xattrs(&mut self, value: &Xattrs) {
        self.number(value.len() as u64);
        for (name, value) in value {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn meta(&mut self, value: &Meta) {
        self.number(u64::from(value.mode));
        self.number(u64::from(value.uid));
        self.number(u64::from(value.gid));
        // Times before 1970 are rare: zigzag.
        let seconds = value.mtime.0;
        self.number((seconds << 1 ^ seconds >> 63) as u64);
        self.number(u64::from(value.mtime.1));
        self.xattrs(&value.xattrs);
    }

    fn segment(&mut self, value: &Segment) {
        match value {
            Segment::Hole { length } => {
                self.push(HOLE);
                self.number(*length);
            }
            Segment::Chunk { id, length } => {
                self.push(CHUNK);
                self.extend_from_slice(&id.0);
                self.number(u64::from(*length));
            }
            Segment::Part(part) => {
                self.push(PART);
                self.extend_from_slice(&part.id.0);
                self.number(u64::from(part.of));
                self.number(u64::from(part.offset));
                self.number(u64::from(part.length));
                self.extend_from_slice(&part.hash.0);
            }
        }
    }

    fn record(&mut self, value: &Record) {
        let mut head = |kind, name: &[u8]| {
            self.push(kind);
            self.bytes(name);
        };
        match value {
            Record::Directory { name, meta } => {
                head(DIRECTORY, name);
                self.meta(meta);
            }
            Record::End => self.push(END),
            Record::File { name, meta, size, linked } => {
                head(if *linked { LINKED_FILE } else { FILE }, name);
                self.meta(meta);
                self.number(*size);
            }
            Record::Segment(segment) => self.segment(segment),
            Record::Symlink { name, meta, target } => {
                head(SYMLINK, name);
                self.meta(meta);
                self.bytes(target);
            }
            Record::Link { name, to } => {
                head(LINK, name);
                self.number(*to);
            }
            Record::Fifo { name, meta } => {
                head(FIFO, name);
                self.meta(meta);
            }
            Record::Device { name, meta, block, device } => {
                head(if *block { BLOCK_DEVICE } else { CHARACTER_DEVICE }, name);
                self.meta(meta);
                self.number(*device);
            }
        }
    }
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// They end before it does.
    Short,
    /// They are wrong.
    Wrong(&'static str),
}

type Result<T> = std::result::Result<T, Bad>;

/// Takes fields off the front.
pub(crate) struct Decode<'a>(pub &'a [u8]);

impl<'a> Decode<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Bad::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn number(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Bad::Wrong("a number has more than 64 bits"))
    }

    /// A number of at most 32 bits.
    pub fn small(&mut self) -> Result<u32> {
        self.number()?.try_into().map_err(|_| Bad::Wrong("a number has more than 32 bits"))
    }

    /// At most so many bytes. What is claimed is looked at before it is waited for.
    pub fn bytes(&mut self, most: usize) -> Result<Vec<u8>> {
        let length = self.number()?;
        if length > most as u64 {
            return Err(Bad::Wrong("a name or value is too long"));
        }
        self.take(length as usize).map(<[u8]>::to_vec)
    }

    fn id(&mut self) -> Result<ChunkId> {
        ChunkId::from_bytes(self.take(32)?).ok_or(Bad::Short)
    }

    pub fn xattrs(&mut self) -> Result<Xattrs> {
        let count = self.number()?;
        if count > MAX_XATTRS as u64 {
            return Err(Bad::Wrong("a file has too many extended attributes"));
        }
        (0..count)
            .map(|_| {
                let name = self.bytes(MAX_NAME)?;
                match name.is_empty() || name.contains(&0) {
                    true => Err(Bad::Wrong("an extended attribute has no name")),
                    false => Ok((name, self.bytes(MAX_XATTR)?)),
                }
            })
            .collect()
    }

    fn meta(&mut self) -> Result<Meta> {
        let mode = self.small()?;
        let (uid, gid) = (self.small()?, self.small()?);
        let seconds = self.number()?;
        let nanoseconds = self.small()?;
        // The last id stands for "as it is" where owners are changed.
        if mode > 0o7777 || nanoseconds >= 1_000_000_000 || uid == u32::MAX || gid == u32::MAX {
            return Err(Bad::Wrong("a mode, owner or time is none"));
        }
        let seconds = (seconds >> 1) as i64 ^ -((seconds & 1) as i64);
        let mtime = (seconds, nanoseconds);
        Ok(Meta { mode: mode as u16, uid, gid, mtime, xattrs: self.xattrs()? })
    }

    /// Only the first directory may be without a name.
    fn name(&mut self, may_be_empty: bool) -> Result<Vec<u8>> {
        let name = self.bytes(MAX_NAME)?;
        let is_path = name.contains(&b'/') || name.contains(&0) || name == b"." || name == b"..";
        match is_path || name.is_empty() && !may_be_empty {
            true => Err(Bad::Wrong("a name is none that a file may have")),
            false => Ok(name),
        }
    }

    fn chunk_length(&mut self) -> Result<u32> {
        let length = self.small()?;
        match length as usize {
            1..=MAX_CHUNK => Ok(length),
            _ => Err(Bad::Wrong("a chunk has an impossible length")),
        }
    }

    pub fn record(&mut self) -> Result<Record> {
        let kind = self.take(1)?[0];
        Ok(match kind {
            DIRECTORY => Record::Directory { name: self.name(true)?, meta: self.meta()? },
            END => Record::End,
            FILE | LINKED_FILE => Record::File {
                name: self.name(false)?,
                meta: self.meta()?,
                size: self.number()?,
                linked: kind == LINKED_FILE,
            },
            SYMLINK => {
                let (name, meta) = (self.name(false)?, self.meta()?);
                let target = self.bytes(MAX_TARGET)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(Bad::Wrong("a symbolic link leads nowhere"));
                }
                Record::Symlink { name, meta, target }
            }
            LINK => Record::Link { name: self.name(false)?, to: self.number()? },
            FIFO => Record::Fifo { name: self.name(false)?, meta: self.meta()? },
            CHARACTER_DEVICE | BLOCK_DEVICE => Record::Device {
                name: self.name(false)?,
                meta: self.meta()?,
                block: kind == BLOCK_DEVICE,
                device: self.number()?,
            },
            HOLE => match self.number()? {
                0 => return Err(Bad::Wrong("a hole has no length")),
                length => Record::Segment(Segment::Hole { length }),
            },
            CHUNK => {
                Record::Segment(Segment::Chunk { id: self.id()?, length: self.chunk_length()? })
            }
            PART => {
                let (id, of) = (self.id()?, self.chunk_length()?);
                let (offset, length) = (self.small()?, self.chunk_length()?);
                if offset.checked_add(length).is_none_or(|end| end > of) {
                    return Err(Bad::Wrong("a part lies outside of its chunk"));
                }
                let hash = self.id()?;
                Record::Segment(Segment::Part(Box::new(Part { id, of, offset, length, hash })))
            }
            _ => return Err(Bad::Wrong("a record is of no kind that is known")),
        })
    }
}
