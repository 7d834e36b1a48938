//! All that a journal (and what is built on it) asks of a file system, so that a simulated one can stand in for it.
//!
//! The rules are those of a real disk: bytes are safe after [`DiskFile::sync_data`], names after [`Disk::sync_dir`] of the
//! directory that holds them, and nothing is safe before. [`real`] is the operating system's; `sim` (feature `simulation`)
//! is one in memory that can lose power, run full and fail. Calls are few and large, so the indirection costs nothing.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod real;
#[cfg(feature = "simulation")]
pub mod sim;

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Creates the directory and what is missing above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The paths (directory and name) of a directory's entries, sorted by name.
    fn read_dir(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates an empty file that only its owner may read, for reading and writing; a file of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The same, but a file of that name is an error ([`io::ErrorKind::AlreadyExists`]).
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file or directory; a file of the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable: what was created in it, renamed and removed.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether the path names anything.
    fn exists(&self, path: &Path) -> bool;
    /// A file's length in bytes.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Takes an exclusive lock on a directory, which is held until the value is dropped. `None`: somebody else holds it.
    fn lock_dir(&self, dir: &Path) -> io::Result<Option<DirectoryLock>>;
    /// A number that hardly ever comes twice.
    fn entropy(&self) -> u64;

    /// A file's whole content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open_read(path)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        let read = file.read_full_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Replaces a file's content durably: after a crash it is the old or the new one, and after the return the new one.
    /// On the way a file of the same name with `.tmp` behind it is used.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let complete = || {
            let file = self.create(&temporary)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()?;
            drop(file);
            self.rename(&temporary, path)
        };
        complete().inspect_err(|_| drop(self.remove_file(&temporary)))?;
        self.sync_dir(parent(path))
    }
}

/// Holds a lock as long as it lives.
pub type DirectoryLock = Box<dyn Any + Send + Sync>;

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "nobody would ask that of a file")]
pub trait DiskFile: Send + Sync {
    /// Reads at a position; fewer bytes than asked for (0 at the end) are no error.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it at a position. After an error, any part of it may be there.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes content and length durable. After an error nobody knows what of the unsynced bytes is on the disk, and a later
    /// success says nothing about them: only writing them again helps.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads until the buffer is full or the file ends; returns how much that was.
    fn read_full_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut have = 0;
        while have < bytes.len() {
            match self.read_at(&mut bytes[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }
}

/// The operating system's file system.
pub fn real() -> Arc<dyn Disk> {
    Arc::new(real::RealDisk)
}

/// The directory that holds a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file from its beginning on, in large pieces.
pub(crate) struct Appender {
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    offset: u64,
}

impl Appender {
    const PIECE: usize = 256 << 10;

    pub fn new(file: Box<dyn DiskFile>) -> Appender {
        Appender { file, buffer: Vec::with_capacity(Self::PIECE), offset: 0 }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::PIECE { self.flush() } else { Ok(()) }
    }

    /// Writes the rest and makes all of it durable.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
