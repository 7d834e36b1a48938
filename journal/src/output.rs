//! The packed form of step output: many lines in one compressed chunk.
//!
//! An agent packs lines as they come; the chunk then travels and is stored as opaque bytes until somebody reads it.
//! Layout: `raw length u32`, then zstd of: `version u8`, `lines u32`, `meta length u32`, meta, text. Meta holds two varints a line:
//! the zigzag time difference to the line before, and `length << 2 | partial << 1 | stderr`. Text is all lines without separators.
//! Invariant: `unpack` checks everything, allocates at most [`MAX_RAW`], and never panics, whatever bytes it gets.
//! It does not split, mask or sanitise lines: that is the agent's business.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// The most bytes that one chunk may unpack to.
pub const MAX_RAW: usize = 8 << 20;

const VERSION: u8 = 1;
const PREFIX: usize = 1 + 4 + 4;
const LEVEL: i32 = 1;
/// Two varints of at most ten bytes each.
const META_MAX: usize = 20;

thread_local! {
    /// A context is slow to make, so each thread keeps one.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Which of a process's two output streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output inside an unpacked [`Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Unix time in milliseconds at which the line was read.
    pub time_ms: i64,
    /// Where it was written to.
    pub stream: Stream,
    /// The line goes on in the next one (it was over the length limit).
    pub partial: bool,
    /// The text without its newline.
    pub text: &'a str,
}

/// Why bytes are not a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The chunk claims to unpack to more than [`MAX_RAW`].
    #[error("step output chunk claims {0} bytes, more than the limit of {MAX_RAW}")]
    TooLarge(usize),
    /// The chunk's inside contradicts itself.
    #[error("step output chunk is damaged: {0}")]
    Damaged(&'static str),
}

impl OutputError {
    /// The stable identifier of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            OutputError::TooLarge(_) => "output/too-large",
            OutputError::Damaged(_) => "output/damaged",
        }
    }
}

/// The line does not fit any more: `finish` the chunk and push the line again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output chunk is full")]
pub struct ChunkFull;

/// Collects lines and packs them.
pub struct ChunkBuilder {
    meta: Vec<u8>,
    text: Vec<u8>,
    raw: Vec<u8>,
    lines: u32,
    last_time: i64,
    compressor: Compressor<'static>,
}

impl Default for ChunkBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkBuilder {
    /// An empty builder; keep it and use it again, it keeps its buffers.
    pub fn new() -> Self {
        let compressor =
            Compressor::new(LEVEL).expect("level 1 is valid because zstd accepts 1 to 22");
        ChunkBuilder {
            meta: Vec::new(),
            text: Vec::new(),
            raw: Vec::new(),
            lines: 0,
            last_time: 0,
            compressor,
        }
    }

    /// Adds a line. `Err` means that nothing was added and the chunk must be finished first; an empty chunk takes any line
    /// below [`MAX_RAW`] less a few bytes.
    pub fn push(
        &mut self,
        time_ms: i64,
        stream: Stream,
        partial: bool,
        line: &str,
    ) -> Result<(), ChunkFull> {
        if self.raw_len() + META_MAX + line.len() > MAX_RAW {
            return Err(ChunkFull);
        }
        let difference = time_ms.wrapping_sub(self.last_time);
        put_varint(&mut self.meta, ((difference << 1) ^ (difference >> 63)) as u64);
        let flags = u64::from(partial) << 1 | u64::from(stream == Stream::Stderr);
        put_varint(&mut self.meta, (line.len() as u64) << 2 | flags);
        self.text.extend_from_slice(line.as_bytes());
        self.last_time = time_ms;
        self.lines += 1;
        Ok(())
    }

    /// Bytes that the chunk holds so far, before compression.
    pub fn raw_len(&self) -> usize {
        PREFIX + self.meta.len() + self.text.len()
    }

