//! Choosing a backend: the one that was asked for, or the best that this machine has.

use std::sync::Arc;

use crate::backend::{Backend, BackendError, BackendOptions};
use crate::docker::DockerBackend;

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// Docker where its socket answers, else the host.
    #[default]
    Auto,
    /// Docker or nothing.
    Docker,
    /// The host itself or nothing.
    Host,
}

/// The backend, and why it is this one, in words for the user.
pub async fn detect(
    choice: BackendChoice,
    options: BackendOptions,
) -> Result<(Arc<dyn Backend>, &'static str), BackendError> {
    match choice {
        BackendChoice::Docker => {
            let backend = DockerBackend::connect(options).await?;
            Ok((Arc::new(backend), "docker, as asked for"))
        }
        BackendChoice::Host => Ok((host(options)?, "the host itself, as asked for")),
        BackendChoice::Auto => match DockerBackend::connect(options.clone()).await {
            Ok(backend) => Ok((Arc::new(backend), "docker, because its daemon answers")),
            Err(docker) if docker.code.starts_with("docker/") => match host(options) {
                Ok(backend) => Ok((backend, "the host itself, because no Docker daemon answers")),
                // What the user has to repair is Docker, most likely.
                Err(host) => Err(BackendError {
                    code: docker.code,
                    message: format!("{}; and the host backend cannot run: {host}", docker.message),
                }),
            },
            Err(other) => Err(other),
        },
    }
}

fn host(options: BackendOptions) -> Result<Arc<dyn Backend>, BackendError> {
    let backend = crate::host::HostBackend::new(options)?;
    Ok(Arc::new(backend))
}
