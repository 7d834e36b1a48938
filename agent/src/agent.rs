//! The agent: attempts in, numbered reports out, over one session after the other.
//!
//! [`Agent::run`] works for a coordinator in the same process, [`Agent::serve`] for a cluster. Both
//! are the same loop; they differ in where sessions come from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage};
use tenon_tekton::pod::Demand;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::guard::{Guard, GuardOptions};
use crate::keeping::disk::Floor;
use crate::session::{Change, ServeOptions, SessionError, dial};
use crate::spool::{DiskSpool, Found, Spool};
use crate::work::{Session, Work};
use crate::workspaces::{CoordinatorChunks, Workspaces};

/// How an agent presents itself.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Its name, unique in the fleet.
    pub name: String,
    /// How many attempts it runs at a time.
    pub slots: usize,
    /// A ULID of this process: the numbers of reports begin with it.
    pub incarnation: String,
    /// What a pod's nodeSelector may ask for.
    pub labels: HashMap<String, String>,
    /// CPU that attempts may ask for in all, in thousandths; 0 where that is not known.
    pub cpu_millis: u64,
    /// Memory that attempts may ask for in all, in bytes; 0 where that is not known.
    pub memory_bytes: u64,
    /// Images that it has, some or all of them.
    pub images: Vec<String>,
    /// Images that it runs, as patterns with `*`; empty for all.
    pub allowed_images: Vec<String>,
    /// What it lets a pod have beyond what every agent does.
    pub grants: Vec<Demand>,
    /// How much of its disks has to be free for new work.
    pub floor: Floor,
    /// Between two looks at what nobody needs any more; none where nothing is looked at.
    pub house_every: Option<Duration>,
}

/// An agent that runs attempts on one backend.
pub struct Agent {
    options: AgentOptions,
    backend: Arc<dyn Backend>,
    spool: Option<(DiskSpool, Found)>,
    guard: Option<GuardOptions>,
}

impl Agent {
    /// An agent; nothing runs until [`Agent::run`] or [`Agent::serve`].
    pub fn new(options: AgentOptions, backend: Arc<dyn Backend>) -> Agent {
        Agent { options, backend, spool: None, guard: None }
    }

    /// Keeps what it reports on the disk, so that another process goes on where this one ends.
    pub fn with_spool(self, spool: DiskSpool, found: Found) -> Agent {
        Agent { spool: Some((spool, found)), ..self }
    }

    /// Has what it runs frozen (or killed) when its lease is over, also when it is dead by then.
    pub fn with_guard(self, guard: GuardOptions) -> Agent {
        Agent { guard: Some(guard), ..self }
    }

    /// Says hello, then works until the inbox is closed and all left is killed and removed, or until
    /// `shutdown` fires: then it stops every attempt, with grace, and still waits until nothing runs
    /// any more.
    pub async fn run(
        self,
        inbox: mpsc::Receiver<CoordinatorMessage>,
        outbox: mpsc::Sender<AgentMessage>,
        shutdown: CancellationToken,
    ) {
        let (sessions, arriving) = mpsc::channel(1);
        // The only one: when it is over there is nobody left to work for.
        let _ = sessions.try_send(Session { inbox, outbox, beats: None });
        drop(sessions);
        let work = Work::local(self.options, self.backend);
        if let Err(error) = work.run(arriving, shutdown).await {
            tracing::error!(%error, "the agent ends");
        }
    }

    /// Dials the coordinators and works for whichever leads them, for ever: when a session breaks,
    /// attempts go on, and the next session is told what happened. Ends after `shutdown`, which
    /// stops every attempt with grace, or when the cluster wants no session with this agent; then
    /// everything is killed and removed first.
    pub async fn serve(
        self,
        options: ServeOptions,
        shutdown: CancellationToken,
        on_change: impl FnMut(Change),
    ) -> Result<(), SessionError> {
        let (sessions, arriving) = mpsc::channel(1);
        let on_expiry = self.guard.as_ref().map(|guard| guard.on_expiry).unwrap_or_default();
        let guard = self.guard.map(Guard::start).transpose().map_err(|error| SessionError {
            code: "agent/guard".to_owned(),
            message: format!("the agent's guard cannot be started: {error}"),
            hint: String::new(),
        })?;
        let (spool, found) = match self.spool {
            Some((spool, found)) => (Spool::Disk(Box::new(spool)), found),
            None => (Spool::default(), Found::default()),
        };
        let left = self.backend.left().await.map_err(|error| SessionError {
            code: error.code.to_owned(),
            message: error.message,
            hint: String::new(),
        })?;
        let workspaces = match self.backend.data_dir() {
            Some(dir) => Workspaces::new(dir, Arc::new(CoordinatorChunks::new(&options))),
            None => Workspaces::default(),
        };
        let images = self.backend.images().await;
        let mut agent = AgentOptions { images, ..self.options };
        agent.floor.places = self.backend.places().await;
        let options = ServeOptions { floor: agent.floor.clone(), ..options };
        let mut work = Work::fleet(agent, self.backend, workspaces, spool, guard, on_expiry);
        work.take_over(found, left);
        let work = work.run(arriving, shutdown);
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => Ok(ended?),
            refused = dial(options, sessions, on_change) => {
                work.await?;
                Err(refused)
            }
        }
    }
}
