//! Removing old runs.
//!
//! A run that is being written is never removed, whatever the policy says.

use std::fs;
use std::path::Path;

use serde::Serialize;
use tenon_engine::{RunId, Time};

use super::store::is_live;
use super::{Store, Summary};
use crate::{Error, Result};

/// Which runs to remove: those that any rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrunePolicy {
    /// Keep only so many of the newest runs.
    pub keep: Option<usize>,
    /// Remove runs that began before this.
    pub before: Option<Time>,
}

/// A run that was, or with a dry run would be, removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pruned {
    /// Its id.
    pub id: RunId,
    /// Its summary, if that could be read.
    pub run: Option<Summary>,
    /// How much space its files take.
    pub bytes: u64,
}

impl Store {
    /// Removes runs by `policy`, newest first in the answer; only says which with `dry_run`.
    pub fn prune(&self, policy: PrunePolicy, dry_run: bool) -> Result<Vec<Pruned>> {
        let mut pruned = Vec::new();
        for (position, id) in self.ids()?.into_iter().enumerate() {
            let began = Time(i64::try_from(id.0.timestamp_ms()).unwrap_or(i64::MAX));
            let surplus = policy.keep.is_some_and(|keep| position >= keep);
            let old = policy.before.is_some_and(|before| began < before);
            let dir = self.run_dir(id);
            if !(surplus || old) || is_live(&dir) {
                continue;
            }
            let run = self.summary(id).ok();
            let bytes = size(&dir);
            if !dry_run {
                fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
            }
            pruned.push(Pruned { id, run, bytes });
        }
        Ok(pruned)
    }
}

/// Sum of the lengths of all files below `dir`; what cannot be read counts as nothing.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
