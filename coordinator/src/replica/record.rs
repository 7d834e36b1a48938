//! What is known of a run without its events, and where it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_engine::{Claim, RunId};
use tenon_reporter::history::Summary;

/// A run as lists and look-ups show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// Status, times and counts.
    pub summary: Summary,
    /// Log index of the last change: Kubernetes' `resourceVersion`.
    pub changed: u64,
    /// Where in the event log its submission is.
    pub submission: u64,
    /// Where in the event log its final objects are, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Labels of the run object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where its claims live, once it is over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<String, Claim>,
    /// `seq` of its last event.
    #[serde(default)]
    pub last_seq: u64,
}

/// A submission's idempotency key, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    /// The run that it started.
    pub run: RunId,
    /// SHA-256 of the request, hex.
    pub request: String,
}

/// Keys of the store.
pub(crate) mod keys {
    use tenon_engine::RunId;

    pub const META: &[u8] = b"meta";
    /// [`tenon_trust::Trust`] as JSON.
    pub const TRUST: &[u8] = b"trust";
    pub const RUN: &str = "run/";

    fn of(prefix: &str, run: RunId) -> Vec<u8> {
        format!("{prefix}{run}").into_bytes()
    }

    /// [`super::RunRecord`] as JSON.
    pub fn run(run: RunId) -> Vec<u8> {
        of(RUN, run)
    }

    /// [`super::super::ranges::Ranges`].
    pub fn ranges(run: RunId) -> Vec<u8> {
        of("events/", run)
    }

    /// The engine's state of a run that goes on, compressed.
    pub const ENGINE: &str = "engine/";
    pub fn engine(run: RunId) -> Vec<u8> {
        of(ENGINE, run)
    }

    /// The sealed materials of a run that goes on.
    pub fn materials(run: RunId) -> Vec<u8> {
        of("materials/", run)
    }

    /// [`super::KeyRecord`] as JSON.
    pub fn idempotency(namespace: &str, key: &str) -> Vec<u8> {
        format!("key/{namespace}\0{key}").into_bytes()
    }

    /// The run whose key this is.
    pub fn parse(key: &[u8], prefix: &str) -> Option<RunId> {
        std::str::from_utf8(key).ok()?.strip_prefix(prefix)?.parse().ok()
    }
}
