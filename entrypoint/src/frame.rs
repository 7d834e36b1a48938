//! The record file of one container: frames that the entrypoint appends and the agent follows.
//!
//! A frame is written with one append and never changed, so a reader that remembers the offset
//! after the last whole frame can go on there at any time, also in another process. A frame that
//! is cut at the end of the file is not there yet ([`Reader::next`] gives `None`); after the
//! container is dead it never will be. Output is raw bytes as read from the command's pipes:
//! cutting it into lines is the agent's work.

use crate::wire::{Decoder, Encoder, Malformed};

/// Bytes before a frame's payload: length, kind, three zero bytes, time.
pub const HEADER: usize = 16;

/// No payload is longer: output comes in reads of 64 KiB, an end frame holds results and a message.
pub const MAX_PAYLOAD: usize = 16 << 20;

const STARTED: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const ENDED: u8 = 4;

/// One thing that happened, with when (milliseconds since the Unix epoch, container's clock).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The gate is passed and the command is about to run. Absent when it never ran.
    Started {
        /// When.
        time_ms: i64,
    },
    /// The command printed something (or the entrypoint, about what it could not do: stderr).
    Output {
        /// When it was read.
        time_ms: i64,
        /// Where to.
        stream: Stream,
        /// The bytes as they were; not cut at lines or characters.
        bytes: &'a [u8],
    },
    /// It is over. The last frame.
    Ended {
        /// When.
        time_ms: i64,
        /// How.
        ended: Ended,
    },
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step or sidecar ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What Tekton shows as the step's exit code: for [`Ending::Continued`] the command's own (-1:
    /// it was killed by a signal), else the container's (255: killed by a signal; sidecars: 128 +
    /// the signal).
    pub exit_code: i32,
    /// Why it ended.
    pub ending: Ending,
    /// Tekton's `StartedAt`: when the gate was passed or given up.
    pub started_ms: i64,
    /// Task results, name and raw contents, in the order of the spec.
    pub task_results: Vec<(String, String)>,
    /// Step results, likewise.
    pub step_results: Vec<(String, String)>,
    /// What the entrypoint has to say about it, e.g. that the command was not found. Also printed
    /// to the step's stderr. Empty when there is nothing to say.
    pub message: String,
    /// What it has used.
    pub usage: Usage,
}

/// What a container has used, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, in millionths of a second.
    pub cpu_micros: Option<u64>,
    /// The most memory at a time, in bytes.
    pub memory_peak: Option<u64>,
    /// Bytes that had to be read from a disk.
    pub io_read: Option<u64>,
    /// Bytes that were to be written to a disk.
    pub io_write: Option<u64>,
}

/// Why a container ended; the names are those of the session's `Ending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Exit 0.
    #[default]
    Completed,
    /// Another exit code, or the command could not be run.
    Error,
    /// Another exit code, ignored by `onError: continue`.
    Continued,
    /// It never ran: an earlier step failed (exit code 1) or `when` is false (exit code 0).
    Skipped,
    /// It was killed by the step's timeout.
    TimeoutExceeded,
    /// It was killed by the cancel file (exit code 9), or told to stop before it ran (143).
    Cancelled,
}

impl Ending {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::Error,
        Self::Continued,
        Self::Skipped,
        Self::TimeoutExceeded,
        Self::Cancelled,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Error => 1,
            Self::Continued => 2,
            Self::Skipped => 3,
            Self::TimeoutExceeded => 4,
            Self::Cancelled => 5,
        }
    }
}

impl Frame<'_> {
    /// Appends the frame's bytes to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::Started { time_ms } => put(buffer, STARTED, *time_ms, &[]),
            Self::Output { time_ms, stream, bytes } => {
                let kind = if *stream == Stream::Stdout { STDOUT } else { STDERR };
                put(buffer, kind, *time_ms, bytes);
            }
            Self::Ended { time_ms, ended } => {
                let mut e = Encoder::default();
                e.i32(ended.exit_code);
                e.u8(ended.ending.code());
                e.i64(ended.started_ms);
                e.pairs(&ended.task_results);
                e.pairs(&ended.step_results);
                e.str(&ended.message);
                for value in ended.usage.values() {
                    e.option(value, |e, value| e.bytes(&value.to_le_bytes()));
                }
                put(buffer, ENDED, *time_ms, &e.bytes);
            }
        }
    }
}

/// The header of an output frame, for a writer that has the payload elsewhere already.
#[must_use]
pub fn output_header(time_ms: i64, stream: Stream, length: usize) -> [u8; HEADER] {
    header(if stream == Stream::Stdout { STDOUT } else { STDERR }, time_ms, length)
}

fn header(kind: u8, time_ms: i64, length: usize) -> [u8; HEADER] {
    assert!(length <= MAX_PAYLOAD, "a frame of {length} bytes");
    let mut header = [0; HEADER];
    let length = u32::try_from(length).expect("fits because it is at most MAX_PAYLOAD");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind;
    header[8..].copy_from_slice(&time_ms.to_le_bytes());
    header
}

fn put(buffer: &mut Vec<u8>, kind: u8, time_ms: i64, payload: &[u8]) {
    buffer.extend_from_slice(&header(kind, time_ms, payload.len()));
    buffer.extend_from_slice(payload);
}

