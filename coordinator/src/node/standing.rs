//! How a node stands, for whoever must not wait to know: written by its threads now and then.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use tenon_consensus::Status;

use crate::coordinator::Coordinator;

/// What the threads say of themselves.
#[derive(Default)]
pub struct Standing {
    raft: Mutex<Status>,
    state: Mutex<StateView>,
    fleet: Mutex<FleetView>,
    /// Bytes of the Raft log on the disk.
    pub log_bytes: AtomicU64,
}

/// What is behind the log, at one moment.
#[derive(Clone, Debug, Default)]
pub struct StateView {
    /// Log index up to which everything is applied.
    pub applied: u64,
    /// `seq` of the newest event.
    pub last_seq: u64,
    /// The id that the next new node gets, as far as this one knows.
    pub next_node: u64,
    /// Runs that go on.
    pub active_runs: u64,
    /// Proposals of this node that are not applied yet.
    pub under_way: u64,
    /// Runs that wait because their concurrency group is full.
    pub queued_runs: u64,
    /// Tasks that wait for an agent: on the leader only.
    pub waiting: u64,
}

/// The agents behind the log, at one moment. Looking at them takes longer the more there are.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Agents in contact: on the leader only.
    pub agents: u64,
    /// Their slots.
    pub slots: u64,
    /// Agents of the fleet, in contact or not.
    pub known_agents: u64,
    /// Those of them that are cordoned or being drained.
    pub closed_agents: u64,
    /// Tasks that have an agent.
    pub placed: u64,
}

impl Standing {
    /// How Raft stands.
    pub fn raft(&self) -> Status {
        self.raft.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.raft.lock().unwrap_or_else(PoisonError::into_inner).term
    }

    /// What is behind the log.
    pub fn state(&self) -> StateView {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The agents behind it.
    pub fn fleet(&self) -> FleetView {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_raft(&self, status: Status) {
        *self.raft.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(super) fn set_state(&self, state: StateView) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn set_fleet(&self, fleet: FleetView) {
        *self.fleet.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl StateView {
    pub(super) fn of(coordinator: &Coordinator) -> StateView {
        let replica = coordinator.replica();
        StateView {
            applied: replica.meta().applied,
            last_seq: replica.meta().next_seq - 1,
            next_node: replica.meta().next_node,
            active_runs: count(replica.engine().runs().count()),
            under_way: count(coordinator.under_way()),
            queued_runs: count(replica.engine().waiting_in_groups()),
            waiting: count(coordinator.waiting()),
        }
    }
}

impl FleetView {
    pub(super) fn of(coordinator: &Coordinator) -> FleetView {
        let replica = coordinator.replica();
        let running = replica.engine().used();
        let known = || replica.meta().agents.values().filter(|agent| !agent.removed);
        FleetView {
            agents: count(coordinator.agents().count()),
            slots: coordinator.agents().map(|hello| u64::from(hello.slots)).sum(),
            known_agents: count(known().count()),
            closed_agents: count(known().filter(|agent| agent.cordoned).count()),
            placed: running.values().map(|used| u64::from(used.attempts)).sum(),
        }
    }
}
