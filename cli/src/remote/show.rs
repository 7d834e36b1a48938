//! Showing the events of a cluster with what shows those of this machine.
//!
//! The display is on a thread of its own, so that a slow reader of stdout slows down nothing else.

use std::time::Duration;

use tenon_client::Events;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Finish, Show, Source, follow};
use tenon_reporter::history::{Next, Stored};
use tenon_reporter::line::Restore;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::exit::{Exit, Failure};

/// Events that may be ahead of the display.
const AHEAD: usize = 1024;

/// Lines become events on their way to a display.
struct Lines {
    run: String,
    lines: mpsc::Receiver<Vec<u8>>,
    runtime: Handle,
    /// Of displays for people; else lines are shown as they are.
    restore: Option<Restore>,
}

impl Source for Lines {
    fn next(&mut self, timeout: Duration) -> Result<Next, tenon_reporter::Error> {
        let line = match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) if timeout.is_zero() => return Ok(Next::Idle),
            Err(mpsc::error::TryRecvError::Empty) => {
                let wait = async { tokio::time::timeout(timeout, self.lines.recv()).await };
                match self.runtime.block_on(wait) {
                    Ok(line) => line,
                    Err(_) => return Ok(Next::Idle),
                }
            }
        };
        let Some(line) = line else { return Ok(Next::End) };
        let stored: Result<Stored, String> = match &mut self.restore {
            Some(restore) => restore.event(&line),
            None => Restore::verbatim(&line),
        };
        let wrong =
            |detail| tenon_reporter::Error::Record { run: self.run.clone(), index: 0, detail };
        stored.map(Next::Event).map_err(wrong)
    }

    fn run(&self) -> String {
        self.run.clone()
    }
}

/// Where a display writes, and how.
pub struct To {
    /// How it shows.
    pub show: Box<dyn Show + Send>,
    /// Where it writes.
    pub output: Box<dyn std::io::Write + Send>,
    /// Lines are not taken apart.
    pub verbatim: bool,
}

/// A display that runs, and ends behind the last line.
pub struct Display {
    /// Where lines go; dropped when no more come.
    pub lines: mpsc::Sender<Vec<u8>>,
    /// How it ended.
    pub ended: JoinHandle<Result<Finish, tenon_reporter::Error>>,
}

impl Display {
    /// Starts a display of a run.
    pub fn start(run: String, mut to: To) -> Display {
        let (lines, receiver) = mpsc::channel(AHEAD);
        let runtime = Handle::current();
        let restore = (!to.verbatim).then(Restore::default);
        let mut source = Lines { run, lines: receiver, runtime, restore };
        let ended = tokio::task::spawn_blocking(move || {
            follow(&mut source, &Filter::default(), &mut *to.show, &mut to.output, true)
        });
        Display { lines, ended }
    }
}

/// Shows what comes until nothing more does, or until the display has ended before.
pub async fn feed(lines: mpsc::Sender<Vec<u8>>, mut events: Events) -> Result<(), Failure> {
    loop {
        let batch = tokio::select! {
            batch = events.next() => batch?,
            () = lines.closed() => return Ok(()),
        };
        let Some(batch) = batch else { return Ok(()) };
        for line in batch.lines {
            if lines.send(line.to_vec()).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// How a display ended.
pub fn finish(
    ended: Result<Result<Finish, tenon_reporter::Error>, tokio::task::JoinError>,
) -> Result<Finish, Failure> {
    match ended {
        Ok(finish) => Ok(finish?),
        Err(error) => Err(Failure::new(Exit::Internal, format!("the display failed: {error}"))),
    }
}
