//! What the daemon's errors mean to an attempt.

use std::path::Path;

use bollard::errors::Error;
use tenon_proto::agent::v1::{Infra, Refused, Stopped, ended::Outcome};

use crate::pod::{BuildError, Refusal};

/// Why an attempt ends before its steps do.
#[derive(Debug)]
pub enum Failure {
    /// Through the fault of what was asked for.
    Refused {
        /// Tekton's or Kubernetes' reason.
        reason: String,
        /// For people.
        message: String,
    },
    /// Through no fault of its own.
    Infra {
        /// `infra/…`
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The attempt's directory cannot be made, or written to.
    Files(std::io::Error),
    /// It was told to stop.
    Stopped,
}

impl Failure {
    /// As the session reports it. `data_dir` is where the attempt's directory is.
    pub fn into_outcome(self, data_dir: &Path) -> Outcome {
        match self {
            Failure::Files(error) => files(&error, data_dir).into_outcome(data_dir),
            Failure::Refused { reason, message } => Outcome::Refused(Refused { reason, message }),
            Failure::Infra { reason, message } => {
                Outcome::Infra(Infra { reason: reason.to_owned(), message })
            }
            Failure::Stopped => Outcome::Stopped(Stopped {}),
        }
    }

    /// The daemon cannot be reached any more.
    pub fn gone(detail: &dyn std::fmt::Display) -> Failure {
        Failure::Infra {
            reason: "infra/docker-gone",
            message: format!(
                "the Docker daemon cannot be reached any more ({detail}); \
                 what was reported before is kept. See that it runs (`systemctl status docker`) \
                 and start the run again"
            ),
        }
    }

    /// An agent that died has left it such that no other one can go on with it.
    pub fn lost(why: &str) -> Failure {
        Failure::Infra {
            reason: "infra/agent-restarted",
            message: format!("the agent died while the attempt ran, and {why}"),
        }
    }

    /// Nothing is known of it any more but that it was.
    pub fn forgotten() -> Failure {
        Failure::lost(
            "what it knew of the attempt is gone: the machine was started anew, or has no memory \
             file system",
        )
    }

    /// A step's output found no room on the disk, and no room was made.
    pub fn no_room() -> Failure {
        Failure::Files(std::io::ErrorKind::StorageFull.into())
    }

    /// What the daemon said when asked to do `what`.
    pub fn daemon(what: &str, error: &Error) -> Failure {
        if is_unreachable(error) {
            return Failure::gone(error);
        }
        let text = message(error);
        if is_disk_full(&text) {
            return disk_full(&text);
        }
        match error {
            // Removed since it was looked for: it is looked for again.
            _ if text.contains("No such image") => {
                Failure::Infra { reason: "infra/image-gone", message: format!("{what}: {text}") }
            }
            Error::DockerResponseServerError { status_code, .. } if *status_code < 500 => {
                Failure::Refused {
                    reason: "CreateContainerConfigError".to_owned(),
                    message: format!("{what}: {text}"),
                }
            }
            // What runc refuses (a mount, a user) comes as an error of the server.
            _ if text.contains("OCI runtime") || text.contains("runc") => Failure::Refused {
                reason: "CreateContainerError".to_owned(),
                message: format!("{what}: {text}"),
            },
            _ => {
                Failure::Infra { reason: "infra/docker-error", message: format!("{what}: {text}") }
            }
        }
    }
}

impl From<crate::backend::BackendError> for Failure {
    fn from(error: crate::backend::BackendError) -> Failure {
        Failure::Infra { reason: "infra/docker-relay", message: error.message }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused { reason: refusal.reason.to_owned(), message: refusal.message }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        match error {
            BuildError::Refused(refusal) => refusal.into(),
            BuildError::Io(error) => error.into(),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Files(error)
    }
}

fn files(error: &std::io::Error, data_dir: &Path) -> Failure {
    use std::io::ErrorKind;
    let data_dir = data_dir.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::Infra {
            reason: "infra/disk-full",
            message: format!(
                "the disk is full: there is no room left in {data_dir} for what the task writes; \
                 free some space, or choose another disk with --state-dir"
            ),
        },
        _ => Failure::Infra {
            reason: "infra/agent-files",
            message: format!("an attempt's directory in {data_dir} cannot be used: {error}"),
        },
    }
}

fn disk_full(detail: &str) -> Failure {
    Failure::Infra {
        reason: "infra/disk-full",
        message: format!(
            "the disk is full ({detail}); free some space, for example with `docker system prune`"
        ),
    }
}

/// Whether a text of the daemon says that a disk is full.
pub fn is_disk_full(text: &str) -> bool {
    text.contains("no space left on device")
}

/// The daemon's own words.
pub fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}

/// The status of the daemon's answer, when it did answer.
pub fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether nobody answered.
pub fn is_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::SocketNotFoundError(_)
            | Error::RequestTimeoutError
    )
}