/// Takes frames from bytes read at the right offset of a record file.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Reader<'a> {
    /// `bytes` must begin at a frame.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// How many bytes the frames given so far took: add this to the file offset to go on later.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// The next whole frame; `None` when the rest is not a whole frame (yet).
    ///
    /// # Errors
    /// When the bytes are no frames: then the rest of the file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "an Iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, Malformed> {
        let rest = &self.bytes[self.used..];
        let Some((header, body)) = rest.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let mut d = Decoder::new(header);
        let length = d.u32()? as usize;
        let kind = d.u8()?;
        if length > MAX_PAYLOAD {
            return Err(Malformed("a frame is too long"));
        }
        if d.take(3)? != [0; 3] {
            return Err(Malformed("not a frame"));
        }
        let time_ms = d.i64()?;
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        let frame = match kind {
            STARTED => Frame::Started { time_ms },
            STDOUT => Frame::Output { time_ms, stream: Stream::Stdout, bytes: payload },
            STDERR => Frame::Output { time_ms, stream: Stream::Stderr, bytes: payload },
            ENDED => Frame::Ended { time_ms, ended: decode_ended(payload)? },
            _ => return Err(Malformed("unknown kind of frame")),
        };
        self.used += HEADER + length;
        Ok(Some(frame))
    }
}

impl Usage {
    fn values(&self) -> [Option<u64>; 4] {
        [self.cpu_micros, self.memory_peak, self.io_read, self.io_write]
    }

    fn of([cpu_micros, memory_peak, io_read, io_write]: [Option<u64>; 4]) -> Usage {
        Usage { cpu_micros, memory_peak, io_read, io_write }
    }
}

fn number(d: &mut Decoder<'_>) -> Result<Option<u64>, Malformed> {
    d.option(|d| {
        let bytes = d.bytes()?.try_into().map_err(|_| Malformed("a number"))?;
        Ok(u64::from_le_bytes(bytes))
    })
}

fn decode_ended(payload: &[u8]) -> Result<Ended, Malformed> {
    let mut d = Decoder::new(payload);
    let exit_code = d.i32()?;
    let code = d.u8()?;
    let ending =
        Ending::ALL.into_iter().find(|e| e.code() == code).ok_or(Malformed("unknown ending"))?;
    let mut ended = Ended {
        exit_code,
        ending,
        started_ms: d.i64()?,
        task_results: d.pairs()?,
        step_results: d.pairs()?,
        message: d.str()?,
        usage: Usage::default(),
    };
    // An entrypoint of an earlier version does not say what was used.
    if !d.is_at_end() {
        ended.usage =
            Usage::of([number(&mut d)?, number(&mut d)?, number(&mut d)?, number(&mut d)?]);
    }
    d.end()?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame<'static>> {
        let mut frames = vec![
            Frame::Started { time_ms: 5 },
            Frame::Output { time_ms: 6, stream: Stream::Stdout, bytes: b"out\n" },
            Frame::Output { time_ms: 7, stream: Stream::Stderr, bytes: &[0xff, 0] },
        ];
        for ending in Ending::ALL {
            frames.push(Frame::Ended {
                time_ms: -8,
                ended: Ended {
                    exit_code: -1,
                    ending,
                    started_ms: 5,
                    task_results: vec![("a".into(), "x\n".into())],
                    step_results: vec![("b".into(), String::new())],
                    message: "m".into(),
                    usage: Usage::of([Some(1), None, Some(u64::MAX), Some(0)]),
                },
            });
        }
        frames
    }

    #[test]
    fn what_is_written_is_read_back_wherever_the_file_is_cut() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for frame in frames() {
            frame.encode(&mut bytes);
            ends.push(bytes.len());
        }
        for length in 0..=bytes.len() {
            let mut reader = Reader::new(&bytes[..length]);
            let mut seen = Vec::new();
            while let Some(frame) = reader.next().unwrap() {
                seen.push(frame);
            }
            let whole = ends.iter().filter(|&&end| end <= length).count();
            assert_eq!(seen, frames()[..whole]);
            assert_eq!(reader.used(), if whole == 0 { 0 } else { ends[whole - 1] });
        }
    }

    #[test]
    fn an_earlier_version_says_nothing_of_usage() {
        let ended = Ended { message: "m".into(), ..Ended::default() };
        let mut bytes = Vec::new();
        Frame::Ended { time_ms: 1, ended: ended.clone() }.encode(&mut bytes);
        // Without the four marks that nothing is known.
        bytes.truncate(bytes.len() - 4);
        let length = u32::try_from(bytes.len() - HEADER).unwrap();
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let read = Reader::new(&bytes).next().unwrap();
        assert_eq!(read, Some(Frame::Ended { time_ms: 1, ended }));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut bytes = Vec::new();
        Frame::Started { time_ms: 1 }.encode(&mut bytes);
        for (at, value) in [(3, 0xff), (4, 9), (5, 1), (4, ENDED)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(Reader::new(&damaged).next().is_err(), "byte {at} = {value}");
        }
    }

    #[test]
    fn an_output_header_is_the_start_of_its_frame() {
        let mut bytes = Vec::new();
        Frame::Output { time_ms: 9, stream: Stream::Stderr, bytes: b"abc" }.encode(&mut bytes);
        assert_eq!(bytes[..HEADER], output_header(9, Stream::Stderr, 3));
    }
}
