//! Claims that were kept for a run that may be run again from what failed, and that nobody came for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Needed;
use crate::owner::OWNER_FILE;

/// The directories of runs below `runs` that are nobody's, are not needed, and were left longer ago than
/// `keep`.
pub fn outdated(runs: &Path, needed: &Needed, keep: Duration, now: SystemTime) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(runs) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let is_needed = name.to_str().is_none_or(|name| needed.runs.contains(name));
            // Leaving it has removed that file: so its directory was changed then.
            let is_left = !entry.path().join(OWNER_FILE).exists();
            let left = entry.metadata().and_then(|meta| meta.modified());
            let is_old =
                left.is_ok_and(|left| now.duration_since(left).is_ok_and(|age| age >= keep));
            !is_needed && is_left && is_old
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::{Owner, disown_directory, own_directory};

    #[test]
    fn what_was_left_goes_in_time_and_what_is_used_stays() {
        let runs = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        for name in ["left", "used", "owned"] {
            own_directory(&runs.path().join(name), &Owner::Process).unwrap();
        }
        disown_directory(&runs.path().join("left"));
        disown_directory(&runs.path().join("used"));
        let needed = Needed::of([], ["used".to_owned()]);
        let later = SystemTime::now() + 2 * hour;
        let outdated = |now| outdated(runs.path(), &needed, hour, now);
        assert!(outdated(SystemTime::now()).is_empty());
        assert_eq!(outdated(later), [runs.path().join("left")]);
        assert!(super::outdated(Path::new("/no/such"), &needed, hour, later).is_empty());
    }
}
