//! A machine with a node on it: the disk outlives crashes, what runs on it does not.
//!
//! What runs is what a process runs: the Raft core and its log, each behind the code of its thread,
//! and the coordinator. The schedule gives each of them its turns; between two turns of one, any
//! number of turns of the others may come, as with threads.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tenon_consensus::{ConfState, Core, LogOptions, LogWriter, Outgoing, Position};
use tenon_coordinator::coordinator::{Input, Options, PersistPoints};
use tenon_coordinator::event_log::{EventLog, EventLogReader};
use tenon_coordinator::node::log_thread::{LogInput, LogThread};
use tenon_coordinator::node::raft_thread::{Links, RaftInput, RaftThread};
use tenon_coordinator::node::standing::Standing;
use tenon_coordinator::recorder::Recorder;
use tenon_coordinator::replica::snapshot::SnapshotSource;
use tenon_coordinator::replica::{Member, Replica, RunIndex};
use tenon_coordinator::server::Metrics;
use tenon_coordinator::{Coordinator, Error, SessionId, Token};
use tenon_journal::disk::sim::{Random, SimDisk};
use tenon_store::MemoryStore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::queue::Micros;
use crate::settings::{Settings, clock_rate};

/// Ids of nodes that a transport would vouch for: all that there will ever be in a schedule.
const NODES: std::ops::Range<u64> = 1..33;

/// A machine.
pub struct Machine {
    /// The Raft id.
    pub id: u64,
    pub disk: SimDisk,
    pub store: MemoryStore,
    /// It begins the cluster.
    pub founder: bool,
    /// How wrong its wall clock is, in milliseconds.
    pub skew_ms: i64,
    /// How fast its steady clock goes, in thousandths.
    pub rate: u64,
    /// How long a tick is.
    pub tick: Micros,
    /// Counts starts: what was meant for an earlier life does not reach this one.
    pub life: u64,
    pub running: Option<Running>,
    /// Its disk was made to fail or to be full: it may stop by itself.
    pub disk_trouble: bool,
    /// A power cut follows as soon as the disk fails.
    pub doomed: bool,
    /// The disk is slow until then, by so much.
    pub slow: (Micros, Micros),
    /// Its threads have no turn before then.
    pub paused_until: Micros,
    /// It was a member and is none any more.
    pub removed: bool,
}

