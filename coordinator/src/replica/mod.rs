//! One member's copy of the replicated state: committed entries go in, in order; events, answers and
//! finished runs come out.
//!
//! Applying is a pure function of the state and the entry (invariant 2), and touches no disk but to
//! append to the event log. At a *persist point* the event log is synced, then one atomic batch
//! brings the store from one applied index to the next, then the store is synced; only then may the
//! log be compacted up to there. After a crash the log is applied again from the stored index.

mod agents;
mod apply;
mod index;
mod lives;
mod meta;
mod persist;
pub(crate) mod ranges;
mod record;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenon_engine::{AttemptId, Engine, RunId, RunOutcome};
use tenon_store::Store;
use tenon_tekton::Object;

pub use agents::{AgentChange, AgentRecord, Drain, Offer};
pub use index::RunIndex;
pub use meta::{ClusterId, Configuration, Member, Meta};
pub use record::RunRecord;
pub use trust::TrustView;

use crate::entry::RequestId;
use crate::error::{Error, Result};
use crate::recorder::Recorder;
use record::{KeyRecord, keys};

/// What somebody asked for led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A submission: its run.
    Submitted {
        /// The run.
        run: RunId,
        /// It was there already, started by an earlier submission with the same key.
        existing: bool,
    },
    /// Another request has used the idempotency key.
    KeyConflict {
        /// The run that it started.
        run: RunId,
    },
    /// It is done, or there was nothing to do.
    Done {
        /// Log index of the command.
        index: u64,
    },
    /// There is no such run.
    NoSuchRun(RunId),
    /// The run is over: there was nothing to do.
    Over(RunId),
    /// The id of a new node.
    NewNode(u64),
    /// A change of trust was made, or refused.
    Trust(Result<tenon_trust::Done, tenon_trust::Refusal>),
    /// There is no such agent.
    NoSuchAgent(String),
    /// The agent cannot be removed, because it has so many attempts.
    AgentInUse(u32),
}

/// A run that is over and has left the engine.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Which run.
    pub run: RunId,
    /// How it ended.
    pub outcome: RunOutcome,
    /// The run object, then its TaskRuns and CustomRuns, with placeholders of secret values: not yet
    /// as people may see them ([`crate::history`]).
    pub objects: Vec<Object>,
    /// The agents that still hold something of it.
    pub agents: BTreeSet<String>,
    /// Whether its claims are worth keeping: another run may go on with them.
    pub keep_claims: bool,
}

/// What applying led to, besides the state.
#[derive(Debug, Default)]
pub struct Effects {
    /// Answers to proposals of any member.
    pub replies: Vec<(RequestId, Reply)>,
    /// Runs in which something has changed.
    pub changed: BTreeSet<RunId>,
    /// Runs that are to be killed, not asked to end.
    pub hurried: Vec<RunId>,
    /// Runs that are over.
    pub retired: Vec<Retired>,
    /// Reports that are applied: agent, its life, and the number.
    pub reports: Vec<(String, String, u64)>,
    /// Agents that were given up.
    pub lost: Vec<String>,
    /// Attempts that were to be placed on an agent that was given up.
    pub unplaced: Vec<AttemptId>,
    /// Agents about which something was decided.
    pub decided: BTreeSet<String>,
    /// Agents that got an attempt or lost one.
    pub moved: BTreeSet<String>,
    /// The member that leads from here on, and its term.
    pub leader: Option<(u64, u64)>,
    /// Events that were recorded.
    pub events: u64,
    /// Reports of what another agent has been given, which changed nothing: agent and attempt.
    pub forged: Vec<(String, AttemptId)>,
    /// The members, or where they are reached, have changed.
    pub members_changed: bool,
}

/// One member's copy of the state.
pub struct Replica {
    meta: Meta,
    engine: Engine,
    index: RunIndex,
    trust: TrustView,
    store: Arc<dyn Store>,
    recorder: Recorder,
    /// Idempotency keys that the store does not have yet.
    keys: BTreeMap<Vec<u8>, KeyRecord>,
    /// Runs that differ from what the store has.
    dirty: BTreeSet<RunId>,
    unpersisted: u64,
    persisted: u64,
    /// Nothing was applied since the start.
    restarted: bool,
}

impl Replica {
    /// The state that is in the store; of a new node, nothing. `record` makes the recorder for a
    /// state whose next record has this index.
    pub fn open(
        store: Arc<dyn Store>,
        record: impl FnOnce(u64) -> Result<Recorder>,
    ) -> Result<Replica> {
        let mut meta = Meta { next_seq: 1, next_record: 1, next_node: 1, ..Meta::default() };
        if let Some(bytes) = store.get(keys::META)? {
            meta =
                serde_json::from_slice(&bytes).map_err(|error| Error::Record(error.to_string()))?;
        }
        let recorder = record(meta.next_record)?;
        let mut replica = Replica {
            engine: Engine::new(),
            index: RunIndex::new(store.clone()),
            trust: TrustView::default(),
            store,
            recorder,
            keys: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unpersisted: 0,
            persisted: meta.applied,
            restarted: true,
            meta,
        };
        replica.load_trust()?;
        replica.load_runs()?;
        Ok(replica)
    }

    /// Makes a new node the first member of a new cluster: what every member begins with.
    pub fn bootstrap(&mut self, cluster: &str, node: u64, member: Member) -> Result<()> {
        self.meta.cluster = cluster.to_owned();
        self.meta.applied = 1;
        self.meta.term = 1;
        self.meta.configuration = Configuration { voters: vec![node], ..Configuration::default() };
        self.meta.members = BTreeMap::from([(node, member)]);
        self.meta.next_node = node + 1;
        self.persist()
    }

    /// Makes the state that of a new cluster with one member: after a restore or a rescue.
    pub fn found_anew(
        &mut self,
        cluster: &str,
        node: u64,
        member: Member,
        configuration: Configuration,
    ) -> Result<()> {
        self.meta.cluster = cluster.to_owned();
        self.meta.configuration = configuration;
        self.meta.members = BTreeMap::from([(node, member)]);
        self.meta.next_node = node + 1;
        self.persisted = 0;
        self.persist()
    }

    /// The state besides the runs.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The runs that go on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether a run that goes on uses claims in the directory of another one.
    pub fn uses_claims_of(&self, other: RunId) -> bool {
        let mut runs = self.engine.runs().filter(|run| self.engine.claims_run(*run) != Some(*run));
        runs.any(|run| self.engine.claims(run).any(|(_, claim)| claim.owner == Some(other)))
    }

    /// All runs, for readers.
    pub fn index(&self) -> &RunIndex {
        &self.index
    }

    /// Whom the cluster trusts, for readers.
    pub fn trust(&self) -> &TrustView {
        &self.trust
    }

    /// Where events go.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// The sealed materials of a run that goes on.
    pub fn materials(&self, run: RunId) -> Option<Arc<[u8]>> {
        self.index.recent().get(&run).map(|recent| recent.materials.clone())
    }

    /// The index that the store has; the log may be compacted up to here.
    pub fn persisted(&self) -> u64 {
        self.persisted
    }

    /// Bytes of entries that were applied since the last persist point.
    pub fn unpersisted(&self) -> u64 {
        self.unpersisted
    }
}
