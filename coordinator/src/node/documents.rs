//! What is kept of a run besides its state: its submission, its objects, its events.

use std::sync::Arc;

use tenon_engine::{RunId, Submission};
use tokio::sync::watch;

use super::Handle;
use crate::coordinator::RequestError;
use crate::event_log::{DocumentKind, EventLogReader, Record};
use crate::materials::Materials;
use crate::replica::{RunIndex, RunRecord};
use crate::server::{EventSource, Fault, Result};

impl Handle {
    /// What a run was submitted with.
    pub(super) fn submission(&self, run: RunId) -> Result<(Submission, Materials, RunRecord)> {
        let member = self.joined()?;
        let record = member.index.get(run)?.ok_or_else(|| Fault::no_such_run(run))?;
        let content = document(&member.events, record.submission, DocumentKind::Submission)?;
        let damaged = || Fault::internal("the stored submission is damaged");
        let (length, rest) = content.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (json, sealed) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let submission = serde_json::from_slice(json).map_err(|_| damaged())?;
        let materials = match &self.options().key {
            Some(key) => key.open(run, sealed).map_err(Fault::internal)?,
            None if sealed.is_empty() => Materials::default(),
            None => return Err(RequestError::NoKey.into()),
        };
        Ok((submission, materials, record))
    }

    /// Where the final objects of a run are, or that it goes on.
    pub(super) fn objects_of(record: &RunRecord) -> Result<u64> {
        record.objects.ok_or_else(|| {
            Fault::new("conflict/run-active", format!("run {} goes on", record.summary.id))
                .hint("wait for its end, or cancel it")
        })
    }
}

/// A document of a run, out of the event log.
pub(super) fn document(events: &EventLogReader, at: u64, kind: DocumentKind) -> Result<Vec<u8>> {
    let gone = || Fault::new("gone/history", "the run's documents are no longer kept on this node");
    let records = events.read(at, 1)?;
    let (_, record) = records.first().filter(|(index, _)| *index == at).ok_or_else(gone)?;
    match Record::parse(record).map_err(Fault::internal)? {
        Record::Document { kind: found, content, .. } if found == kind => Ok(content),
        _ => Err(Fault::internal("another record is where a document should be")),
    }
}

/// The event log for the server's streams.
pub(super) struct Events {
    pub(super) reader: EventLogReader,
    pub(super) index: RunIndex,
}

impl EventSource for Events {
    fn visible(&self) -> watch::Receiver<u64> {
        self.reader.watch()
    }

    fn first_index(&self) -> u64 {
        self.reader.first_index()
    }

    fn read_memory(&self, from: u64, max_bytes: usize) -> Option<Vec<(u64, Arc<[u8]>)>> {
        self.reader.read_tail(from, self.reader.visible(), max_bytes)
    }

    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Arc<[u8]>)>> {
        Ok(self.reader.read(from, max_bytes)?)
    }

    fn after(&self, seq: u64) -> Result<u64> {
        Ok(self.reader.after(seq)?)
    }

    fn ranges_of(&self, run: RunId, from: u64) -> Result<Vec<(u64, u64)>> {
        let ranges = self.index.events(run, from)?;
        Ok(ranges.into_iter().map(|(first, end)| (first, end - 1)).collect())
    }
}
