//! How much room there is, and whether it is enough for new work.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The file system of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that may still be written; what is kept for root is not among them.
    pub free: u64,
    /// Bytes that are written.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Disk {
    /// That of a path.
    pub fn of(path: &Path) -> io::Result<Disk> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: statvfs is plain data; the path ends with NUL, and the call fills the struct or fails.
        let found = unsafe {
            let mut found: libc::statvfs = std::mem::zeroed();
            if libc::statvfs(path.as_ptr(), &raw mut found) < 0 {
                return Err(io::Error::last_os_error());
            }
            found
        };
        let bytes = |blocks: libc::fsblkcnt_t| blocks.saturating_mul(found.f_frsize);
        Ok(Disk {
            free: bytes(found.f_bavail),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            total: bytes(found.f_blocks),
        })
    }

    /// How much of it is used, in percent, as `df` says it: of what is used or free, rounded up.
    pub fn used_percent(&self) -> u8 {
        let (used, free) = (u128::from(self.used), u128::from(self.free));
        let percent = (used * 100).div_ceil((used + free).max(1));
        u8::try_from(percent).unwrap_or(100)
    }
}

/// Where work needs room, and how much has to be free for new work to begin.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// Paths on the disks that are looked at.
    pub places: Vec<PathBuf>,
    /// Bytes; 0 for no floor.
    pub bytes: u64,
}

impl Floor {
    /// What is free where least is; `None` where there is no floor, or nothing can be said.
    pub fn free(&self) -> Option<u64> {
        if self.bytes == 0 {
            return None;
        }
        self.places.iter().filter_map(|place| Some(Disk::of(place).ok()?.free)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_says_how_much() {
        let disk = Disk::of(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
        // What is neither free nor used is kept for root.
        for (used, free, percent) in [
            (0, 100, 0),
            (1, 99, 1),
            (99, 1, 99),
            (95, 0, 100),
            (45, 45, 50),
            (1, 999, 1),
            (0, 0, 0),
        ] {
            assert_eq!(Disk { free, used, total: 100 }.used_percent(), percent);
        }
        let places = vec![PathBuf::from("/no/such/place"), PathBuf::from("/")];
        assert_eq!(Floor { places: places.clone(), bytes: 0 }.free(), None);
        assert!(Floor { places, bytes: 1 }.free().is_some());
    }
}
