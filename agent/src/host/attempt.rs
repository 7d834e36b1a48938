//! One attempt: all containers launched at once, gated by the entrypoint, followed by their
//! records, until every launcher has said that nothing of its container is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tenon_proto::agent::v1::{AttemptId, Ran, TaskInvocation, ended::Outcome};
use tenon_tekton::pod::Pod;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::adopt::Saved;
use super::keeper::{Exited, Keeper};
use super::{HostBackend, launch, launchers, process};
use crate::backend::{Cancel, Sink};
use crate::docker::Failure;
use crate::lease::LeaseView;
use crate::mask::Masker;
use crate::owner::OWNER_FILE;
use crate::pod::{self, Claims, ContainerPlan, Place, PodDir, PodPlan, Sees, attempt_key};
use crate::record::{self, Followed, Follower, Mark, Record};

mod adopt;
mod drive;
mod sidecars;

pub use adopt::adopt;

/// Reports that the records may be ahead.
const AHEAD: usize = 64;

/// Runs one attempt.
pub async fn run(
    backend: &HostBackend,
    task: &TaskInvocation,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Outcome {
    let attempt = task.attempt.clone().unwrap_or_default();
    let key = attempt_key(&attempt);
    let dir = match PodDir::create(&backend.options.data_dir, &key, &backend.options.owner) {
        Ok(dir) => dir,
        Err(error) => return Failure::from(error).into_outcome(&backend.options.data_dir),
    };
    let outcome = run_in(backend, task, sink, cancel, &dir).await;
    end(backend, &attempt, sink, &dir, outcome).await
}

/// Says what is kept, and how it ended.
async fn end(
    backend: &HostBackend,
    attempt: &AttemptId,
    sink: &dyn Sink,
    dir: &PodDir,
    outcome: Result<(), Failure>,
) -> Outcome {
    if backend.options.keep {
        for tree in [dir.private(), dir.root()] {
            let _ = std::fs::remove_file(tree.join(OWNER_FILE));
        }
        let run = backend.run_dir(&attempt.run_id);
        let (root, private, run) = (dir.root().display(), dir.private().display(), run.display());
        sink.note(&format!("kept for inspection: directories {root} {private} {run}")).await;
    }
    match outcome {
        Ok(()) => Outcome::Ran(Ran {}),
        Err(failure) => failure.into_outcome(&backend.options.data_dir),
    }
}

async fn run_in(
    backend: &HostBackend,
    task: &TaskInvocation,
    sink: &dyn Sink,
    cancel: &Cancel,
    dir: &PodDir,
) -> Result<(), Failure> {
    let attempt = task.attempt.clone().unwrap_or_default();
    let pod: Pod = serde_json::from_str(&task.pod_json).map_err(|error| Failure::Refused {
        reason: "PodCreationFailed".to_owned(),
        message: format!("the pod of the TaskRun cannot be read: {error}"),
    })?;
    let place = Place {
        sees: Sees::Everything,
        entrypoint_dir: backend.entrypoint_dir.clone(),
        claims: Claims::new(&backend.runs_dir(), task),
        policy: backend.options.policy.clone(),
    };
    let mut plan = pod::build(dir, &place, task, &pod)?;
    let masker = Masker::new(plan.secrets.iter().map(Vec::as_slice));
    plan.warnings.extend(masker.warning());
    if !backend.said.swap(true, Ordering::Relaxed) {
        sink.note("host backend: images are ignored, steps use this machine's programs").await;
    }
    for warning in &plan.warnings {
        tracing::warn!(task_run = %attempt.task_run, "{warning}");
        sink.note(&format!("warning: {warning}")).await;
    }
    for plan in plan.steps.iter().chain(&plan.sidecars) {
        launch::check_user(plan)?;
        plan.write_spec(launch::argv(plan)?, false)?;
    }
    let is_agent = backend.options.owner.is_agent();
    let mut saved =
        Saved { launcher: backend.launcher(), plan, orders: Vec::new(), outlives: false };
    // What cannot be gone on with is not to outlive its agent, nor what cannot be held for certain.
    saved.outlives = is_agent && process::can_be_held() && dir.private_in_memory();
    saved.orders = orders(&saved.plan, dir, &backend.options.data_dir, saved.outlives)?;
    if is_agent {
        launchers::prepare(dir.root())?;
        dir.save(&saved)?;
        dir.begin(&attempt)?;
    }
    let mut running = Attempt::new(backend, sink, dir, cancel, &saved, masker, &BTreeMap::new())?;
    running.to_launch = (0..running.plans.len()).collect();
    running.run(cancel).await
}

/// What each launcher is told.
fn orders(
    plan: &PodPlan,
    dir: &PodDir,
    data_dir: &Path,
    outlives: bool,
) -> Result<Vec<Vec<u8>>, Failure> {
    let hosts = hosts_file(plan, dir)?;
    let root = dir.root().join("root");
    pod::make_dir(&root, 0o700)?;
    let mut orders = Vec::new();
    for (index, container) in plan.steps.iter().chain(&plan.sidecars).enumerate() {
        let exit = outlives.then(|| launchers::exit_file(dir.root(), index));
        let (hosts, exit) = (hosts.as_deref(), exit.as_deref());
        let order = launch::launch(plan, container, &root, hosts, data_dir, exit)?;
        orders.push(order.encode());
    }
    Ok(orders)
}

fn hosts_file(plan: &PodPlan, dir: &PodDir) -> Result<Option<PathBuf>, Failure> {
    if plan.host_aliases.is_empty() {
        return Ok(None);
    }
    let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    for (address, names) in &plan.host_aliases {
        hosts.push_str(&format!("\n{address}\t{}", names.join("\t")));
    }
    hosts.push('\n');
    let path = dir.root().join("hosts");
    std::fs::write(&path, hosts)?;
    Ok(Some(path))
}

/// One container: what is known of its launcher, and of its record.
#[derive(Default)]
struct Container {
    /// None until it is launched.
    keeper: Option<Keeper>,
    exited: Option<Exited>,
    /// An earlier agent has launched it, or was about to.
    adopted: bool,
    /// It ended while no agent was there, and nobody knows how.
    vanished: bool,
    begun: bool,
    over: bool,
    ready: bool,
}

/// An attempt under way.
struct Attempt<'a> {
    backend: &'a HostBackend,
    sink: &'a dyn Sink,
    dir: &'a PodDir,
    saved: &'a Saved,
    /// The steps, then the sidecars.
    plans: Vec<&'a ContainerPlan>,
    steps: usize,
    follower: Follower,
    followed: Option<mpsc::Receiver<Followed>>,
    lease: LeaseView,
    containers: Vec<Container>,
    /// Places of containers that are still to be launched.
    to_launch: Vec<usize>,
    exits: JoinSet<(usize, Exited)>,
    probes: JoinSet<(usize, bool)>,
    /// `preStop` hooks.
    hooks: JoinSet<usize>,
    stopping: bool,
    killing: bool,
    /// The steps are over: sidecars were told to end, and are killed then.
    sidecars_until: Option<Instant>,
    failure: Option<Failure>,
}

