//! What the server needs of the node behind it. The node implements it; the server parses, checks,
//! filters, formats and limits.
//!
//! Everything that may take long has a deadline, and an implementation answers by then: with
//! `unavailable/no-quorum` when nothing can be agreed on, and `deadline/exceeded` otherwise.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tenon_blobs::{ChunkId, Packed};
use tenon_engine::RunId;
use tenon_engine::command::CancelMode;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello};
use tenon_proto::control::v1::{
    Agent, AuditEntry, AuditRequest, ClusterStatus, ExplainRunResponse, ProbeResponse, Run,
};
use tenon_proto::raft::v1::{
    AdoptReply, AdoptRequest, Chunk, ChunksReply, ChunksRequest, FetchRequest, Header,
};
use tenon_trust::{Authority, Done, Trust};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use super::fault::Result;
use super::metrics::Gauges;
use crate::intake::Prepared;

/// Items that come one after the other; an error is the last one.
pub type Items<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// What a client calls a request, so that sending it twice does it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The client's words.
    pub key: String,
    /// SHA-256 of the request, hex: another request may not use the same key.
    pub request: String,
}

/// A run that was started, now or by an earlier request with the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The run.
    pub run: Run,
    /// It was started by an earlier request.
    pub replayed: bool,
}

/// How a run is to be ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Tekton's way.
    pub mode: CancelMode,
    /// Kill instead of asking steps to end.
    pub now: bool,
    /// Why, for people.
    pub message: String,
}

/// A change of the cluster's members or leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make a cluster of this node, then add these.
    Init {
        /// URLs of further, empty nodes.
        peers: Vec<String>,
    },
    /// Add a node.
    Add {
        /// Where it is reached.
        url: String,
        /// Its name; its own when empty.
        name: String,
        /// Without a vote.
        learner: bool,
        /// Only if it is the node with this id.
        only: Option<u64>,
    },
    /// Remove a node.
    Remove {
        /// Its id, name or URL.
        member: String,
        /// Even if the rest would have no quorum of nodes that answer.
        force: bool,
    },
    /// Hand leadership over.
    Transfer {
        /// Id, name or URL of the new leader; any when empty.
        to: String,
    },
}

/// Whether a node can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A leader is known and this node has caught up with it.
    Ready,
    /// It cannot, for this reason.
    NotReady(String),
}

/// A session with an agent, seen from the server.
pub struct Session {
    /// Hears what the agent says after its hello. Dropped when the connection is lost.
    pub to_node: Box<dyn ToNode>,
    /// What it is told; an error ends the session.
    pub from_node: Items<CoordinatorMessage>,
}

/// One direction of a session.
#[tonic::async_trait]
pub trait ToNode: Send + Sync {
    /// Takes what the agent says. Waits while the node has too much to do; false when it has stopped.
    async fn said(&mut self, message: AgentMessage) -> bool;
    /// Cancelled when the other direction has ended.
    fn over(&self) -> &CancellationToken;
}

/// The stored events, in records as [`tenon_reporter::history::encode`] makes them, by index. Between
/// them are records that are no events; a reader skips them.
pub trait EventSource: Send + Sync {
    /// The last record that may be read, as it grows. Closed when the node stops.
    fn visible(&self) -> watch::Receiver<u64>;
    /// The first record that is still there.
    fn first_index(&self) -> u64;
    /// Records from `from` on, at least one if there is one, about `max_bytes` of them; nothing else
    /// than memory is read. `None` if files have to be.
    fn read_memory(&self, from: u64, max_bytes: usize) -> Option<Vec<(u64, Arc<[u8]>)>>;
    /// Likewise, reading files: blocks.
    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Arc<[u8]>)>>;
    /// A record at or before the first one with an event after `seq`: blocks.
    fn after(&self, seq: u64) -> Result<u64>;
    /// Ranges of records (both ends included, ascending) outside of which there is no event of the
    /// run, from record `from` on, as far as they are known now: blocks.
    fn ranges_of(&self, run: RunId, from: u64) -> Result<Vec<(u64, u64)>>;
}

/// What an operator decides about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentDecision {
    /// No new work.
    Cordon,
    /// Work again.
    Uncordon,
    /// No new work, and empty after this time.
    Drain {
        /// In milliseconds; `None` for as long as it takes.
        within_ms: Option<i64>,
    },
    /// It belongs to the fleet no more.
    Remove,
}

