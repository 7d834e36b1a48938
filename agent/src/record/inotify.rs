//! The kernel's file events and a wake-up from other threads, waited for together.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Watches files for being written to.
pub struct Inotify {
    events: File,
    wake: File,
}

/// Wakes an [`Inotify::wait`] from another thread.
pub struct Waker {
    wake: File,
}

impl Inotify {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Inotify> {
        // SAFETY: both calls take no pointers; their results are checked and owned from here on.
        let (events, wake) = unsafe {
            (
                owned(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))?,
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
            )
        };
        Ok(Inotify { events, wake })
    }

    /// A handle that wakes this.
    pub fn waker(&self) -> io::Result<Waker> {
        let wake = self.wake.try_clone()?;
        Ok(Waker { wake })
    }

    /// Watches a file for being written to, and for being touched: the number is what
    /// [`Inotify::wait`] gives then.
    pub fn watch(&self, path: &Path) -> io::Result<i32> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the descriptor is open and the path ends with NUL.
        let watch = unsafe {
            libc::inotify_add_watch(
                self.events.as_raw_fd(),
                path.as_ptr(),
                libc::IN_MODIFY | libc::IN_ATTRIB,
            )
        };
        if watch < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(watch)
    }

    /// Waits until a watched file is written to or touched, a waker wakes, or time is over. Gives
    /// the watches of touched files.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<i32>> {
        let mut waited = [&self.events, &self.wake].map(|file| libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let milliseconds = timeout
            .map_or(-1, |timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1));
        // SAFETY: the array outlives the call and its length is right.
        let ready = unsafe { libc::poll(waited.as_mut_ptr(), 2, milliseconds) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        // Which file was written to does not matter: a look at each costs one system call.
        let mut buffer = [0; 4096];
        let mut touched = Vec::new();
        while let Ok(length) = self.events.read(&mut buffer)
            && length > 0
        {
            touched.extend(touches(&buffer[..length]));
        }
        let _ = self.wake.read(&mut buffer[..8]);
        Ok(touched)
    }
}

/// The watches whose files were touched, out of what the kernel tells. Files that are watched by
/// themselves come without a name, so that every event has the same length.
fn touches(events: &[u8]) -> impl Iterator<Item = i32> {
    let (events, _) = events.as_chunks::<{ size_of::<libc::inotify_event>() }>();
    events.iter().filter_map(|event| {
        let (watch, rest) = event.split_first_chunk::<4>()?;
        let (mask, _) = rest.split_first_chunk::<4>()?;
        let touched = u32::from_ne_bytes(*mask) & libc::IN_ATTRIB != 0;
        touched.then(|| i32::from_ne_bytes(*watch))
    })
}

impl Waker {
    /// Wakes.
    pub fn wake(&self) {
        // A counter that is full wakes all the same.
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }
}

/// # Safety
/// `fd` is a fresh descriptor that nobody else owns, or negative.
unsafe fn owned(fd: i32) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller says.
    Ok(unsafe { File::from_raw_fd(fd) })
}
