//! What is to be measured, where, and how long.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Result, SUITES};

/// The type that statfs gives for a filesystem in memory.
const TMPFS: i64 = 0x0102_1994;

/// The command line, understood.
pub struct Setting {
    /// The `tenon` binary.
    pub tenon: PathBuf,
    /// Everything that is measured writes below this directory.
    dir: PathBuf,
    /// What to measure, in this order.
    names: Vec<&'static str>,
    /// Fewer and shorter rounds: to see that it works, not to believe what it says.
    quick: bool,
}

impl Setting {
    pub fn of_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Setting> {
        let usage = || {
            let suites: Vec<String> = SUITES
                .iter()
                .map(|(suite, names)| format!("{suite}: {}", names.join(", ")))
                .collect();
            let suites = suites.join("; ");
            format!("usage: SUITE TENON DIRECTORY [--quick] [--only NAME].. ({suites})")
        };
        let suite =
            arguments.next().and_then(|name| SUITES.iter().find(|(suite, _)| *suite == name));
        let (Some((_, names)), Some(tenon), Some(dir)) =
            (suite, arguments.next(), arguments.next())
        else {
            return Err(usage());
        };
        let mut only = Vec::new();
        let mut quick = false;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--only" => {
                    let name = arguments.next().filter(|name| names.contains(&name.as_str()));
                    only.push(name.ok_or_else(usage)?);
                }
                _ => return Err(usage()),
            }
        }
        let dir = Path::new(&dir).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("create {}: {error}", dir.display()))?;
        if file_system(&dir) == Some(TMPFS) {
            return Err(format!("{} is in memory: a sync would cost nothing there", dir.display()));
        }
        let wanted = |name: &&&str| only.is_empty() || only.iter().any(|only| only == **name);
        let names = names.iter().filter(wanted).copied().collect();
        Ok(Setting { tenon: tenon.into(), dir, names, quick })
    }

    /// What is to be measured, in this order.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// An empty directory of this name.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)
                .map_err(|error| format!("empty {}: {error}", dir.display()))?;
        }
        fs::create_dir_all(&dir).map_err(|error| format!("create {}: {error}", dir.display()))?;
        Ok(dir)
    }

    pub fn clean(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir)
            .map_err(|error| format!("remove {}: {error}", self.dir.display()))
    }

    /// This many, or fewer when it is to be quick.
    pub fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// How long a round of a throughput lasts.
    pub fn round(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 8 })
    }
}

fn file_system(path: &Path) -> Option<i64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: statfs is plain numbers, for which all-zero is valid; the path ends with a zero byte.
    let (done, stat) = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), &mut stat), stat)
    };
    (done == 0).then_some(stat.f_type)
}
