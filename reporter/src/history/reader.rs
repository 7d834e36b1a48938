//! Reading the events of a run, from the first to the last, waiting for more while the run goes
//! on. Live output and replay are this one path.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tenon_engine::{Event, RunId};
use tenon_journal::output;

use super::log::Tail;
use super::signal::{Signal, State, Watch};
use super::{record, store};
use crate::{Error, Result};

/// One stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    record: Vec<u8>,
    header: usize,
}

impl Stored {
    /// Takes the bytes of a record; what is wrong with them otherwise.
    pub fn new(record: Vec<u8>) -> Result<Stored, String> {
        let header = record::decode(&record)?.0.len();
        Ok(Stored { record, header })
    }

    /// The event's contract line, without its newline. Of step output it is the line's frame: keys
    /// of the first line, without `stream` and `line`.
    pub fn header(&self) -> &[u8] {
        &self.record[4..4 + self.header]
    }

    /// The packed lines of step output; empty for every other event.
    pub fn chunk(&self) -> &[u8] {
        &self.record[4 + self.header..]
    }

    /// The event as a value, without its packed lines.
    pub fn event(&self) -> Result<Event, String> {
        serde_json::from_slice(self.header()).map_err(|error| error.to_string())
    }

    /// How many `seq` and `runSeq` numbers the event takes: one, or one for each packed line.
    pub fn numbers(&self) -> Result<u64, String> {
        if self.chunk().is_empty() {
            return Ok(1);
        }
        let chunk = output::unpack(self.chunk()).map_err(|error| error.to_string())?;
        Ok(chunk.len().max(1) as u64)
    }
}

/// What [`RunReader::next`] found.
#[derive(Debug)]
pub enum Next {
    /// The next event.
    Event(Stored),
    /// Nothing new within the time; the run goes on.
    Idle,
    /// The writer is gone and everything has been read: after `run-end`, or after a death.
    End,
}

/// Reads one run's events in order.
pub struct RunReader {
    dir: PathBuf,
    run: RunId,
    tail: Tail,
    source: Source,
}

enum Source {
    /// This process writes the run.
    Here { signal: Arc<Signal>, seen: State },
    /// Another process writes it, or nobody does.
    Elsewhere { watch: Option<Watch>, live: bool },
}

impl RunReader {
    pub(super) fn open(dir: PathBuf, run: RunId) -> Result<RunReader> {
        if !dir.is_dir() {
            return Err(Error::NotFound(run.to_string()));
        }
        let source = match Signal::find(&dir) {
            Some(signal) => Source::Here { seen: signal.state(), signal },
            None => {
                let live = store::is_live(&dir);
                let watch = if live { Watch::new(&dir) } else { None };
                Source::Elsewhere { watch, live }
            }
        };
        Ok(RunReader { tail: Tail::open(&dir, &run.to_string())?, dir, run, source })
    }

    /// The run's id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The next event; waits for it up to `timeout` while the run goes on.
    pub fn next(&mut self, timeout: Duration) -> Result<Next> {
        // Whether the writer lives is asked before the journal is read: what it wrote before it
        // went is then surely seen.
        let over = self.is_over();
        if let Some(stored) = self.visible()? {
            return Ok(Next::Event(stored));
        }
        if over {
            return Ok(Next::End);
        }
        if timeout.is_zero() {
            return Ok(Next::Idle);
        }
        match &mut self.source {
            Source::Here { signal, seen } => *seen = signal.wait(*seen, timeout),
            Source::Elsewhere { watch, live } => {
                match watch {
                    Some(watch) => watch.wait(timeout),
                    None => std::thread::park_timeout(timeout),
                }
                *live = store::is_live(&self.dir);
            }
        }
        match self.visible()? {
            Some(stored) => Ok(Next::Event(stored)),
            None => Ok(Next::Idle),
        }
    }

    /// The next record that may be shown.
    fn visible(&mut self) -> Result<Option<Stored>> {
        match &self.source {
            Source::Here { signal, .. } => {
                let State { visible, closed } = signal.state();
                // What a writer leaves behind unsynced when it goes is for whoever reads files.
                if !closed && self.tail.position() > visible {
                    return Ok(None);
                }
            }
            Source::Elsewhere { .. } => {}
        }
        self.tail.next()
    }

    fn is_over(&self) -> bool {
        match &self.source {
            Source::Here { signal, .. } => signal.state().closed,
            Source::Elsewhere { live, .. } => !live,
        }
    }
}
