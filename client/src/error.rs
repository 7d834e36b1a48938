//! What can go wrong between a client and a cluster.

use std::error::Error as _;

use tenon_proto::control::v1::{self as control, Detail};
use tenon_proto::status::from_status;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What tonic says when a request takes longer than it may.
const EXPIRED: &str = "Timeout expired";

/// Why a cluster did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No node was named.
    #[error("no server is named")]
    NoServer,
    /// Something that is no address of a node.
    #[error("{url}: {reason}")]
    Server {
        /// As it was written.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What is to be shown to a cluster is of no use.
    #[error("{0}")]
    Access(&'static str),
    /// The cluster refused, for this reason.
    #[error("{}", .0.message)]
    Refused(Box<control::Error>),
    /// A node could not be reached, or the connection broke.
    #[error("{url}: {message}")]
    Unreachable {
        /// Which node.
        url: String,
        /// The transport's words.
        message: String,
    },
    /// No node did it within the deadline.
    #[error("the cluster did not answer within {seconds} s: {}", reasons(.tried, .last))]
    Deadline {
        /// How long it was tried.
        seconds: u64,
        /// Each node that was tried, and why it did not.
        tried: Vec<String>,
        /// Why not, the last time.
        last: Box<Error>,
    },
    /// A node said something that makes no sense.
    #[error("{url} gave an answer that makes no sense: {what}")]
    Answer {
        /// Which node.
        url: String,
        /// What.
        what: String,
    },
}

impl Error {
    /// A stable code for programs; of a refusal, the cluster's own.
    pub fn code(&self) -> &str {
        match self {
            Error::NoServer | Error::Server { .. } => "invalid/server",
            Error::Access(_) => "invalid/access",
            Error::Refused(error) => &error.code,
            Error::Unreachable { .. } => "unavailable/transport",
            Error::Deadline { .. } => "unavailable/cluster",
            Error::Answer { .. } => "internal/answer",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::NoServer => Some("name one: --server http://host:7070, or TENON_SERVER"),
            Error::Refused(error) if !error.hint.is_empty() => Some(&error.hint),
            Error::Unreachable { .. } => {
                Some("is the coordinator running, and is this its address?")
            }
            Error::Deadline { last, .. } => last.hint(),
            _ => None,
        }
    }

    /// Everything that is wrong with a document.
    pub fn details(&self) -> &[Detail] {
        match self {
            Error::Refused(error) => &error.details,
            _ => &[],
        }
    }

    /// Where the leader is, if the node that refused knows.
    pub fn leader_url(&self) -> Option<&str> {
        match self {
            Error::Refused(error) if !error.leader_url.is_empty() => Some(&error.leader_url),
            _ => None,
        }
    }

    /// Whether another node, or the same one later, may do it.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. } => true,
            Error::Refused(error) => {
                let family = error.code.split('/').next().unwrap_or_default();
                matches!(family, "unavailable" | "deadline" | "overloaded")
            }
            _ => false,
        }
    }

    /// What a status of this node means.
    pub fn of_status(url: &str, status: &tonic::Status) -> Error {
        let error = from_status(status);
        if status.message() == EXPIRED {
            let message = "it does not answer in time".to_owned();
            return Error::Unreachable { url: url.to_owned(), message };
        }
        let is_transport = error.code.ends_with("/transport");
        // A connection that breaks in the middle of an answer has many names in tonic.
        if is_transport && (status.source().is_some() || status.code() == tonic::Code::Unavailable)
        {
            let message = innermost(status);
            return Error::Unreachable { url: url.to_owned(), message };
        }
        Error::Refused(Box::new(error))
    }

    pub(crate) fn unreachable(url: &str, error: &tonic::transport::Error) -> Error {
        Error::Unreachable { url: url.to_owned(), message: innermost(error) }
    }
}

/// Why each node did not answer, or why the last one did not where no more is known.
fn reasons(tried: &[String], last: &Error) -> String {
    match tried.is_empty() {
        true => last.to_string(),
        false => tried.join("; "),
    }
}

/// The innermost cause says what happened; those around it only say where.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // The operating system's number means nothing to most.
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_tried_again() {
        let refused = |code: &str| {
            Error::Refused(Box::new(control::Error { code: code.to_owned(), ..Default::default() }))
        };
        for (code, passing) in [
            ("unavailable/not-leader", true),
            ("unavailable/no-quorum", true),
            ("deadline/exceeded", true),
            ("overloaded/proposals", true),
            ("conflict/idempotency-key", false),
            ("invalid/manifest", false),
            ("not-found/run", false),
        ] {
            assert_eq!(refused(code).is_passing(), passing, "{code}");
            assert_eq!(refused(code).code(), code);
        }
        assert!(Error::of_status("u", &tonic::Status::unavailable("x")).is_passing());
    }
}
