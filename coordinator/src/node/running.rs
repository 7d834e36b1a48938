//! The three threads of a node, wired: Raft, its log, and what is behind the log.

use std::sync::Arc;
use std::sync::mpsc::{self as std_mpsc, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use tenon_consensus::{Core, LogWriter, Outgoing};
use tenon_engine::AttemptId;
use tenon_proto::agent::v1::Progress;
use tenon_proto::raft::v1::FetchRequest;
use tokio::sync::{mpsc, watch};

use super::apply_thread::{self, ApplyThread, FromUser};
use super::log_thread::LogThread;
use super::raft_thread::{self, RaftInput, RaftThread};
use super::standing::Standing;
use crate::coordinator::{Coordinator, Input};
use crate::error::{Error, Result};
use crate::replica::{Member, Retired};
use crate::server::Metrics;

/// Requests and reports that may wait to be taken.
const USERS: usize = 1024;
/// Applied entries that stay in the log for members that are behind.
const KEEP_ENTRIES: u64 = 5_000;

/// Told of an agent that reports of what it was not given.
pub(crate) type OnForged = Box<dyn Fn(&str, &AttemptId) + Send>;

/// What the threads need of the world.
pub(crate) struct World {
    pub send: Box<dyn Fn(Outgoing) + Send>,
    pub fetch: Box<dyn Fn(u64, FetchRequest) + Send>,
    pub members: Box<dyn Fn(std::collections::BTreeMap<u64, Member>) + Send>,
    pub progress: Box<dyn Fn(Progress) + Send>,
    pub retired: Box<dyn FnMut(Retired) + Send>,
    pub forged: OnForged,
    pub metrics: Arc<Metrics>,
    pub standing: Arc<Standing>,
}

/// The ways into the threads; made before them, because they know each other.
pub(crate) struct Inboxes {
    pub raft: Sender<RaftInput>,
    raft_inbox: std_mpsc::Receiver<RaftInput>,
    pub from_log: mpsc::UnboundedSender<Input>,
    from_log_inbox: mpsc::UnboundedReceiver<Input>,
    pub users: mpsc::Sender<FromUser>,
    users_inbox: mpsc::Receiver<FromUser>,
}

impl Inboxes {
    pub fn new() -> Inboxes {
        let (raft, raft_inbox) = std_mpsc::channel();
        let (from_log, from_log_inbox) = mpsc::unbounded_channel();
        let (users, users_inbox) = mpsc::channel(USERS);
        Inboxes { raft, raft_inbox, from_log, from_log_inbox, users, users_inbox }
    }
}

/// Threads that run.
pub(crate) struct Running {
    pub raft: Sender<RaftInput>,
    pub users: mpsc::Sender<FromUser>,
    /// Becomes true when any of the threads has ended.
    pub ended: watch::Receiver<bool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Running {
    /// Starts them.
    pub fn start(
        core: Core,
        log: LogWriter,
        coordinator: Coordinator,
        tick: Duration,
        inboxes: Inboxes,
        world: World,
    ) -> Result<Running> {
        let Inboxes { raft, raft_inbox, from_log, from_log_inbox, users, users_inbox } = inboxes;
        let (log_sender, log_inbox) = std_mpsc::channel();
        let (ended, ended_receiver) = watch::channel(false);
        let raft_thread = RaftThread::new(
            core,
            raft_thread::Links {
                log: log_sender,
                apply: from_log,
                send: world.send,
                metrics: world.metrics.clone(),
                keep_entries: KEEP_ENTRIES,
                standing: world.standing.clone(),
            },
        );
        let apply_thread = ApplyThread::new(
            coordinator,
            apply_thread::Links {
                raft: raft.clone(),
                fetch: world.fetch,
                members: world.members,
                progress: world.progress,
                retired: world.retired,
                forged: world.forged,
                metrics: world.metrics.clone(),
                standing: world.standing.clone(),
            },
        );
        let (metrics, standing) = (world.metrics, world.standing);
        let to_raft = raft.clone();
        let threads = vec![
            spawn("apply", ended.clone(), raft.clone(), move || {
                apply_thread.run(from_log_inbox, users_inbox)
            })?,
            spawn("raft-log", ended.clone(), raft.clone(), move || {
                LogThread::new(log, to_raft, metrics, standing).run(&log_inbox)
            })?,
            spawn("raft", ended, raft.clone(), move || raft_thread.run(tick, &raft_inbox))?,
        ];
        Ok(Running { raft, users, ended: ended_receiver, threads })
    }

    /// Ends the threads: first what is behind the log, which persists its state, then the log.
    pub fn stop(self) -> Result<()> {
        let _ = self.users.blocking_send(FromUser::Stop);
        let mut result = Ok(());
        for thread in self.threads {
            match thread.join() {
                // That the others had stopped already is no reason of its own.
                Ok(Ok(()) | Err(Error::Stopped)) => {}
                Ok(Err(reason)) => result = Err(reason),
                Err(_) if result.is_ok() => result = Err(Error::Stopped),
                Err(_) => {}
            }
            let _ = self.raft.send(RaftInput::Stop);
        }
        result
    }
}

fn spawn(
    name: &str,
    ended: watch::Sender<bool>,
    raft: Sender<RaftInput>,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    /// However the thread ends, the others end too: a node works as a whole or not at all.
    struct Ending(watch::Sender<bool>, Sender<RaftInput>);
    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.1.send(RaftInput::Stop);
            self.0.send_replace(true);
        }
    }
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ending = Ending(ended, raft);
            let result = work();
            drop(ending);
            result
        })
        .map_err(|source| Error::Io {
            action: "start a thread for",
            path: "the coordinator".into(),
            source,
        })
}
