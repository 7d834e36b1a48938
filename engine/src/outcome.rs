//! How a run ended, in few words: what exit codes and summaries are made of.

use serde::{Deserialize, Serialize};

use crate::event::Status;

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// As in the `run-end` event.
    pub status: Status,
    /// Tekton's reason, or `infra/…`.
    pub reason: String,
    /// Tekton's message.
    pub message: String,
    /// Refused while reconciling, before anything ran: exit code 4.
    pub rejected: bool,
    /// A timeout of the run ended it: exit code 6.
    pub timed_out: bool,
}