/// What runs on a machine.
pub struct Running {
    pub raft: RaftThread,
    raft_inbox: Receiver<RaftInput>,
    pub raft_queue: VecDeque<RaftInput>,
    pub raft_due: bool,
    pub log: LogThread,
    log_inbox: Receiver<LogInput>,
    pub log_queue: VecDeque<LogInput>,
    pub log_due: bool,
    pub coordinator: Coordinator,
    apply_inbox: UnboundedReceiver<Input>,
    pub apply_queue: VecDeque<Input>,
    pub users: VecDeque<Input>,
    pub apply_due: bool,
    /// When a wakeup is already on its way.
    pub wakeup: Option<Micros>,
    outgoing: Arc<Mutex<Vec<Outgoing>>>,
    pub events: EventLogReader,
    pub snapshots: SnapshotSource,
    pub index: RunIndex,
    /// Records of the history up to here were compared.
    pub compared: u64,
    /// The state was compared at this applied index.
    pub watched: Option<u64>,
    /// Who waits for answers: client and try.
    pub waiting: BTreeMap<Token, (usize, u64)>,
    /// The agents' sessions: agent and the number of its session.
    pub sessions: BTreeMap<SessionId, (usize, u64)>,
    pub next_number: u64,
    /// The term in which it leads, if it does.
    pub leads: Option<u64>,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(id: u64, founder: bool, settings: &Settings, random: &mut Random) -> Machine {
        let wide = 2 * settings.skew_ms + 1;
        Machine {
            id,
            disk: SimDisk::new(random.draw()),
            store: MemoryStore::new(),
            founder,
            skew_ms: random.below(wide) as i64 - settings.skew_ms as i64,
            rate: clock_rate(random),
            tick: 36_000 + random.below(8_000),
            life: 0,
            running: None,
            disk_trouble: false,
            doomed: false,
            slow: (0, 0),
            paused_until: 0,
            removed: false,
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        format!("node-{}", self.id)
    }

    /// How others know it.
    pub fn member(id: u64) -> Member {
        Member { name: format!("node-{id}"), url: format!("http://node-{id}") }
    }

    /// Starts what runs on it, with whatever is on its disk.
    pub fn start(
        &mut self,
        settings: &Settings,
        metrics: &Arc<Metrics>,
        random: &mut Random,
    ) -> Result<(), Error> {
        self.life += 1;
        let disk = self.disk.mount();
        let dir = PathBuf::from("/data");
        let segment = settings.history_segment;
        let mut replica = Replica::open(Arc::new(self.store.clone()), |next| {
            EventLog::open_with(disk.clone(), &dir.join("events"), next, segment).map(Recorder::Log)
        })?;
        if self.founder && replica.meta().applied == 0 {
            replica.bootstrap("simulated", self.id, Machine::member(self.id))?;
        }
        let (applied, term) = (replica.meta().applied, replica.meta().term);
        let conf_state = ConfState::from(replica.meta().configuration.clone());
        let options = LogOptions {
            segment_bytes: settings.log_segment,
            prepare_bytes: settings.log_segment / 4,
            memory_bytes: settings.log_memory,
            disk: disk.clone(),
        };
        let (mut log, view, _) = LogWriter::open(&dir.join("log"), options)?;
        log.repair(Position { index: applied, term })?;
        let mut raft = tenon_consensus::Options::new(self.id);
        raft.seed = random.draw();
        raft.max_message_bytes = settings.max_message;
        raft.max_unapplied_bytes = settings.max_unapplied;
        raft.snapshot_retry_ticks = settings.snapshot_retry_ticks;
        let mut core = Core::new(raft, view, applied, conf_state)?;
        NODES.filter(|id| *id != self.id).for_each(|id| core.vouch_for(id));
        let Some(events) = replica.recorder().log().map(|log| log.reader()) else {
            return Err(Error::Stopped);
        };
        let snapshots = SnapshotSource::new(disk.clone(), dir.join("snapshots"), events.journal())
            .with_chunks_of(settings.chunk);
        let index = replica.index().clone();
        let compared = replica.recorder().log().map_or(0, |log| log.next() - 1);
        let coordinator = Coordinator::new(
            Options {
                node: self.id,
                name: self.name(),
                request_base: self.life << 32,
                grace_ms: 500,
                keep_claims_ms: 60_000,
                saves_claims: true,
                packing: tenon_engine::plan::Packing::Spread,
                any_agent: false,
                key: None,
                persist: Some(PersistPoints {
                    bytes: settings.persist_bytes,
                    after_ms: settings.persist_ms,
                }),
                leases: settings.leases,
                max_proposal_bytes: 1 << 20,
            },
            disk,
            Path::new("/data").to_owned(),
            replica,
        );
        let (to_log, log_inbox) = channel();
        let (to_raft, raft_inbox) = channel();
        let (to_apply, apply_inbox) = unbounded_channel();
        let outgoing: Arc<Mutex<Vec<Outgoing>>> = Arc::default();
        let out = outgoing.clone();
        let standing: Arc<Standing> = Arc::default();
        let links = Links {
            log: to_log,
            apply: to_apply,
            send: Box::new(move |message| {
                out.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }),
            metrics: metrics.clone(),
            // Followers are to need snapshots often.
            keep_entries: 0,
            standing: standing.clone(),
        };
        self.running = Some(Running {
            raft: RaftThread::new(core, links),
            raft_inbox,
            raft_queue: VecDeque::new(),
            raft_due: false,
            log: LogThread::new(log, to_raft, metrics.clone(), standing),
            log_inbox,
            log_queue: VecDeque::new(),
            log_due: false,
            coordinator,
            apply_inbox,
            apply_queue: VecDeque::new(),
            users: VecDeque::new(),
            apply_due: false,
            wakeup: None,
            outgoing,
            events,
            snapshots,
            index,
            compared,
            watched: None,
            waiting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_number: 0,
            leads: None,
        });
        Ok(())
    }
}

impl Running {
    /// What the Raft thread has made since this was last asked.
    pub fn made_by_raft(&mut self) -> (Vec<Outgoing>, Vec<Input>) {
        self.log_queue.extend(self.log_inbox.try_iter());
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = std::mem::take(&mut *outgoing);
        let mut to_apply = Vec::new();
        while let Ok(input) = self.apply_inbox.try_recv() {
            to_apply.push(input);
        }
        (messages, to_apply)
    }

    /// What the log's thread has said is the Raft thread's to take.
    pub fn said_by_log(&mut self) {
        self.raft_queue.extend(self.raft_inbox.try_iter());
    }
}
