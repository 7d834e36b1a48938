//! Durable changes of directories: a file that was created, renamed or unlinked is only so after its directory is synced.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::disk::{Disk, parent};

/// Makes the directory's entries durable.
pub(crate) fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(Error::io("sync the directory", dir))
}

/// Creates the directory and what is missing above it. Returns the directories whose entries are not durable yet.
pub(crate) fn create(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut missing = Vec::new();
    let mut at = Some(dir);
    while let Some(path) = at {
        if path.as_os_str().is_empty() || disk.exists(path) {
            break;
        }
        missing.push(path.to_owned());
        at = path.parent();
    }
    disk.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    if missing.is_empty() {
        // Its creator may have died before it came to syncing.
        missing.push(dir.to_owned());
    }
    Ok(missing.iter().map(|path| parent(path).to_owned()).collect())
}

/// Unlinks a file and makes that durable.
pub(crate) fn unlink(disk: &dyn Disk, file: &Path) -> Result<(), Error> {
    disk.remove_file(file).map_err(Error::io("remove the file", file))?;
    sync(disk, parent(file))
}

/// Renames a complete, synced file to its final name and makes that durable.
pub(crate) fn publish(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    disk.rename(from, to).map_err(Error::io("rename the file", from))?;
    sync(disk, parent(to))
}
