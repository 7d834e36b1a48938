//! One loop for everybody who shows a run, while it goes on or later: read events, hand them to a
//! [`Show`], and write what it made in few, large writes.
//!
//! It ends after `run-end`, or when the run's writer is gone.

use std::io::{self, Write};
use std::time::Duration;

use tenon_engine::Kind;

use crate::filter::Filter;
use crate::history::{Next, RunReader, Stored};
use crate::{Error, Result};

/// Bytes that are collected before they are written although more events wait.
const BATCH: usize = 256 << 10;

/// Where the events of a run come from.
pub trait Source {
    /// The next event; waits for it up to `timeout` while the run goes on.
    fn next(&mut self, timeout: Duration) -> Result<Next>;

    /// The run, for messages.
    fn run(&self) -> String;
}

impl Source for RunReader {
    fn next(&mut self, timeout: Duration) -> Result<Next> {
        RunReader::next(self, timeout)
    }

    fn run(&self) -> String {
        RunReader::run(self).to_string()
    }
}

/// What can show events.
pub trait Show {
    /// Takes one event and appends what is to be written. `shown` is false for an event that the
    /// filter hides. The error says what is wrong with the record.
    fn event(&mut self, stored: &Stored, filter: &Filter, out: &mut Vec<u8>) -> Result<(), String>;

    /// No event waits now: appends what belongs to this moment.
    fn idle(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Nothing more comes: appends what is left.
    fn end(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// How long to wait for an event before [`Show::idle`] is called again.
    fn pace(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// With `run-end`.
    Ended,
    /// The run goes on or was interrupted; this is all there is now.
    NoMore,
    /// Nobody reads the output any more, and the run has not ended.
    Closed,
}

/// Shows a run from its first event. With `wait` it follows a run that goes on to its end.
pub fn follow(
    source: &mut dyn Source,
    filter: &Filter,
    show: &mut dyn Show,
    output: &mut dyn Write,
    wait: bool,
) -> Result<Finish> {
    let mut out = Vec::new();
    let mut index = 0;
    let finish = loop {
        // Only when nothing waits is it time for idle, and for what was collected.
        let mut next = source.next(Duration::ZERO)?;
        if matches!(next, Next::Idle) && wait {
            show.idle(&mut out);
            if !flush(output, &mut out)? {
                return Ok(Finish::Closed);
            }
            next = source.next(show.pace())?;
        }
        match next {
            Next::Event(stored) => {
                let last = is_run_end(&stored);
                show.event(&stored, filter, &mut out).map_err(|detail| Error::Record {
                    run: source.run(),
                    index,
                    detail,
                })?;
                index += 1;
                if last {
                    break Finish::Ended;
                }
                if out.len() >= BATCH && !flush(output, &mut out)? {
                    return Ok(Finish::Closed);
                }
            }
            Next::Idle if wait => {}
            Next::Idle | Next::End => break Finish::NoMore,
        }
    };
    show.end(&mut out);
    match flush(output, &mut out)? {
        // Of a run that has ended, nobody can do anything about it any more.
        false if finish != Finish::Ended => Ok(Finish::Closed),
        _ => Ok(finish),
    }
}

/// The header of a `run-end` begins with its kind, as every header does.
fn is_run_end(stored: &Stored) -> bool {
    let name = serde_json::to_string(&Kind::RunEnd).unwrap_or_default();
    stored
        .header()
        .strip_prefix(b"{\"kind\":")
        .is_some_and(|rest| rest.starts_with(name.as_bytes()))
}

/// Writes and empties `out`; false when the reader of the output has gone.
fn flush(output: &mut dyn Write, out: &mut Vec<u8>) -> Result<bool> {
    if out.is_empty() {
        return Ok(true);
    }
    let written = output.write_all(out).and_then(|()| output.flush());
    out.clear();
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io("write", std::path::Path::new("<stdout>"))(error)),
    }
}

impl Show for crate::json::Lines {
    fn event(&mut self, stored: &Stored, filter: &Filter, out: &mut Vec<u8>) -> Result<(), String> {
        if filter.is_open() || filter.admits(&stored.event()?) {
            self.write(stored, filter.since, out)?;
        }
        Ok(())
    }
}

/// What a terminal is to be asked by whoever shows a run on one.
pub trait Terminal {
    /// Its size now.
    fn size(&self) -> crate::pretty::Size;
    /// The time now.
    fn now(&self) -> tenon_engine::Time;
    /// What attempts wait for, since the last call: TaskRun, what, done, total.
    fn progress(&mut self) -> Vec<(String, String, u64, u64)> {
        Vec::new()
    }
    /// A remark to the user: the latest one.
    fn note(&self) -> String {
        String::new()
    }
}

/// [`crate::pretty::Pretty`] with its terminal.
pub struct Screen<T> {
    pretty: crate::pretty::Pretty,
    terminal: T,
    live: bool,
    text: String,
}

impl<T: Terminal> Screen<T> {
    /// Shows runs on `terminal`.
    pub fn new(options: crate::pretty::Options, terminal: T) -> Screen<T> {
        Screen {
            pretty: crate::pretty::Pretty::new(options),
            terminal,
            live: options.live,
            text: String::new(),
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>) {
        let (now, size) = (self.terminal.now(), self.terminal.size());
        self.pretty.frame(now, size, &mut self.text);
        out.extend_from_slice(self.text.as_bytes());
        self.text.clear();
    }
}

impl<T: Terminal> Show for Screen<T> {
    fn event(&mut self, stored: &Stored, filter: &Filter, out: &mut Vec<u8>) -> Result<(), String> {
        let event = stored.event()?;
        let shown = filter.is_open() || filter.admits(&event);
        let size = self.terminal.size();
        self.pretty.event(&event, stored.chunk(), shown, size)?;
        if self.pretty.pending() >= BATCH {
            self.frame(out);
        }
        Ok(())
    }

    fn idle(&mut self, out: &mut Vec<u8>) {
        for (task_run, what, done, total) in self.terminal.progress() {
            self.pretty.progress(&task_run, &what, done, total);
        }
        self.pretty.note(&self.terminal.note());
        self.frame(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let size = self.terminal.size();
        self.pretty.close(size, &mut self.text);
        out.extend_from_slice(self.text.as_bytes());
        self.text.clear();
    }

    fn pace(&self) -> Duration {
        match self.live {
            true => Duration::from_millis(100),
            false => Duration::from_secs(1),
        }
    }
}
