//! One attempt: all containers launched at once, gated by the entrypoint, followed by their
//! records, until every launcher has said that nothing of its container is left.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenon_entrypoint::frame::{self, Ended};
use tenon_proto::agent::v1::{
    Ran, SidecarStarted, StepStarted, TaskInvocation, ended::Outcome, report,
};
use tenon_tekton::pod::Pod;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::reach::Enter;
use super::{HostBackend, freeze, launch};
use crate::backend::{Cancel, Sink};
use crate::clock::now_ms;
use crate::docker::Failure;
use crate::lease::LeaseView;
use crate::mask::Masker;
use crate::owner::OWNER_FILE;
use crate::pod::{self, Claims, ContainerPlan, Place, PodDir, PodPlan, Sees, attempt_key};
use crate::probe;
use crate::record::{self, Fate, Followed, Follower, Marked, Record};

/// What sidecars get between SIGTERM and SIGKILL, as in Kubernetes.
const GRACE: Duration = Duration::from_secs(30);
/// Reports that the records may be ahead.
const AHEAD: usize = 64;
/// The launcher's exit code when it could not make the container.
const CANNOT: i32 = 125;

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
    let plans: Vec<&ContainerPlan> = plan.steps.iter().chain(&plan.sidecars).collect();
    for plan in &plans {
        launch::check_user(plan)?;
        plan.write_spec(launch::argv(plan)?, false)?;
    }
    let records: Vec<Record> =
        plans.iter().enumerate().map(|(index, plan)| Record::new(index, plan, None)).collect();
    let (out, followed) = mpsc::channel(AHEAD);
    let mut running = Attempt {
        backend,
        sink,
        dir,
        steps: plan.steps.len(),
        follower: record::follow(&records, masker, out)?,
        lease: cancel.lease.clone(),
        containers: Vec::new(),
        exits: JoinSet::new(),
        probes: JoinSet::new(),
        hooks: JoinSet::new(),
        stopping: false,
        killing: false,
        sidecars_until: None,
        failure: None,
        plans,
    };
    if backend.options.owner.is_agent() {
        dir.begin(&attempt)?;
    }
    if let Err(failure) = running.launch_all(&plan, cancel).await {
        running.failure = Some(failure);
        running.kill_all();
    }
    running.drive(followed, cancel).await;
    match running.failure {
        Some(failure) => Err(failure),
        None if running.stopping => Err(Failure::Stopped),
        None => Ok(()),
    }
}

/// One container: what is known of its launcher, and of its record.
struct Container {
    /// Closing it kills the container.
    life: Option<ChildStdin>,
    keeper: u32,
    exited: Option<Exited>,
    begun: bool,
    over: bool,
    ready: bool,
}

struct Exited {
    code: i32,
    said: String,
}

struct Attempt<'a> {
    backend: &'a HostBackend,
    sink: &'a dyn Sink,
    dir: &'a PodDir,
    /// The steps, then the sidecars.
    plans: Vec<&'a ContainerPlan>,
    steps: usize,
    follower: Follower,
    lease: LeaseView,
    containers: Vec<Container>,
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

