//! What a dead process left: its runs are brought to an end that says so.
//!
//! A command log whose lock is free belonged to a process that was killed. Its commands are applied
//! again; events that did not reach the run's journal are appended, so the history is what it would
//! have been; then every run that was not over is abandoned, through the same engine. The agent
//! removes what the dead process's agent left, by label.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tenon_engine::{Command, Engine, Event, RunId, Time};
use tenon_reporter::history::{RunWriter, Store, Summary};

use crate::command_log::{CommandLog, lock_directory};
use crate::error::{Error, Result};
use crate::{history, masking};

/// Why a recovered run ended.
const MESSAGE: &str = "the tenon process that ran this was killed before the run was over; \
                       what it ran has been removed";

/// Ends the runs of dead processes, and says which those were.
pub(crate) fn recover(state_dir: &Path, store: &Store) -> Result<Vec<RunId>> {
    let _recovering = lock_directory(state_dir)?;
    let local = state_dir.join("local");
    let mut recovered = Vec::new();
    for entry in fs::read_dir(&local).map_err(Error::io("read", &local))? {
        let dir = entry.map_err(Error::io("read", &local))?.path();
        if !dir.is_dir() {
            continue;
        }
        if let Some((log, commands)) = CommandLog::open(&dir)? {
            recovered.extend(end_runs(commands, store)?);
            log.remove()?;
        }
    }
    Ok(recovered)
}

/// Applies the commands again and ends what they left open.
fn end_runs(commands: Vec<Command>, store: &Store) -> Result<Vec<RunId>> {
    let mut engine = Engine::new();
    let mut histories = Histories { store, writers: Vec::new() };
    let mut last_time = now();
    for command in commands {
        last_time = last_time.max(command.time());
        if let Command::Submit { time, submission } = &command {
            histories.open(submission.run_id, history::summary_of(submission, *time))?;
        }
        histories.append(engine.apply(command))?;
    }
    let open: Vec<RunId> = engine.runs().filter(|run| engine.outcome(*run).is_none()).collect();
    for run in open {
        let command = Command::Abandon { time: last_time, run, message: MESSAGE.to_owned() };
        histories.append(engine.apply(command))?;
    }
    histories.finish(&engine)
}

/// The histories of the runs that one dead process had.
struct Histories<'a> {
    store: &'a Store,
    writers: Vec<(RunId, Option<RunWriter>)>,
}

impl Histories<'_> {
    /// Opens a run's history: `None` if it was already closed, its run being over.
    fn open(&mut self, run: RunId, summary: Summary) -> Result<()> {
        let writer = if self.store.run_dir(run).exists() {
            match self.store.objects(run)? {
                Some(_) => None,
                None => Some(self.store.resume(run)?),
            }
        } else {
            Some(self.store.create(summary)?)
        };
        self.writers.push((run, writer));
        Ok(())
    }

    /// Appends the events that the dead process did not get to append.
    fn append(&mut self, events: Vec<Event>) -> Result<()> {
        for mut event in events {
            let writer = self.writers.iter_mut().find(|(run, _)| Some(*run) == event.run_id);
            if let Some((_, Some(writer))) = writer
                && event.run_seq > Some(writer.last_run_seq())
            {
                masking::show_event(&mut event);
                writer.append([&event])?;
            }
        }
        Ok(())
    }

    fn finish(self, engine: &Engine) -> Result<Vec<RunId>> {
        let mut ended = Vec::new();
        for (run, writer) in self.writers {
            if let Some(writer) = writer {
                let rejected = engine.outcome(run).is_some_and(|outcome| outcome.rejected);
                let objects = history::objects_to_yaml(&history::shown(engine.objects(run)));
                writer.finish(&objects, rejected.then_some(4))?;
                ended.push(run);
            }
        }
        Ok(ended)
    }
}

fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}
