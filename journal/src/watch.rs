//! Waiting for another process to change a directory's files (inotify), so that following a journal needs no polling.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::Error;

/// Notices changes in one directory since the last call of `wait`.
pub(crate) struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    pub fn new(dir: &Path) -> Result<Watch, Error> {
        let name = CString::new(dir.as_os_str().as_bytes())
            .map_err(|error| Error::io("watch the directory", dir)(error.into()))?;
        // SAFETY: plain system calls; the descriptor is owned from the moment it is known to be valid, and `name` outlives
        // the second call.
        let inotify = unsafe {
            let raw = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
            if raw < 0 {
                return Err(Error::io("watch the directory", dir)(io::Error::last_os_error()));
            }
            let owned = OwnedFd::from_raw_fd(raw);
            let mask = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_MOVED_TO;
            if libc::inotify_add_watch(raw, name.as_ptr(), mask) < 0 {
                return Err(Error::io("watch the directory", dir)(io::Error::last_os_error()));
            }
            owned
        };
        Ok(Watch { inotify })
    }

    /// Waits for a change; `false` when the time ran out.
    pub fn wait(&self, timeout: Duration) -> bool {
        let milliseconds = i32::try_from(timeout.as_millis().max(1)).unwrap_or(i32::MAX);
        let mut poll =
            libc::pollfd { fd: self.inotify.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, and its count.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) } > 0;
        if ready {
            self.drain();
        }
        ready
    }

    fn drain(&self) {
        let mut events = [0u8; 4096];
        loop {
            // SAFETY: the buffer is ours and as long as we say.
            let read = unsafe {
                libc::read(self.inotify.as_raw_fd(), events.as_mut_ptr().cast(), events.len())
            };
            if read < events.len() as isize {
                return;
            }
        }
    }
}
