//! Waiting until it is this step's turn: until the previous step's post file appears, or its
//! `.err` twin, which means that this step is skipped.
//!
//! The directory is watched first and looked at then, so that a file which appears in between is
//! not missed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenon_entrypoint::WaitFile;

use crate::sys::{self, DirectoryWatch, Signals, Waited};

/// How long to wait before looking again where a directory cannot be watched (it is not there yet,
/// or the user has no inotify instance left).
const UNWATCHED: Duration = Duration::from_millis(50);

#[derive(Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// A previous step failed.
    Failed,
    /// Somebody wants the step to stop before it began.
    Stopped,
}

/// Waits for all of `files`, one after the other.
pub fn pass(files: &[WaitFile], signals: &Signals) -> Result<Gate, String> {
    for file in files {
        let gate = wait_for(file, signals)?;
        if gate != Gate::Open {
            return Ok(gate);
        }
    }
    Ok(Gate::Open)
}

fn wait_for(file: &WaitFile, signals: &Signals) -> Result<Gate, String> {
    let path = Path::new(&file.path);
    let mut watch = None;
    loop {
        if watch.is_none() {
            watch = DirectoryWatch::new(directory_of(path)).ok();
        }
        if let Some(gate) = look(file)? {
            return Ok(gate);
        }
        let timeout = watch.is_none().then_some(UNWATCHED);
        let mut waited =
            [Waited::new(signals.fd()), Waited::maybe(watch.as_ref().map(DirectoryWatch::fd))];
        sys::wait(&mut waited, timeout);
        if let Some(watch) = &watch {
            watch.clear();
        }
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => {
                    return Ok(Gate::Stopped);
                }
                libc::SIGCHLD => while sys::reap().is_some() {},
                _ => {}
            }
        }
    }
}

/// The directory in which `path` will appear.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn look(file: &WaitFile) -> Result<Option<Gate>, String> {
    match std::fs::metadata(&file.path) {
        Ok(found) if !file.with_content || found.len() > 0 => return Ok(Some(Gate::Open)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(format!("waiting for {:?}: {}", file.path, sys::describe(&error)));
        }
    }
    let failed = PathBuf::from(format!("{}.err", file.path));
    Ok(failed.exists().then_some(Gate::Failed))
}
