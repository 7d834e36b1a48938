//! What is written down of an attempt's launchers, in its directory: for the guard, which is another
//! process than the agent, and for an agent that goes on with the attempt.
//!
//! A launcher is written down before it is told what to launch. So of what is not written down nothing
//! runs, and one that was never told ends by itself.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tenon_entrypoint::KILL_SIGNAL;

use super::process::Process;
use crate::pod::make_dir;

/// The file with one line for each: the container's place in its attempt, and the launcher's name.
const LAUNCHERS: &str = "launchers";
/// The directory with what they leave.
const LEFT: &str = "launched";

/// Where a launcher leaves its exit code, in the attempt's directory `root`.
pub fn exit_file(root: &Path, index: usize) -> PathBuf {
    root.join(LEFT).join(format!("{index}.exit"))
}

/// Where a launcher says what is wrong.
pub fn said_file(root: &Path, index: usize) -> PathBuf {
    root.join(LEFT).join(format!("{index}.said"))
}

/// Makes the directory for what launchers leave.
pub fn prepare(root: &Path) -> io::Result<()> {
    make_dir(&root.join(LEFT), 0o700)
}

/// Writes down the launcher of a container.
pub fn write_down(root: &Path, index: usize, launcher: &Process) -> io::Result<()> {
    // What an earlier one has left is not this one's.
    match fs::remove_file(exit_file(root, index)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().create(true).append(true).open(root.join(LAUNCHERS))?;
    // At once, so that nobody ever finds a part of it.
    file.write_all(format!("{index} {}\n", launcher.name()).as_bytes())
}

/// The names of the launchers, each with the place of its container; the last one of a place counts.
pub fn names(root: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(root.join(LAUNCHERS)).unwrap_or_default();
    let each = text.lines().filter_map(|line| line.split_once(' '));
    each.filter_map(|(index, name)| Some((index.parse().ok()?, name.to_owned()))).collect()
}

/// The launchers that live.
pub fn living(root: &Path) -> Vec<Process> {
    names(root).iter().filter_map(|(_, name)| Process::find(name)).collect()
}

/// Has what is left of the attempt killed; true when nothing is.
pub fn kill(root: &Path) -> bool {
    let left = living(root);
    left.iter().for_each(|launcher| launcher.signal(KILL_SIGNAL));
    left.is_empty()
}

/// Has what is left of the attempt killed, and returns when nothing is.
pub async fn kill_all(root: &Path) {
    for launcher in living(root) {
        launcher.signal(KILL_SIGNAL);
        if let Err(error) = launcher.over().await {
            tracing::warn!(root = %root.display(), %error, "a launcher's end cannot be seen");
        }
    }
}
