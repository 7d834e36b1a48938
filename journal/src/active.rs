//! The segment that is written to: an open file, where the next record goes, and zeros behind it.
//!
//! Invariant: what lies between `offset` and `length` is zeros, so a reader takes it for the end.

use std::path::PathBuf;

use crate::Error;
use crate::disk::{Disk, DiskFile};
use crate::segment::SegmentFile;

/// The segment that is written to.
pub(crate) struct Active {
    pub file: Box<dyn DiskFile>,
    pub path: PathBuf,
    /// Where the next record goes.
    pub offset: u64,
    /// The file's length: behind `offset`, if zeros were written in advance.
    pub length: u64,
}

impl Active {
    pub fn open(disk: &dyn Disk, segment: &SegmentFile) -> Result<Active, Error> {
        let path = segment.path.clone();
        let file = disk.open_write(&path).map_err(Error::io("open the file", &path))?;
        let offset = file.len().map_err(Error::io("stat the file", &path))?;
        Ok(Active { file, path, offset, length: offset })
    }

    /// Fills what follows a piece of this length with zeros, if the piece goes beyond what was filled before.
    pub fn prepare(&mut self, piece: u64, bytes: u64, segment_bytes: u64) {
        let end = self.offset + piece;
        let until = (end + bytes).min(segment_bytes);
        if bytes == 0 || end <= self.length || until <= end {
            return;
        }
        let zeros = vec![0; usize::try_from(until - end).unwrap_or(0)];
        match self.file.write_all_at(&zeros, end) {
            Ok(()) => self.length = until,
            // It was only to save time: whether there is room for the records is found out when they are written.
            Err(_) => drop(self.shorten()),
        }
    }

    /// Takes away what follows the records.
    pub fn shorten(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.offset)?;
        self.length = self.offset;
        Ok(())
    }
}
