//! Durable changes of directories: a file that was created, renamed or unlinked is only so after its directory is synced.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::Error;

/// Makes the directory's entries durable.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    let handle = File::open(dir).map_err(Error::io("open the directory", dir))?;
    handle.sync_all().map_err(Error::io("sync the directory", dir))
}

/// Creates the directory and what is missing above it. Returns the directories whose entries are not durable yet.
pub(crate) fn create(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut missing = Vec::new();
    let mut at = Some(dir);
    while let Some(path) = at {
        if path.as_os_str().is_empty() || path.exists() {
            break;
        }
        missing.push(path.to_owned());
        at = path.parent();
    }
    fs::create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    let parent_of = |path: &PathBuf| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok(missing.iter().map(parent_of).collect())
}

/// Unlinks a file and makes that durable.
pub(crate) fn unlink(file: &Path) -> Result<(), Error> {
    fs::remove_file(file).map_err(Error::io("remove the file", file))?;
    match file.parent() {
        Some(dir) => sync(dir),
        None => Ok(()),
    }
}

/// Renames a complete, synced file to its final name and makes that durable.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io("rename the file", from))?;
    match to.parent() {
        Some(dir) => sync(dir),
        None => Ok(()),
    }
}
