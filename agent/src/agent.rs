//! The agent: attempts in, numbered reports out, over one session after the other.
//!
//! [`Agent::run`] works for a coordinator in the same process, [`Agent::serve`] for a cluster. Both
//! are the same loop; they differ in where sessions come from.

use std::collections::HashMap;
use std::sync::Arc;

use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::session::{Change, ServeOptions, SessionError, dial};
use crate::work::{Session, Work};

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
}

/// An agent that runs attempts on one backend.
pub struct Agent {
    options: AgentOptions,
    backend: Arc<dyn Backend>,
}

impl Agent {
    /// An agent; nothing runs until [`Agent::run`] or [`Agent::serve`].
    pub fn new(options: AgentOptions, backend: Arc<dyn Backend>) -> Agent {
        Agent { options, backend }
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
        let _ = sessions.try_send(Session { inbox, outbox, is_local: true });
        drop(sessions);
        Work::new(self.options, self.backend).run(arriving, shutdown).await;
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
        let work = Work::new(self.options, self.backend);
        let work = work.run(arriving, shutdown);
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => Ok(()),
            refused = dial(options, sessions, on_change) => {
                work.await;
                Err(refused)
            }
        }
    }
}
