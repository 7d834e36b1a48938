//! The few system calls that std does not offer, each wrapped so that the rest of the program
//! needs no `unsafe`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// All signals, as a file to wait for.
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks every signal that can be blocked; from now on they are only seen through this. Also
    /// process 1 receives them then, though the kernel ignores what it has no handler for.
    pub fn take_over() -> io::Result<Self> {
        // SAFETY: `all` is initialised by sigfillset; the new descriptor is owned by nobody else.
        unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()))?;
            let fd =
                check(libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(Self { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next signal that came, if one did.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        // SAFETY: the buffer is as long as said.
        let read = unsafe { libc::read(self.fd(), info.as_mut_ptr().cast(), info.len()) };
        if read != isize::try_from(info.len()).expect("small because it is a struct's size") {
            return None;
        }
        let (number, _) = info
            .split_first_chunk::<4>()
            .expect("longer because the struct begins with the number");
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

/// Makes a command execute exactly this file, with no signal blocked, as programs expect it. The
/// standard library would let a shell interpret a file that the kernel does not understand, and
/// what Tekton calls an error would run.
pub fn execute_in(
    command: &mut std::process::Command,
    file: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
) {
    use std::os::unix::process::CommandExt;
    let run = move || {
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, env) = (pointers(&argv), pointers(&env));
        // SAFETY: lists end with null, texts with a zero byte, and all outlive the call.
        unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            check(libc::execve(file.as_ptr(), argv.as_ptr(), env.as_ptr()))?;
        }
        Ok(())
    };
    // SAFETY: this program has a single thread, so the child may allocate.
    unsafe { command.pre_exec(run) };
}

/// Something to wait for, and whether it came.
pub struct Waited {
    poll: libc::pollfd,
}

impl Waited {
    /// Waits until `fd` can be read.
    pub fn new(fd: RawFd) -> Self {
        Self { poll: libc::pollfd { fd, events: libc::POLLIN, revents: 0 } }
    }

    /// The same, or nothing at all: a place holder keeps the positions of the others.
    pub fn maybe(fd: Option<RawFd>) -> Self {
        Self::new(fd.unwrap_or(-1))
    }

    /// Whether it can be read now (also at its end).
    pub fn ready(&self) -> bool {
        self.poll.revents != 0
    }
}

/// Waits until one of them is ready or the time is over; rounded up to milliseconds.
pub fn wait(what: &mut [Waited], timeout: Option<Duration>) {
    let timeout = match timeout {
        None => -1,
        Some(timeout) => i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    };
    let count =
        libc::nfds_t::try_from(what.len()).expect("a handful because callers pass a fixed few");
    // SAFETY: `Waited` is a pollfd and nothing else (checked below), so this is an array of `count`.
    unsafe { libc::poll(what.as_mut_ptr().cast(), count, timeout) };
}

const _: () = assert!(size_of::<Waited>() == size_of::<libc::pollfd>());

/// Waits without waiting for anything: before trying again what no event announces.
pub fn idle(time: Duration) {
    wait(&mut [], Some(time));
}

/// A child that ended: its process id, and its exit code or the signal that killed it.
pub fn reap() -> Option<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    };
    Some((pid, exit))
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Sends a signal to all processes of a group. That none is left is not an error.
pub fn signal_group(group: i32, signal: i32) {
    // SAFETY: no memory is involved; a group is never 0 or 1 here, which would mean others.
    if group > 1 {
        unsafe { libc::kill(-group, signal) };
    }
}

/// Sends a signal to one process. That it is gone is not an error.
pub fn signal_process(process: i32, signal: i32) {
    // SAFETY: no memory is involved; a child's id is never 0 or -1, which would mean others.
    if process > 1 {
        unsafe { libc::kill(process, signal) };
    }
}

/// How much a wide pipe holds: what the kernel allows everybody.
const WIDE: libc::c_int = 1 << 20;

/// A pipe; neither end is inherited by children, and the reading end never blocks.
///
/// It is in packet mode: a read gives what one write wrote (at most 4 KiB of it). And it is narrow:
/// it holds one packet, so a writer is at most one write ahead of the reader, and two pipes read in
/// turn give their writes in the order in which they were made.
pub fn pipe() -> io::Result<(File, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which nobody else owns.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_DIRECT))?;
        let (read, write) = (File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        check(libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK))?;
        // One page; a kernel that refuses leaves it wide, which costs order and nothing else.
        libc::fcntl(read.as_raw_fd(), libc::F_SETPIPE_SZ, 1);
        Ok((read, write))
    }
}

/// Lets a pipe hold much, and lets writes follow one another in its pages: for a writer that writes so
/// much that waiting for the reader each time would slow it down. In packet mode each write takes a page
/// of its own, however short it is. Where the user's limit forbids it, it stays as narrow as it is.
pub fn widen(pipe: &File, writing_end: &OwnedFd) {
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, WIDE) };
    set_packets(writing_end, false);
}

