//! One thread that reads the records of an attempt as they grow.
//!
//! Told by file events, never by a clock. Steps come out strictly one after the other, whatever
//! order the kernel tells in: nothing of step 2 before the end of step 1. Output is masked, packed
//! in chunks of at most 64 KiB or 50 ms, and handed over through a bounded channel: when nobody
//! takes it, nothing more is read, and the records wait on disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::{self, Ended, Frame};
use tenon_journal::output::Stream;
use tokio::sync::mpsc;

use super::inotify::{Inotify, Waker};
use super::lines::At;
use super::mark::{self, Mark, Marked};
use super::tail::{Pack, Tail};
use crate::mask::Masker;
use crate::pod::ContainerPlan;

const CHUNK: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_millis(50);

/// A record to follow.
#[derive(Clone, Debug)]
pub struct Record {
    /// On the machine; exists.
    pub path: PathBuf,
    /// Sidecars have no place in the order of the steps.
    pub sidecar: bool,
    /// Where to begin.
    pub from: Mark,
}

impl Record {
    /// The records of an attempt's containers: of the steps, then of the sidecars. They are gone on with
    /// where `marks` say, if they say so.
    pub fn of_all<'a>(
        plans: impl Iterator<Item = &'a ContainerPlan>,
        marks: &BTreeMap<u32, Mark>,
    ) -> Vec<Record> {
        let record = |(index, plan): (usize, &ContainerPlan)| Record {
            path: plan.record.clone(),
            sidecar: plan.is_sidecar(),
            from: mark::of(marks, index),
        };
        plans.enumerate().map(record).collect()
    }
}

/// What a record says. `index` is the record's place in the list given to [`follow`], `marked` where
/// somebody goes on who has been told this and no more.
#[derive(Debug)]
pub enum Followed {
    /// The command runs.
    Started {
        /// Which.
        index: usize,
        /// When.
        time_ms: i64,
        /// Where to go on.
        marked: Marked,
    },
    /// It printed lines.
    Output {
        /// Which.
        index: usize,
        /// Time of the first line.
        time_ms: i64,
        /// How many.
        lines: u32,
        /// Packed.
        chunk: Vec<u8>,
        /// Where to go on.
        marked: Marked,
    },
    /// It is over. Nothing of this record follows.
    Ended {
        /// Which.
        index: usize,
        /// When.
        time_ms: i64,
        /// How.
        ended: Ended,
        /// Where to go on.
        marked: Marked,
    },
    /// For some time there has been no room on the disk for what the command prints.
    Stalled {
        /// Which.
        index: usize,
    },
    /// Its container is dead and the record has no end. Nothing of this record follows.
    Died {
        /// Which.
        index: usize,
        /// What is wrong with the record, if more is wrong than that it ends.
        damage: Option<String>,
        /// Where to go on.
        marked: Marked,
    },
}

/// Follows until every record has ended, or this is dropped.
pub struct Follower {
    told: Arc<Mutex<Told>>,
    waker: Waker,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    dead: VecDeque<usize>,
    stop: bool,
}

impl Follower {
    /// Says that a container is dead: its record will not grow any more.
    pub fn dead(&self, index: usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.dead.push_back(index);
        drop(told);
        self.waker.wake();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.stop = true;
        drop(told);
        self.waker.wake();
        // Not joined: the thread may still hand over to a channel, whose other end is about to go.
        self.thread.take();
    }
}

