//! Persist points: from the state in memory to the store, and back at the start.

use std::ops::{Bound, ControlFlow};

use tenon_engine::Engine;
use tenon_journal::bugs;
use tenon_store::Batch;

use super::Replica;
use super::index::Recent;
use super::ranges::Ranges;
use super::record::keys;
use crate::error::{Error, Result};
use crate::pack::pack;

impl Replica {
    /// Brings the runs that go on back into the engine.
    pub(super) fn load_runs(&mut self) -> Result<()> {
        self.engine = Engine::starting_at(self.meta.next_seq);
        self.index.recent().clear();
        let mut packed = Vec::new();
        let prefix = keys::ENGINE.as_bytes().to_vec();
        let range = (Bound::Included(prefix), Bound::Excluded(b"engine0".to_vec()));
        self.store.scan(range, false, &mut |key, value| {
            packed.extend(keys::parse(key, keys::ENGINE).map(|run| (run, value.to_vec())));
            ControlFlow::Continue(())
        })?;
        for (run, packed) in packed {
            let damaged = |what: &str| Error::Record(format!("{what} of run {run} is damaged"));
            let state = zstd::decode_all(packed.as_slice()).map_err(|_| damaged("the state"))?;
            self.engine.import(&state).map_err(|error| Error::Record(error.to_string()))?;
            let record = self.index.get(run)?.ok_or_else(|| damaged("the record"))?;
            let ranges = self.store.get(&keys::ranges(run))?;
            let ranges = ranges.as_deref().and_then(Ranges::decode);
            let materials = self.store.get(&keys::materials(run))?.unwrap_or_default();
            let recent = Recent {
                record,
                ranges: ranges.ok_or_else(|| damaged("the ranges"))?,
                materials: materials.into(),
                over: false,
            };
            self.index.recent().insert(run, recent);
        }
        // What was loaded is what the store has.
        self.engine.take_changed();
        Ok(())
    }

    /// Shows what was applied to readers of the history.
    pub fn publish(&mut self) -> Result<()> {
        self.recorder.publish()
    }

    /// A persist point: what is applied becomes what a restart begins with.
    pub fn persist(&mut self) -> Result<()> {
        if self.persisted == self.meta.applied {
            return Ok(());
        }
        self.recorder.sync()?;
        self.meta.next_record = self.recorder.next();
        let mut batch = Batch::default();
        let mut over = Vec::new();
        let recent = self.index.recent();
        for run in &self.dirty {
            let Some(state) = recent.get(run) else { continue };
            batch.put(keys::run(*run), json(&state.record));
            batch.put(keys::ranges(*run), state.ranges.encode());
            match self.engine.export(*run) {
                Some(exported) => {
                    batch.put(keys::engine(*run), pack(&exported));
                    if !state.materials.is_empty() {
                        batch.put(keys::materials(*run), state.materials.to_vec());
                    }
                }
                None => {
                    batch.delete(keys::engine(*run));
                    batch.delete(keys::materials(*run));
                }
            }
            over.extend(state.over.then_some(*run));
        }
        drop(recent);
        for (id, record) in &self.keys {
            batch.put(id.clone(), json(record));
        }
        if let Some(trust) = self.trust.take_changed() {
            batch.put(keys::TRUST.to_vec(), json(&*trust));
        }
        batch.put(keys::META.to_vec(), json(&self.meta));
        self.store.write(batch)?;
        if !bugs::is_on(bugs::Bug::SkipStateSync) {
            self.store.sync()?;
        }
        let mut recent = self.index.recent();
        for run in over {
            recent.remove(&run);
        }
        drop(recent);
        self.keys.clear();
        self.dirty.clear();
        self.unpersisted = 0;
        self.persisted = self.meta.applied;
        Ok(())
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a record has string keys only, so it is always valid JSON")
}
