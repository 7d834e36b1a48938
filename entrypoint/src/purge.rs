//! `purge`: removes everything below directories, but not these, and follows no symlink.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Empties them all, whatever fails on the way; exit code 1 when something did.
pub fn purge(directories: impl Iterator<Item = OsString>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for directory in directories {
        if let Err(error) = empty(Path::new(&directory)) {
            eprintln!("tenon-entrypoint: {}: {error}", directory.display());
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn empty(directory: &Path) -> std::io::Result<()> {
    let mut first_error = None;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        if let Err(error) = removed {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_goes_and_what_is_linked_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (full, other) = (directory.path().join("full"), directory.path().join("other"));
        fs::create_dir_all(full.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        fs::write(full.join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(&other, full.join("link")).unwrap();
        empty(&full).unwrap();
        assert_eq!(fs::read_dir(&full).unwrap().count(), 0);
        assert!(other.join("kept").exists());
        assert!(empty(&directory.path().join("absent")).is_err());
    }
}
