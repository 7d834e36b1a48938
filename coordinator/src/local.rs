//! A cluster of one member inside one process, without a network: what `tenon run` uses.
//!
//! It is the same node as any other ([`crate::node`]), with two differences: histories go into a
//! directory for each run, which other processes follow, and there are no persist points, because its
//! log lives only as long as its runs. `<state>/local/<id>/` holds that log; a directory whose lock is
//! free belongs to a dead process (see [`crate::recovery`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenon_consensus::{ConfState, Core, LogOptions, LogWriter};
use tenon_engine::command::CancelMode;
use tenon_engine::plan::Packing;
use tenon_engine::{RunId, RunOutcome, Submission, Time};
use tenon_journal::disk;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, Progress, agent_message};
use tenon_reporter::history::Store;
use tenon_store::MemoryStore;
use tenon_tekton::Object;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::coordinator::{Answer, Coordinator, KEEP_CLAIMS_MS, LeaseTimes, Options, Request};
use crate::error::{Error, Result};
use crate::local_dir::LocalDir;
use crate::materials::Materials;
use crate::node::apply_thread::{FromUser, SessionMessage};
use crate::node::running::{Inboxes, Running, World};
use crate::recorder::{Recorder, RunDirectories};
use crate::recovery;
use crate::replica::{Member, Replica, Reply, Retired};
use crate::seal::SealKey;
use crate::server::Metrics;

/// Progress remarks kept for a slow display before it misses some.
const REMARKS: usize = 256;
/// The Raft id of the only member.
pub(crate) const NODE: u64 = 1;
/// Its name.
pub(crate) const NAME: &str = "local";
/// The only member elects itself at once; ticks are for nothing else.
const TICK: Duration = Duration::from_millis(500);
/// The largest submission, in bytes: what fits into memory a few times.
pub(crate) const ENTRY_BYTES: usize = 512 << 20;

/// What a local coordinator needs to know.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The state directory.
    pub state_dir: PathBuf,
    /// How long a stopped step has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
}

/// The two ends of a session that belong to the coordinator.
pub struct AgentLink {
    /// What the agent says.
    pub from_agent: mpsc::Receiver<AgentMessage>,
    /// What it is told.
    pub to_agent: mpsc::Sender<CoordinatorMessage>,
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: RunOutcome,
    /// The run object, then its TaskRuns and CustomRuns, with Tekton's status.
    pub objects: Vec<Object>,
}

/// A run that was accepted.
#[derive(Debug)]
pub struct RunHandle {
    /// Its id.
    pub run_id: RunId,
    /// Its end; an error when the coordinator had to stop before (see [`Local::close`]).
    pub finished: oneshot::Receiver<Finished>,
}

/// Who waits for the ends of runs.
type Waiting = Arc<Mutex<BTreeMap<RunId, oneshot::Sender<Finished>>>>;

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<RunId, oneshot::Sender<Finished>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle of a local coordinator.
pub struct Local {
    users: mpsc::Sender<FromUser>,
    progress: broadcast::Sender<Progress>,
    notes: mpsc::UnboundedReceiver<String>,
    recovered: Vec<RunId>,
    waiting: Waiting,
    /// Counts up when a run ends.
    ends: watch::Receiver<u64>,
    running: Running,
    /// The session of the only agent.
    sessions: JoinSet<()>,
    dir: LocalDir,
}

impl Local {
    /// Recovers what dead processes left in the state directory, then starts the coordinator. Must be
    /// called inside a tokio runtime, on which the session's messages travel.
    pub fn open(options: &LocalOptions, link: AgentLink) -> Result<Local> {
        let store = Store::new(&options.state_dir);
        let recovered = recovery::recover(&options.state_dir, &store)?;
        let dir = LocalDir::create(&options.state_dir)?;
        let conf_state = ConfState::of_voters([NODE]);
        LogWriter::bootstrap(&dir.log(), LogOptions::default(), &conf_state)?;
        let (log, view, _) = LogWriter::open(&dir.log(), LogOptions::default())?;
        let mut replica = Replica::open(Arc::new(MemoryStore::new()), |_| {
            Ok(Recorder::Directories(RunDirectories::new(store, false)))
        })?;
        let member = Member { name: NAME.to_owned(), url: String::new() };
        replica.bootstrap(NAME, NODE, member)?;
        let mut raft = tenon_consensus::Options::new(NODE);
        raft.max_entry_bytes = ENTRY_BYTES;
        raft.max_uncommitted_bytes = 2 * ENTRY_BYTES;
        let core = Core::new(raft, view, replica.meta().applied, conf_state)?;
        let coordinator = Coordinator::new(
            Options {
                node: NODE,
                name: NAME.to_owned(),
                request_base: 0,
                grace_ms: options.grace_ms,
                any_agent: true,
                key: Some(SealKey::random()?),
                persist: None,
                leases: LeaseTimes::NONE,
                keep_claims_ms: KEEP_CLAIMS_MS,
                saves_claims: false,
                packing: Packing::Spread,
                max_proposal_bytes: ENTRY_BYTES,
            },
            disk::real(),
            dir.path().to_owned(),
            replica,
        );
        let (progress, _) = broadcast::channel(REMARKS);
        // Unbounded because a note is rare and must not be lost; a run makes a few.
        let (note, notes) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        let (end, ends) = watch::channel(0);
        let inboxes = Inboxes::new();
        let users = inboxes.users.clone();
        let running = Running::start(
            core,
            log,
            coordinator,
            TICK,
            inboxes,
            World {
                send: Box::new(|_| {}),
                fetch: Box::new(|_, _| {}),
                members: Box::new(|_| {}),
                progress: {
                    let progress = progress.clone();
                    // Nobody needs to be watching, or listening.
                    Box::new(move |remark: Progress| {
                        if remark.note {
                            let _ = note.send(remark.what);
                        } else {
                            let _ = progress.send(remark);
                        }
                    })
                },
                retired: {
                    let waiting = waiting.clone();
                    Box::new(move |retired| tell_end(&waiting, &end, retired))
                },
                // The agent is this process.
                forged: Box::new(|_, _| {}),
                metrics: Arc::new(Metrics::new()),
                standing: Arc::default(),
            },
        )?;
        let mut sessions = JoinSet::new();
        sessions.spawn(session(users.clone(), link));
        Ok(Local { users, progress, notes, recovered, waiting, ends, running, sessions, dir })
    }

