//! The Docker backend: one container a step, all made up front, gated by the entrypoint.
//!
//! Output and ends travel over record files, not through the daemon. The daemon is asked to create,
//! start, signal and remove; its event stream tells of containers that die without a word. Steps and
//! agent share files, under whatever names ([`site`]); where they cannot, copies do ([`far`]).

mod attempt;
mod create;
pub mod endpoint;
mod error;
mod far;
mod freeze;
mod helper;
mod house;
mod images;
mod labels;
mod reach;
mod registry;
pub mod site;
mod ssh;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bollard::Docker;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures_util::future::join_all;
use tenon_proto::agent::v1::{AttemptId, RunSpec, TaskInvocation, ended};

use crate::backend::{Backend, BackendError, BackendOptions, BoxFuture, Cancel, Left, Sink};
use crate::entrypoint_binary::{ENTRYPOINT, ENTRYPOINT_HASH};
use crate::keeping::Needed;
use crate::keeping::orphans::Orphans;
use crate::owner::{disown_directory, is_of_here, own_directory};
use crate::pod::{PodDir, Sees, attempt_key, claims, make_dir, runs_dir};
use crate::record::Mark;
pub(crate) use error::Failure;
use far::Far;
pub(crate) use freeze::freeze_all;
use helper::Order;
use images::Images;
use site::Site;

/// Runs attempts as Docker containers.
pub struct DockerBackend {
    docker: Docker,
    options: BackendOptions,
    images: Images,
    entrypoint_dir: PathBuf,
    trees: tree::Trees,
    site: Site,
    /// Where no files are shared.
    far: Option<Arc<Far>>,
    /// It wants the container that holds a network to be there before those that join it.
    is_podman: bool,
    orphans: Mutex<Orphans>,
}

impl DockerBackend {
    /// Connects to the daemon that [`endpoint`] says, and finds out how it sees the agent's files.
    pub async fn connect(mut options: BackendOptions) -> Result<DockerBackend, BackendError> {
        let docker = reach().await?;
        let placed = place_entrypoint(&options.data_dir)
            .and_then(|dir| Ok((dir, fs::canonicalize(&options.data_dir)?)));
        let (entrypoint_dir, data_dir) = placed.map_err(|error| BackendError {
            code: "agent/data-dir",
            message: format!(
                "the agent's directory {} cannot be written: {error}",
                options.data_dir.display()
            ),
        })?;
        options.data_dir = data_dir;
        let (site, is_podman) =
            tokio::join!(site::find(&docker, &options.data_dir), is_podman(&docker));
        let site = site?;
        let far = (site == Site::Apart).then(|| {
            let far = Far::new(docker.clone(), &options.data_dir, &options.owner, options.keep);
            Arc::new(far)
        });
        Ok(DockerBackend {
            images: Images::new(docker.clone(), options.image_map.clone(), &options.data_dir),
            orphans: Mutex::default(),
            trees: tree::Trees::new(docker.clone(), entrypoint_dir.clone(), options.owner.clone()),
            docker,
            options,
            entrypoint_dir,
            site,
            far,
            is_podman,
        })
    }

    /// What of the machine's own files the containers can have.
    fn sees(&self) -> Sees {
        match self.site {
            Site::Same => Sees::Everything,
            Site::Mapped(_) => Sees::Mapped,
            Site::Apart => Sees::Copies,
        }
    }

    fn runs_dir(&self) -> PathBuf {
        runs_dir(&self.options.data_dir)
    }

    fn run_dir(&self, run_id: &str) -> PathBuf {
        self.runs_dir().join(run_id)
    }