    /// Lines that the chunk holds so far.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Nothing was pushed since the last `finish`.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Packs what was pushed and leaves the builder empty: the number of lines, and the chunk.
    pub fn finish(&mut self) -> (u32, Vec<u8>) {
        self.raw.clear();
        self.raw.push(VERSION);
        self.raw.extend_from_slice(&self.lines.to_le_bytes());
        self.raw.extend_from_slice(&(self.meta.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(&self.meta);
        self.raw.extend_from_slice(&self.text);
        let mut packed = vec![0; 4 + zstd::zstd_safe::compress_bound(self.raw.len())];
        packed[..4].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        let written = self
            .compressor
            .compress_to_buffer(&self.raw, &mut packed[4..])
            .expect("compression cannot fail because the buffer has zstd's own worst-case size");
        packed.truncate(4 + written);
        packed.shrink_to_fit();
        let lines = self.lines;
        self.meta.clear();
        self.text.clear();
        self.lines = 0;
        self.last_time = 0;
        (lines, packed)
    }
}

/// An unpacked and fully checked chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    raw: Vec<u8>,
    text_start: usize,
    lines: u32,
}

impl Chunk {
    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines as usize
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines in the order in which they were pushed.
    pub fn lines(&self) -> Lines<'_> {
        let text = std::str::from_utf8(&self.raw[self.text_start..]).unwrap_or_default();
        Lines { meta: &self.raw[PREFIX..self.text_start], text, time: 0, left: self.lines }
    }
}

/// Iterator over a chunk's lines.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    meta: &'a [u8],
    text: &'a str,
    time: i64,
    left: u32,
}

impl<'a> Lines<'a> {
    fn step(&mut self) -> Result<Line<'a>, OutputError> {
        let zigzag = take_varint(&mut self.meta)?;
        self.time = self.time.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        let head = take_varint(&mut self.meta)?;
        let length = usize::try_from(head >> 2).map_err(|_| OutputError::Damaged("line length"))?;
        let Some((line, rest)) = self.text.split_at_checked(length) else {
            return Err(OutputError::Damaged(
                "a line ends outside of the text or inside a character",
            ));
        };
        self.text = rest;
        let stream = if head & 1 == 1 { Stream::Stderr } else { Stream::Stdout };
        Ok(Line { time_ms: self.time, stream, partial: head & 2 == 2, text: line })
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.step().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Lines<'_> {}

fn decompress(
    kept: &mut Option<Decompressor<'static>>,
    packed: &[u8],
    raw_length: usize,
) -> io::Result<Vec<u8>> {
    let decompressor = match kept {
        Some(decompressor) => decompressor,
        None => kept.insert(Decompressor::new()?),
    };
    decompressor.decompress(packed, raw_length)
}

/// Unpacks a chunk and checks all of it, so that reading its lines cannot fail.
pub fn unpack(bytes: &[u8]) -> Result<Chunk, OutputError> {
    let Some((raw_length, packed)) = bytes.split_first_chunk::<4>() else {
        return Err(OutputError::Damaged("shorter than its length field"));
    };
    let raw_length = u32::from_le_bytes(*raw_length) as usize;
    if raw_length > MAX_RAW {
        return Err(OutputError::TooLarge(raw_length));
    }
    // The length field is only a claim: the frame's own size must agree before anything is allocated.
    match zstd::zstd_safe::get_frame_content_size(packed) {
        Ok(Some(size)) if size == raw_length as u64 => {}
        _ => {
            return Err(OutputError::Damaged("its length field and its content disagree"));
        }
    }
    let raw = DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompress(decompressor, packed, raw_length))
        .map_err(|_| OutputError::Damaged("compressed data"))?;
    if raw.len() != raw_length || raw.len() < PREFIX {
        return Err(OutputError::Damaged("wrong length"));
    }
    if raw[0] != VERSION {
        return Err(OutputError::Damaged("unknown version"));
    }
    let field = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let (lines, meta_length) = (field(1), field(5) as usize);
    let Some(text_start) = PREFIX.checked_add(meta_length).filter(|end| *end <= raw.len()) else {
        return Err(OutputError::Damaged("line table longer than the chunk"));
    };
    let text = std::str::from_utf8(&raw[text_start..])
        .map_err(|_| OutputError::Damaged("text is not UTF-8"))?;
    let mut check = Lines { meta: &raw[PREFIX..text_start], text, time: 0, left: lines };
    // Every line takes at least two bytes of meta, so this loop is bounded by the chunk's size whatever `lines` claims.
    for _ in 0..lines {
        check.step()?;
    }
    if !check.meta.is_empty() || !check.text.is_empty() {
        return Err(OutputError::Damaged("bytes after the last line"));
    }
    Ok(Chunk { raw, text_start, lines })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, OutputError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else {
            return Err(OutputError::Damaged("line table ends early"));
        };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OutputError::Damaged("number too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(lines: &[(i64, Stream, bool, String)]) -> Vec<u8> {
        let mut builder = ChunkBuilder::new();
        for (time, stream, partial, text) in lines {
            builder.push(*time, *stream, *partial, text).unwrap();
        }
        builder.finish().1
    }

