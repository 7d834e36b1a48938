//! Runs one command to its end: records both output streams as they come, passes signals on to the
//! command's process group, reaps whatever orphans the kernel hands to process 1, and kills the
//! group when its time is over or it is cancelled.
//!
//! The command is over when its main process is: what is in the pipes then is still recorded, but
//! a daemon that it left behind and that holds the pipes open is not waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tenon_entrypoint::Spec;
use tenon_entrypoint::frame::Stream;

use super::Context;
use super::command::Command;
use super::gate::directory_of;
use super::record::{RETRY, Record};
use crate::sys::{self, DirectoryWatch, Exit, Waited};

/// What became of the command.
pub struct Finished {
    pub exit: Exit,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// It was killed because the cancel file appeared.
    pub cancelled: bool,
    /// A copy of its output could not be written.
    pub copy_error: Option<String>,
}

/// The limits of a step; a sidecar has none.
#[derive(Default)]
pub struct Limits<'a> {
    pub timeout: Option<Duration>,
    pub cancel_file: Option<&'a Path>,
}

/// After so many writes of one stream, each soon after the one before and none of the other stream
/// between them, order gives way to throughput: its pipe is widened, writes are put together in it, and
/// it is read at intervals, all that is in it at once. Until it is quiet again, or the other one prints.
const CHATTY: u32 = 256;
/// How soon.
const SOON: Duration = Duration::from_millis(5);
/// The interval.
const REST: Duration = Duration::from_millis(1);

/// How often the time of a step that has a timeout is looked at.
const TICK: Duration = Duration::from_secs(1);
/// A look that is later than this was not late: the container was frozen.
const FROZEN: Duration = Duration::from_secs(3);

/// What is left of a step's time. While the container is frozen none of it passes: an agent that is
/// out of contact freezes its steps, and that is not the step's fault.
struct Countdown {
    left: Duration,
    last: Instant,
}

impl Countdown {
    fn new(left: Duration) -> Self {
        Self { left, last: Instant::now() }
    }

    /// What is left now; to be asked at least once a tick.
    fn left(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        self.left = self.left.saturating_sub(if passed > FROZEN { TICK } else { passed });
        self.left
    }
}

/// One output stream of the command: the pipe, and where its bytes also go.
struct Output {
    stream: Stream,
    pipe: Option<File>,
    /// The command's end of the pipe, and whether it is wide.
    writing_end: Option<OwnedFd>,
    is_wide: bool,
    copy: Option<Copy>,
    /// What was read last did not end its line.
    inside_line: bool,
    /// Reads that each came soon after the one before, with none of the other stream between.
    reads: u32,
    last_read: Instant,
    /// The last read may have left something.
    has_more: bool,
}

struct Copy {
    path: String,
    file: File,
    error: Option<String>,
}

/// Runs `command`. `Err` when it could not be started.
pub fn run(
    command: &Command,
    spec: &Spec,
    limits: &Limits<'_>,
    context: &mut Context,
) -> Result<Finished, String> {
    let copies =
        [Copy::open(spec.stdout_path.as_deref())?, Copy::open(spec.stderr_path.as_deref())?];
    let pipe = || sys::pipe().map_err(|e| format!("cannot make a pipe: {}", sys::describe(&e)));
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let watch = limits.cancel_file.map(|file| (file, DirectoryWatch::new(directory_of(file))));
    let [stdout_copy, stderr_copy] = copies;
    let outputs = [
        Output::new(Stream::Stdout, stdout, &stdout_end, stdout_copy),
        Output::new(Stream::Stderr, stderr, &stderr_end, stderr_copy),
    ];
    let group = command.start(stdout_end, stderr_end)?;
    let mut time = limits.timeout.map(Countdown::new);
    let mut supervised =
        Supervised { group, exit: None, timed_out: false, cancelled: false, outputs };
    let cancel =
        watch.as_ref().and_then(|(file, watch)| watch.as_ref().ok().map(|watch| (*file, watch)));
    supervised.watch(time.as_mut(), cancel, context);
    Ok(supervised.finish(context))
}