    /// Removes the containers with that label for which `which` holds, given whose it is and whether it is
    /// a helper; says how many.
    async fn remove_containers(
        &self,
        label: String,
        which: impl Fn(&str, bool) -> bool,
    ) -> Result<usize, BackendError> {
        let filters = std::collections::HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let found = listed.map_err(|error| BackendError {
            code: "docker/list",
            message: error::message(&error),
        })?;
        let ids = found.into_iter().filter_map(|container| {
            let mut labels = container.labels?;
            let owner = labels.remove(labels::OWNER)?;
            let is_helper = labels.get(labels::CONTAINER).is_some_and(|name| name == helper::NAME);
            which(&owner, is_helper).then_some(container.id?)
        });
        let mut ids: Vec<String> = ids.collect();
        let found = ids.len();
        // Podman removes one that holds a network only after those that joined it.
        for _ in 0..1 + usize::from(self.is_podman) {
            let removals = ids.into_iter().map(|id| async move {
                self.kill_inside(&id).await;
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                let removed = self.docker.remove_container(&id, Some(options)).await;
                removed.is_err().then_some(id)
            });
            ids = join_all(removals).await.into_iter().flatten().collect();
        }
        Ok(found - ids.len())
    }
}

impl DockerBackend {
    /// Removes what others have left for good on a daemon elsewhere; says how many things. Claims are among them, so
    /// it is kept as long as claims are.
    async fn remove_left_behind(&self) -> Result<usize, BackendError> {
        if self.far.is_none() {
            return Ok(0);
        }
        let mut left = far::left_behind(&self.docker, self.options.house.keep_claims).await;
        left.remove(&self.options.owner.name());
        if left.is_empty() {
            return Ok(0);
        }
        let label = labels::OWNER.to_owned();
        let containers = self.remove_containers(label, |owner, _| left.contains(owner)).await?;
        Ok(containers + far::reap_volumes(&self.docker, |owner| left.contains(owner)).await)
    }

    /// Removes the directories of an attempt, here and where its containers were.
    async fn remove_directories(&self, dir: &PodDir) {
        if let Some(far) = &self.far {
            far.remove(&[dir.private(), dir.root()]).await;
        }
        // What says that it was here goes last.
        for tree in [dir.private(), dir.root()] {
            if let Err(error) = self.trees.remove(tree).await {
                tracing::warn!(path = %tree.display(), %error, "cannot be removed");
            }
        }
    }

    /// Kills a container; one that has just died is no error.
    async fn kill(&self, id: &str) {
        self.kill_inside(id).await;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let _ = self.docker.kill_container(id, Some(options)).await;
    }

    /// Kills every process of a container that is frozen. Docker lets it go on in order to kill its first
    /// process, and the others would act for a moment, although another placement does by now. They
    /// die of this as soon as they go on.
    async fn kill_inside(&self, id: &str) {
        let none = None::<InspectContainerOptions>;
        // One that is gone is not frozen.
        let Ok(found) = self.docker.inspect_container(id, none).await else { return };
        let is_frozen = found.state.and_then(|state| state.paused) == Some(true);
        let Some(image) = found.image.filter(|_| is_frozen) else { return };
        let order = Order { image, args: &["kill-all"], mounts: Vec::new(), inside: Some(id) };
        let owner = &self.options.owner;
        let entrypoint_dir = match &self.far {
            None => self.site.map(&self.entrypoint_dir),
            Some(far) => match far.helper().await {
                Ok(helper) => far.source(&helper, &self.entrypoint_dir),
                Err(error) => {
                    return tracing::warn!(container = id, %error, "it is killed as it is");
                }
            },
        };
        if let Err(error) = helper::run(&self.docker, &entrypoint_dir, owner, order).await {
            let error = error::message(&error);
            tracing::warn!(container = id, %error, "what is frozen is killed while it goes on");
        }
    }
}

/// Connects and asks for a sign of life.
pub async fn reach() -> Result<Docker, BackendError> {
    endpoint::connect(&endpoint::endpoint()?).await
}

/// Whether it is Podman that speaks Docker's language there.
async fn is_podman(docker: &Docker) -> bool {
    // One that does not answer says so to whoever asks next.
    let version = docker.version().await.unwrap_or_default();
    let components = version.components.unwrap_or_default();
    components.iter().any(|component| component.name.starts_with("Podman"))
}

