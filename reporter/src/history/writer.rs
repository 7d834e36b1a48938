//! Writing the history of one run.
//!
//! Events become visible to readers by [`RunWriter::sync`], once they are durable, never before.
//! Whoever drops the writer without a `run-end` leaves a run that reads as `interrupted`.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenon_engine::Event;

use super::log::Log;
use super::signal::Signal;
use super::store::write_atomically;
use super::{RunStatus, Summary, record};
use crate::{Error, Result};

/// The one writer of a run's history.
pub struct RunWriter {
    dir: PathBuf,
    log: Log,
    summary: Summary,
    signal: Arc<Signal>,
    run_seq: u64,
    seq: u64,
    _lock: File,
}

impl RunWriter {
    pub(super) fn create(dir: PathBuf, summary: Summary) -> Result<RunWriter> {
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let lock = lock(&dir, &summary)?;
        let log = Log::open(&dir, &summary.id.to_string())?;
        let writer = RunWriter {
            signal: Signal::register(&dir),
            dir,
            log,
            summary,
            run_seq: 0,
            seq: 0,
            _lock: lock,
        };
        writer.write_summary()?;
        Ok(writer)
    }

    pub(super) fn resume(dir: PathBuf, mut summary: Summary) -> Result<RunWriter> {
        let lock = lock(&dir, &summary)?;
        let log = Log::open(&dir, &summary.id.to_string())?;
        if summary.status == RunStatus::Interrupted {
            summary.status = RunStatus::Running;
        }
        let summary_id = summary.id.to_string();
        // The counts of run.json are those of the run's beginning: the events are the truth.
        let mut recounted = Summary { tasks: super::TaskCounts::default(), ..summary };
        let (mut run_seq, mut seq) = (0, 0);
        for (index, stored) in (0..).zip(log.replay()?) {
            let stored = stored?;
            let damaged = |detail| Error::Record { run: summary_id.clone(), index, detail };
            let event = stored.event().map_err(damaged)?;
            let more = stored.numbers().map_err(damaged)? - 1;
            run_seq = event.run_seq.unwrap_or_default() + more;
            seq = event.seq + more;
            recounted.observe(&event);
        }
        let signal = Signal::register(&dir);
        signal.advance(log.last_index());
        Ok(RunWriter { signal, dir, log, summary: recounted, run_seq, seq, _lock: lock })
    }

    /// Adds events, in order. They are neither durable nor visible before [`RunWriter::sync`].
    pub fn append<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Result<()> {
        for event in events {
            let lines = event.output.as_ref().map_or(1, |output| u64::from(output.lines.max(1)));
            self.run_seq = event.run_seq.unwrap_or_default() + lines - 1;
            self.seq = event.seq + lines - 1;
            self.summary.observe(event);
            self.log.append(&record::encode(event))?;
        }
        Ok(())
    }

    /// Makes everything appended so far durable, then visible.
    pub fn sync(&mut self) -> Result<()> {
        let visible = self.log.sync()?;
        self.signal.advance(visible);
        Ok(())
    }

    /// Makes everything appended so far visible without waiting for the disk: for a caller that
    /// has the same facts durable elsewhere.
    pub fn flush(&mut self) -> Result<()> {
        let visible = self.log.flush()?;
        self.signal.advance(visible);
        Ok(())
    }

    /// The last `runSeq` that was appended; 0 before the first. After [`super::Store::resume`] the
    /// next event continues from here.
    pub fn last_run_seq(&self) -> u64 {
        self.run_seq
    }

    /// The last `seq` that was appended; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// What is known of the run so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The directory of the run, for what belongs to it besides its events.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the history: syncs, stores the final objects (YAML documents, the run first) and the
    /// final summary. `exit_code` overrides what follows from the status (a run that Tekton refuses
    /// while reconciling has 4, not 5).
    pub fn finish(mut self, objects_yaml: &str, exit_code: Option<i32>) -> Result<Summary> {
        if exit_code.is_some() {
            self.summary.exit_code = exit_code;
        }
        write_atomically(&self.dir.join("objects.yaml"), objects_yaml.as_bytes())?;
        self.write_summary()?;
        self.sync()?;
        Ok(self.summary.clone())
    }

    fn write_summary(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.summary)
            .expect("writing JSON into memory because a summary has string keys only");
        write_atomically(&self.dir.join("run.json"), &text)
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        self.signal.close();
    }
}

/// Takes the lock that says that the run goes on.
fn lock(dir: &Path, summary: &Summary) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy(summary.id.to_string())),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
    }
}
