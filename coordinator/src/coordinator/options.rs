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

/// How long agents are trusted. Leaders of one cluster should agree on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long an agent may act after it has sent a heartbeat that was answered, in milliseconds; 0 when
    /// agents have no lease and are never given up. In a large fleet the lease is longer.
    pub lease_ms: u64,
    /// So long after that an agent is given up that was not heard from, in milliseconds: for clocks that
    /// go at different speeds.
    pub margin_ms: u64,
    /// How often an agent sends a heartbeat, in milliseconds; less often in a large fleet. It is also how soon the
    /// agent notices a coordinator that hangs.
    pub heartbeat_ms: u64,
}

impl LeaseTimes {
    /// Agents have no lease: `tenon run`, whose agent lives and dies with it.
    pub const NONE: LeaseTimes = LeaseTimes { lease_ms: 0, margin_ms: 0, heartbeat_ms: 0 };
}

impl Default for LeaseTimes {
    fn default() -> Self {
        LeaseTimes { lease_ms: 30_000, margin_ms: 10_000, heartbeat_ms: 1_000 }
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
    /// How long agents are trusted.
    pub leases: LeaseTimes,
    /// How long the claims of a run that failed are kept, so that another run can go on with them, in
    /// milliseconds; they go when their agent next begins a session.
    pub keep_claims_ms: i64,
    /// How agents are chosen that fit equally.
    pub packing: Packing,
    /// Agents save a claim when a task that could write to it has ended, so that it can move; a run may say
    /// otherwise of itself.
    pub saves_claims: bool,
    /// The largest proposal that the log takes, in bytes.
    pub max_proposal_bytes: usize,
}
