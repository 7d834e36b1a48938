//! A node: one member of a cluster as a process runs it, or a node that waits to become one.
//!
//! [`Node`] owns the threads, [`Handle`] is cheap to clone and is how everything else in the process
//! asks for something. In the data directory:
//!
//! | name | what |
//! |---|---|
//! | `node.json` | who the node is ([`identity`]) |
//! | `log/` | journal: the Raft log |
//! | `events/` | journal: the history of all runs |
//! | `state/` | the state, and the index up to which it is applied |
//! | `snapshots/`, `incoming/` | the newest snapshot made here; one on its way here |
//! | `blobs/` | chunks of workspaces' snapshots ([`blobs`]) |

mod agents;
pub mod apply_thread;
mod audit;
pub mod backup;
pub(crate) mod blobs;
mod control;
mod documents;
mod handle;
pub mod identity;
pub mod log_thread;
mod membership;
mod peers;
pub mod raft_thread;
mod rescue;
pub(crate) mod running;
mod session;
pub mod standing;
mod traces;
mod transport;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tenon_consensus::{ConfState, Core, LogOptions, LogWriter};
use tenon_engine::plan::Packing;
use tenon_journal::disk::{self, Disk};
use tenon_proto::raft::v1::Header;
use tenon_store::SledStore;
use tenon_trust::SharedIdentity;
use tokio::sync::{mpsc, watch};

use crate::coordinator::{Coordinator, Input, KEEP_CLAIMS_MS, LeaseTimes, Options, PersistPoints};
use crate::entry;
use crate::error::{Error, Result};
use crate::event_log::{EventLog, EventLogReader};
use crate::recorder::Recorder;
use crate::replica::snapshot::SnapshotSource;
use crate::replica::{Configuration, Member, Replica, RunIndex, TrustView};
use crate::seal::SealKey;
use crate::server::Metrics;
use crate::server::audit::Audit;
pub use trust::TLS_DIR;

use apply_thread::FromUser;
use blobs::Blobs;
use identity::Identity;
use raft_thread::RaftInput;
use running::{Inboxes, Running, World};
use standing::Standing;

/// The largest proposal, in bytes: a submission with everything that it refers to.
const PROPOSAL_BYTES: usize = 4 << 20;

/// The Raft log is written into zeros of which so many bytes are prepared at a time.
const PREPARE_BYTES: u64 = 1 << 20;

/// How a node is run.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// The node's name, unique in the cluster.
    pub name: String,
    /// Where other nodes and clients reach it.
    pub url: String,
    /// Half of the time between a leader's heartbeats.
    pub tick: Duration,
    /// Ticks without a leader after which a node stands for election, drawn anew each time.
    pub election_ticks: std::ops::Range<usize>,
    /// How long a stopped step has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// How long agents are trusted.
    pub leases: LeaseTimes,
    /// How agents are chosen that fit equally.
    pub packing: Packing,
    /// Agents save workspaces when a task ends, so that they can move, where a run does not say otherwise.
    pub saves_claims: bool,
    /// An object store for the snapshots, which all nodes share; without it each has a store of its own.
    pub blobs: Option<String>,
    /// Between looks at which snapshots are still needed.
    pub sweep_every: Duration,
    /// A chunk that was put or asked for within this time stays: a save may rely on it. Saves ask again for what they
    /// rely on, more often than every hour.
    pub unasked: Duration,
    /// Encrypts Secrets at rest.
    pub key: Option<SealKey>,
    /// When what is applied is made what a restart begins with.
    pub persist: PersistPoints,
    /// The Raft log is written in files of about so many bytes, and compacted by whole files.
    pub log_segment_bytes: u64,
}

impl NodeOptions {
    /// The usual options: a leader is missed after 400 to 800 ms.
    pub fn new(data_dir: PathBuf, name: &str, url: &str) -> NodeOptions {
        NodeOptions {
            data_dir,
            name: name.to_owned(),
            url: url.to_owned(),
            tick: Duration::from_millis(40),
            election_ticks: 10..20,
            grace_ms: 30_000,
            leases: LeaseTimes::default(),
            packing: Packing::default(),
            saves_claims: true,
            blobs: None,
            sweep_every: Duration::from_secs(600),
            unasked: Duration::from_secs(3600),
            key: None,
            persist: PersistPoints::default(),
            log_segment_bytes: LogOptions::default().segment_bytes,
        }
    }
}

/// A node that runs.
pub struct Node {
    shared: Arc<Shared>,
}

