//! `tenon logs`: the stored events of a run, for people or as exactly the bytes of `run -o json`.

use std::io;
use std::path::Path;
use std::time::Duration;

use tenon_coordinator::intake::did_you_mean;
use tenon_engine::{Kind, Time};
use tenon_reporter::filter::{Filter, parse_kind};
use tenon_reporter::follow::{Finish, Screen, Show, Terminal, follow};
use tenon_reporter::history::{Next, RunStatus, Store};
use tenon_reporter::json::Lines;
use tenon_reporter::pretty::{Options, Size};

use crate::args::{EventsOutput, LogsArgs};
use crate::exit::{Exit, Failure};
use crate::names::Names;
use crate::terminal;

/// A terminal on which nothing moves.
pub struct Still;

impl Terminal for Still {
    fn size(&self) -> Size {
        terminal::size()
    }

    fn now(&self) -> Time {
        terminal::now()
    }
}

/// The kinds that a run's events may have, for suggestions.
const KINDS: [&str; 22] = [
    "run-queued",
    "run-start",
    "run-end",
    "task-queued",
    "task-start",
    "task-retry",
    "task-lost",
    "task-end",
    "task-skip",
    "step-start",
    "step-log",
    "step-end",
    "sidecar-start",
    "sidecar-log",
    "sidecar-end",
    "resolver-start",
    "resolver-end",
    "agent-up",
    "agent-down",
    "leader-change",
    "error",
    "debug",
];

/// `tenon logs`.
pub fn logs(args: &LogsArgs, state_dir: &Path) -> Result<Exit, Failure> {
    let store = Store::new(state_dir);
    let run = store.find(&args.run)?;
    let filter = filter(args)?;
    // Of a run that goes on and is followed, it may still come.
    let may_come = args.follow && run.status == RunStatus::Running;
    if !may_come && (args.task.is_some() || args.step.is_some()) {
        let mut names = Names::default();
        let mut reader = store.reader(run.id)?;
        while let Next::Event(stored) = reader.next(Duration::ZERO)? {
            names.see(stored.header());
        }
        names.check(&run.name, args.task.as_deref(), args.step.as_deref())?;
    }
    let mut reader = store.reader(run.id)?;
    let mut show: Box<dyn Show> = match args.output {
        EventsOutput::Json => Box::new(Lines::new()),
        EventsOutput::Pretty => {
            let options = Options {
                style: terminal::stdout_style(),
                live: false,
                quiet: false,
                // Who asks for kinds wants to see them; else logs are what steps print.
                logs_only: filter.kinds.is_empty(),
                refusals_told: false,
            };
            Box::new(Screen::new(options, Still))
        }
    };
    let finish = follow(&mut reader, &filter, &mut *show, &mut io::stdout(), args.follow)?;
    if finish == Finish::NoMore && run.status == RunStatus::Interrupted {
        terminal::note("the run was interrupted: this is all there is");
    }
    Ok(Exit::Success)
}

fn filter(args: &LogsArgs) -> Result<Filter, Failure> {
    let kinds = kinds(&args.kind)?;
    Ok(Filter { kinds, task: args.task.clone(), step: args.step.clone(), since: args.since })
}

/// The kinds of events with these names.
pub fn kinds(names: &[String]) -> Result<Vec<Kind>, Failure> {
    let mut kinds = Vec::new();
    for name in names.iter().flat_map(|kinds| kinds.split(',')) {
        let Some(kind) = parse_kind(name) else {
            let failure =
                Failure::new(Exit::Usage, format!("--kind {name}: no such kind of event"));
            let help = did_you_mean(name, &KINDS);
            return Err(
                failure.hint(help.unwrap_or_else(|| format!("kinds: {}", KINDS.join(", "))))
            );
        };
        kinds.push(kind);
    }
    Ok(kinds)
}