impl Attempt<'_> {
    async fn launch_all(&mut self, pod: &PodPlan, cancel: &Cancel) -> Result<(), Failure> {
        let hosts = self.hosts_file(pod)?;
        tokio::select! {
            () = cancel.lease.wait() => {}
            () = cancel.stop.cancelled() => return Err(Failure::Stopped),
        }
        for (index, plan) in self.plans.clone().into_iter().enumerate() {
            let root = self.dir.root().join("root");
            if index == 0 {
                pod::make_dir(&root, 0o700)?;
            }
            let launch =
                launch::launch(pod, plan, &root, hosts.as_deref(), &self.backend.options.data_dir)?;
            let container = self.launch(index, &launch.encode()).await?;
            self.containers.push(container);
        }
        Ok(())
    }

    fn hosts_file(&self, pod: &PodPlan) -> Result<Option<std::path::PathBuf>, Failure> {
        if pod.host_aliases.is_empty() {
            return Ok(None);
        }
        let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        for (address, names) in &pod.host_aliases {
            hosts.push_str(&format!("\n{address}\t{}", names.join("\t")));
        }
        hosts.push('\n');
        let path = self.dir.root().join("hosts");
        std::fs::write(&path, hosts)?;
        Ok(Some(path))
    }

    async fn launch(&mut self, index: usize, order: &[u8]) -> Result<Container, Failure> {
        let mut child = Command::new(self.backend.launcher())
            .arg("launch")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let keeper = child.id().unwrap_or_default();
        if self.backend.options.owner.is_agent() {
            freeze::write_down(self.dir.root(), keeper)?;
        }
        let mut life = child.stdin.take();
        if let Some(life) = &mut life {
            // One that is dead already says why by its exit.
            let _ = life.write_all(order).await;
        }
        let mut stderr = child.stderr.take();
        self.exits.spawn(async move {
            let mut said = Vec::new();
            if let Some(stderr) = &mut stderr {
                let _ = stderr.read_to_end(&mut said).await;
            }
            let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(137);
            (index, Exited { code, said: String::from_utf8_lossy(&said).trim().to_owned() })
        });
        Ok(Container { life, keeper, exited: None, begun: false, over: false, ready: false })
    }

    /// Returns when every record has ended and nothing runs any more.
    async fn drive(&mut self, mut followed: mpsc::Receiver<Followed>, cancel: &Cancel) {
        let mut followed_ended = false;
        while self.containers.iter().any(|one| !one.over || one.exited.is_none()) {
            let until = self.sidecars_until;
            tokio::select! {
                biased;
                () = cancel.kill.cancelled(), if !self.killing => {
                    self.stopping = true;
                    self.kill_all();
                }
                () = cancel.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.signal(0..self.steps, libc::SIGTERM);
                }
                next = followed.recv(), if !followed_ended => match next {
                    Some(followed) => self.take(followed).await,
                    None => {
                        followed_ended = true;
                        self.records_ended();
                    }
                },
                Some(Ok((index, exited))) = self.exits.join_next() => self.exited(index, exited),
                Some(Ok((index, ready))) = self.probes.join_next() => {
                    if ready { self.ready(index); } else { self.containers[index].life = None; }
                }
                Some(Ok(index)) = self.hooks.join_next() => {
                    self.signal(index..index + 1, libc::SIGTERM);
                }
                () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await },
                    if until.is_some() && !self.killing => self.kill_all(),
            }
            let steps_over = self.containers[..self.steps].iter().all(|step| step.over);
            if steps_over && self.sidecars_until.is_none() && self.steps < self.containers.len() {
                self.stop_sidecars();
            }
        }
    }

    /// Nothing more will be read of any record; without all their ends something is wrong.
    fn records_ended(&mut self) {
        if self.containers.iter().all(|container| container.over) {
            return;
        }
        self.failure.get_or_insert(Failure::Infra {
            reason: "infra/agent-files",
            message: "the records of the steps could not be read any more".to_owned(),
        });
        for container in &mut self.containers {
            container.over = true;
        }
        self.kill_all();
    }

    fn kill_all(&mut self) {
        self.killing = true;
        for container in &mut self.containers {
            container.life = None;
        }
    }

    fn signal(&self, which: std::ops::Range<usize>, signal: i32) {
        for container in &self.containers[which] {
            let Ok(keeper) = i32::try_from(container.keeper) else { continue };
            if container.exited.is_none() && keeper > 1 {
                // SAFETY: no memory is involved; the keeper is our child and not waited for yet.
                unsafe { libc::kill(keeper, signal) };
            }
        }
    }

    fn exited(&mut self, index: usize, exited: Exited) {
        if exited.code == CANNOT && !self.containers[index].begun && self.failure.is_none() {
            self.failure = Some(Failure::Infra {
                reason: "infra/host-launch",
                message: format!(
                    "{} could not be started: {}",
                    self.plans[index].container, exited.said
                ),
            });
            self.kill_all();
        }
        self.containers[index].exited = Some(exited);
        self.containers[index].life = None;
        self.follower.dead(index);
    }

    async fn take(&mut self, followed: Followed) {
        match followed {
            Followed::Started { index, time_ms, marked } => {
                self.begun(index, time_ms, marked).await;
            }
            Followed::Output { index, time_ms, lines, chunk, marked } => {
                let what = record::output(self.plans[index], lines, chunk);
                self.sink.report(time_ms, what, Some(marked)).await;
            }
            Followed::Ended { index, time_ms, ended, marked } => {
                self.ended(index, time_ms, ended, marked).await;
            }
            Followed::Stalled { .. } => {
                self.failure.get_or_insert(Failure::no_room());
                self.kill_all();
            }
            Followed::Died { index, damage, marked } => {
                let ended = self.death(index, damage);
                self.ended(index, now_ms(), ended, marked).await;
            }
        }
    }

    async fn begun(&mut self, index: usize, time_ms: i64, marked: Marked) {
        self.containers[index].begun = true;
        let plan = self.plans[index];
        if !plan.is_sidecar() {
            let what = report::What::StepStarted(StepStarted { step: plan.name.clone() });
            return self.sink.report(time_ms, what, Some(marked)).await;
        }
        let what = report::What::SidecarStarted(SidecarStarted { sidecar: plan.name.clone() });
        self.sink.report(time_ms, what, Some(marked)).await;
        if probe::is_ready_at_once(plan) {
            return self.ready(index);
        }
        let (plan, reach) = (plan.clone(), self.reach(index));
        let lease = self.lease.clone();
        self.probes
            .spawn(async move { (index, lease.during(probe::until_ready(&plan, &reach)).await) });
    }

    fn reach(&self, index: usize) -> Enter {
        Enter { launcher: self.backend.launcher(), keeper: self.containers[index].keeper }
    }

    /// Asks the sidecars to end, each after its `preStop` hook.
    fn stop_sidecars(&mut self) {
        self.sidecars_until = Some(Instant::now() + GRACE);
        for index in self.steps..self.containers.len() {
            if self.containers[index].over {
                continue;
            }
            let (plan, reach) = (self.plans[index].clone(), self.reach(index));
            self.hooks.spawn(async move {
                probe::before_stop(&plan, &reach).await;
                index
            });
        }
    }

    /// A sidecar is ready, or over: when all are, the first step may go.
    fn ready(&mut self, index: usize) {
        self.containers[index].ready = true;
        if self.containers[self.steps..].iter().all(|sidecar| sidecar.ready)
            && let Err(error) = std::fs::write(self.dir.ready_file(), b"READY")
        {
            self.failure.get_or_insert(Failure::from(error));
            self.kill_all();
        }
    }

    /// What to say of a container that died without a word.
    fn death(&self, index: usize, damage: Option<String>) -> Ended {
        let exited = self.containers[index].exited.as_ref();
        let code = exited.map_or(137, |exited| exited.code);
        let message = match damage {
            Some(damage) => format!("the record of the container is damaged: {damage}"),
            None if self.killing => String::new(),
            None => format!("the container died (exit code {code}) before it could say how"),
        };
        let exit_code = if code == 0 { 1 } else { code };
        Ended { exit_code, ending: frame::Ending::Error, message, ..Ended::default() }
    }

    async fn ended(&mut self, index: usize, time_ms: i64, ended: Ended, marked: Marked) {
        self.containers[index].over = true;
        let plan = self.plans[index];
        let fate = Fate {
            container_id: format!("host://{}", self.containers[index].keeper),
            stopping: self.stopping,
            ..Fate::default()
        };
        if plan.is_sidecar() {
            let stopped = self.sidecars_until.is_some();
            let what = record::sidecar_ended(plan, ended.exit_code, stopped, fate);
            self.sink.report(time_ms, what, Some(marked)).await;
            return self.ready(index);
        }
        let what = record::step_ended(plan, ended, fate);
        self.sink.report(time_ms, what, Some(marked)).await;
        // One that died could not tell the next step, which would wait for ever.
        let run = self.dir.run(index);
        if self.containers[index].exited.is_some()
            && !is_there(&run, "out")
            && !is_there(&run, "out.err")
        {
            let _ = std::fs::write(run.join("out.err"), b"");
        }
    }
}

fn is_there(directory: &Path, name: &str) -> bool {
    directory.join(name).exists()
}
