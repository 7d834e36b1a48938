//! The contract between the agent and what runs containers.
//!
//! One call of [`Backend::run_task`] is one placement of one attempt. Everything that happens is
//! told through the [`Sink`], in order; the call returns when nothing of the attempt runs any more.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tenon_proto::agent::v1::{AttemptId, Infra, RunSpec, TaskInvocation, ended, report};
use tokio_util::sync::CancellationToken;

use crate::keeping::{HouseOptions, Needed};
use crate::lease::LeaseView;
use crate::owner::Owner;
use crate::policy::Policy;
use crate::record::{Mark, Marked};

/// A boxed future, so that backends can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that can run attempts: Docker, the host itself, later a cluster.
pub trait Backend: Send + Sync {
    /// `docker` or `host`.
    fn name(&self) -> &'static str;

    /// Where attempts, claims and the like are, if they are on this machine.
    fn data_dir(&self) -> Option<&std::path::Path> {
        None
    }

    /// Makes what the attempts of a run share. Called before the first attempt of a run; calling
    /// it again changes nothing.
    fn prepare<'a>(&'a self, run: &'a RunSpec) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Runs one attempt to its end. The agent itself reports `Started` before and `Ended` after;
    /// everything between is the backend's to report. `cancel` asks for SIGTERM, grace, SIGKILL; the
    /// call returns when nothing of the attempt can act any more. Its directory stays, as the sign
    /// that it was here, until [`Backend::forget`].
    fn run_task<'a>(
        &'a self,
        task: &'a TaskInvocation,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome>;

    /// What an earlier process of this agent has left, of all that it had begun. Nothing is changed.
    fn left(&self) -> BoxFuture<'_, Result<Left, BackendError>> {
        Box::pin(async { Ok(Left::default()) })
    }

    /// Goes on with one of the attempts that are [`Backend::left`], as [`Backend::run_task`] would.
    /// `marks` say what was reported of its containers. Where the attempt cannot be gone on with,
    /// nothing of it runs any more when that is said.
    fn adopt<'a>(
        &'a self,
        attempt: &'a AttemptId,
        _marks: &'a BTreeMap<u32, Mark>,
        _sink: &'a dyn Sink,
        _cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        let message = format!("{} was left by an agent that died", attempt.task_run);
        let reason = "infra/agent-restarted".to_owned();
        Box::pin(async { ended::Outcome::Infra(Infra { reason, message }) })
    }

    /// Lets what [`crate::guard`] has frozen of an attempt go on. For one that is not frozen it does
    /// nothing.
    fn thaw<'a>(&'a self, _attempt: &'a AttemptId) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    /// Some of the images that are here: attempts that need them rather come here.
    fn images(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    /// Removes what [`Backend::run_task`] has left of an attempt, once its end is reported for good.
    fn forget<'a>(&'a self, _attempt: &'a AttemptId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Removes what outlives an attempt: claims, networks. With `keep_claims` the claims stay, for a
    /// run that continues this one. Calling it again changes nothing.
    fn cleanup<'a>(
        &'a self,
        run_id: &'a str,
        keep_claims: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Removes what dead processes and earlier lives of this agent left behind, and says how many
    /// things that were.
    fn reap(&self) -> BoxFuture<'_, Result<usize, BackendError>>;

    /// Removes what nobody needs any more: things of attempts that are not `needed`, claims that nobody
    /// came for, and images when the disk is nearly full. Called now and then; says what it did.
    fn keep_house<'a>(&'a self, _needed: &'a Needed) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    /// Paths on the disks where attempts need room.
    fn places(&self) -> BoxFuture<'_, Vec<PathBuf>> {
        Box::pin(async { Vec::new() })
    }

    /// The optional ability to take a whole PipelineRun instead of its attempts.
    fn pipelines(&self) -> Option<&dyn PipelineBackend> {
        None
    }
}

/// A substrate that runs whole PipelineRuns, such as a cluster with Tekton on it.
pub trait PipelineBackend: Send + Sync {
    /// Runs the PipelineRun given as JSON; returns the final objects as JSON.
    fn run_pipeline<'a>(
        &'a self,
        pipeline_run_json: &'a str,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Vec<String>, BackendError>>;
}

/// Where an attempt's reports go. `report` waits when the coordinator is behind, so a step that
/// prints faster than the world can store is slowed down, never cut.
pub trait Sink: Send + Sync {
    /// A durable report. `time_ms` is when it happened, in milliseconds since the Unix epoch;
    /// `marked` says where in a container's record somebody goes on who has this report.
    fn report(&self, time_ms: i64, what: report::What, marked: Option<Marked>)
    -> BoxFuture<'_, ()>;
    /// A passing remark for live displays; may be dropped.
    fn progress(&self, what: &str, done: u64, total: u64);
    /// A remark that the user is to be told, once.
    fn note<'a>(&'a self, what: &'a str) -> BoxFuture<'a, ()>;
}

/// A request to stop an attempt, and the leave to go on with it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    /// Fires when the attempt is to stop: SIGTERM now, unless `kill` has fired.
    pub stop: CancellationToken,
    /// Fires when grace is over, or before `stop` where there is none: SIGKILL now.
    pub kill: CancellationToken,
    /// Fires when nobody wants to know any more how it ends.
    pub unwanted: CancellationToken,
    /// Whether anything may be begun at all.
    pub lease: LeaseView,
}

/// What an earlier process of this agent has left on a backend.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Attempts that had begun.
    pub attempts: Vec<AttemptId>,
    /// Runs of which something is there.
    pub runs: Vec<String>,
}

/// What every backend is told about the machine.
#[derive(Clone, Debug, Default)]
pub struct BackendOptions {
    /// Where attempts, claims and the entrypoint live; made on demand, 0700.
    pub data_dir: std::path::PathBuf,
    /// Whose the things are that it makes.
    pub owner: Owner,
    /// Leave containers and directories for inspection.
    pub keep: bool,
    /// Which images stand for which.
    pub image_map: crate::ImageMap,
    /// What tasks may have of this machine.
    pub policy: Policy,
    /// What is kept, and for how long.
    pub house: HouseOptions,
}

/// A backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct BackendError {
    /// Stable, e.g. `docker/unreachable`.
    pub code: &'static str,
    /// What, where, why, and what to do.
    pub message: String,
}