struct Supervised {
    group: i32,
    exit: Option<Exit>,
    timed_out: bool,
    cancelled: bool,
    outputs: [Output; 2],
}

impl Supervised {
    /// Returns when the main process has ended.
    fn watch(
        &mut self,
        mut time: Option<&mut Countdown>,
        cancel: Option<(&Path, &DirectoryWatch)>,
        context: &mut Context,
    ) {
        while self.exit.is_none() {
            let left = time.as_mut().map(|time| time.left(Instant::now()));
            if !self.timed_out && !self.cancelled {
                if cancel.is_some_and(|(file, _)| {
                    std::fs::metadata(file).is_ok_and(|found| found.len() > 0)
                }) {
                    self.cancelled = true;
                    sys::signal_group(self.group, libc::SIGKILL);
                } else if left.is_some_and(|left| left.is_zero()) {
                    self.timed_out = true;
                    sys::signal_group(self.group, libc::SIGKILL);
                }
            }
            let killed = self.timed_out || self.cancelled;
            let behind = context.record.is_behind();
            let until_deadline = left.filter(|_| !killed).map(|left| left.min(TICK));
            let resting = !behind && self.outputs.iter().any(Output::may_rest);
            let timeout = [until_deadline, behind.then_some(RETRY), resting.then_some(REST)]
                .into_iter()
                .flatten()
                .min();
            let readable = |output: &Output| {
                output.pipe.as_ref().filter(|_| !behind && !resting).map(File::as_raw_fd)
            };
            let mut waited = [
                Waited::new(context.signals.fd()),
                Waited::maybe(cancel.filter(|_| !killed).map(|(_, watch)| watch.fd())),
                Waited::maybe(readable(&self.outputs[0])),
                Waited::maybe(readable(&self.outputs[1])),
            ];
            sys::wait(&mut waited, timeout);
            let [_, cancel_ready, stdout_ready, stderr_ready] = waited;

            self.handle_signals(context);
            if cancel_ready.ready()
                && let Some((_, watch)) = cancel
            {
                watch.clear();
            }
            context.record.flush();
            let ready = [stdout_ready, stderr_ready].map(|ready| ready.ready() || resting);
            for index in self.reading_order() {
                if ready[index]
                    && !context.record.is_behind()
                    && self.outputs[index].read(context) > 0
                {
                    // Who prints to both in turn wants to see them in turn.
                    self.outputs[1 - index].reads = 0;
                }
            }
        }
    }

    /// Which stream to read first when both have something: what one of them prints after half a
    /// line of the other was, most likely, written before that line went on.
    fn reading_order(&self) -> [usize; 2] {
        if self.outputs[0].inside_line { [1, 0] } else { [0, 1] }
    }

    fn handle_signals(&mut self, context: &Context) {
        while let Some(signal) = context.signals.next() {
            if signal != libc::SIGCHLD {
                sys::signal_group(self.group, signal);
                continue;
            }
            while let Some((pid, exit)) = sys::reap() {
                if pid == self.group {
                    self.exit = Some(exit);
                }
            }
        }
    }

    /// Records what is still in the pipes, and no more than that.
    fn finish(mut self, context: &mut Context) -> Finished {
        let mut left =
            self.outputs.each_ref().map(|output| output.pipe.as_ref().map_or(0, sys::readable));
        while left.iter().any(|left| *left > 0) {
            for index in self.reading_order() {
                if left[index] > 0 {
                    context.record.flush_fully();
                    left[index] = match self.outputs[index].read(context) {
                        0 => 0,
                        count => left[index].saturating_sub(count),
                    };
                }
            }
        }
        context.record.flush_fully();
        let copy_error = self.outputs.into_iter().find_map(|output| output.copy?.error);
        Finished {
            exit: self.exit.expect("known because watching ends with it"),
            timed_out: self.timed_out,
            cancelled: self.cancelled,
            copy_error,
        }
    }
}

