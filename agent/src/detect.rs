//! Choosing a backend: the one that was asked for, or the best that this machine has.

use std::sync::Arc;

use crate::backend::{Backend, BackendError, BackendOptions};
use crate::docker::DockerBackend;
use crate::docker::endpoint::{self, Named};

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// Docker where a daemon answers, else the host; but not where a daemon was named.
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
            Err(docker) if docker.code.starts_with("docker/") => {
                let backend = instead(docker, endpoint::named().as_ref(), || host(options))?;
                Ok((backend, "the host itself, because no Docker daemon answers"))
            }
            Err(other) => Err(other),
        },
    }
}

/// What runs the steps where Docker cannot. Whoever has named a daemon does not mean this machine.
fn instead<T>(
    docker: BackendError,
    named: Option<&Named>,
    host: impl FnOnce() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let BackendError { code, message } = docker;
    if let Some(named) = named {
        let message =
            format!("{message}. {}, or say `--backend host`, to do without it", named.describe());
        return Err(BackendError { code, message });
    }
    // What the user has to repair is Docker, most likely.
    host().map_err(|host| BackendError {
        code,
        message: format!("{message}; and the host backend cannot run: {host}"),
    })
}

fn host(options: BackendOptions) -> Result<Arc<dyn Backend>, BackendError> {
    let backend = crate::host::HostBackend::new(options)?;
    Ok(Arc::new(backend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_stands_in_only_for_a_daemon_that_nobody_has_named() {
        let docker = || BackendError { code: "docker/unreachable", message: "away".to_owned() };
        assert_eq!(instead(docker(), None, || Ok(1)).unwrap(), 1);
        let named = Named::Variable("DOCKER_HOST");
        let refused = instead(docker(), Some(&named), || Ok(1)).unwrap_err();
        assert_eq!(refused.code, "docker/unreachable");
        assert_eq!(
            refused.message,
            "away. DOCKER_HOST names that daemon: unset it, or say `--backend host`, to do without it"
        );
    }
}
