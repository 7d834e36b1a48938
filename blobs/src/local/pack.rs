//! A pack file: records one after the other, and at last a trailer that lists them.
//!
//! It begins with eight bytes that say what it is. A record is a head of 48 bytes (a mark, the chunk's id, the length and
//! the CRC-32C of what follows, the CRC-32C of the head) and the packed chunk. The trailer is a list of (id, offset,
//! length) and a foot of 24 bytes: a mark, where the list begins, how many it lists, the CRC-32C of list and foot. All
//! numbers are little endian. A pack that has its trailer never changes again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock;
use crate::{ChunkId, Error, Packed, Result};

/// What a pack begins with; the last byte is the version.
pub const START: [u8; 8] = *b"TNNPACK\x01";
/// What a record begins with.
pub const MARK: [u8; 4] = *b"chnk";
/// What the foot begins with.
pub const FOOT_MARK: [u8; 4] = *b"foot";
/// Bytes of a record's head.
pub const HEAD: usize = 48;
/// Bytes of the foot.
pub const FOOT: usize = 24;
/// Bytes of an entry of the trailer's list.
pub const LISTED: usize = 40;

/// An open pack.
pub struct Pack {
    pub number: u32,
    pub path: PathBuf,
    file: File,
    /// Up to where it is written.
    length: AtomicU64,
    /// Up to where it is durable; held while one syncs for all who wait.
    synced: Mutex<u64>,
    /// What the trailer will list.
    listed: Mutex<Vec<u8>>,
}

/// The records of these chunks, one after the other.
pub fn records(chunks: &[&Packed]) -> Vec<u8> {
    let length = chunks.iter().map(|chunk| HEAD + chunk.bytes.len()).sum();
    let mut records = Vec::with_capacity(length);
    for chunk in chunks {
        records.extend_from_slice(&head(chunk.id, &chunk.bytes));
        records.extend_from_slice(&chunk.bytes);
    }
    records
}

fn head(id: ChunkId, bytes: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MARK);
    head[4..36].copy_from_slice(&id.0);
    head[36..40].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[40..44].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    let sum = crc32c::crc32c(&head[..44]);
    head[44..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The id, length and sum that a head tells; `None` if it is none.
pub fn parse_head(head: &[u8]) -> Option<(ChunkId, u32, u32)> {
    let head: &[u8; HEAD] = head.first_chunk()?;
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let whole = head[..4] == MARK && number(44) == crc32c::crc32c(&head[..44]);
    let id = ChunkId::from_bytes(&head[4..36])?;
    whole.then(|| (id, number(36), number(40)))
}

impl Pack {
    /// A new, empty pack.
    pub fn create(dir: &Path, number: u32) -> Result<Pack> {
        let path = dir.join(format!("pack-{number:08}"));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        let begun = file.write_all_at(&START, 0).map_err(Error::io("write", &path));
        let durable = begun
            .and_then(|()| file.sync_all().map_err(Error::io("sync", &path)))
            .and_then(|()| sync_dir(dir));
        if let Err(error) = durable {
            // It holds nothing; its number is free again.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Pack::of(number, path, file, START.len() as u64, Vec::new()))
    }

    /// A pack whose file is there: up to where it is good, and what is listed of it.
    pub fn of(number: u32, path: PathBuf, file: File, length: u64, listed: Vec<u8>) -> Pack {
        Pack {
            number,
            path,
            file,
            length: AtomicU64::new(length),
            synced: Mutex::new(length),
            listed: Mutex::new(listed),
        }
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Writes records to the end; where they begin. Only one thread at a time may. On an error the pack is as it was.
    pub fn append(&self, records: &[u8]) -> Result<u32> {
        let start = self.length();
        if let Err(error) = self.file.write_all_at(records, start) {
            // Should even that fail, the next append writes over it, and a scan finds no whole record there.
            let _ = self.file.set_len(start);
            return Err(Error::io("write", &self.path)(error));
        }
        let mut listed = lock(&self.listed);
        let mut at = 0;
        while let Some((id, length, _)) = records.get(at..).and_then(parse_head) {
            list(&mut listed, id, start as u32 + at as u32, length);
            at += HEAD + length as usize;
        }
        self.length.store(start + records.len() as u64, Ordering::Release);
        Ok(start as u32)
    }

    /// Makes it durable up to there. Who comes while another syncs waits, and often finds it done.
    pub fn sync_to(&self, end: u64) -> Result<()> {
        let mut synced = lock(&self.synced);
        if *synced >= end {
            return Ok(());
        }
        let written = self.length();
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        *synced = written;
        Ok(())
    }

    /// Writes the trailer and makes all of it durable. Only who appends may.
    pub fn seal(&self) -> Result<()> {
        let start = self.length();
        let mut trailer = std::mem::take(&mut *lock(&self.listed));
        let listed_bytes = trailer.len();
        trailer.extend_from_slice(&FOOT_MARK);
        trailer.extend_from_slice(&start.to_le_bytes());
        trailer.extend_from_slice(&((listed_bytes / LISTED) as u32).to_le_bytes());
        trailer.extend_from_slice(&[0; 4]);
        let sum = crc32c::crc32c(&trailer);
        trailer.extend_from_slice(&sum.to_le_bytes());
        if let Err(error) = self.file.write_all_at(&trailer, start) {
            let _ = self.file.set_len(start);
            trailer.truncate(listed_bytes);
            *lock(&self.listed) = trailer;
            return Err(Error::io("write", &self.path)(error));
        }
        let end = start + trailer.len() as u64;
        self.length.store(end, Ordering::Release);
        self.sync_to(end)
    }

    /// A packed chunk, if its record is what was written.
    pub fn read(&self, id: ChunkId, offset: u32, length: u32) -> Result<Option<Vec<u8>>> {
        let mut record = vec![0; HEAD + length as usize];
        match self.file.read_exact_at(&mut record, u64::from(offset)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.path)(error)),
        }
        let Some((found, found_length, sum)) = parse_head(&record) else { return Ok(None) };
        let bytes = record.split_off(HEAD);
        let good = found == id && found_length == length && sum == crc32c::crc32c(&bytes);
        Ok(good.then_some(bytes))
    }
}

/// Adds an entry to a trailer's list.
pub fn list(listed: &mut Vec<u8>, id: ChunkId, offset: u32, length: u32) {
    listed.extend_from_slice(&id.0);
    listed.extend_from_slice(&offset.to_le_bytes());
    listed.extend_from_slice(&length.to_le_bytes());
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(Error::io("open", dir))?;
    opened.sync_all().map_err(Error::io("sync", dir))
}
