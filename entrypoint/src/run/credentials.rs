//! Puts the credential files into `/tekton/creds`, where `$(credentials.path)` points, and into
//! `$HOME`, where git, ssh and docker look. A file that cannot be written is a warning: the step
//! may not need it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

use tenon_entrypoint::CredentialFile;

use crate::sys;

/// Writes all files below each of the directories; gives the warnings.
pub fn write(files: &[CredentialFile], directories: &[&Path]) -> Vec<String> {
    let mut warnings = Vec::new();
    for directory in directories {
        for file in files {
            if let Err(error) = write_one(file, directory) {
                warnings.push(format!(
                    "warning: unsuccessful cred copy: {:?} to {:?}: {}",
                    file.path,
                    directory.display(),
                    sys::describe(&error)
                ));
            }
        }
    }
    warnings
}

fn write_one(file: &CredentialFile, directory: &Path) -> io::Result<()> {
    let relative = Path::new(&file.path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path below the directory"));
    }
    let path = directory.join(relative);
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut open =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    open.write_all(&file.contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &str) -> CredentialFile {
        CredentialFile { path: path.into(), contents: b"secret".to_vec() }
    }

    #[test]
    fn files_are_private_and_in_both_places() {
        let directory = tempfile::tempdir().unwrap();
        let (creds, home) = (directory.path().join("creds"), directory.path().join("home"));
        let warnings = write(&[file(".gitconfig"), file(".ssh/id_a")], &[&creds, &home]);
        assert!(warnings.is_empty(), "{warnings:?}");
        for root in [creds, home] {
            let mode =
                |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(".gitconfig"), 0o600);
            assert_eq!(mode(".ssh"), 0o700);
            assert_eq!(mode(".ssh/id_a"), 0o600);
            assert_eq!(std::fs::read(root.join(".ssh/id_a")).unwrap(), b"secret");
        }
    }

    #[test]
    fn what_cannot_be_written_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("file");
        std::fs::write(&in_the_way, "").unwrap();
        let good = directory.path().join("good");
        let warnings = write(&[file(".a"), file("../b"), file("/c")], &[&in_the_way, &good]);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert!(good.join(".a").exists());
        assert!(!directory.path().join("b").exists());
    }
}