/// Asks a node; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    options: NodeOptions,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Handle,
    member: RwLock<Option<Arc<MemberNode>>>,
    running: std::sync::Mutex<Option<Running>>,
    became_member: watch::Sender<bool>,
    changing: tokio::sync::Mutex<()>,
    /// The members, as far as they are known.
    members: watch::Sender<BTreeMap<u64, Member>>,
    /// The node's own certificate, where the cluster has an authority.
    own: RwLock<Option<SharedIdentity>>,
    /// Where calls that change something are written down.
    audit: OnceLock<Audit>,
    /// What a node that is no member knows of trust: nothing.
    unknown: TrustView,
    chunk_peers: blobs::Peers,
}

/// A node that is a member: the ways into it.
pub struct MemberNode {
    /// Who it is.
    pub identity: Identity,
    /// Its runs.
    pub index: RunIndex,
    /// Its event log.
    pub events: EventLogReader,
    /// Parts of snapshots.
    pub snapshots: SnapshotSource,
    /// The members, by Raft id.
    pub members: watch::Receiver<BTreeMap<u64, Member>>,
    /// Becomes true when the node cannot go on.
    pub ended: watch::Receiver<bool>,
    /// Whom the cluster trusts.
    pub trust: TrustView,
    /// How it stands.
    pub standing: Arc<Standing>,
    blobs: Blobs,
    raft: std::sync::mpsc::Sender<RaftInput>,
    users: mpsc::Sender<FromUser>,
}

impl Node {
    /// Starts a node: as the member that it is, or as one that waits for [`Handle::init`] or
    /// [`Handle::adopt`]. Network tasks run on `runtime`.
    pub fn start(options: NodeOptions, runtime: tokio::runtime::Handle) -> Result<Node> {
        let disk = disk::real();
        let identity = Identity::read(&*disk, &options.data_dir)?;
        let (became_member, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            disk,
            metrics: Arc::new(Metrics::new()),
            runtime,
            member: RwLock::new(None),
            running: std::sync::Mutex::new(None),
            became_member,
            changing: tokio::sync::Mutex::new(()),
            members: watch::channel(BTreeMap::new()).0,
            own: RwLock::new(None),
            audit: OnceLock::new(),
            unknown: TrustView::default(),
            chunk_peers: blobs::Peers::default(),
            options,
        });
        if let Some(identity) = identity {
            shared.run(identity)?;
        }
        Ok(Node { shared })
    }

    /// The way to ask it.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone() }
    }

    /// Stops the node: persists its state, and says why it had stopped before, if it had. Blocks; not
    /// for async code. [`Handle::leave`] before it spares the others an election.
    pub fn stop(self) -> Result<()> {
        self.shared.stop()
    }
}

