//! Removing directories in which containers of other users wrote.
//!
//! An agent that is root just removes them. One that is not lets a container do it, which is root.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{RemoveContainerOptionsBuilder, WaitContainerOptions};
use futures_util::StreamExt as _;

use super::labels;
use crate::owner::Owner;
use crate::pod::{ENTRYPOINT, remove_tree};

/// Removes directory trees.
pub struct Trees {
    docker: Docker,
    entrypoint_dir: PathBuf,
    owner: Owner,
    image: Mutex<Option<String>>,
}

impl Trees {
    /// Nothing to remove yet.
    pub fn new(docker: Docker, entrypoint_dir: PathBuf, owner: Owner) -> Trees {
        Trees { docker, entrypoint_dir, owner, image: Mutex::new(None) }
    }

    /// Any image that is here: what removes needs nothing of it.
    pub fn use_image(&self, image: &str) {
        let mut known = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(image.to_owned());
    }

    /// Removes a tree that may be absent.
    pub async fn remove(&self, path: &Path) -> io::Result<()> {
        match remove_tree(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.purge(path).await;
                remove_tree(path)
            }
            done => done,
        }
    }

    async fn purge(&self, path: &Path) {
        let image = {
            let known = self.image.lock().unwrap_or_else(PoisonError::into_inner);
            known.clone()
        };
        let Some(image) = image else {
            return;
        };
        let bind = |source: &Path, target: &str, read_only| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_string_lossy().into_owned()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            ..Mount::default()
        };
        let body = ContainerCreateBody {
            image: Some(image),
            user: Some("0".to_owned()),
            entrypoint: Some(vec![ENTRYPOINT.to_owned()]),
            cmd: Some(vec!["purge".to_owned(), "/tekton/purge".to_owned()]),
            labels: Some(HashMap::from([(labels::OWNER.to_owned(), self.owner.name())])),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                mounts: Some(vec![
                    bind(&self.entrypoint_dir, "/tekton/bin", true),
                    bind(path, "/tekton/purge", false),
                ]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = None::<bollard::query_parameters::CreateContainerOptions>;
        let Ok(created) = self.docker.create_container(options, body).await else {
            return;
        };
        let none = None::<bollard::query_parameters::StartContainerOptions>;
        if self.docker.start_container(&created.id, none).await.is_ok() {
            let mut wait = self.docker.wait_container(&created.id, None::<WaitContainerOptions>);
            while wait.next().await.is_some() {}
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let _ = self.docker.remove_container(&created.id, Some(options)).await;
    }
}