    /// Runs of dead processes that were brought to an end while opening.
    pub fn recovered(&self) -> &[RunId] {
        &self.recovered
    }

    /// Accepts a run. When this returns, the submission is on the disk (invariant 1) and its event
    /// journal can be followed.
    pub async fn submit(&self, submission: Submission, materials: Materials) -> Result<RunHandle> {
        let (done, finished) = oneshot::channel();
        let run_id = submission.run_id;
        lock(&self.waiting).insert(run_id, done);
        let submission = Box::new(submission);
        let answer = self.ask(Request::Submit { submission, materials, key: None }).await;
        if answer.is_err() {
            lock(&self.waiting).remove(&run_id);
        }
        answer.map(|_| RunHandle { run_id, finished })
    }

    /// Ends a run early: what runs is asked to end, and killed when its grace is over.
    pub async fn cancel(&self, run: RunId, mode: CancelMode, message: &str) -> Result<()> {
        let message = message.to_owned();
        self.ask(Request::Cancel { run, mode, message, now: false }).await.map(drop)
    }

    /// Ends a run now: what runs is killed, `finally` tasks too.
    pub async fn kill(&self, run: RunId, message: &str) -> Result<()> {
        let (mode, message) = (CancelMode::Cancelled, message.to_owned());
        self.ask(Request::Cancel { run, mode, message, now: true }).await.map(drop)
    }

    /// Passing remarks of the agent (image pulls, container creation), for a live display.
    pub fn progress(&self) -> broadcast::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The next thing that the agent has for the user: warnings, what it kept. `None` once the
    /// coordinator has stopped and all was said.
    pub async fn note(&mut self) -> Option<String> {
        self.notes.recv().await
    }

    /// Likewise, without waiting for it.
    pub fn note_now(&mut self) -> Option<String> {
        self.notes.try_recv().ok()
    }

    /// Ends the coordinator when every run is over, and says why it had stopped before, if it had.
    /// With every run over, its log is removed.
    pub async fn close(mut self) -> Result<()> {
        let mut ended = self.running.ended.clone();
        while !lock(&self.waiting).is_empty() && !*ended.borrow() {
            tokio::select! {
                _ = self.ends.changed() => {}
                _ = ended.changed() => {}
            }
        }
        drop(self.users);
        let (running, dir, mut sessions) = (self.running, self.dir, self.sessions);
        let close = move || running.stop().and_then(|()| dir.close());
        let closed = tokio::task::spawn_blocking(close).await.unwrap_or(Err(Error::Stopped));
        // What was said to the agent last reaches it before its session ends.
        while sessions.join_next().await.is_some() {}
        closed
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        let (answer, answered) = oneshot::channel();
        let deadline = Time(i64::MAX);
        let request = FromUser::Request { request, deadline, answer };
        self.users.send(request).await.map_err(|_| Error::Stopped)?;
        let answer: Answer = answered.await.map_err(|_| Error::Stopped)?;
        answer.map_err(Error::Request)
    }
}

/// Tells whoever waits for a run that it is over.
fn tell_end(waiting: &Waiting, ends: &watch::Sender<u64>, retired: Retired) {
    if let Some(done) = lock(waiting).remove(&retired.run) {
        let objects = crate::history::shown(retired.objects);
        // Nobody may be waiting any more.
        let _ = done.send(Finished { outcome: retired.outcome, objects });
    }
    ends.send_modify(|ends| *ends += 1);
}

/// The session of the only agent: it begins anew until the node leads, and ends with either side.
async fn session(users: mpsc::Sender<FromUser>, link: AgentLink) {
    let AgentLink { mut from_agent, to_agent } = link;
    let Some(hello) = first_hello(&mut from_agent).await else { return };
    loop {
        let (sender, mut messages) = mpsc::unbounded_channel();
        let (reply, number) = oneshot::channel();
        let attach = FromUser::Attach { hello: hello.clone(), to_agent: sender, session: reply };
        if users.send(attach).await.is_err() {
            return;
        }
        let Ok(session) = number.await else { return };
        let mut closed = false;
        while !closed {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(SessionMessage::Message(message)) => {
                        if to_agent.send(*message).await.is_err() {
                            return;
                        }
                    }
                    Some(SessionMessage::Close(_)) => closed = true,
                    None => return,
                },
                message = from_agent.recv() => match message {
                    Some(message) => {
                        if users.send(FromUser::Said(session, message)).await.is_err() {
                            return;
                        }
                    }
                    None => {
                        let _ = users.send(FromUser::Detached(session)).await;
                        return;
                    }
                },
            }
        }
        // Only before the node has elected itself, which takes a sync of the log.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn first_hello(from_agent: &mut mpsc::Receiver<AgentMessage>) -> Option<Hello> {
    loop {
        if let Some(agent_message::Message::Hello(hello)) = from_agent.recv().await?.message {
            return Some(hello);
        }
    }
}
