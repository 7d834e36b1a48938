//! Appends frames to the record file. A full disk makes the command wait, it loses no byte: what
//! could not be written stays here until it can, and nothing more is read from the command. While
//! it waits, the file's times change: whoever follows the record learns of it without being asked.
//!
//! A record is bounded too, and one in memory takes little of it, because the step pays for it:
//! whoever follows the record makes a hole where he has read, and until then the command waits
//! likewise.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tenon_entrypoint::frame::{Frame, Stream, output_header};

use crate::sys;

/// Most bytes of output in one frame.
const READ: usize = 64 << 10;
/// No packet in a pipe is longer; the kernel drops what a shorter read leaves of it.
const PACKET: usize = 4 << 10;

/// How long to wait before trying again to write to a full disk; no event tells that there is room.
pub const RETRY: Duration = Duration::from_millis(100);

/// Most bytes that a record takes in memory and on the disk, and after how many it is looked at again.
const MEMORY: u64 = 8 << 20;
const DISK: u64 = 256 << 20;
const LOOK: u64 = 1 << 20;

pub struct Record {
    file: File,
    /// Most bytes that it may take; none where the file system cannot make holes.
    most: Option<u64>,
    /// Bytes written since it was last seen how many it takes.
    since_look: u64,
    /// Frames; those before `written` are in the file.
    buffer: Vec<u8>,
    written: usize,
    /// What is read from a pipe.
    input: Box<[u8]>,
}

impl Record {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let input = vec![0; READ].into_boxed_slice();
        let most = if sys::in_memory(&file) { MEMORY } else { DISK };
        let most = sys::makes_holes(&file).then_some(most);
        Ok(Self { file, most, since_look: 0, buffer: Vec::new(), written: 0, input })
    }

    /// Whether something is still to be written.
    pub fn is_behind(&self) -> bool {
        self.written < self.buffer.len()
    }

    /// Writes what is left, as far as there is room for it.
    pub fn flush(&mut self) {
        while self.is_behind() {
            if !self.may_grow() {
                self.touch();
                return;
            }
            match self.file.write(&self.buffer[self.written..]) {
                Ok(0) => return,
                Ok(count) => {
                    self.written += count;
                    self.since_look += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if has_no_room(&error) => {
                    self.touch();
                    return;
                }
                Err(error) => {
                    // Nobody can be told anything any more: a step without a record must not go on.
                    eprintln!("tenon-entrypoint: cannot write the record: {error}");
                    std::process::exit(125);
                }
            }
        }
        self.buffer.clear();
        self.written = 0;
    }

    fn may_grow(&mut self) -> bool {
        if let Some(most) = self.most
            && self.since_look >= LOOK
        {
            let taken = self.file.metadata().map_or(0, |found| found.blocks() * 512);
            if taken >= most {
                return false;
            }
            self.since_look = 0;
        }
        true
    }

    /// Tells whoever follows the record that there is no room.
    pub fn touch(&self) {
        sys::touch(&self.file);
    }

    /// Appends a frame and waits until it is in the file.
    pub fn write(&mut self, frame: &Frame<'_>) {
        frame.encode(&mut self.buffer);
        self.flush_fully();
    }

    /// Waits until everything is in the file.
    pub fn flush_fully(&mut self) {
        self.flush();
        while self.is_behind() {
            sys::idle(RETRY);
            self.flush();
        }
    }

    /// One line from the entrypoint itself, in the step's stderr.
    pub fn log(&mut self, message: &str) {
        let line = format!("{message}\n");
        self.write(&Frame::Output {
            time_ms: sys::now_ms(),
            stream: Stream::Stderr,
            bytes: line.as_bytes(),
        });
    }

    /// Moves what one read of `pipe` gives into a frame, or with `all` what is in the pipe now, and
    /// shows it to `also`. `Ok(0)` is the end of the pipe. Not to be called while
    /// [`Record::is_behind`].
    pub fn copy_from(
        &mut self,
        pipe: &mut File,
        stream: Stream,
        all: bool,
        also: impl FnOnce(&[u8]),
    ) -> io::Result<usize> {
        debug_assert!(!self.is_behind(), "the caller waits until the record has room");
        let mut count = pipe.read(&mut self.input)?;
        if count == 0 {
            return Ok(0);
        }
        // Its end, or a mistake, is for the next call to find.
        while all
            && READ - count >= PACKET
            && let Ok(more @ 1..) = pipe.read(&mut self.input[count..])
        {
            count += more;
        }
        let bytes = &self.input[..count];
        self.buffer.extend_from_slice(&output_header(sys::now_ms(), stream, count));
        self.buffer.extend_from_slice(bytes);
        also(bytes);
        self.flush();
        Ok(count)
    }

    /// Whether a read of that length may have left something in the pipe only for want of room.
    pub fn is_full(count: usize) -> bool {
        READ - count < PACKET
    }
}

/// Whether the disk, or the user's share of it, is full.
pub fn has_no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
