//! `enter`: runs a command inside a container that `launch` made, for probes and hooks. The command
//! is who the container's process 1 is, and may do what that may do.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Command, ExitCode};

use super::identity::Of;

/// Runs it with this environment; the exit code is the command's. `keeper` is the container's
/// launcher, whose only child is the container's process 1: its process id, a colon, and when it
/// started.
pub fn enter(
    keeper: &OsStr,
    program: OsString,
    arguments: impl Iterator<Item = OsString>,
) -> ExitCode {
    let entered = keeper
        .to_str()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(join)
        .and_then(|()| Command::new(program).args(arguments).status());
    match entered {
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
        }
        Err(error) => {
            eprintln!("cannot run a command in the container: {error}");
            ExitCode::from(126)
        }
    }
}

fn join(keeper: &str) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let (keeper, started) = keeper.split_once(':').ok_or_else(gone)?;
    let children = || std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
    let child: i32 = children()?.trim().parse().map_err(|_| gone())?;
    let own = std::fs::read_link("/proc/self/ns/user")?;
    let other = std::fs::read_link(format!("/proc/{child}/ns/user"))?;
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let status = std::fs::read_to_string(format!("/proc/{child}/status"))?;
    let first = Of::read(&status).ok_or_else(missing)?;
    let mut kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if own != other {
        kinds |= libc::CLONE_NEWUSER;
    }
    // SAFETY: plain calls on numbers; the descriptor is closed by the end of this short program.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, child, 0);
        let process = i32::try_from(process).map_err(|_| missing())?;
        if process < 0 {
            return Err(io::Error::last_os_error());
        }
        // Both numbers may be others' by now; if they are not, what was opened is the child.
        let stat = std::fs::read_to_string(format!("/proc/{keeper}/stat"))?;
        if start_time(&stat) != Some(started) || children()?.trim() != child.to_string() {
            return Err(gone());
        }
        if libc::setns(process, kinds) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    std::env::set_current_dir("/")?;
    first.assume(own != other)
}

/// Field 22 of `/proc/<pid>/stat`; the name before it may hold anything, parentheses too.
fn start_time(stat: &str) -> Option<&str> {
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(19)
}