    fn any_line() -> impl Strategy<Value = (i64, Stream, bool, String)> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        (any::<i64>(), stream, any::<bool>(), ".{0,40}")
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(lines in prop::collection::vec(any_line(), 0..60)) {
            let chunk = unpack(&pack(&lines)).unwrap();
            prop_assert_eq!(chunk.len(), lines.len());
            let back: Vec<_> = chunk.lines().map(|l| (l.time_ms, l.stream, l.partial, l.text.to_owned())).collect();
            prop_assert_eq!(back, lines);
        }

        #[test]
        fn random_bytes_are_refused_or_read_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(chunk) = unpack(&bytes) {
                prop_assert!(chunk.lines().count() <= chunk.len());
            }
        }

        #[test]
        fn a_hostile_inside_never_panics(mut inside in prop::collection::vec(any::<u8>(), 9..120), lines in 0u32..50, meta in 0u32..120) {
            inside[0] = VERSION;
            inside[1..5].copy_from_slice(&lines.to_le_bytes());
            inside[5..9].copy_from_slice(&meta.to_le_bytes());
            let mut bytes = (inside.len() as u32).to_le_bytes().to_vec();
            bytes.extend(zstd::bulk::compress(&inside, 1).unwrap());
            if let Ok(chunk) = unpack(&bytes) {
                prop_assert_eq!(chunk.lines().count(), lines as usize);
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let lines: Vec<_> =
            (0..50).map(|i| (i * 7, Stream::Stdout, false, format!("line {i} äöü"))).collect();
        let good = pack(&lines);
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                if let Ok(chunk) = unpack(&bad) {
                    assert_eq!(chunk.lines().count(), chunk.len());
                }
            }
            assert!(unpack(&good[..position]).is_err());
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_unpacks() {
        let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 1).unwrap();
        let claim = |length: u32| [&length.to_le_bytes()[..], &bomb].concat();
        assert_eq!(unpack(&claim(64 << 20)), Err(OutputError::TooLarge(64 << 20)));
        assert!(matches!(unpack(&claim(1000)), Err(OutputError::Damaged(_))));
    }

    #[test]
    fn a_full_chunk_says_so_and_takes_the_line_after_finish() {
        let mut builder = ChunkBuilder::new();
        let line = "x".repeat(MAX_RAW / 2);
        builder.push(1, Stream::Stdout, false, &line).unwrap();
        assert_eq!(builder.push(2, Stream::Stdout, false, &line), Err(ChunkFull));
        assert_eq!(builder.finish().0, 1);
        builder.push(2, Stream::Stdout, false, &line).unwrap();
        let (lines, bytes) = builder.finish();
        assert_eq!((lines, unpack(&bytes).unwrap().lines().next().unwrap().time_ms), (1, 2));
    }
}
