//! Housekeeping: what nobody needs any more is removed at fixed intervals, and new work is not asked for
//! when the disk is nearly full.
//!
//! Every look begins from what is there and what is known to be needed, so it also finds what an earlier
//! process left. What to remove is decided by functions of what was seen; the backends look and
//! remove.

pub mod claims;
pub mod disk;
pub mod images;
pub mod orphans;

use std::collections::BTreeSet;
use std::time::Duration;

use tenon_proto::agent::v1::AttemptId;

use crate::pod::attempt_key;

/// What a machine's owner wants kept.
#[derive(Clone, Debug)]
pub struct HouseOptions {
    /// Images are removed when so many percent of their disk are used; never at 100.
    pub image_high: u8,
    /// And then until no more than so many are.
    pub image_low: u8,
    /// Images that stay, as patterns with `*`.
    pub keep_images: Vec<String>,
    /// How long claims of a run that may be run again from what failed are kept after its end.
    pub keep_claims: Duration,
}

impl Default for HouseOptions {
    fn default() -> HouseOptions {
        HouseOptions {
            image_high: 85,
            image_low: 75,
            keep_images: Vec::new(),
            keep_claims: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What is needed now, and stays.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// The keys of attempts that run, or that wait to be adopted or forgotten.
    pub attempts: BTreeSet<String>,
    /// Runs of which something may still come, and those whose claims these use.
    pub runs: BTreeSet<String>,
}

impl Needed {
    /// Of these attempts and runs.
    pub fn of<'a>(
        attempts: impl IntoIterator<Item = &'a AttemptId>,
        runs: impl IntoIterator<Item = String>,
    ) -> Needed {
        let attempts: Vec<&AttemptId> = attempts.into_iter().collect();
        let of_attempts = attempts.iter().map(|attempt| attempt.run_id.clone());
        Needed {
            runs: runs.into_iter().chain(of_attempts).collect(),
            attempts: attempts.into_iter().map(attempt_key).collect(),
        }
    }
}
