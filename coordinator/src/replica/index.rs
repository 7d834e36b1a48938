//! All runs as readers see them: those that changed since the last persist point from memory, the
//! others from the store. Answers come from what this member has applied.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenon_engine::RunId;
use tenon_store::Store;

use super::ranges::Ranges;
use super::record::{RunRecord, keys};
use crate::error::{Error, Result};

/// A run that the store does not know in its present state.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub record: RunRecord,
    pub ranges: Ranges,
    pub materials: Arc<[u8]>,
    /// It is over and needs to be here only until the store has it.
    pub over: bool,
}

/// Readers' view of the runs; cheap to clone.
#[derive(Clone)]
pub struct RunIndex {
    store: Arc<dyn Store>,
    recent: Arc<Mutex<BTreeMap<RunId, Recent>>>,
}

impl RunIndex {
    pub(super) fn new(store: Arc<dyn Store>) -> RunIndex {
        RunIndex { store, recent: Arc::default() }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, BTreeMap<RunId, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One run.
    pub fn get(&self, run: RunId) -> Result<Option<RunRecord>> {
        if let Some(recent) = self.recent().get(&run) {
            return Ok(Some(recent.record.clone()));
        }
        self.store.get(&keys::run(run))?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Where the run's events are in the event log, from record `from` on.
    pub fn events(&self, run: RunId, from: u64) -> Result<Vec<(u64, u64)>> {
        if let Some(recent) = self.recent().get(&run) {
            return Ok(recent.ranges.from(from));
        }
        let Some(bytes) = self.store.get(&keys::ranges(run))? else { return Ok(Vec::new()) };
        let ranges = Ranges::decode(&bytes)
            .ok_or_else(|| Error::Record(format!("the ranges of run {run} are damaged")))?;
        Ok(ranges.from(from))
    }

    /// Visits runs from the newest to the oldest, beginning below `before`, until told to stop.
    pub fn visit(
        &self,
        before: Option<RunId>,
        visit: &mut dyn FnMut(RunRecord) -> ControlFlow<()>,
    ) -> Result<()> {
        let below = |run: &RunId| before.is_none_or(|before| *run < before);
        // First memory, then the store: a run that moves in between is met twice, never missed.
        let mut recent: Vec<RunRecord> = self
            .recent()
            .iter()
            .filter(|(run, _)| below(run))
            .map(|(_, recent)| recent.record.clone())
            .collect();
        let end = before.map_or_else(|| b"run0".to_vec(), keys::run);
        let range = (Bound::Included(keys::RUN.as_bytes().to_vec()), Bound::Excluded(end));
        let mut failure = None;
        let mut stopped = false;
        self.store.scan(range, true, &mut |key, value| {
            let Some(run) = keys::parse(key, keys::RUN) else { return ControlFlow::Continue(()) };
            while recent.last().is_some_and(|record| record.summary.id > run) {
                let Some(record) = recent.pop() else { break };
                if visit(record).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let newer = recent.pop_if(|record| record.summary.id == run);
            let record = match newer.map_or_else(|| decode(value), Ok) {
                Ok(record) => record,
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let flow = visit(record);
            stopped = flow.is_break();
            flow
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        while !stopped {
            let Some(record) = recent.pop() else { break };
            stopped = visit(record).is_break();
        }
        Ok(())
    }

    /// Bytes of the store on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}

fn decode(bytes: &[u8]) -> Result<RunRecord> {
    serde_json::from_slice(bytes).map_err(|error| Error::Record(error.to_string()))
}
