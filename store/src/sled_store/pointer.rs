//! The file that names the sled directory that counts.

use std::io;
use std::path::{Path, PathBuf};

use tenon_journal::disk::Disk;

use super::io_error;
use crate::{Error, Result};

const NAME: &str = "current";
const PREFIX: &str = "state-";

/// What the pointer file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    /// Which directory.
    pub number: u64,
    /// `false`: the very first directory is being made; nothing in it was acknowledged yet.
    pub complete: bool,
}

impl Pointer {
    /// The sled directory with this number.
    pub fn directory(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{PREFIX}{number:06}"))
    }

    /// What the file says; `None` in a directory that is not a store yet.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Pointer>> {
        let path = dir.join(NAME);
        let damaged = |reason: String| Error::Damaged { dir: dir.to_owned(), reason };
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match directories(disk, dir)?.is_empty() {
                    true => Ok(None),
                    false => Err(damaged(format!("the file {} is missing", path.display()))),
                };
            }
            Err(error) => return Err(io_error("read the file", &path)(error)),
        };
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
            let line = text.strip_prefix(PREFIX)?.strip_suffix('\n')?;
            let (number, complete) = match line.strip_suffix(" unfinished") {
                Some(number) => (number, false),
                None => (line, true),
            };
            Some(Pointer { number: number.parse().ok()?, complete })
        });
        match parsed {
            Some(pointer) => Ok(Some(pointer)),
            None => Err(damaged(format!("the file {} says nothing sensible", path.display()))),
        }
    }

    /// Makes the file say this, durably.
    pub fn write(self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let unfinished = if self.complete { "" } else { " unfinished" };
        let text = format!("{PREFIX}{:06}{unfinished}\n", self.number);
        let path = dir.join(NAME);
        disk.write_atomically(&path, text.as_bytes()).map_err(io_error("write the file", &path))
    }
}

/// Removes all sled directories but one.
pub(super) fn remove_others(disk: &dyn Disk, dir: &Path, keep: Option<u64>) -> Result<()> {
    let keep = keep.map(|number| Pointer::directory(dir, number));
    for path in directories(disk, dir)? {
        if Some(&path) != keep.as_ref() {
            disk.remove_dir_all(&path).map_err(io_error("remove the directory", &path))?;
        }
    }
    Ok(())
}

fn directories(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    let paths = disk.read_dir(dir).map_err(io_error("read the directory", dir))?;
    let is_state = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    };
    Ok(paths.into_iter().filter(is_state).collect())
}
