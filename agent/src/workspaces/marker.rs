//! What says which home of a claim a directory is, so that one which is left from before is never taken for the
//! current one. It is on the disk only when the directory is whole.
//!
//! Beside `claims/NAME` in a run's directory there is `workspaces/NAME.home`, and `NAME.index` with what the next save needs
//! not to read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tenon_proto::agent::v1::ClaimUse;
use tenon_proto::agent::v1::claim_use::From;

use super::is_whole;
use crate::owner::boot_id;
use crate::pod::make_dir;

/// One line: the run that keeps the claim, the number of the home, and since when the machine runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marker {
    home: String,
    boot: String,
}

impl Marker {
    /// That of a directory which is as the coordinator wants it.
    pub fn of(told: &ClaimUse) -> Marker {
        Marker { home: format!("{} {}", told.owner, told.moves), boot: boot_id() }
    }

    /// Whether a directory is this one. After a start of the machine a snapshot is better than what the disk may have
    /// lost.
    pub fn fits(&self, dir: &Path, told: &ClaimUse) -> bool {
        let found = fs::read_to_string(beside(dir, "home")).unwrap_or_default();
        let Some((home, boot)) = found.trim_end().rsplit_once(' ') else { return false };
        let has_copy = matches!(told.from, Some(From::Snapshot(_)));
        home == self.home && (boot == self.boot || !has_copy) && is_whole(dir)
    }

    /// From now on the directory is this one; it is whole, and on the disk.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write_durably(&beside(dir, "home"), format!("{} {}\n", self.home, self.boot).as_bytes())
    }

    /// From now on a directory is nothing.
    pub fn remove(dir: &Path) -> io::Result<()> {
        let file = beside(dir, "home");
        if let Some(parent) = file.parent() {
            make_dir(parent, 0o700)?;
        }
        match fs::remove_file(&file) {
            Ok(()) => sync_parent(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is known of the files of a directory.
pub(super) fn index(dir: &Path) -> PathBuf {
    beside(dir, "index")
}

/// A file about a claim's directory.
pub(super) fn beside(dir: &Path, what: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let run = dir.parent().and_then(Path::parent).unwrap_or(dir);
    run.join("workspaces").join(format!("{name}.{what}"))
}

/// A number that this process has not given before.
pub(super) fn fresh_number() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    format!("{nanos}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The whole of it or nothing, also when the power goes.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