/// Makes a pipe what [`pipe`] made; false when there is too much in it.
pub fn narrow(pipe: &File, writing_end: &OwnedFd) -> bool {
    // SAFETY: no memory is involved.
    let narrowed = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1) } >= 0;
    if narrowed {
        set_packets(writing_end, true);
    }
    narrowed
}

/// Packet mode or not. Other flags are the command's, and stay as they are.
fn set_packets(writing_end: &OwnedFd, packets: bool) {
    // SAFETY: no memory is involved.
    unsafe {
        let flags = libc::fcntl(writing_end.as_raw_fd(), libc::F_GETFL);
        if flags >= 0 {
            let others = flags & !libc::O_DIRECT;
            let flags = if packets { others | libc::O_DIRECT } else { others };
            libc::fcntl(writing_end.as_raw_fd(), libc::F_SETFL, flags);
        }
    }
}

/// How many bytes can be read from a pipe at once.
pub fn readable(pipe: &File) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { usize::try_from(count).unwrap_or(0) }
}

/// Sets the times of a file to now. That it cannot be done is no error: it is only a sign to others.
pub fn touch(file: &File) {
    // SAFETY: the descriptor is open; no times means now.
    unsafe { libc::futimens(file.as_raw_fd(), std::ptr::null()) };
}

/// Whether a file is in memory and not on a disk.
pub fn in_memory(file: &File) -> bool {
    // SAFETY: statfs is plain data, which the call fills or not.
    unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        libc::fstatfs(file.as_raw_fd(), &raw mut found) == 0 // The types differ between C libraries.
            && i128::from(found.f_type) == i128::from(libc::TMPFS_MAGIC)
    }
}

/// Whether parts of a file can be given back to its file system.
pub fn makes_holes(file: &File) -> bool {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // Where there is nothing, so that nothing is lost by trying.
    let (nowhere, length) = (1 << 40, 4096);
    // SAFETY: the descriptor is open and no memory is involved.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, nowhere, length) == 0 }
}

/// Whether the process may execute the file.
pub fn executable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: `path` ends with a zero byte.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) == 0 }
}

/// Tells when something appears in, or is written to, one directory.
pub struct DirectoryWatch {
    fd: OwnedFd,
}

impl DirectoryWatch {
    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: `path` ends with a zero byte; the new descriptor is owned by nobody else.
        unsafe {
            let fd = OwnedFd::from_raw_fd(check(libc::inotify_init1(
                libc::IN_CLOEXEC | libc::IN_NONBLOCK,
            ))?);
            let events =
                libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_CLOSE_WRITE | libc::IN_MODIFY;
            check(libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), events))?;
            Ok(Self { fd })
        }
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Forgets the events so far.
    pub fn clear(&self) {
        let mut buffer = [0u8; 4096];
        // SAFETY: the buffer is as long as said; the descriptor does not block.
        while unsafe { libc::read(self.fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
    }
}

/// Tells when files are written to, or touched.
pub struct FileWatch {
    fd: OwnedFd,
}

impl FileWatch {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved; the new descriptor is owned by nobody else.
        unsafe {
            let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
            Ok(Self { fd: OwnedFd::from_raw_fd(check(libc::inotify_init1(flags))?) })
        }
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Watches one more file; the number is what [`FileWatch::touched`] gives.
    pub fn add(&self, file: &Path) -> io::Result<i32> {
        let path = CString::new(file.as_os_str().as_bytes())?;
        // SAFETY: `path` ends with a zero byte.
        check(unsafe {
            libc::inotify_add_watch(self.fd(), path.as_ptr(), libc::IN_MODIFY | libc::IN_ATTRIB)
        })
    }

    /// Takes the events so far: the files that were touched, and not written to.
    pub fn touched(&self) -> Vec<i32> {
        let mut touched = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: the buffer is as long as said; the descriptor does not block.
            let read = unsafe { libc::read(self.fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(mut rest) = usize::try_from(read).ok().and_then(|read| buffer.get(..read))
            else {
                return touched;
            };
            if rest.is_empty() {
                return touched;
            }
            // Events of files have no name: each is this head, and what it says is the name's length.
            while let Some((head, after)) = rest.split_at_checked(size_of::<libc::inotify_event>())
            {
                let word = |at: usize| {
                    u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
                };
                if word(4) & libc::IN_ATTRIB != 0 {
                    touched.extend(i32::try_from(word(0)));
                }
                rest = after.get(word(12) as usize..).unwrap_or_default();
            }
        }
    }
}

/// Gives a part of a file back to its file system, where that can be done.
pub fn punch(file: &File, from: u64, length: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    if let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(length)) {
        // SAFETY: the descriptor is open and no memory is involved.
        unsafe { libc::fallocate(file.as_raw_fd(), mode, from, length) };
    }
}

/// What the operating system calls this error, as Go prints it: lower case, no number.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
