//! Attempts on a daemon that shares no files with the agent.
//!
//! What an attempt needs is made here as always, and copied to a volume of the daemon's machine (and
//! what may hold Secrets to one in its memory), whose directories the containers mount. A helper
//! container that does nothing keeps both volumes in use; the agent talks to a relay in it by `docker
//! exec` ([`tenon_entrypoint::relay`]). Records come back over that connection and are appended to
//! records here, which are followed as always: their order, their marks and their masking are the
//! same, and after a crash they are fetched again from where the last mark stands.

pub mod image;
mod left;
mod link;
mod mirror;
mod upload;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use futures_util::stream::BoxStream;
use tenon_entrypoint::relay::{HOLDER, Order};
use tokio::io::AsyncWrite;

use super::{error, labels};
use crate::backend::BackendError;
use crate::entrypoint_binary::ENTRYPOINT_HASH;
use crate::owner::Owner;
use crate::pod::{ENTRYPOINT, private_base};

pub use left::{left_behind, reap_volumes};
pub use link::{Link, PATIENCE};
pub use upload::upload;

/// Where the relay has the volumes.
const DISK: &str = "/tenon/disk";
const MEMORY: &str = "/tenon/memory";
/// What every helper's name begins with.
const RELAY: &str = "tenon-relay-";
/// The helper's process, as its container sees it.
const HELPER: u32 = 1;
/// The helper ends when it has heard nothing of its agent for so long: much longer than an agent waits for its
/// daemon, or a cluster for an agent. It stays as a container, so that its volumes are nobody's to prune.
const IDLE: Duration = Duration::from_secs(3600);

/// A daemon's other machine, as one agent uses it.
pub struct Far {
    docker: Docker,
    /// The agent's directory here, and its private one.
    data_dir: PathBuf,
    private: PathBuf,
    /// What the volumes and the helper are called after.
    name: String,
    labels: HashMap<String, String>,
    keep: bool,
    helper: tokio::sync::Mutex<Option<Helper>>,
}

/// The helper, and where its volumes are on its machine.
#[derive(Clone, Debug)]
pub struct Helper {
    container: String,
    disk: PathBuf,
    memory: PathBuf,
}

/// Both directions of a connection to a relay.
pub(super) struct Session {
    output: BoxStream<'static, Result<LogOutput, Error>>,
    input: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
}

impl Far {
    /// Nothing is made yet.
    pub fn new(docker: Docker, data_dir: &Path, owner: &Owner, keep: bool) -> Far {
        let name = match owner {
            Owner::Agent { incarnation, .. } => incarnation.to_lowercase(),
            Owner::Process => {
                let mut hasher = DefaultHasher::new();
                owner.name().hash(&mut hasher);
                format!("{:016x}", hasher.finish())
            }
        };
        let mut labels = HashMap::new();
        if !keep {
            labels.insert(labels::OWNER.to_owned(), owner.name());
        }
        Far {
            docker,
            data_dir: data_dir.to_owned(),
            private: private_base(data_dir).0,
            name: format!("{RELAY}{name}"),
            labels,
            keep,
            helper: tokio::sync::Mutex::default(),
        }
    }

    /// What the relay calls a path of the agent's; none for one that is not copied.
    fn relayed(&self, path: &Path) -> Option<String> {
        let below = |root: &Path, here: &str| {
            let rest = path.strip_prefix(root).ok()?;
            Some(format!("{here}/{}", rest.display()))
        };
        below(&self.private, MEMORY).or_else(|| below(&self.data_dir, DISK))
    }

    /// The same as an order needs it.
    pub fn required(&self, path: &Path) -> std::io::Result<String> {
        self.relayed(path).ok_or_else(|| {
            std::io::Error::other(format!("{} is not copied to the daemon", path.display()))
        })
    }

    /// What the daemon calls a path of the agent's.
    pub fn source(&self, helper: &Helper, path: &Path) -> PathBuf {
        let below = |root: &Path, there: &Path| Some(there.join(path.strip_prefix(root).ok()?));
        below(&self.private, &helper.memory)
            .or_else(|| below(&self.data_dir, &helper.disk))
            .unwrap_or_else(|| path.to_owned())
    }

    /// The helper, made and started where it is not.
    pub async fn helper(&self) -> Result<Helper, BackendError> {
        let mut known = self.helper.lock().await;
        if let Some(helper) = &*known
            && self.runs(&helper.container).await?
        {
            return Ok(helper.clone());
        }
        let helper = self.make().await?;
        *known = Some(helper.clone());
        Ok(helper)
    }

    /// Has the helper run as long as anything of the agent's is over there: one that has ended for long says
    /// that its agent is no more.
    pub async fn keep_up(&self) {
        if self.is_in_use()
            && let Err(error) = self.helper().await
        {
            tracing::warn!(%error, "the helper on the daemon's machine cannot be started");
        }
    }

    /// Whether anything of the agent's may be over there.
    fn is_in_use(&self) -> bool {
        ["pods", "runs"].iter().any(|dir| {
            let entries = std::fs::read_dir(self.data_dir.join(dir));
            entries.is_ok_and(|mut entries| entries.next().is_some())
        })
    }