impl Output {
    fn new(stream: Stream, pipe: File, writing_end: &OwnedFd, copy: Option<Copy>) -> Self {
        Self {
            stream,
            pipe: Some(pipe),
            // Without it the pipe stays narrow, which costs throughput and nothing else.
            writing_end: writing_end.try_clone().ok(),
            is_wide: false,
            copy,
            inside_line: false,
            reads: 0,
            last_read: Instant::now(),
            has_more: false,
        }
    }

    fn is_chatty(&self) -> bool {
        self.reads >= CHATTY
    }

    /// Whether reading it a little later makes fewer and larger frames, and nobody wait.
    fn may_rest(&self) -> bool {
        self.is_chatty() && !self.has_more && self.pipe.is_some()
    }

    /// One read; at the end of the pipe it is closed. Gives the number of bytes.
    fn read(&mut self, context: &mut Context) -> usize {
        let all = self.is_chatty();
        let Some(pipe) = &mut self.pipe else {
            return 0;
        };
        let (copy, inside_line) = (&mut self.copy, &mut self.inside_line);
        let result = context.record.copy_from(pipe, self.stream, all, |bytes| {
            *inside_line = bytes.last() != Some(&b'\n');
            if let Some(copy) = copy {
                copy.write(bytes);
            }
        });
        let now = Instant::now();
        let soon = now - self.last_read < SOON;
        let count = *result.as_ref().unwrap_or(&0);
        self.has_more = Record::is_full(count);
        if count > 0 {
            self.last_read = now;
            self.reads = if soon { self.reads.saturating_add(1) } else { 1 };
        } else if !soon {
            self.reads = 0;
        }
        let is_chatty = self.reads >= CHATTY;
        if is_chatty != self.is_wide
            && let Some(writing_end) = &self.writing_end
        {
            self.is_wide = match is_chatty {
                true => {
                    sys::widen(pipe, writing_end);
                    true
                }
                // With too much in it, the next read tries again.
                false => !sys::narrow(pipe, writing_end),
            };
        }
        match result {
            Ok(count) if count > 0 => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            _ => {
                self.pipe = None;
                0
            }
        }
    }
}

impl Copy {
    fn open(path: Option<&str>) -> Result<Option<Self>, String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        std::fs::create_dir_all(directory_of(Path::new(path))).map_err(|e| {
            format!("error creating parent directory: mkdir {path}: {}", sys::describe(&e))
        })?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .map_err(|e| format!("error opening {path}: open {path}: {}", sys::describe(&e)))?;
        Ok(Some(Self { path: path.to_owned(), file, error: None }))
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while self.error.is_none() && !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(format!("write {}: {}", self.path, sys::describe(&error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn no_time_passes_for_a_frozen_step() {
        let mut time = Countdown::new(Duration::from_secs(10));
        let begin = time.last;
        assert_eq!(time.left(begin + Duration::from_secs(1)), Duration::from_secs(9));
        // An hour in the freezer counts as the tick in which it began.
        let thawed = begin + Duration::from_secs(3601);
        assert_eq!(time.left(thawed), Duration::from_secs(8));
        assert_eq!(time.left(thawed + Duration::from_secs(3)), Duration::from_secs(5));
        assert_eq!(time.left(thawed + Duration::from_secs(6)), Duration::from_secs(2));
        assert_eq!(time.left(thawed + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn writes_come_one_by_one_except_through_a_wide_pipe() {
        let (mut pipe, end) = sys::pipe().expect("a pipe");
        let mut command = File::from(end.try_clone().expect("a second descriptor"));
        let mut bytes = [0; 16];
        for wide in [false, true, false] {
            match wide {
                true => {
                    sys::widen(&pipe, &end);
                    command.write_all(b"a").expect("room for one more");
                }
                false => assert!(sys::narrow(&pipe, &end)),
            }
            command.write_all(b"b").expect("room");
            let count = pipe.read(&mut bytes).expect("what was written");
            assert_eq!(&bytes[..count], if wide { &b"ab"[..] } else { b"b" });
        }
        sys::widen(&pipe, &end);
        command.write_all(&[0; 10_000]).expect("room for much");
        assert!(!sys::narrow(&pipe, &end), "three pages do not fit into one");
    }
}