impl Shared {
    fn member(&self) -> Option<Arc<MemberNode>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(&self) -> Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = running.map_or(Ok(()), Running::stop);
        // What is stored is let go of, so that another node of this process may open it.
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = None;
        stopped
    }

    /// Opens everything that is stored and starts the threads.
    fn run(self: &Arc<Self>, identity: Identity) -> Result<()> {
        let options = &self.options;
        let dir = &options.data_dir;
        let disk = self.disk.clone();
        let blobs = Blobs::open(options)?;
        let store = Arc::new(SledStore::open(dir.join("state"))?);
        let mut replica = Replica::open(store, |next| {
            EventLog::open(disk.clone(), &dir.join("events"), next).map(Recorder::Log)
        })?;
        let me = Member { name: identity.name.clone(), url: options.url.clone() };
        if identity.first && replica.meta().applied == 0 {
            replica.bootstrap(&identity.cluster, identity.node, me.clone())?;
        }
        let meta = replica.meta();
        let conf_state = ConfState::from(meta.configuration.clone());
        let log_dir = dir.join("log");
        let log_options = LogOptions {
            segment_bytes: options.log_segment_bytes,
            prepare_bytes: PREPARE_BYTES,
            ..log_options(disk.clone())
        };
        let (mut log, view, _) = LogWriter::open(&log_dir, log_options)?;
        let position = tenon_consensus::Position { index: meta.applied, term: meta.term };
        log.repair(position)?;
        let mut raft = tenon_consensus::Options::new(identity.node);
        raft.election_ticks = options.election_ticks.clone();
        raft.seed = fresh_number();
        let mut core = Core::new(raft, view, meta.applied, conf_state)?;
        for peer in identity.peers.keys() {
            core.vouch_for(*peer);
        }

        let mut members = identity.peers.clone();
        members.extend(meta.members.clone());
        members.insert(identity.node, me);
        self.members.send_replace(members);
        let members_receiver = self.members.subscribe();
        let Some(events) = replica.recorder().log().map(|log| log.reader()) else {
            return Err(Error::Stopped);
        };
        let snapshots = SnapshotSource::new(disk.clone(), dir.join("snapshots"), events.journal());
        let index = replica.index().clone();
        let trust = replica.trust().clone();
        let coordinator = Coordinator::new(
            Options {
                node: identity.node,
                name: identity.name.clone(),
                request_base: fresh_number(),
                grace_ms: options.grace_ms,
                any_agent: false,
                key: options.key.clone(),
                persist: Some(options.persist),
                leases: options.leases,
                keep_claims_ms: KEEP_CLAIMS_MS,
                packing: options.packing,
                saves_claims: options.saves_claims,
                max_proposal_bytes: PROPOSAL_BYTES,
            },
            disk,
            dir.clone(),
            replica,
        );
        let inboxes = Inboxes::new();
        let header = {
            let (identity, shared) = (identity.clone(), self.clone());
            Arc::new(move |to| shared.header(&identity, to))
        };
        let dialler = {
            let shared = self.clone();
            Arc::new(move || shared.own())
        };
        let transport = transport::Transport::new(
            header,
            dialler,
            members_receiver.clone(),
            inboxes.raft.clone(),
            self.runtime.clone(),
        );
        let fetch = {
            let (transport, from_log) = (transport.clone(), inboxes.from_log.clone());
            let runtime = self.runtime.clone();
            Box::new(move |from, request| {
                let (transport, from_log) = (transport.clone(), from_log.clone());
                runtime.spawn(async move {
                    // One chunk at a time: the next is asked for when this one is on the disk.
                    let mut came = false;
                    let fetched = transport.fetch(from, request, |chunk| {
                        came = true;
                        let _ = from_log.send(Input::Chunk(chunk));
                        false
                    });
                    let fetched = fetched.await;
                    if let Err(why) = &fetched {
                        tracing::warn!(from, %why, "could not fetch a part of a snapshot");
                    }
                    if !came {
                        let _ = from_log.send(Input::FetchBroken);
                    }
                });
            })
        };
        let standing = Arc::<Standing>::default();
        let users = inboxes.users.clone();
        let raft = inboxes.raft.clone();
        let running = Running::start(
            core,
            log,
            coordinator,
            options.tick,
            inboxes,
            World {
                send: Box::new(move |message| transport.send(message)),
                fetch,
                members: {
                    let shared = self.clone();
                    Box::new(move |members| drop(shared.members.send_replace(members)))
                },
                progress: Box::new(|_| {}),
                retired: Box::new(|_| {}),
                forged: {
                    let shared = self.clone();
                    Box::new(move |agent, attempt| shared.note_forged(agent, attempt))
                },
                metrics: self.metrics.clone(),
                standing: standing.clone(),
            },
        )?;
        let member = MemberNode {
            identity,
            index,
            events,
            snapshots,
            members: members_receiver,
            trust,
            ended: running.ended.clone(),
            standing,
            blobs,
            raft,
            users,
        };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(member));
        self.became_member.send_replace(true);
        self.runtime.spawn(blobs::keep_house(Arc::downgrade(self)));
        Ok(())
    }

    fn own(&self) -> Option<SharedIdentity> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn header(&self, identity: &Identity, to: u64) -> Header {
        Header {
            cluster_id: identity.cluster.clone(),
            from: identity.node,
            to,
            protocol: u32::from(entry::VERSION),
            key_fingerprint: self.fingerprint(),
            from_url: self.options.url.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn fingerprint(&self) -> String {
        self.options.key.as_ref().map(SealKey::fingerprint).unwrap_or_default()
    }
}

/// A number that was hardly ever used before: where request numbers begin, and a seed.
fn fresh_number() -> u64 {
    // 2^20 requests a millisecond before two lives of a node could overlap.
    u64::try_from(apply_thread::now().0).unwrap_or_default() << 20
}

/// The usual options of a log, on this disk.
pub(crate) fn log_options(disk: Arc<dyn Disk>) -> LogOptions {
    LogOptions { disk, ..LogOptions::default() }
}

/// The configuration of a cluster that has only this member.
pub(crate) fn alone(node: u64) -> Configuration {
    Configuration { voters: vec![node], ..Configuration::default() }
}