/// Starts following.
pub fn follow(
    records: &[Record],
    masker: Masker,
    out: mpsc::Sender<Followed>,
) -> io::Result<Follower> {
    let inotify = Inotify::new()?;
    let waker = inotify.waker()?;
    let mut followed = Vec::new();
    for record in records {
        let watch = inotify.watch(&record.path)?;
        followed.push(Tail::new(record, watch)?);
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let mut work = Work { inotify, told: told.clone(), masker, out, tails: followed };
    let thread = std::thread::Builder::new().name("records".to_owned()).spawn(move || {
        if let Err(error) = work.run() {
            tracing::error!(%error, "following records failed");
        }
    })?;
    Ok(Follower { told, waker, thread: Some(thread) })
}

/// The receiver is gone: there is nobody to follow for.
struct Gone;

struct Work {
    inotify: Inotify,
    told: Arc<Mutex<Told>>,
    masker: Masker,
    out: mpsc::Sender<Followed>,
    tails: Vec<Tail>,
}

impl Work {
    fn run(&mut self) -> io::Result<()> {
        loop {
            {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.stop {
                    return Ok(());
                }
                while let Some(index) = told.dead.pop_front() {
                    self.tails[index].dead = true;
                }
            }
            if self.read_all()?.is_err() {
                return Ok(());
            }
            if self.tails.iter().all(|tail| tail.over) {
                return Ok(());
            }
            let next = self.tails.iter().filter_map(|tail| tail.flush_at).min();
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            for watch in self.inotify.wait(timeout)? {
                self.tails.iter_mut().filter(|tail| tail.watch == watch).for_each(Tail::touch);
            }
        }
    }

    /// Reads every record whose turn it is, until none has more.
    fn read_all(&mut self) -> io::Result<Result<(), Gone>> {
        let mut earlier_step_runs = false;
        for index in 0..self.tails.len() {
            let sidecar = self.tails[index].sidecar;
            if self.tails[index].over || (!sidecar && earlier_step_runs) {
                continue;
            }
            // Read before looking whether it is dead, and all of it after it is.
            while !self.tails[index].over && self.tails[index].read()? {
                if self.take_frames(index).is_err() {
                    return Ok(Err(Gone));
                }
            }
            if self.tails[index].is_stalled() && self.send(Followed::Stalled { index }).is_err() {
                return Ok(Err(Gone));
            }
            let tail = &mut self.tails[index];
            if tail.dead && !tail.over && self.die(index, None).is_err() {
                return Ok(Err(Gone));
            }
            let tail = &mut self.tails[index];
            if tail.flush_at.is_some_and(|at| at <= Instant::now()) && self.flush(index).is_err() {
                return Ok(Err(Gone));
            }
            earlier_step_runs |= !sidecar && !self.tails[index].over;
        }
        Ok(Ok(()))
    }

    fn take_frames(&mut self, index: usize) -> Result<(), Gone> {
        let first = self.tails[index].unread_from();
        let (buffer, unread) = self.tails[index].take_unread();
        let mut reader = frame::Reader::new(&buffer[..unread]);
        let taken = loop {
            let at = first + reader.used() as u64;
            let read = reader.next();
            let next = first + reader.used() as u64;
            let known = matches!(read, Ok(Some(_))) && self.tails[index].begin_frame(at);
            match read {
                Ok(None) => break Ok(()),
                Ok(Some(Frame::Output { stream, bytes, .. })) if known => {
                    self.tails[index].restore(at, stream, bytes);
                }
                Ok(Some(_)) if known => {}
                Ok(Some(Frame::Started { time_ms })) => {
                    let tail = &mut self.tails[index];
                    tail.end_frame(next);
                    tail.pack.mark.begun = true;
                    let marked = tail.pack.marked();
                    self.send(Followed::Started { index, time_ms, marked })?;
                }
                Ok(Some(Frame::Output { time_ms, stream, bytes })) => {
                    self.take_output(index, time_ms, At { frame: at, byte: 0 }, stream, bytes)?;
                    self.tails[index].end_frame(next);
                }
                Ok(Some(Frame::Ended { time_ms, ended })) => {
                    self.finish_output(index)?;
                    let marked = self.tails[index].end(next);
                    self.send(Followed::Ended { index, time_ms, ended, marked })?;
                    return Ok(());
                }
                Err(damage) => break Err(damage.to_string()),
            }
        };
        match taken {
            Ok(()) => {
                let used = reader.used();
                let tail = &mut self.tails[index];
                tail.put_back(buffer, used);
                tail.give_back();
                Ok(())
            }
            Err(damage) => self.die(index, Some(damage)),
        }
    }

    fn die(&mut self, index: usize, damage: Option<String>) -> Result<(), Gone> {
        self.finish_output(index)?;
        let tail = &mut self.tails[index];
        let marked = tail.end(tail.pack.mark.next);
        self.send(Followed::Died { index, damage, marked })
    }

    fn take_output(
        &mut self,
        index: usize,
        time_ms: i64,
        at: At,
        stream: frame::Stream,
        bytes: &[u8],
    ) -> Result<(), Gone> {
        let tail = &mut self.tails[index];
        let mut packer = Packer { index, pack: &mut tail.pack, out: &self.out, gone: false };
        let stdout = (&mut tail.stdout, Stream::Stdout);
        let stderr = (&mut tail.stderr, Stream::Stderr);
        let ((lines, stream), (other, other_stream)) = match stream {
            frame::Stream::Stdout => (stdout, stderr),
            frame::Stream::Stderr => (stderr, stdout),
        };
        other.interrupt(&self.masker, |time, partial, text| {
            packer.add(time, other_stream, partial, text);
        });
        lines.push(&self.masker, time_ms, at, bytes, |time, partial, text| {
            packer.add(time, stream, partial, text);
        });
        if packer.gone {
            return Err(Gone);
        }
        if tail.pack.chunk.is_empty() {
            tail.flush_at = None;
        } else if tail.flush_at.is_none() {
            tail.flush_at = Some(Instant::now() + PATIENCE);
        }
        Ok(())
    }

    fn finish_output(&mut self, index: usize) -> Result<(), Gone> {
        let tail = &mut self.tails[index];
        let mut packer = Packer { index, pack: &mut tail.pack, out: &self.out, gone: false };
        for (lines, stream) in
            [(&mut tail.stdout, Stream::Stdout), (&mut tail.stderr, Stream::Stderr)]
        {
            lines.finish(&self.masker, |time, partial, text| {
                packer.add(time, stream, partial, text);
            });
        }
        packer.flush();
        if packer.gone { Err(Gone) } else { Ok(()) }
    }

    fn flush(&mut self, index: usize) -> Result<(), Gone> {
        let tail = &mut self.tails[index];
        tail.flush_at = None;
        let mut packer = Packer { index, pack: &mut tail.pack, out: &self.out, gone: false };
        packer.flush();
        if packer.gone { Err(Gone) } else { Ok(()) }
    }

    fn send(&self, followed: Followed) -> Result<(), Gone> {
        self.out.blocking_send(followed).map_err(|_| Gone)
    }
}

/// Puts lines into chunks and chunks into the channel.
struct Packer<'a> {
    index: usize,
    pack: &'a mut Pack,
    out: &'a mpsc::Sender<Followed>,
    gone: bool,
}

