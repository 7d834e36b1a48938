//! One record as it is being read: where the reader is, what waits to be packed, and the two things
//! that a disk without much room needs.
//!
//! What has been read is given back to the file system, so a step that prints without end does not
//! fill the disk with what nobody will read again. A writer that finds no room says so by touching
//! the record; when it has said so for a while and nothing came, the record is stalled.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::Stream;
use tenon_journal::output::ChunkBuilder;

use super::follow::Record;
use super::lines::{At, Lines};
use super::mark::{Mark, Marked, Pending};

/// Most bytes of one read.
const READ: usize = 256 << 10;
/// How long a full disk may last before the attempt is given up.
const STALL: Duration = Duration::from_secs(10);
/// A writer without room touches the record far more often than this.
const TOUCHES_APART: Duration = Duration::from_secs(2);
/// What has been read is given back in pieces of this size,
const PIECE: u64 = 1 << 20;
/// and of this size when every piece counts.
const SMALL_PIECE: u64 = 4 << 10;

/// What was read and is being packed.
pub(super) struct Pack {
    pub chunk: ChunkBuilder,
    pub first_line_ms: i64,
    /// Where the reading stood before the frame that is being taken, and how much came of it.
    pub mark: Mark,
    /// Lines of that frame that whoever this goes on from has given.
    pub skip: u32,
    /// Up to here nobody needs the record any more.
    kept: Arc<AtomicU64>,
}

impl Pack {
    /// Where somebody goes on who has been given everything but what waits in the chunk.
    pub fn marked(&self) -> Marked {
        Marked { mark: self.mark.clone(), kept: self.kept.clone() }
    }
}

/// The reading end of a record.
pub(super) struct Tail {
    file: File,
    /// Its number among the file events.
    pub watch: i32,
    pub sidecar: bool,
    offset: u64,
    /// Up to here the file is a hole; `None` where the file system has no holes.
    hole: Option<u64>,
    /// Up to here nobody needs it any more.
    /// What was read and is not a whole frame yet stands at its beginning. It stays as large as it
    /// once was: making room for every small read would cost more than the read.
    buffer: Vec<u8>,
    unread: usize,
    pub stdout: Lines,
    pub stderr: Lines,
    pub pack: Pack,
    pub flush_at: Option<Instant>,
    pub dead: bool,
    pub over: bool,
    /// The first and the last touch since something was read.
    touched: Option<(Instant, Instant)>,
}

impl Tail {
    pub fn new(record: &Record, watch: i32) -> io::Result<Tail> {
        // Writing is only for holes.
        let file = OpenOptions::new().read(true).write(true).open(&record.path)?;
        let mark = record.from.clone();
        let first = mark.first_needed();
        let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
        stdout.resume(&mark.stdout.unwrap_or_default());
        stderr.resume(&mark.stderr.unwrap_or_default());
        Ok(Tail {
            file,
            watch,
            sidecar: record.sidecar,
            offset: first,
            hole: Some(first),
            buffer: Vec::new(),
            unread: 0,
            stdout,
            stderr,
            pack: Pack {
                chunk: ChunkBuilder::new(),
                first_line_ms: 0,
                skip: mark.given,
                kept: Arc::new(AtomicU64::new(first)),
                mark,
            },
            flush_at: None,
            dead: false,
            over: record.from.over,
            touched: None,
        })
    }

    /// Where in the file the first byte is that [`Tail::take_unread`] lends out.
    pub fn unread_from(&self) -> u64 {
        self.offset - self.unread as u64
    }

    /// A frame is about to be taken. True when it was taken before by whoever this goes on from, and
    /// only what it has left over is needed.
    pub fn begin_frame(&mut self, at: u64) -> bool {
        if at < self.pack.mark.next {
            return true;
        }
        // The frame at which another one stopped goes on with how much of it was given.
        if at > self.pack.mark.next {
            self.pack.mark.given = 0;
            self.pack.skip = 0;
        }
        self.pack.mark.next = at;
        self.pack.mark.stdout = left_over(&self.stdout);
        self.pack.mark.stderr = left_over(&self.stderr);
        false
    }

