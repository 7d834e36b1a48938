//! A simulated disk as programs use it: from one start of the machine to the next crash.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::fault::Kind;
use super::{Inner, SimDisk, lock};
use crate::disk::{DirectoryLock, Disk, DiskFile};

/// The disk, until the machine crashes; then all that is left of it fails.
#[derive(Clone)]
pub(super) struct Mount {
    inner: Arc<Mutex<Inner>>,
    start: u64,
}

impl fmt::Debug for Mount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimDisk since start {}", self.start)
    }
}

struct OpenFile {
    mount: Mount,
    node: u64,
    path: PathBuf,
    writable: bool,
}

struct Locked {
    mount: Mount,
    node: u64,
}

impl Mount {
    pub fn of(disk: &SimDisk) -> Mount {
        let start = lock(&disk.inner).start;
        Mount { inner: Arc::clone(&disk.inner), start }
    }

    fn run<T>(
        &self,
        kind: Kind,
        path: &Path,
        operation: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = lock(&self.inner);
        self.still_on(&inner)?;
        inner.begin(kind, path, 0, 0)?;
        operation(&mut inner)
    }

    fn still_on(&self, inner: &Inner) -> io::Result<()> {
        if inner.start == self.start {
            Ok(())
        } else {
            Err(io::Error::other("the machine is off (simulated)"))
        }
    }

    fn open(&self, inner: &mut Inner, node: u64, path: &Path, writable: bool) -> Box<dyn DiskFile> {
        *inner.open.entry(node).or_insert(0) += 1;
        Box::new(OpenFile { mount: self.clone(), node, path: path.to_owned(), writable })
    }
}

impl Disk for Mount {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Kind::Create, dir, |inner| inner.tree.make_directories(dir))
    }

    fn read_dir(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.run(Kind::Look, dir, |inner| inner.tree.list(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.run(Kind::Create, path, |inner| {
            let node = match inner.tree.find(path) {
                Some(_) => {
                    let node = inner.tree.find_file(path)?;
                    inner.set_length(node, 0)?;
                    node
                }
                None => inner.tree.create_file(path)?,
            };
            Ok(self.open(inner, node, path, true))
        })
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.run(Kind::Create, path, |inner| {
            if inner.tree.find(path).is_some() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let node = inner.tree.create_file(path)?;
            Ok(self.open(inner, node, path, true))
        })
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.run(Kind::Look, path, |inner| {
            let node = inner.tree.find_file(path)?;
            Ok(self.open(inner, node, path, false))
        })
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.run(Kind::Look, path, |inner| {
            let node = inner.tree.find_file(path)?;
            Ok(self.open(inner, node, path, true))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Kind::Rename, from, |inner| {
            inner.tree.rename(from, to)?;
            inner.used = inner.tree.used();
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(Kind::Remove, path, |inner| {
            inner.tree.remove_file(path)?;
            inner.used = inner.tree.used();
            Ok(())
        })
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Kind::Remove, dir, |inner| {
            inner.tree.remove_directory(dir)?;
            inner.used = inner.tree.used();
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Kind::SyncDirectory, dir, |inner| {
            inner.tree.sync_directory(dir)?;
            let open = inner.open.keys().copied().collect();
            inner.tree.sweep(&open);
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> bool {
        let inner = lock(&self.inner);
        self.still_on(&inner).is_ok() && inner.tree.find(path).is_some()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.run(Kind::Look, path, |inner| {
            let node = inner.tree.find_file(path)?;
            Ok(inner.tree.file(node)?.len() as u64)
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<DirectoryLock>> {
        self.run(Kind::Look, dir, |inner| {
            let node = inner.tree.find_directory(dir)?;
            let free = inner.locks.insert(node);
            Ok(free.then(|| Box::new(Locked { mount: self.clone(), node }) as DirectoryLock))
        })
    }

    fn entropy(&self) -> u64 {
        lock(&self.inner).random.draw()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut inner = lock(&self.mount.inner);
        if self.mount.still_on(&inner).is_ok() {
            inner.locks.remove(&self.node);
        }
    }
}

impl OpenFile {
    fn run<T>(
        &self,
        kind: Kind,
        offset: u64,
        bytes: u64,
        operation: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = lock(&self.mount.inner);
        self.mount.still_on(&inner)?;
        if !self.writable && kind != Kind::Read && kind != Kind::Look {
            return Err(ErrorKind::PermissionDenied.into());
        }
        inner.begin(kind, &self.path, offset, bytes)?;
        operation(&mut inner)
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.run(Kind::Read, offset, bytes.len() as u64, |inner| {
            let file = inner.tree.file(self.node)?.bytes();
            let rest = file.get(offset as usize..).unwrap_or_default();
            let read = rest.len().min(bytes.len());
            bytes[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = lock(&self.mount.inner);
        self.mount.still_on(&inner)?;
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let begun = inner.begin(Kind::Write, &self.path, offset, bytes.len() as u64);
        let fits = match &begun {
            Ok(()) => bytes.len(),
            Err(_) => inner.random.below(bytes.len() as u64 + 1) as usize,
        };
        let written = inner.write(self.node, offset, &bytes[..fits]);
        begun.and(written)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.run(Kind::SetLength, length, 0, |inner| inner.set_length(self.node, length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = lock(&self.mount.inner);
        self.mount.still_on(&inner)?;
        let inner = &mut *inner;
        let begun = inner.begin(Kind::Sync, &self.path, 0, 0);
        let file = inner.tree.file_mut(self.node)?;
        match begun {
            Ok(()) => file.sync(),
            Err(_) => file.fail_sync(&mut inner.random),
        }
        begun
    }

    fn len(&self) -> io::Result<u64> {
        self.run(Kind::Look, 0, 0, |inner| Ok(inner.tree.file(self.node)?.len() as u64))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut inner = lock(&self.mount.inner);
        if self.mount.still_on(&inner).is_err() {
            return;
        }
        if let Some(count) = inner.open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                inner.open.remove(&self.node);
            }
        }
    }
}
