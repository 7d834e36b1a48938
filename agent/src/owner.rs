//! Who made a thing that may outlive its maker: so that what a dead one left is removed at the next
//! start, and what a live one uses is not.
//!
//! What `tenon run` makes is a process', and is nobody's when that is dead. What an agent of a fleet
//! makes is its life's, which another process goes on with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::BackendError;
use crate::pod::{entries, make_dir, remove_tree};

/// Name of the file in a directory that says whose it is.
pub const OWNER_FILE: &str = "owner";

/// What the owner of an agent's things begins with.
const AGENT: &str = "agent:";

/// Whose the things are that a backend makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// This process'.
    #[default]
    Process,
    /// An agent's, for as long as its spool is there.
    Agent {
        /// Its life.
        incarnation: String,
        /// Its directory.
        data_dir: String,
    },
}

impl Owner {
    /// As it stands in labels and files.
    pub fn name(&self) -> String {
        match self {
            Owner::Process => owner(),
            Owner::Agent { incarnation, data_dir } => format!("{AGENT}{incarnation}:{data_dir}"),
        }
    }

    /// Whether what it makes outlives a process.
    pub fn is_agent(&self) -> bool {
        matches!(self, Owner::Agent { .. })
    }

    /// Whether a thing with this owner is left from an earlier life of the same agent, or from a
    /// dead process.
    pub fn outlives(&self, other: &str) -> bool {
        let Some(agent) = other.strip_prefix(AGENT) else {
            return is_dead(other);
        };
        match (self, agent.split_once(':')) {
            (Owner::Agent { incarnation, data_dir }, Some((life, dir))) => {
                dir == data_dir && life != incarnation
            }
            _ => false,
        }
    }
}

/// This process, such that no other process at any time is called the same: boot, pid name space,
/// pid, and when it started.
pub fn owner() -> String {
    name_of(std::process::id())
}

/// Any process that can be seen from here, in the same way.
pub(crate) fn name_of(pid: u32) -> String {
    format!("{}/{}/{pid}/{}", boot_id(), pid_namespace(), start_time(pid).unwrap_or_default())
}

/// The pid in a process' name, and when it started.
pub(crate) fn pid_and_start(name: &str) -> Option<(u32, &str)> {
    let mut parts = name.split('/').skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?))
}

/// Whether that process lives, and can be seen from here.
pub(crate) fn lives(name: &str) -> bool {
    pid_and_start(name).is_some_and(|(pid, started)| !started.is_empty() && name_of(pid) == name)
}

/// Whether that process is gone for certain. One in another pid name space cannot be seen from here.
pub fn is_dead(owner: &str) -> bool {
    if owner.starts_with(AGENT) {
        return false;
    }
    let mut parts = owner.split('/');
    let (Some(boot), Some(namespace), Some(pid), Some(start)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if boot != boot_id() {
        return true;
    }
    if namespace != pid_namespace() {
        return false;
    }
    let started = pid.parse().ok().and_then(start_time);
    started.is_none_or(|started| started != start)
}

/// Whether an owner is, or was, on this machine since it was started: on a daemon that several use, others may be of
/// machines of which nothing is known here.
pub fn is_of_here(owner: &str) -> bool {
    owner.starts_with(AGENT) || owner.split('/').next() == Some(&boot_id())
}

/// Makes a directory that says whose it is. One that is there already becomes so.
pub fn own_directory(dir: &Path, owner: &Owner) -> Result<(), BackendError> {
    let made = make_dir(dir, 0o700).and_then(|()| fs::write(dir.join(OWNER_FILE), owner.name()));
    made.map_err(|error| BackendError {
        code: "infra/agent-files",
        message: format!("{} cannot be made: {error}", dir.display()),
    })
}

/// Leaves a directory to nobody: it stays until somebody removes it, whatever becomes of this process.
pub fn disown_directory(dir: &Path) {
    // Where there is no such file it was left before.
    let _ = fs::remove_file(dir.join(OWNER_FILE));
}

/// The directories below `parent` that say that they are of such an owner. None where there is no `parent`.
pub(crate) fn directories_of(
    parent: &Path,
    such: impl Fn(&str) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in entries(parent)? {
        let path = directory.path();
        let owner = fs::read_to_string(path.join(OWNER_FILE)).unwrap_or_default();
        if such(&owner) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes the directories below `parent` that `me` [outlives](Owner::outlives); says how many.
pub(crate) fn reap_directories(parent: &Path, me: &Owner) -> usize {
    let outlived = directories_of(parent, |owner| me.outlives(owner)).unwrap_or_default();
    let mut reaped = 0;
    for path in outlived {
        match remove_tree(&path) {
            Ok(()) => reaped += 1,
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be removed"),
        }
    }
    reaped
}

/// The kernel's name of the time since the machine was started.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().replace(|c: char| !c.is_ascii_digit(), "")
}

/// Field 22 of `/proc/<pid>/stat`; the name before it may hold anything, parentheses too.
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    // A zombie does nothing any more.
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_and_the_dead() {
        let me = owner();
        assert!(!is_dead(&me), "{me}");
        let parts: Vec<&str> = me.split('/').collect();
        let (boot, namespace, pid, start) = (parts[0], parts[1], parts[2], parts[3]);
        for (owner, dead) in [
            (format!("other-boot/{namespace}/{pid}/{start}"), true),
            (format!("{boot}/1/{pid}/1"), false),
            (format!("{boot}/{namespace}/{pid}/1"), true),
            (format!("{boot}/{namespace}/4294967295/{start}"), true),
            (String::new(), false),
            ("nonsense".to_owned(), false),
            ("agent:life:/a/b/c/d".to_owned(), false),
        ] {
            assert_eq!(is_dead(&owner), dead, "{owner}");
            assert!(!lives(&owner), "{owner}");
        }
        assert!(lives(&me));
    }

    #[test]
    fn an_agent_goes_on_with_its_own_life_and_with_no_other() {
        let agent = |incarnation: &str, data_dir: &str| Owner::Agent {
            incarnation: incarnation.to_owned(),
            data_dir: data_dir.to_owned(),
        };
        let me = agent("life", "/data");
        assert!(!me.outlives(&me.name()));
        assert!(me.outlives(&agent("earlier", "/data").name()));
        assert!(!me.outlives(&agent("earlier", "/elsewhere").name()));
        assert!(is_of_here(&owner()) && !is_of_here("other-boot/1/1/1"));
        assert!(!Owner::Process.outlives(&me.name()));
        assert!(!me.outlives(&Owner::Process.name()));
    }
}
