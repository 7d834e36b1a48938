//! A process that is held by a descriptor of the kernel's. Its number may be another one's as soon as
//! it is gone; the descriptor never is.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::owner::{lives, name_of, pid_and_start};

/// One process of this pid name space.
pub struct Process {
    pid: u32,
    /// As [`name_of`] calls it.
    name: String,
    /// None where the kernel has no such descriptors (before Linux 5.3). Then it is its number that
    /// counts: what has to be safe asks [`can_be_held`] before.
    descriptor: Option<OwnedFd>,
}

/// Whether processes can be held here.
pub fn can_be_held() -> bool {
    hold(std::process::id()).is_some_and(|held| held.is_some())
}

impl Process {
    /// A child that was not waited for yet.
    pub fn of_child(pid: u32) -> Process {
        Process { pid, name: name_of(pid), descriptor: hold(pid).flatten() }
    }

    /// The process of that name, if it lives.
    pub fn find(name: &str) -> Option<Process> {
        let (pid, _) = pid_and_start(name)?;
        // Opened before it is looked at: if it lives then, it is what was opened.
        let descriptor = hold(pid)?;
        lives(name).then(|| Process { pid, name: name.to_owned(), descriptor })
    }

    /// The process that has that number now, if `is_it` says so of it.
    pub fn check(pid: u32, is_it: impl Fn() -> bool) -> Option<Process> {
        let process = Process { pid, name: String::new(), descriptor: hold(pid)? };
        (is_it() && !process.is_over()).then_some(process)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a signal. That it is gone is no error.
    pub fn signal(&self, signal: i32) {
        match (&self.descriptor, i32::try_from(self.pid)) {
            (Some(descriptor), _) => {
                let (nothing, flags) = (std::ptr::null::<libc::siginfo_t>(), 0);
                // SAFETY: no memory is involved, for there is no information to the signal.
                unsafe {
                    let process = descriptor.as_raw_fd();
                    libc::syscall(libc::SYS_pidfd_send_signal, process, signal, nothing, flags);
                }
            }
            (None, Ok(pid @ 2..)) if !self.is_over() => {
                // SAFETY: no memory is involved; the number is never 0 or 1, which would mean others.
                unsafe { libc::kill(pid, signal) };
            }
            _ => {}
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        let Some(descriptor) = &self.descriptor else {
            return !self.name.is_empty() && !lives(&self.name);
        };
        let mut poll =
            libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one pollfd, and nothing is waited for.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    /// Returns when it has ended.
    pub fn over(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let descriptor = self.descriptor.as_ref().map(OwnedFd::try_clone);
        async move {
            let descriptor = descriptor.ok_or(io::ErrorKind::Unsupported)??;
            // SAFETY: the descriptor is the watch's own, and open until that is dropped.
            let watched =
                unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
            watched.readable().await.map(drop)
        }
    }
}

/// Holds the process of that number; none where there is no such process.
fn hold(pid: u32) -> Option<Option<OwnedFd>> {
    // SAFETY: no memory is involved; the new descriptor is owned by nobody else.
    unsafe {
        let held = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        match i32::try_from(held) {
            Ok(descriptor @ 0..) => Some(Some(OwnedFd::from_raw_fd(descriptor))),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) => None,
            _ => Some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_name_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let name = name_of(child.id());
        let found = Process::find(&name).unwrap();
        assert!(!found.is_over());
        assert!(Process::check(child.id(), || false).is_none());
        found.signal(libc::SIGKILL);
        found.over().await.unwrap();
        assert!(found.is_over());
        // Its number is its own until it is waited for, and yet it is gone.
        assert!(Process::find(&name).is_none());
        child.wait().unwrap();
        found.signal(libc::SIGKILL);
        // Somebody else's number.
        let (boot_and_space, _) = name.rsplit_once('/').unwrap();
        assert!(Process::find(&format!("{boot_and_space}/1")).is_none());
    }
}
