//! Chunks: their names, and the form in which they travel and are stored.
//!
//! A packed chunk is one byte that says how, and then the content as it is (0), or its length (four bytes, little endian)
//! and a zstd frame (1). Nothing of that is believed: the length is capped, and what comes out must have the id.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::{Error, Result};

/// The most bytes that a chunk's content has.
pub const MAX_CHUNK: usize = 1 << 20;

/// The most bytes that a packed chunk has.
pub const MAX_PACKED: usize = MAX_CHUNK + 1;

/// The fastest: chunks travel between machines that are near each other.
const LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Before the frame: how it is packed, and the length of what is in it.
const ZSTD_HEAD: usize = 5;

/// The name of a chunk: the BLAKE3 hash of its content. As text it is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The name of this content.
    pub fn of(content: &[u8]) -> ChunkId {
        ChunkId(*blake3::hash(content).as_bytes())
    }

    /// From its bytes; `None` if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<ChunkId> {
        bytes.try_into().ok().map(ChunkId)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a text that is no id is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id of a chunk or snapshot is 64 hexadecimal digits")]
pub struct NotAnId;

impl FromStr for ChunkId {
    type Err = NotAnId;

    fn from_str(text: &str) -> std::result::Result<ChunkId, NotAnId> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotAnId);
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(NotAnId);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(ChunkId(id))
    }
}

/// The name of a saved directory: the id of the chunk that its manifest begins with. Equal directories may have
/// several: which small files share a chunk depends on what was known when they were saved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub ChunkId);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SnapshotId {
    type Err = NotAnId;

    fn from_str(text: &str) -> std::result::Result<SnapshotId, NotAnId> {
        text.parse().map(SnapshotId)
    }
}

/// A chunk as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its name.
    pub id: ChunkId,
    /// How it is packed, and what.
    pub bytes: Bytes,
}

thread_local! {
    // Making a context costs as much as packing a small chunk.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Packed {
    /// Packs a content of at most [`MAX_CHUNK`] bytes that has this id. It stays as it is where packing does not save
    /// a thirty-second of it.
    pub(crate) fn pack(id: ChunkId, content: &[u8]) -> Packed {
        debug_assert!(content.len() <= MAX_CHUNK, "a chunk of {} bytes", content.len());
        let worthwhile = content.len() - content.len() / 32;
        // The frame has room for what is worth having only; the compressor gives up when that is used up.
        let mut packed = vec![0; ZSTD_HEAD + worthwhile];
        let frame = COMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Compressor::new(LEVEL).ok();
            }
            slot.as_mut()?.compress_to_buffer(content, &mut packed[ZSTD_HEAD..]).ok()
        });
        match frame {
            Some(length) if ZSTD_HEAD + length <= worthwhile => {
                packed.truncate(ZSTD_HEAD + length);
                packed[0] = ZSTD;
                packed[1..ZSTD_HEAD].copy_from_slice(&(content.len() as u32).to_le_bytes());
                packed.shrink_to_fit();
            }
            _ => {
                packed.clear();
                packed.reserve_exact(1 + content.len());
                packed.push(PLAIN);
                packed.extend_from_slice(content);
            }
        }
        Packed { id, bytes: packed.into() }
    }

    /// Packs a content of at most [`MAX_CHUNK`] bytes; longer ones are an error.
    pub fn new(content: &[u8]) -> Result<Packed> {
        let id = ChunkId::of(content);
        if content.len() > MAX_CHUNK {
            return Err(Error::Damaged { id, reason: "it is longer than a chunk may be" });
        }
        Ok(Packed::pack(id, content))
    }

    /// A chunk that somebody else sent: it is what its id says, or an error.
    pub fn received(id: ChunkId, bytes: Bytes) -> Result<Packed> {
        let packed = Packed { id, bytes };
        packed.unpack(&mut Vec::new())?;
        Ok(packed)
    }

    /// The content, in `buffer`, whose former content goes. It is what the id says, or an error.
    pub fn unpack<'a>(&'a self, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let damaged = |reason| Error::Damaged { id: self.id, reason };
        let (how, rest) = self.bytes.split_first().ok_or(damaged("it is empty"))?;
        let content = match *how {
            PLAIN => rest,
            ZSTD => {
                let (length, frame) = rest.split_first_chunk().ok_or(damaged("it is cut off"))?;
                let length = u32::from_le_bytes(*length) as usize;
                if length > MAX_CHUNK {
                    return Err(damaged("it claims to be longer than a chunk may be"));
                }
                buffer.clear();
                buffer.reserve_exact(length);
                let unpacked = DECOMPRESSOR.with_borrow_mut(|slot| {
                    if slot.is_none() {
                        *slot = zstd::bulk::Decompressor::new().ok();
                    }
                    slot.as_mut()?.decompress_to_buffer(frame, buffer).ok()
                });
                if unpacked != Some(length) {
                    return Err(damaged("it cannot be unpacked"));
                }
                buffer
            }
            _ => return Err(damaged("it is packed in no way that is known")),
        };
        if content.len() > MAX_CHUNK {
            return Err(damaged("it is longer than a chunk may be"));
        }
        match ChunkId::of(content) == self.id {
            true => Ok(content),
            false => Err(damaged("its content is another")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_what_does_not_pack_stays_plain() {
        for content in [&b""[..], b"a", &[b'x'; 100_000], &noise(100_000)] {
            let packed = Packed::new(content).unwrap();
            assert_eq!(packed.unpack(&mut Vec::new()).unwrap(), content);
            assert!(packed.bytes.len() <= content.len() + 1);
        }
        assert!(Packed::new(&[b'x'; 100_000]).unwrap().bytes.len() < 200);
        assert_eq!(Packed::new(&noise(1000)).unwrap().bytes[0], PLAIN);
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_found() {
        let packed =
            Packed::new(&b"some words, some words, some words, some words".repeat(5)).unwrap();
        assert_eq!(packed.bytes[0], ZSTD);
        for at in 0..packed.bytes.len() {
            let mut bytes = packed.bytes.to_vec();
            bytes[at] ^= 0x41;
            // A bit of a zstd frame's head may mean nothing; what comes out is right or nothing comes out.
            if let Ok(packed) = Packed::received(packed.id, bytes.into()) {
                assert!(packed.unpack(&mut Vec::new()).is_ok());
            }
            let error = Packed::received(packed.id, packed.bytes.slice(..at)).unwrap_err();
            assert_eq!(error.code(), "blobs/damaged-chunk");
        }
    }

    #[test]
    fn a_length_that_is_claimed_is_not_allocated() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        for claim in [64 << 20, u32::MAX, MAX_CHUNK as u32, 0] {
            let mut bytes = vec![ZSTD];
            bytes.extend_from_slice(&claim.to_le_bytes());
            bytes.extend_from_slice(&bomb);
            let mut buffer = Vec::new();
            let packed = Packed { id: ChunkId::of(b""), bytes: bytes.into() };
            assert!(packed.unpack(&mut buffer).is_err());
            assert!(buffer.capacity() <= MAX_CHUNK);
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = ChunkId::of(b"x");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert_eq!(text.parse::<ChunkId>(), Err(NotAnId));
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }
}
