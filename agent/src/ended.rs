//! Which attempts have ended here: so that a coordinator which does not know it yet starts none of
//! them again.
//!
//! An attempt is remembered until its run has ended. The memory is bounded: beyond that the oldest
//! runs are forgotten, by then the coordinator has long acknowledged their ends.

use std::collections::{BTreeMap, HashSet};

use tenon_proto::agent::v1::AttemptId;

/// Attempts that are remembered at most.
const LIMIT: usize = 100_000;

/// Ended attempts by run. Ids of runs begin with their time, so the first one is the oldest.
#[derive(Debug, Default)]
pub(crate) struct EndedAttempts {
    runs: BTreeMap<String, HashSet<AttemptId>>,
    count: usize,
}

impl EndedAttempts {
    /// The attempt has ended.
    pub(crate) fn insert(&mut self, attempt: &AttemptId) {
        if self.runs.entry(attempt.run_id.clone()).or_default().insert(attempt.clone()) {
            self.count += 1;
        }
        while self.count > LIMIT
            && let Some((_, oldest)) = self.runs.pop_first()
        {
            self.count -= oldest.len();
        }
    }

    /// Whether it ended in this process.
    pub(crate) fn contains(&self, attempt: &AttemptId) -> bool {
        self.runs.get(&attempt.run_id).is_some_and(|ended| ended.contains(attempt))
    }

    /// No more attempts of this run will come.
    pub(crate) fn forget_run(&mut self, run: &str) {
        if let Some(ended) = self.runs.remove(run) {
            self.count -= ended.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(run: &str, number: u32) -> AttemptId {
        AttemptId { run_id: run.into(), task_run: "t".into(), attempt: number, placement: 1 }
    }

    #[test]
    fn remembered_until_the_run_ends() {
        let mut ended = EndedAttempts::default();
        ended.insert(&attempt("a", 1));
        ended.insert(&attempt("a", 1));
        assert!(ended.contains(&attempt("a", 1)));
        assert!(!ended.contains(&attempt("a", 2)) && !ended.contains(&attempt("b", 1)));
        ended.forget_run("a");
        assert!(!ended.contains(&attempt("a", 1)));
        assert_eq!(ended.count, 0);
    }

    #[test]
    fn the_oldest_runs_are_forgotten_first() {
        let mut ended = EndedAttempts::default();
        ended.insert(&attempt("01A", 1));
        for number in 0..u32::try_from(LIMIT).unwrap() {
            ended.insert(&attempt("01B", number));
        }
        assert!(!ended.contains(&attempt("01A", 1)));
        assert!(ended.contains(&attempt("01B", 0)));
        assert_eq!(ended.count, LIMIT);
    }
}