    async fn runs(&self, container: &str) -> Result<bool, BackendError> {
        Ok(self.state(container).await? == Some(true))
    }

    /// Whether a container runs; none where there is no such container.
    async fn state(&self, container: &str) -> Result<Option<bool>, BackendError> {
        match self.docker.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found.state.and_then(|state| state.running) == Some(true))),
            Err(error) if error::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("looking at the helper container", &error)),
        }
    }

    async fn make(&self) -> Result<Helper, BackendError> {
        let disk = self.volume("disk", HashMap::new()).await?;
        let in_memory = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "mode=0711")];
        let in_memory = in_memory.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let memory = self.volume("memory", HashMap::from(in_memory)).await?;
        let image = image::ensure(&self.docker).await?;
        let mount = |kind: &str, target: &str| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(format!("{}-{kind}", self.name)),
            target: Some(target.to_owned()),
            ..Mount::default()
        };
        let body = ContainerCreateBody {
            image: Some(image),
            entrypoint: Some(vec![format!("/{}", ENTRYPOINT.trim_start_matches('/'))]),
            cmd: Some(vec!["pause".to_owned(), IDLE.as_secs().to_string()]),
            user: Some("0".to_owned()),
            labels: Some(self.labels.clone()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("none".to_owned()),
                    config: None,
                }),
                mounts: Some(vec![mount("disk", DISK), mount("memory", MEMORY)]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => {}
            // An earlier process has made it.
            Err(error) if error::status(&error) == Some(409) => {}
            Err(error) => return Err(failed("creating the helper container", &error)),
        }
        let started = self.docker.start_container(&self.name, None::<StartContainerOptions>).await;
        started.map_err(|error| failed("starting the helper container", &error))?;
        Ok(Helper { container: self.name.clone(), disk, memory })
    }

    /// Makes a volume, if it is not there, and says where it is on the daemon's machine.
    async fn volume(
        &self,
        kind: &str,
        options: HashMap<String, String>,
    ) -> Result<PathBuf, BackendError> {
        let request = VolumeCreateRequest {
            name: Some(format!("{}-{kind}", self.name)),
            driver: Some("local".to_owned()),
            driver_opts: Some(options),
            labels: Some(self.labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker.create_volume(request).await;
        let volume = made.map_err(|error| failed("creating a volume", &error))?;
        let path = PathBuf::from(volume.mountpoint);
        match path.is_absolute() {
            true => Ok(path),
            false => Err(BackendError {
                code: "docker/volume",
                message: format!(
                    "the daemon does not say where its volume {} is, so its directories cannot be \
                     mounted",
                    volume.name
                ),
            }),
        }
    }

    /// Opens a connection to a relay of its own.
    async fn open(&self) -> Result<Session, BackendError> {
        let helper = self.helper().await?;
        let failed = |error: Error| failed("starting the relay", &error);
        let options = CreateExecOptions {
            cmd: Some(vec![ENTRYPOINT.to_owned(), "relay".to_owned()]),
            env: Some(vec![format!("{HOLDER}={HELPER}")]),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(&helper.container, options).await.map_err(failed)?;
        let options = StartExecOptions { output_capacity: Some(64 << 10), ..Default::default() };
        match self.docker.start_exec(&exec.id, Some(options)).await.map_err(failed)? {
            StartExecResults::Attached { output, input } => Ok(Session { output, input }),
            StartExecResults::Detached => Err(BackendError {
                code: "docker/relay",
                message: "the daemon did not attach to the relay".to_owned(),
            }),
        }
    }

    /// Removes trees over there, if anything is there.
    pub async fn remove(self: &Arc<Far>, trees: &[&Path]) {
        let is_there = self.helper.lock().await.is_some()
            || matches!(self.state(&self.name).await, Ok(Some(_)));
        let paths = trees.iter().filter_map(|tree| self.relayed(tree));
        let orders: Vec<Order> = paths.map(|path| Order::Remove { path }).collect();
        if !is_there || orders.is_empty() {
            return;
        }
        if let Err(error) = Link::open(self.clone()).order(orders).await {
            tracing::warn!(%error, "what was copied to the daemon cannot be removed");
        }
    }

    /// Removes helper and volumes once nothing of the agent's is there any more.
    pub async fn release(&self) {
        let mut helper = self.helper.lock().await;
        if self.is_in_use() || self.keep {
            return;
        }
        *helper = None;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(&self.name, Some(options)).await {
            Ok(()) => {}
            Err(error) if matches!(error::status(&error), Some(404 | 409)) => {}
            Err(error) => tracing::warn!(name = self.name, %error, "cannot be removed"),
        }
        for kind in ["disk", "memory"] {
            left::remove_volume(&self.docker, &format!("{}-{kind}", self.name)).await;
        }
    }
}

/// The program's directory, as the agent would call it.
pub fn entrypoint_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("bin").join(ENTRYPOINT_HASH)
}

fn failed(what: &str, error: &Error) -> BackendError {
    BackendError {
        code: "docker/relay",
        message: format!("{what} on the daemon's machine: {}", error::message(error)),
    }
}