impl Packer<'_> {
    fn add(&mut self, time_ms: i64, stream: Stream, partial: bool, text: &str) {
        let pack = &mut *self.pack;
        if pack.skip > 0 {
            pack.skip -= 1;
            return;
        }
        if !pack.chunk.is_empty() && pack.chunk.raw_len() + text.len() > CHUNK {
            self.flush();
        }
        let pack = &mut *self.pack;
        if pack.chunk.is_empty() {
            pack.first_line_ms = time_ms;
        }
        // Cannot be full: a line is far shorter than what an empty chunk takes.
        let _ = pack.chunk.push(time_ms, stream, partial, text);
        pack.mark.given += 1;
    }

    fn flush(&mut self) {
        let pack = &mut *self.pack;
        if pack.chunk.is_empty() || self.gone {
            return;
        }
        let (lines, chunk) = pack.chunk.finish();
        let (time_ms, marked) = (pack.first_line_ms, pack.marked());
        let output = Followed::Output { index: self.index, time_ms, lines, chunk, marked };
        self.gone = self.out.blocking_send(output).is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::path::Path;

    use super::*;
    use tenon_journal::output::unpack;

    type Line = (i64, Stream, bool, String);

    /// Follows a finished record and takes at most so many reports; gives the lines, the last mark
    /// and whether the end was told.
    fn take(path: &Path, from: Mark, masker: &Masker, most: usize) -> (Vec<Line>, Mark, bool) {
        let (out, mut followed) = mpsc::channel(1);
        let record = Record { path: path.to_owned(), sidecar: false, from: from.clone() };
        let follower = follow(&[record], masker.clone(), out).unwrap();
        let (mut lines, mut mark, mut over) = (Vec::new(), from, false);
        for _ in 0..most {
            let marked = match followed.blocking_recv() {
                Some(Followed::Output { chunk, marked, .. }) => {
                    let chunk = unpack(&chunk).unwrap();
                    let one = |line: tenon_journal::output::Line<'_>| {
                        (line.time_ms, line.stream, line.partial, line.text.to_owned())
                    };
                    lines.extend(chunk.lines().map(one));
                    marked
                }
                Some(Followed::Started { marked, .. }) => marked,
                Some(Followed::Ended { marked, .. }) => {
                    over = true;
                    marked
                }
                other => panic!("{other:?}"),
            };
            assert!(marked.mark.first_needed() >= mark.first_needed());
            mark = marked.mark;
            if over {
                break;
            }
        }
        drop(follower);
        (lines, mark, over)
    }

    fn write(path: &Path, frames: &[Frame<'_>]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(&bytes).unwrap();
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn whoever_goes_on_at_a_mark_gives_the_rest_and_nothing_twice(
            pieces in proptest::collection::vec(
                (proptest::bool::ANY, "[a\n]{0,3}|s3cr3t|s3c|r3t\n|x{30000}\n|(yy\n){9000}"), 0..40),
            cuts in proptest::collection::vec(1usize..4, 0..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("record");
            let mut frames = vec![Frame::Started { time_ms: 1 }];
            for (index, (is_stdout, text)) in pieces.iter().enumerate() {
                let stream = if *is_stdout { frame::Stream::Stdout } else { frame::Stream::Stderr };
                let time_ms = 2 + i64::try_from(index).unwrap();
                frames.push(Frame::Output { time_ms, stream, bytes: text.as_bytes() });
            }
            frames.push(Frame::Ended { time_ms: 99, ended: Ended::default() });
            write(&path, &frames);
            let masker = Masker::new([&b"s3cr3t"[..]]);
            let (whole, _, _) = take(&path, Mark::default(), &masker, usize::MAX);

            let (mut lines, mut mark, mut over) = (Vec::new(), Mark::default(), false);
            for most in cuts.into_iter().chain([usize::MAX]) {
                if !over {
                    let more;
                    (more, mark, over) = take(&path, mark, &masker, most);
                    lines.extend(more);
                }
            }
            let differs = lines.iter().zip(&whole).position(|(line, wanted)| line != wanted);
            proptest::prop_assert_eq!((lines.len(), differs), (whole.len(), None));
            proptest::prop_assert!(over && mark.over && mark.begun);
        }
    }

    #[test]
    fn what_is_not_kept_elsewhere_stays_in_the_file() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let text = "line\n".repeat(10_000);
        let stream = frame::Stream::Stdout;
        for _ in 0..100 {
            write(&path, &[Frame::Output { time_ms: 1, stream, bytes: text.as_bytes() }]);
        }
        write(&path, &[Frame::Ended { time_ms: 2, ended: Ended::default() }]);
        let full = fs::metadata(&path).unwrap().blocks();
        let (whole, _, _) = take(&path, Mark::default(), &Masker::default(), usize::MAX);
        assert_eq!(whole.len(), 1_000_000);
        assert_eq!(fs::metadata(&path).unwrap().blocks(), full);
    }
}
