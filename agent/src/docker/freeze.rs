//! Freezing and thawing what an agent runs: `docker pause`, which stops all processes of a container
//! at once and takes nothing from them.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{KillContainerOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::future::join_all;

use super::error::{self, status};
use super::{labels, reach};
use crate::backend::BackendError;

/// Pauses, or kills, all steps and sidecars of that owner that run; says how many.
pub async fn freeze_all(owner: &str, kill: bool) -> Result<usize, BackendError> {
    let docker = reach().await?;
    let labels = vec![format!("{}={owner}", labels::OWNER), labels::KEY.to_owned()];
    let ids = list(&docker, "running", labels).await?;
    let frozen = ids.iter().map(|id| async {
        match kill {
            true => {
                let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
                docker.kill_container(id, Some(options)).await
            }
            false => docker.pause_container(id).await,
        }
    });
    each("freezing", join_all(frozen).await)?;
    Ok(ids.len())
}

/// Lets an attempt's containers go on.
pub async fn thaw(docker: &Docker, key: &str) -> Result<(), BackendError> {
    let ids = list(docker, "paused", vec![format!("{}={key}", labels::KEY)]).await?;
    each("thawing", join_all(ids.iter().map(|id| docker.unpause_container(id))).await)
}

async fn list(
    docker: &Docker,
    status: &str,
    labels: Vec<String>,
) -> Result<Vec<String>, BackendError> {
    let filters = HashMap::from([("label", labels), ("status", vec![status.to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.list_containers(Some(options)).await;
    let found = listed
        .map_err(|error| BackendError { code: "docker/list", message: error::message(&error) })?;
    Ok(found.into_iter().filter_map(|container| container.id).collect())
}

fn each(what: &str, done: Vec<Result<(), bollard::errors::Error>>) -> Result<(), BackendError> {
    for result in done {
        match result {
            // It has ended, or is so already.
            Err(error) if matches!(status(&error), Some(404 | 409 | 304)) => {}
            Err(error) => {
                let message = format!("{what} a container: {}", error::message(&error));
                return Err(BackendError { code: "docker/freeze", message });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
