//! The operating system's file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{DirectoryLock, Disk, DiskFile};

/// See [`super::real`].
#[derive(Debug)]
pub(super) struct RealDisk;

fn for_writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn boxed(file: File) -> Box<dyn DiskFile> {
    Box::new(file)
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn read_dir(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        for_writing().create(true).truncate(true).open(path).map(boxed)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        for_writing().create_new(true).open(path).map(boxed)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        File::open(path).map(boxed)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        for_writing().open(path).map(boxed)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<DirectoryLock>> {
        let handle = File::open(dir)?;
        match handle.try_lock() {
            Ok(()) => Ok(Some(Box::new(handle))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn entropy(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
