//! Directories and files that are being made.
//!
//! Whoever has something to do in one holds a reference to it. When the last is dropped all is done, and it gets its owner,
//! mode and time: a file's content would change them, and so would a new entry of a directory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, Stat, ftruncate};

use super::shared::{Shared, lock};
use crate::index::Known;
use crate::manifest::{Meta, Segment};
use crate::{Error, Result, sys};

/// A directory that is being made.
pub(super) struct Directory<'a> {
    pub shared: &'a Shared<'a>,
    pub fd: OwnedFd,
    pub path: Vec<u8>,
    /// None for the top, which is seen to in the end.
    pub meta: Option<Meta>,
    /// It gets its own time only after this one has.
    pub _parent: Option<Arc<Directory<'a>>>,
}

impl Drop for Directory<'_> {
    fn drop(&mut self) {
        let Some(meta) = self.meta.take().filter(|_| !self.shared.has_failed()) else { return };
        let set = sys::set_meta(&self.fd, &meta, false);
        let path = || self.shared.path(&self.path);
        self.shared.note(set.map_err(|error| Error::io("set the mode of", &path())(error)));
    }
}

/// A file that is being made.
pub(super) struct Target<'a> {
    pub directory: Arc<Directory<'a>>,
    pub name: Vec<u8>,
    pub path: Vec<u8>,
    pub meta: Meta,
    pub size: u64,
    /// What is there and may be changed in place.
    pub present: Option<Stat>,
    /// What is known of that.
    pub known: Option<Known>,
    /// All segments, for the index; as long as there are not too many.
    pub content: Mutex<Vec<Segment>>,
    pub file: Mutex<Option<Arc<File>>>,
    /// Set when the manifest had all of it.
    pub complete: AtomicBool,
}

impl Target<'_> {
    /// The file, opened or made by whoever comes first.
    pub fn open(&self) -> Result<Arc<File>> {
        let mut slot = lock(&self.file);
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        let at = &self.directory.fd;
        let opened = match &self.present {
            None => sys::create(at, &self.name),
            Some(present) => sys::open_to_change(at, &self.name).and_then(|file| {
                let now = rustix::fs::fstat(&file)?;
                let is_file = FileType::from_raw_mode(now.st_mode) == FileType::RegularFile;
                if !is_file || now.st_ino != present.st_ino || now.st_nlink != 1 {
                    return Err(rustix::io::Errno::BUSY);
                }
                if now.st_size as u64 != self.size {
                    ftruncate(&file, self.size)?;
                }
                Ok(file)
            }),
        };
        let file = Arc::new(opened.map_err(|error| self.failed("create", error))?);
        *slot = Some(file.clone());
        Ok(file)
    }

    pub fn failed(&self, action: &'static str, error: impl Into<std::io::Error>) -> Error {
        Error::io(action, &self.directory.shared.path(&self.path))(error)
    }

    fn finish(&mut self) -> Result<()> {
        let file = lock(&self.file).take();
        let content = std::mem::take(&mut *lock(&self.content));
        let known = self.known.take();
        let seen = match (&file, &self.present, &known) {
            // Nothing had to be done to it, not even to its attributes.
            (None, Some(present), Some(known)) if self.has_meta(present, known) => known.seen,
            _ => {
                let failed = |error| self.failed("set the mode of", error);
                let file = match file {
                    Some(file) => file,
                    None => {
                        Arc::new(sys::open_file(&self.directory.fd, &self.name).map_err(failed)?)
                    }
                };
                sys::set_meta(&file, &self.meta, self.present.is_none()).map_err(failed)?;
                sys::seen(&rustix::fs::fstat(&file).map_err(failed)?)
            }
        };
        let xattrs = self.meta.xattrs.clone();
        let all: u64 = content.iter().map(Segment::length).sum();
        if all == self.size {
            self.directory.shared.remember(&self.path, Known { seen, xattrs, content });
        }
        Ok(())
    }

    fn has_meta(&self, present: &Stat, known: &Known) -> bool {
        let now = sys::meta(present);
        let same_owner = !sys::is_root() || (now.uid, now.gid) == (self.meta.uid, self.meta.gid);
        same_owner
            && (now.mode, now.mtime) == (self.meta.mode, self.meta.mtime)
            && known.xattrs == self.meta.xattrs
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        let shared = self.directory.shared;
        if self.complete.load(Ordering::Acquire) && !shared.has_failed() {
            let finished = self.finish();
            shared.note(finished);
        }
    }
}
