//! A coordinator inside one process: the handle, its options, and the thread behind it.
//!
//! [`Local`] is cheap to ask and owns nothing but channels; the [`crate::driver`] thread owns the
//! engine, the command log and the runs' journals. Dropping the handle without [`Local::close`]
//! leaves the log for the next start to recover.

use std::path::PathBuf;
use std::thread::JoinHandle;

use tenon_engine::command::CancelMode;
use tenon_engine::{RunId, RunOutcome, Submission};
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Progress};
use tenon_reporter::history::Store;
use tenon_tekton::Object;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::driver::{Driver, Input};
use crate::error::{Error, Result};
use crate::materials::Materials;
use crate::recovery;

/// How many inputs may wait: enough to batch, few enough that a fast step is slowed down early.
const INPUTS: usize = 64;
/// Progress remarks kept for a slow display before it misses some.
const REMARKS: usize = 256;

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

/// The handle of a local coordinator.
pub struct Local {
    inputs: mpsc::Sender<Input>,
    progress: broadcast::Sender<Progress>,
    notes: mpsc::UnboundedReceiver<String>,
    recovered: Vec<RunId>,
    thread: JoinHandle<Result<()>>,
}

impl Local {
    /// Recovers what dead processes left in the state directory, then starts the coordinator.
    pub fn open(options: &LocalOptions, link: AgentLink) -> Result<Local> {
        let store = Store::new(&options.state_dir);
        let recovered = recovery::recover(&options.state_dir, &store)?;
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let (progress, _) = broadcast::channel(REMARKS);
        // Unbounded because a note is rare and must not be lost; a run makes a few.
        let (note, notes) = mpsc::unbounded_channel();
        let driver = Driver::new(options, store, link, progress.clone(), note)?;
        let thread = std::thread::Builder::new()
            .name("coordinator".to_owned())
            .spawn(move || driver.run(receiver))
            .map_err(|source| Error::Io {
                action: "start a thread for",
                path: PathBuf::from("coordinator"),
                source,
            })?;
        Ok(Local { inputs, progress, notes, recovered, thread })
    }

    /// Runs of dead processes that were brought to an end while opening.
    pub fn recovered(&self) -> &[RunId] {
        &self.recovered
    }

    /// Accepts a run. When this returns, the submission is on the disk (invariant 1) and its event
    /// journal can be followed.
    pub async fn submit(&self, submission: Submission, materials: Materials) -> Result<RunHandle> {
        let (accepted, acceptance) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let run_id = submission.run_id;
        let submission = Box::new(submission);
        self.send(Input::Submit { submission, materials, accepted, done }).await?;
        acceptance.await.map_err(|_| Error::Stopped)?;
        Ok(RunHandle { run_id, finished })
    }

    /// Ends a run early: what runs is asked to end, and killed when its grace is over.
    pub async fn cancel(&self, run: RunId, mode: CancelMode, message: &str) -> Result<()> {
        self.send(Input::Cancel { run, mode, message: message.to_owned(), now: false }).await
    }

    /// Ends a run now: what runs is killed, `finally` tasks too.
    pub async fn kill(&self, run: RunId, message: &str) -> Result<()> {
        let mode = CancelMode::Cancelled;
        self.send(Input::Cancel { run, mode, message: message.to_owned(), now: true }).await
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

    /// Ends the coordinator, and says why it had stopped before, if it had. With every run over,
    /// its command log is removed.
    pub async fn close(self) -> Result<()> {
        drop(self.inputs);
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap_or(Err(Error::Stopped)))
            .await
            .unwrap_or(Err(Error::Stopped))
    }

    async fn send(&self, input: Input) -> Result<()> {
        self.inputs.send(input).await.map_err(|_| Error::Stopped)
    }
}
