//! Reading a segment record by record, whichever form it has.
//!
//! A [`Frames`] yields whole, checked records or says why there is none; what a missing or bad record means (nothing yet,
//! a torn tail, damage) is for its caller to decide. Memory is bounded by the largest record or block of the file.

use std::io;
use std::ops::Range;

use crate::Error;
use crate::disk::DiskFile;
use crate::frame::{HEAD, Head, MAX_RECORD};
use crate::segment::{SEGMENT_HEAD, SegmentFile};

/// Bytes read at a time from a plain segment.
const READ: usize = 256 << 10;
/// Raw bytes that go into one block of a sealed segment, at least.
pub(crate) const BLOCK: usize = 256 << 10;
/// `crc32c u32` of the rest, `packed length u32`, `raw length u32`, `first index u64`.
pub(crate) const BLOCK_HEAD: usize = 20;

/// Whether there are only zeros: no record begins with as many as a head has, because none has the index 0.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Next {
    /// A whole record; its payload is at this range of [`Frames::bytes`].
    Record(Range<usize>),
    /// The records end here: at the end of the file, or where zeros begin that were written in advance.
    End,
    /// No whole, good record begins here.
    Bad(String),
}

/// A cursor over the records of one segment.
pub(crate) struct Frames {
    segment: SegmentFile,
    file: Box<dyn DiskFile>,
    salt: u32,
    buffer: Vec<u8>,
    /// Where in `buffer` the next record begins.
    at: usize,
    /// Where in the file `buffer` ends.
    file_offset: u64,
    /// Where in the file the block in `buffer` begins (sealed form).
    block_start: u64,
    next_index: u64,
}

impl Frames {
    /// A cursor at `offset`, where the record (plain) or block (sealed) that begins with `index` is.
    pub fn new(
        segment: SegmentFile,
        file: Box<dyn DiskFile>,
        salt: u32,
        index: u64,
        offset: u64,
    ) -> Frames {
        let offset = offset.max(SEGMENT_HEAD);
        Frames {
            segment,
            file,
            salt,
            buffer: Vec::new(),
            at: 0,
            file_offset: offset,
            block_start: offset,
            next_index: index,
        }
    }

    /// The segment it reads.
    pub fn segment(&self) -> &SegmentFile {
        &self.segment
    }

    /// The journal's salt.
    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// The file it reads.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The index of the record that `next` will return.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Where in the file the next record begins (plain), or the block that it is in (sealed).
    pub fn offset(&self) -> u64 {
        match self.segment.sealed {
            false => self.file_offset - (self.buffer.len() - self.at) as u64,
            true if self.at == self.buffer.len() => self.file_offset,
            true => self.block_start,
        }
    }

    /// Whether the next record is the first of what a seek could start at.
    pub fn at_seek_point(&self) -> bool {
        !self.segment.sealed || self.at == self.buffer.len()
    }

    /// The bytes that [`Next::Record`] points into.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets what was read ahead, so that the next call sees what the file holds then.
    pub fn reread(&mut self) {
        if !self.segment.sealed {
            self.file_offset = self.offset();
            self.buffer.clear();
            self.at = 0;
        }
    }

    /// The next record.
    pub fn next(&mut self) -> Result<Next, Error> {
        let has_read_ahead = self.at < self.buffer.len();
        match self.look()? {
            // What was read ahead may be what stood there before the record was written.
            Next::End | Next::Bad(_) if has_read_ahead && !self.segment.sealed => {
                self.reread();
                self.look()
            }
            next => Ok(next),
        }
    }

    fn look(&mut self) -> Result<Next, Error> {
        loop {
            let ahead = &self.buffer[self.at..];
            let mut wanted = HEAD;
            if !self.segment.sealed && ahead.len() >= HEAD && is_zero(&ahead[..HEAD]) {
                return Ok(Next::End);
            }
            if let Some(head) = Head::parse(ahead) {
                if head.index != self.next_index {
                    return Ok(Next::Bad(format!(
                        "expected record {}, found {}",
                        self.next_index, head.index
                    )));
                }
                if head.length > MAX_RECORD {
                    return Ok(Next::Bad(format!(
                        "record {} has an impossible length",
                        head.index
                    )));
                }
                wanted = head.total();
                if let Some(record) = ahead.get(..wanted) {
                    if !head.holds(record, self.salt) {
                        return Ok(Next::Bad(format!(
                            "record {} has a wrong checksum",
                            head.index
                        )));
                    }
                    let payload = self.at + HEAD..self.at + wanted;
                    self.at += wanted;
                    self.next_index += 1;
                    return Ok(Next::Record(payload));
                }
            }
            let missing = wanted - ahead.len();
            let nothing_ahead = ahead.is_empty();
            match self.fill(missing)? {
                Fill::More => {}
                Fill::End { left } if nothing_ahead && self.only_zeros(left)? => {
                    return Ok(Next::End);
                }
                Fill::End { .. } => {
                    return Ok(Next::Bad(format!("record {} is incomplete", self.next_index)));
                }
                Fill::Bad(reason) => return Ok(Next::Bad(reason)),
            }
        }
    }

