//! Where the events of applied commands go.
//!
//! A member of a cluster keeps one log of all runs ([`crate::event_log`]); `tenon run` keeps a
//! directory for each run, which other processes follow ([`tenon_reporter::history`]).

use std::collections::BTreeMap;

use tenon_engine::{Event, RunId, RunOutcome, Submission, Time};
use tenon_reporter::history::{RunWriter, Store};
use tenon_tekton::Object;

use crate::error::{Error, Result};
use crate::event_log::{DocumentKind, EventLog};
use crate::history;

/// Takes the history of runs; returns where each part went.
pub enum Recorder {
    /// One log for all runs.
    Log(EventLog),
    /// A directory for each run.
    Directories(RunDirectories),
}

impl Recorder {
    /// A run begins.
    pub(crate) fn begin(
        &mut self,
        submission: &Submission,
        time: Time,
        materials: &[u8],
    ) -> Result<u64> {
        match self {
            Recorder::Log(log) => {
                let json = serde_json::to_vec(submission)
                    .map_err(|error| Error::Record(error.to_string()))?;
                let mut content = (json.len() as u64).to_le_bytes().to_vec();
                content.extend_from_slice(&json);
                content.extend_from_slice(materials);
                log.append_document(DocumentKind::Submission, submission.run_id, &content)
            }
            Recorder::Directories(runs) => runs.begin(submission, time).map(|()| 0),
        }
    }

    /// An event happened.
    pub(crate) fn event(&mut self, event: &Event) -> Result<u64> {
        match self {
            Recorder::Log(log) => log.append_event(event),
            Recorder::Directories(runs) => runs.event(event).map(|()| 0),
        }
    }

    /// A run is over.
    pub(crate) fn finish(
        &mut self,
        run: RunId,
        outcome: &RunOutcome,
        objects: &[Object],
    ) -> Result<u64> {
        match self {
            Recorder::Log(log) => {
                log.append_document(DocumentKind::Objects, run, &history::objects_to_json(objects))
            }
            Recorder::Directories(runs) => {
                let yaml = history::objects_to_yaml(&history::shown(objects.to_vec()));
                runs.finish(run, outcome, &yaml).map(|()| 0)
            }
        }
    }

    /// Shows what was taken to readers.
    pub(crate) fn publish(&mut self) -> Result<()> {
        match self {
            Recorder::Log(log) => {
                log.publish();
                Ok(())
            }
            Recorder::Directories(runs) => runs.publish(),
        }
    }

    /// Makes what was taken durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        match self {
            Recorder::Log(log) => log.sync(),
            // The log of commands makes them again; a finished run was synced.
            Recorder::Directories(_) => Ok(()),
        }
    }

    /// Index of the next record.
    pub(crate) fn next(&self) -> u64 {
        match self {
            Recorder::Log(log) => log.next(),
            Recorder::Directories(_) => 1,
        }
    }

    /// The log, where there is one.
    pub fn log(&mut self) -> Option<&mut EventLog> {
        match self {
            Recorder::Log(log) => Some(log),
            Recorder::Directories(_) => None,
        }
    }
}

/// A directory for each run, and the writers of those that go on.
pub struct RunDirectories {
    store: Store,
    writers: BTreeMap<RunId, RunWriter>,
    touched: Vec<RunId>,
    /// After a crash: continue histories that are there already, and leave out what they have.
    resume: bool,
    /// Runs whose history this process wrote, resumed ones included.
    written: Vec<RunId>,
}

impl RunDirectories {
    /// Histories in `store`. With `resume` they may exist already, from a process that died.
    pub fn new(store: Store, resume: bool) -> RunDirectories {
        RunDirectories {
            store,
            writers: BTreeMap::new(),
            touched: Vec::new(),
            resume,
            written: Vec::new(),
        }
    }

    /// Runs whose histories were begun or continued.
    pub(crate) fn written(&self) -> &[RunId] {
        &self.written
    }

    fn begin(&mut self, submission: &Submission, time: Time) -> Result<()> {
        let run = submission.run_id;
        let writer = if self.resume && self.store.run_dir(run).exists() {
            if self.store.objects(run)?.is_some() {
                // It was over and all of it written.
                return Ok(());
            }
            self.store.resume(run)?
        } else {
            self.store.create(history::summary_of(submission, time))?
        };
        self.writers.insert(run, writer);
        self.written.push(run);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let Some(run) = event.run_id else { return Ok(()) };
        if let Some(writer) = self.writers.get_mut(&run)
            && event.run_seq.is_none_or(|number| number > writer.last_run_seq())
        {
            writer.append([event])?;
            if self.touched.last() != Some(&run) {
                self.touched.push(run);
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        for run in self.touched.drain(..) {
            if let Some(writer) = self.writers.get_mut(&run) {
                writer.flush()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, run: RunId, outcome: &RunOutcome, yaml: &str) -> Result<()> {
        if let Some(writer) = self.writers.remove(&run) {
            writer.finish(yaml, outcome.rejected.then_some(4))?;
        }
        Ok(())
    }
}
