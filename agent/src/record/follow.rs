//! One thread that reads the records of an attempt as they grow.
//!
//! Told by file events, never by a clock. Steps come out strictly one after the other, whatever
//! order the kernel tells in: nothing of step 2 before the end of step 1. Output is masked, packed
//! in chunks of at most 64 KiB or 50 ms, and handed over through a bounded channel: when nobody
//! takes it, nothing more is read, and the records wait on disk.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::{self, Ended, Frame};
use tenon_journal::output::{ChunkBuilder, Stream};
use tokio::sync::mpsc;

use super::inotify::{Inotify, Waker};
use super::tail::Tail;
use crate::mask::Masker;

const CHUNK: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_millis(50);

/// A record to follow.
#[derive(Clone, Debug)]
pub struct Record {
    /// On the machine; exists.
    pub path: PathBuf,
    /// Sidecars have no place in the order of the steps.
    pub sidecar: bool,
}

/// What a record says. `index` is the record's place in the list given to [`follow`].
#[derive(Debug)]
pub enum Followed {
    /// The command runs.
    Started {
        /// Which.
        index: usize,
        /// When.
        time_ms: i64,
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
    },
    /// It is over. Nothing of this record follows.
    Ended {
        /// Which.
        index: usize,
        /// When.
        time_ms: i64,
        /// How.
        ended: Ended,
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
        let (buffer, unread) = self.tails[index].take_unread();
        let mut reader = frame::Reader::new(&buffer[..unread]);
        let taken = loop {
            match reader.next() {
                Ok(None) => break Ok(()),
                Ok(Some(Frame::Started { time_ms })) => {
                    self.send(Followed::Started { index, time_ms })?;
                }
                Ok(Some(Frame::Output { time_ms, stream, bytes })) => {
                    self.take_output(index, time_ms, stream, bytes)?;
                }
                Ok(Some(Frame::Ended { time_ms, ended })) => {
                    self.finish_output(index)?;
                    self.tails[index].over = true;
                    self.send(Followed::Ended { index, time_ms, ended })?;
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
        self.tails[index].over = true;
        self.send(Followed::Died { index, damage })
    }

    fn take_output(
        &mut self,
        index: usize,
        time_ms: i64,
        stream: frame::Stream,
        bytes: &[u8],
    ) -> Result<(), Gone> {
        let tail = &mut self.tails[index];
        let stdout = (&mut tail.stdout, Stream::Stdout);
        let stderr = (&mut tail.stderr, Stream::Stderr);
        let ((lines, stream), (other, other_stream)) = match stream {
            frame::Stream::Stdout => (stdout, stderr),
            frame::Stream::Stderr => (stderr, stdout),
        };
        let mut packer = Packer {
            index,
            chunk: &mut tail.chunk,
            first_line_ms: &mut tail.first_line_ms,
            out: &self.out,
            gone: false,
        };
        other.interrupt(&self.masker, |time, partial, text| {
            packer.add(time, other_stream, partial, text);
        });
        lines.push(&self.masker, time_ms, bytes, |time, partial, text| {
            packer.add(time, stream, partial, text);
        });
        if packer.gone {
            return Err(Gone);
        }
        if tail.chunk.is_empty() {
            tail.flush_at = None;
        } else if tail.flush_at.is_none() {
            tail.flush_at = Some(Instant::now() + PATIENCE);
        }
        Ok(())
    }

    fn finish_output(&mut self, index: usize) -> Result<(), Gone> {
        let tail = &mut self.tails[index];
        let mut packer = Packer {
            index,
            chunk: &mut tail.chunk,
            first_line_ms: &mut tail.first_line_ms,
            out: &self.out,
            gone: false,
        };
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
        let mut packer = Packer {
            index,
            chunk: &mut tail.chunk,
            first_line_ms: &mut tail.first_line_ms,
            out: &self.out,
            gone: false,
        };
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
    chunk: &'a mut ChunkBuilder,
    first_line_ms: &'a mut i64,
    out: &'a mpsc::Sender<Followed>,
    gone: bool,
}

impl Packer<'_> {
    fn add(&mut self, time_ms: i64, stream: Stream, partial: bool, text: &str) {
        if !self.chunk.is_empty() && self.chunk.raw_len() + text.len() > CHUNK {
            self.flush();
        }
        if self.chunk.is_empty() {
            *self.first_line_ms = time_ms;
        }
        // Cannot be full: a line is far shorter than what an empty chunk takes.
        let _ = self.chunk.push(time_ms, stream, partial, text);
    }

    fn flush(&mut self) {
        if self.chunk.is_empty() || self.gone {
            return;
        }
        let (lines, chunk) = self.chunk.finish();
        let output =
            Followed::Output { index: self.index, time_ms: *self.first_line_ms, lines, chunk };
        self.gone = self.out.blocking_send(output).is_err();
    }
}
