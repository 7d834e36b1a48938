//! How far a store was synced, written beside it.
//!
//! Sled takes damage for the end of its log and silently goes back to the state before it. So each sync also writes down,
//! here, which batch it covered, and a store that is behind that at open is damaged. Two slots are written in turn: the one
//! that counts is never touched. A slot names the sled directory that it is about, so that a replacement has its slot
//! before it has the pointer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tenon_journal::disk::{Disk, DiskFile};

use super::io_error;
use crate::{Error, Result};

const NAME: &str = "synced";
/// Slots lie in different sectors, so that tearing one leaves the other.
const SLOT: u64 = 512;
const LENGTH: usize = 20;

/// The open file.
pub(super) struct Mark {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// What was written last, and into which slot.
    last: Mutex<(Slot, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Which sled directory.
    number: u64,
    /// The last batch that is durable in it.
    batch: u64,
}

impl Slot {
    fn encode(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.batch.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; LENGTH]) -> Option<Slot> {
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let slot = Slot { number: word(0)?, batch: word(8)? };
        (slot.encode() == bytes).then_some(slot)
    }
}

impl Mark {
    /// Makes a new file that says that nothing is synced. Durable when the directory is synced.
    pub fn create(disk: &dyn Disk, dir: &Path, number: u64) -> Result<()> {
        let path = dir.join(NAME);
        let create = || {
            let file = disk.create(&path)?;
            file.set_len(2 * SLOT)?;
            file.write_all_at(&Slot { number, batch: 0 }.encode(), 0)?;
            file.sync_data()
        };
        create().map_err(io_error("write the file", &path))
    }

    /// Opens the file and returns also the last batch that must be in the sled directory with this number.
    pub fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<(Mark, u64)> {
        let path = dir.join(NAME);
        let damaged = |reason: &str| Error::Damaged {
            dir: dir.to_owned(),
            reason: format!("the file {} {reason}", path.display()),
        };
        if !disk.exists(&path) {
            return Err(damaged("is missing"));
        }
        let file = disk.open_write(&path).map_err(io_error("open the file", &path))?;
        let mut newest: Option<(Slot, u64)> = None;
        for position in [0, 1] {
            let mut bytes = [0; LENGTH];
            let read = file.read_full_at(&mut bytes, position * SLOT);
            read.map_err(io_error("read the file", &path))?;
            let slot = Slot::decode(bytes).filter(|slot| slot.number == number);
            if let Some(slot) =
                slot.filter(|slot| newest.is_none_or(|(newest, _)| slot.batch > newest.batch))
            {
                newest = Some((slot, position));
            }
        }
        let (slot, position) = newest.ok_or_else(|| damaged("says nothing sensible"))?;
        Ok((Mark { path, file, last: Mutex::new((slot, position)) }, slot.batch))
    }

    /// Writes down, durably, that a sled directory is synced up to a batch.
    pub fn write(&self, number: u64, batch: u64) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Slot { number, batch };
        // A sync of what was replaced meanwhile says nothing any more.
        if number < last.0.number || (last.0.number == number && last.0.batch >= batch) {
            return Ok(());
        }
        let position = 1 - last.1;
        let written = self.file.write_all_at(&slot.encode(), position * SLOT);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(io_error("write the file", &self.path))?;
        *last = (slot, position);
        Ok(())
    }
}
