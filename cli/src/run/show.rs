//! The thread that shows a run while it goes on, by following its stored events.
//!
//! It is a thread of its own so that a slow reader of stdout slows down nothing else.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tenon_engine::Time;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Finish, Screen, Show, Terminal, follow};
use tenon_reporter::history::RunReader;
use tenon_reporter::json::Lines;
use tenon_reporter::pretty::{Options, Size};
use tokio::sync::oneshot;

use super::debug::Debugging;
use crate::args::{Output, RunArgs};
use crate::terminal;

/// What an attempt waits for: TaskRun, what, done, total.
pub type Remark = (String, String, u64, u64);

/// Where remarks about attempts come from.
pub type Remarks = Box<dyn FnMut() -> Vec<Remark> + Send>;

/// A run that is being shown.
pub struct Shown {
    /// Fires when the display has ended.
    pub ended: oneshot::Receiver<()>,
    thread: JoinHandle<Result<Finish, tenon_reporter::Error>>,
    closed: Arc<AtomicBool>,
    note: Arc<Mutex<String>>,
    live: bool,
}

struct Screenful {
    note: Arc<Mutex<String>>,
    remarks: Remarks,
}

impl Terminal for Screenful {
    fn size(&self) -> Size {
        terminal::size()
    }

    fn now(&self) -> Time {
        terminal::now()
    }

    fn progress(&mut self) -> Vec<Remark> {
        (self.remarks)()
    }

    fn note(&self) -> String {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What shows a run, as the command line wants it.
pub struct Shower {
    /// Shows events.
    pub show: Box<dyn Show + Send>,
    /// A remark to the user, if stdout is a live display.
    pub note: Arc<Mutex<String>>,
    /// Whether stdout is one.
    pub live: bool,
}

impl Shower {
    /// Shows as `args` say, with remarks about attempts from `remarks`.
    pub fn new(args: &RunArgs, remarks: Remarks) -> Shower {
        let note = Arc::new(Mutex::new(String::new()));
        let live = args.output == Output::Pretty && !args.quiet && terminal::stdout_is_live();
        let show: Box<dyn Show + Send> = match args.output {
            Output::Json if args.debug => Box::new(Debugging::new(remarks)),
            Output::Json => Box::new(Lines::new()),
            Output::Pretty | Output::Yaml => {
                let options = Options {
                    style: terminal::stdout_style(),
                    live,
                    quiet: args.quiet,
                    logs_only: false,
                    refusals_told: true,
                };
                let screen = Screenful { note: Arc::clone(&note), remarks };
                Box::new(Screen::new(options, screen))
            }
        };
        Shower { show, note, live }
    }
}

/// Where events are written.
pub fn sink(output: Output) -> Box<dyn io::Write + Send> {
    match output {
        Output::Yaml => Box::new(io::sink()),
        _ => Box::new(io::stdout()),
    }
}

/// Starts to show a run.
pub fn show(mut reader: RunReader, args: &RunArgs, remarks: Remarks) -> Shown {
    let output = args.output;
    let Shower { show: mut shower, note, live } = Shower::new(args, remarks);
    let (end, ended) = oneshot::channel();
    let closed = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&closed);
    let thread = thread::spawn(move || {
        let mut sink = sink(output);
        let finish = follow(&mut reader, &Filter::default(), &mut *shower, &mut sink, true);
        // Not to be able to show the run is no reason to go on with it either.
        tell.store(!matches!(finish, Ok(Finish::Ended)), Ordering::Release);
        // Whoever waits may have gone: then nobody needs to be told.
        let _ = end.send(());
        finish
    });
    Shown { ended, thread, closed, note, live }
}

impl Shown {
    /// Whether the display ended before the run did.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether stdout is a live display.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Tells the user something while the run goes on, without disturbing a live display.
    pub fn say(&self, text: &str) {
        if self.live {
            text.clone_into(&mut self.note.lock().unwrap_or_else(PoisonError::into_inner));
        } else {
            terminal::note(text);
        }
    }

    /// Waits until everything is shown.
    pub fn finish(self) -> Result<Finish, tenon_reporter::Error> {
        match self.thread.join() {
            Ok(finish) => finish,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