    /// Whether nothing but zeros is left of the file, which is fewer bytes than a head.
    fn only_zeros(&self, left: u64) -> Result<bool, Error> {
        let mut rest = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(HEAD)];
        let read = self.file.read_full_at(&mut rest, self.file_offset);
        read.map_err(Error::io("read the file", &self.segment.path))?;
        Ok(left < HEAD as u64 && is_zero(&rest))
    }

    fn fill(&mut self, missing: usize) -> Result<Fill, Error> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.segment.sealed { self.fill_block() } else { self.fill_plain(missing) }
    }

    fn fill_plain(&mut self, missing: usize) -> Result<Fill, Error> {
        let start = self.buffer.len();
        // A damaged length must not make us allocate more than the file can fill.
        let length = self.file.len().map_err(Error::io("stat the file", &self.segment.path))?;
        let left = length.saturating_sub(self.file_offset);
        if left < missing as u64 {
            return Ok(Fill::End { left });
        }
        let wanted = left.min(missing.max(READ) as u64) as usize;
        self.buffer.resize(start + wanted, 0);
        let have = self
            .file
            .read_full_at(&mut self.buffer[start..], self.file_offset)
            .map_err(Error::io("read the file", &self.segment.path))?;
        self.buffer.truncate(start + have);
        self.file_offset += have as u64;
        Ok(if have < missing { Fill::End { left } } else { Fill::More })
    }

    fn fill_block(&mut self) -> Result<Fill, Error> {
        if !self.buffer.is_empty() {
            return Ok(Fill::Bad("a record goes over the end of its block".to_owned()));
        }
        let start = self.file_offset;
        let mut head = [0; BLOCK_HEAD];
        match self.file.read_full_at(&mut head, start) {
            Ok(0) => return Ok(Fill::End { left: 0 }),
            Ok(BLOCK_HEAD) => {}
            Ok(_) => return Ok(Fill::Bad("a block is incomplete".to_owned())),
            Err(error) => return Err(Error::io("read the file", &self.segment.path)(error)),
        }
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (crc, packed_length, raw_length) = (word(0), word(4) as usize, word(8) as usize);
        let first = u64::from(word(12)) | u64::from(word(16)) << 32;
        let length = self.file.len().map_err(Error::io("stat the file", &self.segment.path))?;
        if packed_length as u64 > length - start.min(length)
            || raw_length > BLOCK + HEAD + MAX_RECORD
        {
            return Ok(Fill::Bad("a block has an impossible length".to_owned()));
        }
        let mut packed = vec![0; packed_length];
        let read = self.file.read_full_at(&mut packed, start + BLOCK_HEAD as u64);
        let read = read.map_err(Error::io("read the file", &self.segment.path))?;
        if read < packed_length {
            return Ok(Fill::Bad("a block is incomplete".to_owned()));
        }
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(self.salt, &head[4..]), &packed);
        if sum != crc || first != self.next_index {
            return Ok(Fill::Bad(format!(
                "the block of record {} has a wrong checksum",
                self.next_index
            )));
        }
        self.buffer = match zstd::bulk::decompress(&packed, raw_length) {
            Ok(raw) if raw.len() == raw_length && !raw.is_empty() => raw,
            _ => {
                return Ok(Fill::Bad(format!(
                    "the block of record {} does not unpack",
                    self.next_index
                )));
            }
        };
        self.block_start = start;
        self.file_offset = start + (BLOCK_HEAD + packed_length) as u64;
        Ok(Fill::More)
    }
}

enum Fill {
    More,
    /// Too few bytes: so many are left in the file.
    End {
        left: u64,
    },
    Bad(String),
}

/// One block of a sealed segment.
pub(crate) fn encode_block(salt: u32, first: u64, raw: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(raw, level)?;
    let mut block = vec![0; 4];
    block.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    block.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    block.extend_from_slice(&first.to_le_bytes());
    block.extend_from_slice(&packed);
    let crc = crc32c::crc32c_append(salt, &block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    Ok(block)
}
