//! Identities, and what is derived from them: names for people, trace and span ids for
//! OpenTelemetry. Derivation is by hash, so that every node and every restart derives the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A run's id: a ULID, so that ids sort by the time of submission.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RunId(pub ulid::Ulid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RunId {
    type Err = ulid::DecodeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(RunId)
    }
}

/// One placement of one attempt of one TaskRun: the fencing token of everything that an agent does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The TaskRun's name: unique in the run, PipelineTask and matrix index included.
    pub task_run: String,
    /// 1-based; grows with each of the user's retries.
    pub attempt: u32,
    /// 1-based; grows when the same attempt is placed anew after an infrastructure failure.
    pub placement: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}.{}", self.run, self.task_run, self.attempt, self.placement)
    }
}

impl RunId {
    /// The OpenTelemetry trace id of the run: 32 hex digits.
    pub fn trace_id(self) -> String {
        hash(&["trace", &self.to_string()], 16)
    }

    /// The span id of the run itself: 16 hex digits.
    pub fn span_id(self) -> String {
        hash(&["run", &self.to_string()], 8)
    }

    /// The span id of a task, over all its attempts: 16 hex digits.
    pub fn task_span_id(self, task_run: &str) -> String {
        hash(&["task", &self.to_string(), task_run], 8)
    }

    /// A name for an object with `generateName`: the same for the same run.
    pub fn generated_name(self, generate_name: &str) -> String {
        let hex = hash(&["name", &self.to_string(), generate_name], 8);
        let bits = u64::from_str_radix(&hex, 16).unwrap_or_default();
        tenon_tekton::names::generated_name(generate_name, bits)
    }

    /// A Kubernetes uid for an object of this run, in UUID form.
    pub fn object_uid(self, kind: &str, name: &str) -> String {
        let hex = hash(&["uid", &self.to_string(), kind, name], 16);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl AttemptId {
    /// The span id of this attempt: 16 hex digits.
    pub fn span_id(&self) -> String {
        hash(&["attempt", &self.to_string()], 8)
    }

    /// The span id of one step or sidecar of this attempt: 16 hex digits.
    pub fn container_span_id(&self, container: &str) -> String {
        hash(&["container", &self.to_string(), container], 8)
    }
}

/// The first `bytes` bytes of SHA-256 over the parts, as hex. Parts are separated, so that no two
/// lists of parts hash alike.
fn hash(parts: &[&str], bytes: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(2 * bytes);
    for byte in hasher.finalize().iter().take(bytes) {
        hex.push(char::from(HEX[usize::from(byte >> 4)]));
        hex.push(char::from(HEX[usize::from(byte & 15)]));
    }
    hex
}
