//! How a reader learns that a run's journal has grown, without polling.
//!
//! Inside one process the writer tells its readers through a [`Signal`]; from another process the
//! kernel tells through inotify. Either way a missed wake-up only costs the reader's own timeout,
//! because a reader always looks at the journal itself.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// One run's writer, as its readers in the same process see it.
#[derive(Debug, Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a writer has made visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Index of the last record that may be shown.
    pub visible: u64,
    /// The writer is gone.
    pub closed: bool,
}

static WRITERS: Mutex<BTreeMap<PathBuf, Weak<Signal>>> = Mutex::new(BTreeMap::new());

/// A panic elsewhere while a lock was held leaves nothing half-done in these few fields.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signal {
    /// Makes the signal of the run in `dir` and lets readers find it.
    pub fn register(dir: &Path) -> Arc<Signal> {
        let signal = Arc::new(Signal::default());
        let mut writers = lock(&WRITERS);
        writers.retain(|_, writer| writer.strong_count() > 0);
        writers.insert(dir.to_owned(), Arc::downgrade(&signal));
        signal
    }

    /// The signal of the run in `dir`, if this process writes it.
    pub fn find(dir: &Path) -> Option<Arc<Signal>> {
        lock(&WRITERS).get(dir).and_then(Weak::upgrade)
    }

    /// The journal has grown: records up to this index may be shown.
    pub fn advance(&self, visible: u64) {
        lock(&self.state).visible = visible;
        self.changed.notify_all();
    }

    /// The writer goes away.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// What is visible now.
    pub fn state(&self) -> State {
        *lock(&self.state)
    }

    /// Waits until something differs from `seen`, or until `timeout`.
    pub fn wait(&self, seen: State, timeout: Duration) -> State {
        let guard = lock(&self.state);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, timeout, |state| *state == seen)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

/// Tells of changes in a run's directory that another process makes.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Watches the run in `dir`; `None` where the kernel gives no more watches: the caller's
    /// timeout then is the pace.
    pub fn new(dir: &Path) -> Option<Watch> {
        // SAFETY: inotify_init1 takes no pointers; its result is checked before use.
        let raw = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if raw < 0 {
            return None;
        }
        // SAFETY: `raw` is a descriptor that was just made and that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let watch = Watch { fd };
        // The lock file is closed when the writer ends, however it ends.
        watch.add(dir, libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO)?;
        watch.add(&dir.join("events"), libc::IN_MODIFY | libc::IN_CREATE)?;
        Some(watch)
    }

    fn add(&self, path: &Path, mask: u32) -> Option<()> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        // SAFETY: the path is a NUL-terminated string that outlives the call.
        let wd = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), mask) };
        (wd >= 0).then_some(())
    }

    /// Waits until something has changed, or until `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut sink = [0u8; 4096];
        // SAFETY: one valid pollfd and a valid buffer of the stated size; what is read is not used.
        unsafe {
            libc::poll(&raw mut poll, 1, millis);
            while libc::read(self.fd.as_raw_fd(), sink.as_mut_ptr().cast(), sink.len()) > 0 {}
        }
    }
}