impl<'a> Attempt<'a> {
    /// Follows the records from where `marks` say, if they say so; nothing is launched yet.
    fn new(
        backend: &'a HostBackend,
        sink: &'a dyn Sink,
        dir: &'a PodDir,
        cancel: &Cancel,
        saved: &'a Saved,
        masker: Masker,
        marks: &BTreeMap<u32, Mark>,
    ) -> Result<Attempt<'a>, Failure> {
        let plans: Vec<&ContainerPlan> =
            saved.plan.steps.iter().chain(&saved.plan.sidecars).collect();
        let records = Record::of_all(plans.iter().copied(), marks);
        let container = |record: &Record| Container {
            begun: record.from.begun,
            over: record.from.over,
            ..Container::default()
        };
        let (out, followed) = mpsc::channel(AHEAD);
        Ok(Attempt {
            containers: records.iter().map(container).collect(),
            follower: record::follow(&records, masker, out)?,
            followed: Some(followed),
            backend,
            sink,
            dir,
            saved,
            steps: saved.plan.steps.len(),
            plans,
            lease: cancel.lease.clone(),
            to_launch: Vec::new(),
            exits: JoinSet::new(),
            probes: JoinSet::new(),
            hooks: JoinSet::new(),
            stopping: false,
            killing: false,
            sidecars_until: None,
            failure: None,
        })
    }

    /// Runs it to its end.
    async fn run(mut self, cancel: &Cancel) -> Result<(), Failure> {
        self.drive(cancel).await;
        match self.failure {
            Some(failure) => Err(failure),
            None if self.stopping => Err(Failure::Stopped),
            None => Ok(()),
        }
    }
}