    /// A frame was taken in full, and the next one will be at this offset.
    pub fn end_frame(&mut self, next: u64) {
        if next > self.pack.mark.next {
            self.begin_frame(next);
        }
    }

    /// Takes again what was left over of a frame that another one has taken.
    pub fn restore(&mut self, at: u64, stream: Stream, bytes: &[u8]) {
        let mark = &self.pack.mark;
        let (lines, pending) = match stream {
            Stream::Stdout => (&mut self.stdout, mark.stdout),
            Stream::Stderr => (&mut self.stderr, mark.stderr),
        };
        let Some(first) = pending.and_then(|pending| Some((pending.frame?, pending.byte))) else {
            return;
        };
        let byte = match at.cmp(&first.0) {
            std::cmp::Ordering::Less => return,
            std::cmp::Ordering::Equal => first.1,
            std::cmp::Ordering::Greater => 0,
        };
        let skip = usize::try_from(byte).unwrap_or(usize::MAX);
        if let Some(rest) = bytes.get(skip..) {
            lines.restore(At { frame: at, byte }, rest);
        }
    }

    /// Nothing of the record is left; the last of it ends at this offset.
    pub fn end(&mut self, next: u64) -> Marked {
        self.end_frame(next);
        self.over = true;
        self.pack.mark.over = true;
        self.pack.marked()
    }

    /// Reads what is there, at most one buffer; false at the end.
    pub fn read(&mut self) -> io::Result<bool> {
        if self.buffer.len() < self.unread + READ {
            self.buffer.resize(self.unread + READ, 0);
        }
        let room = &mut self.buffer[self.unread..self.unread + READ];
        let length = self.file.read_at(room, self.offset)?;
        self.unread += length;
        self.offset += length as u64;
        if length > 0 {
            self.touched = None;
        }
        Ok(length > 0)
    }

    /// Lends out what was read; [`Tail::put_back`] says how much of it was used.
    pub fn take_unread(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.buffer), self.unread)
    }

    /// Ends what [`Tail::take_unread`] began.
    pub fn put_back(&mut self, mut buffer: Vec<u8>, used: usize) {
        buffer.copy_within(used..self.unread, 0);
        self.unread -= used;
        self.buffer = buffer;
    }

    /// Gives the room of what has been read back to the file system.
    pub fn give_back(&mut self) {
        self.give_back_pieces(PIECE);
    }

    fn give_back_pieces(&mut self, size: u64) {
        let Some(hole) = self.hole else { return };
        let end = self.pack.kept.load(Ordering::Acquire) / size * size;
        if end <= hole {
            return;
        }
        let (Ok(start), Ok(length)) = (i64::try_from(hole), i64::try_from(end - hole)) else {
            return;
        };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open and no memory is involved.
        let punched = unsafe { libc::fallocate(self.file.as_raw_fd(), mode, start, length) } == 0;
        self.hole = punched.then_some(end);
    }

    /// The writer has found no room.
    pub fn touch(&mut self) {
        let now = Instant::now();
        self.touched = match self.touched {
            Some((first, last)) if now - last < TOUCHES_APART => Some((first, now)),
            _ => Some((now, now)),
        };
        self.give_back_pieces(SMALL_PIECE);
    }

    /// Whether the writer has found no room for too long; true once, until that much time again.
    pub fn is_stalled(&mut self) -> bool {
        // What others have not made durable yet takes room too, and is going to be given back.
        if self.pack.kept.load(Ordering::Acquire) + PIECE < self.unread_from() {
            self.touched = None;
        }
        let stalled = !self.over && self.touched.is_some_and(|(first, last)| last - first >= STALL);
        if stalled {
            self.touched = None;
        }
        stalled
    }
}

fn left_over(lines: &Lines) -> Option<Pending> {
    let pending = lines.pending();
    (pending.frame.is_some() || pending.continued).then_some(pending)
}