/// Writes the entrypoint where containers can have it mounted, once a version.
pub fn place_entrypoint(data_dir: &Path) -> std::io::Result<PathBuf> {
    make_dir(data_dir, 0o700)?;
    let data_dir = fs::canonicalize(data_dir)?;
    let dir = data_dir.join("bin").join(ENTRYPOINT_HASH);
    let program = dir.join("entrypoint");
    if !program.is_file() {
        make_dir(&dir, 0o755)?;
        // Renamed into place, so that another agent never sees half of it.
        let draft = dir.join(format!("draft-{}", std::process::id()));
        fs::write(&draft, ENTRYPOINT)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
        fs::rename(&draft, &program)?;
    }
    Ok(dir)
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn data_dir(&self) -> Option<&Path> {
        // Where no files are shared, claims are volumes of the daemon.
        self.far.is_none().then_some(self.options.data_dir.as_path())
    }

    fn prepare<'a>(&'a self, run: &'a RunSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move { own_directory(&self.run_dir(&run.run_id), &self.options.owner) })
    }

    fn run_task<'a>(
        &'a self,
        task: &'a TaskInvocation,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(attempt::run(self, task, sink, cancel))
    }

    fn left(&self) -> BoxFuture<'_, Result<Left, BackendError>> {
        Box::pin(async move { PodDir::left(&self.options.data_dir, &self.options.owner) })
    }

    fn adopt<'a>(
        &'a self,
        attempt: &'a AttemptId,
        marks: &'a BTreeMap<u32, Mark>,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(attempt::adopt(self, attempt, marks, sink, cancel))
    }

    fn images(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(self.images.names())
    }

    fn thaw<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move { freeze::thaw(&self.docker, &attempt_key(attempt)).await })
    }

    fn forget<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.options.keep {
                return;
            }
            let dir = match PodDir::of(&self.options.data_dir, &attempt_key(attempt)) {
                Ok(dir) => dir,
                Err(error) => return tracing::warn!(%error, "an attempt cannot be removed"),
            };
            self.remove_directories(&dir).await;
        })
    }

    fn cleanup<'a>(
        &'a self,
        run_id: &'a str,
        keep_claims: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let me = self.options.owner.name();
            let label = format!("{}={run_id}", labels::RUN);
            self.remove_containers(label, |owner, _| owner == me).await?;
            let dir = self.run_dir(run_id);
            if self.options.keep || keep_claims && claims::of_run(&dir).is_dir() {
                disown_directory(&dir);
                return Ok(());
            }
            if let Some(far) = &self.far {
                far.remove(&[&dir]).await;
            }
            self.trees.remove(&dir).await.map_err(|error| BackendError {
                code: "infra/agent-files",
                message: format!("{} cannot be removed: {error}", dir.display()),
            })?;
            if let Some(far) = &self.far {
                far.release().await;
            }
            Ok(())
        })
    }

    fn keep_house<'a>(&'a self, needed: &'a Needed) -> BoxFuture<'a, Vec<String>> {
        Box::pin(self.look_after(needed))
    }

    fn places(&self) -> BoxFuture<'_, Vec<PathBuf>> {
        Box::pin(async move {
            let root = self.docker_root().await;
            root.into_iter().chain([self.options.data_dir.clone()]).collect()
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize, BackendError>> {
        Box::pin(async move {
            let label = labels::OWNER.to_owned();
            let me = &self.options.owner;
            let own = me.name();
            let is_dead =
                |owner: &str| me.outlives(owner) && (self.far.is_none() || is_of_here(owner));
            // Nobody waits any more for a helper of our own that an earlier process has begun.
            let dead = |owner: &str, is_helper: bool| is_dead(owner) || is_helper && owner == own;
            let containers = self.remove_containers(label, dead).await?
                + far::reap_volumes(&self.docker, is_dead).await
                + self.remove_left_behind().await?;
            Ok(containers + PodDir::reap(&self.options.data_dir, me))
        })
    }
}
