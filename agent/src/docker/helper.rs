//! Containers that live for a moment: they do what needs the rights, or the processes, of a container.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use futures_util::StreamExt as _;

use super::labels;
use crate::owner::Owner;
use crate::pod::ENTRYPOINT;

/// What every helper is called in its labels.
pub const NAME: &str = "helper";

/// What a helper does.
pub struct Order<'a> {
    /// Any image that is here: nothing of it is needed.
    pub image: String,
    /// What the entrypoint is to do.
    pub args: &'a [&'a str],
    /// What it sees besides the entrypoint.
    pub mounts: Vec<Mount>,
    /// The container whose processes it sees; none for its own alone.
    pub inside: Option<&'a str>,
}

/// Runs a helper to its end, as root and without a network.
pub async fn run(
    docker: &Docker,
    entrypoint_dir: &Path,
    owner: &Owner,
    order: Order<'_>,
) -> Result<(), Error> {
    let mut mounts = vec![bind(entrypoint_dir, "/tekton/bin", true)];
    mounts.extend(order.mounts);
    let body = ContainerCreateBody {
        image: Some(order.image),
        user: Some("0".to_owned()),
        entrypoint: Some(vec![ENTRYPOINT.to_owned()]),
        cmd: Some(order.args.iter().map(|&arg| arg.to_owned()).collect()),
        labels: Some(HashMap::from([
            (labels::OWNER.to_owned(), owner.name()),
            (labels::CONTAINER.to_owned(), NAME.to_owned()),
        ])),
        host_config: Some(HostConfig {
            // It reads and removes what any user has left, or signals processes of any user.
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(["DAC_OVERRIDE", "FOWNER", "KILL"].map(str::to_owned).to_vec()),
            network_mode: Some("none".to_owned()),
            pid_mode: order.inside.map(|id| format!("container:{id}")),
            mounts: Some(mounts),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let created = docker.create_container(None::<CreateContainerOptions>, body).await?;
    let started = docker.start_container(&created.id, None::<StartContainerOptions>).await;
    if started.is_ok() {
        let mut wait = docker.wait_container(&created.id, None::<WaitContainerOptions>);
        while wait.next().await.is_some() {}
    }
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    // Left behind, it goes with what its agent leaves.
    let _ = docker.remove_container(&created.id, Some(options)).await;
    started
}

/// A directory of the machine in a helper.
pub fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}
