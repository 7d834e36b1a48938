//! One attempt from its invocation to the removal of everything it made.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, KillContainerOptionsBuilder};
use futures_util::future::join_all;
use tenon_proto::agent::v1::{AttemptId, TaskInvocation, ended::Outcome};
use tenon_tekton::pod::Pod;

use super::DockerBackend;
use super::create::{self, Network};
use super::error::Failure;
use super::far::{self, Helper, Link};
use super::images::{Image, PullError};
use super::labels;
use crate::backend::{Cancel, Sink};
use crate::clock::now_ms;
use crate::mask::Masker;
use crate::pod::{self, Claims, ContainerPlan, Place, PodDir, PodPlan, attempt_key};

mod adopt;
mod drive;
mod end;

pub use adopt::adopt;

/// The name of the container that only holds the network.
const PAUSE: &str = "pause";

/// Runs one attempt.
pub async fn run(
    backend: &DockerBackend,
    task: &TaskInvocation,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Outcome {
    let attempt = task.attempt.clone().unwrap_or_default();
    let make = |data_dir: &Path, key: &str| PodDir::create(data_dir, key, &backend.options.owner);
    let mut running = match Attempt::new(backend, attempt, sink, cancel, make) {
        Ok(running) => running,
        Err(error) => return Failure::from(error).into_outcome(&backend.options.data_dir),
    };
    let outcome = running.run(task).await;
    running.remove().await;
    running.into_outcome(outcome)
}

/// One attempt under way.
struct Attempt<'a> {
    backend: &'a DockerBackend,
    sink: &'a dyn Sink,
    cancel: &'a Cancel,
    attempt: AttemptId,
    key: String,
    /// Since when the daemon's events are of interest.
    began_ms: i64,
    dir: PodDir,
    plan: PodPlan,
    /// The steps, then the sidecars.
    containers: Vec<Container>,
    /// The daemon was asked to create containers.
    created: bool,
    /// The container that holds the network, when it is none of those.
    pause: Option<String>,
    /// The way to the attempt's files, where the daemon does not see those that are here.
    link: Option<Link>,
}

/// A container of the attempt.
struct Container {
    id: String,
    image: Image,
    started: bool,
    /// Its record has ended: it is, or is about to be, dead.
    over: bool,
    exit_code: Option<i32>,
    oom_killed: bool,
}

