//! Commands against a cluster. What a cluster does is the coordinator's, how it is reached the
//! client's; here questions are asked and answers printed.

mod access;
mod events;
mod find;
mod run;
mod runs;
mod show;
mod voice;

use std::sync::Arc;
use std::time::Duration;

use tenon_client::{Client, Notice, Options};

use crate::exit::{Exit, Failure};

pub use access::{access, show_to_clusters};
pub use events::{events, logs};
pub use run::run;
pub use runs::{cancel, explain, list, release, rerun, show};
pub use voice::Voice;

/// How long the first answer may take of whoever only asks.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster, and how to tell the user what becomes of the connection to it.
#[derive(Clone)]
pub struct Remote {
    /// Asks it.
    pub client: Client,
    /// Where remarks go.
    pub voice: Arc<Voice>,
}

/// Does something with the cluster that `--server` names, if it is there.
pub fn with<T>(
    servers: &str,
    work: impl AsyncFnOnce(Remote) -> Result<T, Failure>,
) -> Result<T, Failure> {
    ask(servers, PATIENCE, false, work)
}

/// Likewise, and waits for a cluster that is not there yet; `quiet` without remarks.
pub fn with_patience<T>(
    servers: &str,
    quiet: bool,
    work: impl AsyncFnOnce(Remote) -> Result<T, Failure>,
) -> Result<T, Failure> {
    ask(servers, Options::default().patience, quiet, work)
}

fn ask<T>(
    servers: &str,
    patience: Duration,
    quiet: bool,
    work: impl AsyncFnOnce(Remote) -> Result<T, Failure>,
) -> Result<T, Failure> {
    runtime()?.block_on(async {
        let voice = Arc::new(Voice::default());
        let say = Arc::clone(&voice);
        let on_notice = Arc::new(move |notice| match notice {
            _ if quiet => {}
            Notice::Retrying { why } => say.say(&format!("{why}; trying again")),
            Notice::Answering { url } => say.say(&format!("{url} answers")),
        });
        let client = Client::new(
            &[servers],
            Options { access: access(), patience, on_notice, ..Options::default() },
        )?;
        work(Remote { client, voice }).await
    })
}

/// A runtime on this thread.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))
}

/// The failure of a command that only a cluster can do.
pub fn needs_cluster(command: &str) -> Failure {
    Failure::new(Exit::Usage, format!("`tenon {command}` needs a cluster"))
        .hint("name its nodes: --server http://host:7070, or TENON_SERVER")
}

impl From<tenon_client::Error> for Failure {
    fn from(error: tenon_client::Error) -> Failure {
        let family = error.code().split('/').next().unwrap_or_default();
        let exit = match (family, error.code()) {
            ("invalid", "invalid/manifest" | "invalid/nothing-to-run") => Exit::Validation,
            ("invalid" | "not-found" | "conflict" | "gone" | "too-large", _) => Exit::Usage,
            (
                "unavailable" | "deadline" | "overloaded" | "denied" | "unauthenticated"
                | "unsupported",
                _,
            ) => Exit::Environment,
            _ => Exit::Internal,
        };
        let mut text = format!("{error} [{}]", error.code());
        for detail in error.details() {
            let place = match (detail.file.as_str(), detail.line) {
                ("", _) => String::new(),
                (file, 0) => format!("{file}: "),
                (file, line) => format!("{file}:{line}:{}: ", detail.column),
            };
            let detail = format!("{place}{}", detail.message);
            // A field that is at fault has the message for its own.
            if !text.contains(&detail) {
                text.push_str(&format!("\n  {detail}"));
            }
        }
        let failure = Failure::new(exit, text);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_proto::control::v1::{Detail, Error as Wire};

    #[test]
    fn a_detail_is_told_only_if_it_says_more() {
        let detail = |file: &str, message: &str| Detail {
            file: file.to_owned(),
            line: 3,
            column: 1,
            message: message.to_owned(),
            ..Detail::default()
        };
        let details = vec![detail("", "no such thing"), detail("a.yaml", "no such thing")];
        let message = "no such thing".to_owned();
        let wire = Wire { code: "not-found/thing".to_owned(), message, details, ..Wire::default() };
        let failure = Failure::from(tenon_client::Error::Refused(Box::new(wire)));
        assert_eq!(failure.message, "no such thing [not-found/thing]\n  a.yaml:3:1: no such thing");
    }
}
