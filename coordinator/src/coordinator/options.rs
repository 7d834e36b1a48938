//! What a [`super::Coordinator`] needs to know.

use tenon_engine::plan::Packing;

use crate::seal::SealKey;

/// How long the claims of failed runs are kept: a day.
pub(crate) const KEEP_CLAIMS_MS: i64 = 24 * 3600 * 1000;

/// When what is applied is made what a restart begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistPoints {
    /// After so many bytes of applied entries.
    pub bytes: u64,
    /// After this time even if it is little, in milliseconds.
    pub after_ms: i64,
}

impl Default for PersistPoints {
    fn default() -> Self {
        PersistPoints { bytes: 8 << 20, after_ms: 10_000 }
    }
}

/// What a coordinator needs to know.
#[derive(Clone)]
pub struct Options {
    /// The Raft id of this member.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Makes the numbers of requests differ from those of earlier lives of this member.
    pub request_base: u64,
    /// How long a stopped step has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Attempts go to whatever agent there is: `tenon run`.
    pub any_agent: bool,
    /// Opens and closes Secrets; without it, submissions with Secrets are refused.
    pub key: Option<SealKey>,
    /// When there are persist points: `tenon run` has none, its log is short-lived.
    pub persist: Option<PersistPoints>,
    /// How often an agent gives a sign of life, in milliseconds; 0 for not at all.
    pub heartbeat_ms: u64,
    /// How long the claims of a run that failed are kept, so that another run can go on with them, in
    /// milliseconds; they go when their agent next begins a session.
    pub keep_claims_ms: i64,
    /// How agents are chosen that fit equally.
    pub packing: Packing,
    /// The largest proposal that the log takes, in bytes.
    pub max_proposal_bytes: usize,
}
