//! A record here that grows as the one over there does. Whoever follows it makes holes in it, and these
//! say what is not needed any more over there either.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use tenon_entrypoint::relay::Order;

/// How much must be given back here before it is worth saying.
const WORTH: u64 = 1 << 20;

/// The writing end.
pub struct Mirror {
    there: String,
    file: File,
    /// Where the next byte belongs.
    at: u64,
    /// Up to where it was said that nothing is needed.
    kept: u64,
}

impl Mirror {
    /// Begins at that offset, whatever the file holds: what is before is not needed, and what is
    /// behind it may have been lost with the machine.
    pub fn open(there: String, here: &Path, from: u64) -> io::Result<Mirror> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(here)?;
        file.set_len(from)?;
        Ok(Mirror { there, file, at: from, kept: from })
    }

    /// What to order, so that the rest comes.
    pub fn follow(&self, number: usize) -> Order {
        let file = u32::try_from(number).unwrap_or(u32::MAX);
        Order::Follow { file, path: self.there.clone(), from: self.at }
    }

    /// Takes what comes next. Gives up to where the other one may be given back, if it is worth saying.
    pub fn take(&mut self, at: u64, bytes: &[u8]) -> io::Result<Option<u64>> {
        // After a break some may come twice; what is missing never comes.
        let Some(skip) = self.at.checked_sub(at) else {
            return Err(io::Error::other("a part of it is missing"));
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        if let Some(rest) = bytes.get(skip..) {
            self.file.write_all_at(rest, self.at)?;
            self.at += rest.len() as u64;
        }
        self.given_back(WORTH)
    }

    /// The writer over there has found no room: passed on, for the reader to make some.
    pub fn touch(&mut self) -> io::Result<Option<u64>> {
        self.file.set_modified(SystemTime::now())?;
        self.given_back(1)
    }

    fn given_back(&mut self, worth: u64) -> io::Result<Option<u64>> {
        // SAFETY: the descriptor is open and no memory is involved. Reads and writes name offsets.
        let data = unsafe { libc::lseek(self.file.as_raw_fd(), 0, libc::SEEK_DATA) };
        // Without any data it is a hole to its end.
        let hole = u64::try_from(data).unwrap_or(self.at).min(self.at);
        if hole < self.kept + worth {
            return Ok(None);
        }
        self.kept = hole;
        Ok(Some(hole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_is_taken_once_and_a_gap_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        std::fs::write(&path, "older and longer").unwrap();
        let mut mirror = Mirror::open("/there".into(), &path, 4).unwrap();
        assert_eq!(mirror.take(4, b"abc").unwrap(), None);
        assert_eq!(mirror.take(5, b"bcd").unwrap(), None);
        assert_eq!(mirror.take(4, b"a").unwrap(), None);
        assert!(mirror.take(9, b"x").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0\0abcd");
        let Order::Follow { from, .. } = mirror.follow(0) else { panic!() };
        assert_eq!(from, 8);
    }

    #[test]
    fn what_is_given_back_here_is_given_back_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let mut mirror = Mirror::open("/there".into(), &path, 0).unwrap();
        assert_eq!(mirror.take(0, &vec![1; 3 << 20]).unwrap(), None);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open and no memory is involved.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, 2 << 20) }, 0);
        assert_eq!(mirror.take(3 << 20, b"x").unwrap(), Some(2 << 20));
        assert_eq!(mirror.touch().unwrap(), None);
    }
}