/// A node, as the server sees it.
#[tonic::async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    // Runs.

    /// Starts a run. When this returns, it is on the disks of a majority.
    async fn submit(
        &self,
        prepared: Box<Prepared>,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started>;

    /// Ends a run early. `not-found/run`, or `conflict/run-ended` if it is over.
    async fn cancel(&self, run: RunId, cancel: Cancel, deadline: Instant) -> Result<()>;

    /// Runs the same again: from the beginning, or keeping what succeeded. `conflict/run-active` if
    /// it goes on.
    async fn rerun(
        &self,
        run: RunId,
        from_failed: bool,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started>;

    /// Starts a run that is pending. `conflict/run-not-pending` if it is not.
    async fn release(&self, run: RunId, deadline: Instant) -> Result<()>;

    /// Waits until this node has applied what was committed when this was called, so that a read
    /// after it sees every write that was acknowledged before.
    async fn read_barrier(&self, deadline: Instant) -> Result<()>;

    /// One run; `None` if there is none. Blocks.
    fn get(&self, run: RunId) -> Result<Option<Run>>;

    /// Visits runs from the newest to the oldest, beginning below `before`, until told to stop.
    /// Blocks.
    fn visit_runs(
        &self,
        before: Option<RunId>,
        visit: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<()>;

    /// What every task of a run does or waits for; `None` if there is no such run. Blocks.
    fn explain(&self, run: RunId) -> Result<Option<ExplainRunResponse>>;

    /// The run object and its children as YAML documents; `None` if there is no such run. Blocks.
    fn objects(&self, run: RunId) -> Result<Option<String>>;

    /// The stored events.
    fn events(&self) -> Arc<dyn EventSource>;

    // The cluster.

    /// The cluster as this node sees it. Waits for the agents for a moment, and for nothing else.
    async fn status(&self) -> ClusterStatus;

    /// Whether this node can serve. Does not wait.
    fn readiness(&self) -> Readiness;

    /// Figures for the metrics. Does not wait.
    fn gauges(&self) -> Gauges;

    // Agents, as operators see them. Reads block for a moment.

    /// The agents of the fleet, by name.
    fn agents(&self) -> Result<Vec<Agent>>;

    /// One of them, with what it runs.
    fn agent(&self, name: &str) -> Result<Option<Agent>>;

    /// Decides something about an agent; `not-found/agent`, or `conflict/agent-in-use`.
    async fn decide_agent(
        &self,
        name: String,
        decision: AgentDecision,
        deadline: Instant,
    ) -> Result<()>;

    /// Changes members or leader; returns when it is done.
    async fn change(&self, change: Change, deadline: Instant) -> Result<()>;

    /// A consistent copy of everything.
    async fn backup(&self, deadline: Instant) -> Result<Items<Bytes>>;

    /// Agrees on an entry that changes nothing.
    async fn probe(&self, payload: Bytes, deadline: Instant) -> Result<ProbeResponse>;

    /// The audit logs of the other members: by name, their entries, or why these are not known. At
    /// `deadline` at the latest.
    async fn audit_elsewhere(
        &self,
        request: AuditRequest,
        deadline: Instant,
    ) -> Vec<(String, Result<Vec<AuditEntry>, String>)>;

    // Trust.

    /// Whom the cluster trusts, as this node sees it. Does not wait.
    fn trust(&self) -> watch::Receiver<Arc<Trust>>;

    /// Changes whom the cluster trusts.
    async fn change_trust(&self, change: tenon_trust::Change, deadline: Instant) -> Result<Done>;

    /// The cluster's authority, to sign with; `conflict/no-authority` where there is none.
    fn authority(&self) -> Result<Authority>;

    /// The key that Secrets are stored under, as text, for a node that joins.
    fn secrets_key(&self) -> Result<String>;

    // Agents and peers.

    /// A session with an agent; `unavailable/not-leader` with the leader's URL on other nodes.
    async fn session(&self, hello: Hello) -> Result<Session>;

    /// Checks who wants to send Raft messages, and answers with this node's own header. The fault's
    /// code begins with `peer/`.
    fn greet(&self, header: &Header) -> Result<Header>;

    /// Takes Raft messages of a member that was greeted; waits while there is no room for them.
    async fn receive(&self, from: u64, messages: Vec<Bytes>) -> Result<()>;

    /// Part of a snapshot.
    async fn fetch(&self, request: FetchRequest) -> Result<Items<Chunk>>;

    // Chunks of workspaces' snapshots.

    /// Those of the chunks that may not be relied on.
    async fn missing_chunks(&self, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>>;

    /// Keeps chunks, which are what their ids say: they are durable when this returns.
    async fn put_chunks(&self, chunks: Vec<Packed>) -> Result<()>;

    /// Chunks in the order of their ids; `not-found/chunk` when one is nowhere.
    async fn get_chunks(&self, ids: Vec<ChunkId>) -> Result<Vec<Packed>>;

    /// What another node asks of the chunks that this one has. The fault of a stranger begins with `peer/`.
    async fn own_chunks(&self, request: ChunksRequest) -> Result<ChunksReply>;

    /// Makes this empty node a member.
    async fn adopt(&self, request: AdoptRequest) -> Result<AdoptReply>;
}