impl<'a> Attempt<'a> {
    fn new(
        backend: &'a DockerBackend,
        attempt: AttemptId,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
        dir: impl FnOnce(&Path, &str) -> io::Result<PodDir>,
    ) -> io::Result<Attempt<'a>> {
        let key = attempt_key(&attempt);
        Ok(Attempt {
            dir: dir(&backend.options.data_dir, &key)?,
            backend,
            sink,
            cancel,
            attempt,
            key,
            began_ms: now_ms(),
            plan: PodPlan::default(),
            containers: Vec::new(),
            created: false,
            pause: None,
            link: None,
        })
    }

    fn into_outcome(self, outcome: Result<(), Failure>) -> Outcome {
        match outcome {
            Ok(()) => Outcome::Ran(tenon_proto::agent::v1::Ran {}),
            Err(failure) => failure.into_outcome(&self.backend.options.data_dir),
        }
    }

    async fn run(&mut self, task: &TaskInvocation) -> Result<(), Failure> {
        let pod: Pod = serde_json::from_str(&task.pod_json).map_err(|error| Failure::Refused {
            reason: "PodCreationFailed".to_owned(),
            message: format!("the pod of the TaskRun cannot be read: {error}"),
        })?;
        let place = Place {
            entrypoint_dir: self.backend.entrypoint_dir.clone(),
            claims: Claims::new(&self.backend.runs_dir(), task),
            sees: self.backend.sees(),
            policy: self.backend.options.policy.clone(),
        };
        self.plan = pod::build(&self.dir, &place, task, &pod)?;
        let masker = Masker::new(self.plan.secrets.iter().map(Vec::as_slice));
        self.plan.warnings.extend(masker.warning());
        for warning in &self.plan.warnings {
            tracing::warn!(task_run = %self.attempt.task_run, "{warning}");
            self.sink.note(&format!("warning: {warning}")).await;
        }
        let images = tokio::select! {
            images = self.images() => images?,
            () = self.cancel.stop.cancelled() => return Err(Failure::Stopped),
        };
        self.write_specs(&images)?;
        self.save(&images)?;
        let helper = self.copy_out().await?;
        self.create(images, helper.as_ref()).await?;
        self.drive(masker, &BTreeMap::new()).await
    }

    /// Copies what was made to where the daemon sees it, if it does not see it here.
    async fn copy_out(&mut self) -> Result<Option<Helper>, Failure> {
        let Some(far) = &self.backend.far else { return Ok(None) };
        let helper = far.helper().await?;
        let orders = far::upload(far, &self.dir, &self.plan)?;
        let link = self.link.insert(Link::open(far.clone()));
        tokio::select! {
            done = link.order(orders) => done?,
            () = self.cancel.stop.cancelled() => return Err(Failure::Stopped),
        }
        Ok(Some(helper))
    }

    /// What the daemon calls a path of the agent's.
    fn source(&self, helper: Option<&Helper>, path: &Path) -> PathBuf {
        match (&self.backend.far, helper) {
            (Some(far), Some(helper)) => far.source(helper, path),
            _ => self.backend.site.map(path),
        }
    }

    /// The plan with the names that the daemon has for what is mounted.
    fn as_seen(&self, helper: Option<&Helper>, plan: &ContainerPlan) -> ContainerPlan {
        let mut plan = plan.clone();
        for bind in plan.binds.iter_mut().filter(|bind| !bind.on_host) {
            bind.source = self.source(helper, &bind.source);
        }
        plan
    }

    fn plans(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.plan.steps.iter().chain(&self.plan.sidecars)
    }

    fn plan_of(&self, index: usize) -> &ContainerPlan {
        match self.plan.steps.get(index) {
            Some(step) => step,
            None => &self.plan.sidecars[index - self.plan.steps.len()],
        }
    }

    /// The image of every container, pulled where needed; each name is looked for once.
    async fn images(&self) -> Result<Vec<Image>, Failure> {
        let mut names: Vec<(&str, pod::PullPolicy)> =
            self.plans().map(|plan| (plan.image.as_str(), plan.pull_policy)).collect();
        names.sort_unstable();
        names.dedup();
        let found = join_all(names.iter().map(|(name, policy)| {
            let images = &self.backend.images;
            images.ensure(name, *policy, &self.plan.pull_configs, self.sink)
        }))
        .await;
        let mut by_name: HashMap<_, _> = names.into_iter().zip(found).collect();
        let mut images = Vec::new();
        for plan in self.plans() {
            let key = (plan.image.as_str(), plan.pull_policy);
            match by_name.get(&key) {
                Some(Ok(image)) => images.push(image.clone()),
                _ => {
                    let error = by_name.remove(&key).and_then(Result::err);
                    return Err(self.pull_failure(plan, error));
                }
            }
        }
        for (plan, image) in self.plans().zip(&images) {
            self.check_user(plan, image)?;
        }
        Ok(images)
    }

    fn pull_failure(&self, plan: &ContainerPlan, error: Option<PullError>) -> Failure {
        let kind = if plan.is_sidecar() { "sidecar" } else { "step" };
        match error {
            Some(PullError::Failed(failure)) => failure,
            Some(PullError::Refused(message)) => Failure::Refused {
                reason: "TaskRunImagePullFailed".to_owned(),
                message: format!(
                    "the {kind} {:?} in TaskRun {:?} failed to pull the image {:?}. \
                     The pod errored with the message: \"{message}.\"",
                    plan.name, self.attempt.task_run, plan.image
                ),
            },
            None => Failure::Infra {
                reason: "infra/docker-error",
                message: format!("the image {:?} was not looked for", plan.image),
            },
        }
    }

    fn check_user(&self, plan: &ContainerPlan, image: &Image) -> Result<(), Failure> {
        if !plan.identity.non_root {
            return Ok(());
        }
        let image_user = image.user.split(':').next().unwrap_or_default();
        let root = match plan.identity.user {
            Some(user) => user == 0,
            None => matches!(image_user, "" | "0" | "root"),
        };
        if !root {
            return Ok(());
        }
        Err(Failure::Refused {
            reason: "CreateContainerConfigError".to_owned(),
            message: format!(
                "the {} {:?} in TaskRun {:?} failed to start. The pod errored with the message: \
                 \"container has runAsNonRoot and image will run as root.\"",
                if plan.is_sidecar() { "sidecar" } else { "step" },
                plan.name,
                self.attempt.task_run
            ),
        })
    }

    fn write_specs(&self, images: &[Image]) -> Result<(), Failure> {
        for (plan, image) in self.plans().zip(images) {
            let argv = plan.entry.resolve(&image.entrypoint, &image.cmd);
            if argv.is_empty() {
                return Err(Failure::Refused {
                    reason: "CreateContainerError".to_owned(),
                    message: format!(
                        "{}: no command specified: neither the step nor the image {:?} has one",
                        plan.container, plan.image
                    ),
                });
            }
            plan.write_spec(argv, true)?;
        }
        Ok(())
    }

    /// Creates all containers at once; none runs yet.
    async fn create(&mut self, images: Vec<Image>, helper: Option<&Helper>) -> Result<(), Failure> {
        self.sink.progress("creating containers", 0, 0);
        self.created = true;
        if let Some(image) = images.first() {
            self.backend.trees.use_image(&image.reference);
        }
        let owner = self.network_owner();
        let pids_limit = self.backend.options.policy.pids_limit;
        let mut bodies = Vec::new();
        for (index, (plan, image)) in self.plans().zip(&images).enumerate() {
            let network = match &owner {
                _ if self.plan.host_network => Network::Host,
                Owner::Container(owner) if *owner == index => Network::Owner,
                Owner::Container(owner) => {
                    Network::Join(self.name(&self.plan_of(*owner).container))
                }
                Owner::Pause => Network::Join(self.name(PAUSE)),
            };
            let labels = self.labels(&plan.container);
            let seen = self.as_seen(helper, plan);
            let mut body = create::container(&self.plan, &seen, &image.reference, &network, labels);
            create::limit_pids(&mut body, pids_limit);
            bodies.push((self.name(&plan.container), body));
        }
        if matches!(owner, Owner::Pause)
            && !self.plan.host_network
            && let Some(image) = images.first()
        {
            let entrypoint_dir = self.source(helper, &self.backend.entrypoint_dir);
            let body = create::pause(
                &self.plan,
                &image.reference,
                &entrypoint_dir.to_string_lossy(),
                &Network::Owner,
                self.labels(PAUSE),
            );
            // Named before it is there, so that removal knows of it whatever happens.
            self.pause = Some(self.name(PAUSE));
            self.create_one(self.name(PAUSE), body).await?;
        }
        let mut first = Vec::new();
        if self.backend.is_podman
            && let Owner::Container(owner) = owner
        {
            let (name, body) = bodies.remove(owner);
            first.push((owner, self.create_one(name, body).await));
        }
        let mut created =
            join_all(bodies.into_iter().map(|(name, body)| self.create_one(name, body))).await;
        for (owner, result) in first {
            created.insert(owner, result);
        }
        let mut failure = None;
        for (created, image) in created.into_iter().zip(images) {
            match created {
                Ok(id) => self.containers.push(Container {
                    id,
                    image,
                    started: false,
                    over: false,
                    exit_code: None,
                    oom_killed: false,
                }),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn create_one(&self, name: String, body: ContainerCreateBody) -> Result<String, Failure> {
        let image = body.image.clone().unwrap_or_default();
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let docker = &self.backend.docker;
        match docker.create_container(Some(options), body).await {
            Ok(created) => Ok(created.id),
            Err(error) => {
                // What was known of the image may be out of date: look again next time.
                self.backend.images.forget(&image);
                Err(Failure::daemon(&format!("creating {name}"), &error))
            }
        }
    }

    /// Who holds the network. The last step is the last to end, so it can; sidecars live longer.
    fn network_owner(&self) -> Owner {
        if self.plan.sidecars.is_empty() {
            Owner::Container(self.plan.steps.len().saturating_sub(1))
        } else {
            Owner::Pause
        }
    }

    fn name(&self, container: &str) -> String {
        labels::container_name(&self.key, container)
    }

    fn labels(&self, container: &str) -> HashMap<String, String> {
        let owner = &self.backend.options.owner;
        let mut labels = labels::labels(owner, &self.attempt, &self.key, container);
        if self.backend.options.keep {
            // Nobody's: no later start reaps what is kept for inspection.
            labels.remove(labels::OWNER);
        }
        labels
    }

    /// Sends a signal to containers that run; one that has just died is no error.
    /// Without a lease nothing but killing is done: another signal would thaw what is frozen.
    async fn signal(&self, indexes: &[usize], signal: &str) {
        if signal != "SIGKILL" && !self.cancel.lease.holds() {
            return;
        }
        let signals = indexes.iter().map(|&index| async move {
            let id = &self.containers[index].id;
            if signal == "SIGKILL" {
                return self.backend.kill(id).await;
            }
            let options = KillContainerOptionsBuilder::default().signal(signal).build();
            let _ = self.backend.docker.kill_container(id, Some(options)).await;
        });
        join_all(signals).await;
    }

    /// Indexes of containers that run, as far as is known: steps or sidecars.
    fn running(&self, sidecars: bool) -> Vec<usize> {
        let steps = self.plan.steps.len();
        let live = self.containers.iter().enumerate();
        live.filter(|(index, container)| {
            (*index >= steps) == sidecars && container.started && !container.over
        })
        .map(|(index, _)| index)
        .collect()
    }
}

/// Who holds an attempt's network.
enum Owner {
    Container(usize),
    Pause,
}
