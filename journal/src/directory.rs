//! Durable changes of directories: a file that was created, renamed or unlinked is only so after its directory is synced.

use std::io::ErrorKind;
use std::path::Path;

use crate::Error;
use crate::disk::{Disk, parent};

/// Makes the directory's entries durable.
pub(crate) fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(Error::io("sync the directory", dir))
}

/// Creates the directory and what is missing above it, and makes all of that durable.
pub(crate) fn create(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut at = Some(dir);
    while let Some(path) = at {
        if path.as_os_str().is_empty() || disk.exists(path) {
            break;
        }
        missing.push(path);
        at = path.parent();
    }
    // Each before the next: then a directory that exists proves that all above it are durable.
    for path in missing.iter().rev() {
        disk.create_dir_all(path).map_err(Error::io("create the directory", path))?;
        sync(disk, parent(path))?;
    }
    if missing.is_empty() {
        // Except for itself: its creator may have died in between. Who may not open the directory above did not create it.
        match disk.sync_dir(parent(dir)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            other => other.map_err(Error::io("sync the directory", parent(dir)))?,
        }
    }
    Ok(())
}

/// Unlinks a file and makes that durable.
pub(crate) fn unlink(disk: &dyn Disk, file: &Path) -> Result<(), Error> {
    disk.remove_file(file).map_err(Error::io("remove the file", file))?;
    sync(disk, parent(file))
}
