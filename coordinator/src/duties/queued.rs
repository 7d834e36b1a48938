//! When `task-queued` is due: some time after an attempt began to wait, and again when the reason is
//! another one, for a few attempts at a time.

use std::collections::{BTreeMap, BTreeSet};

use tenon_engine::{AttemptId, Time};

/// An attempt has to wait so long before an event says why, in milliseconds.
const WORTH_SAYING_MS: i64 = 2_000;
/// So long until another event may say that the reason has changed, in milliseconds.
const SAY_AGAIN_MS: i64 = 10_000;
/// Between looks at what waits, in milliseconds.
const BETWEEN_MS: i64 = 1_000;
/// At most so many attempts are spoken about at a time.
const AT_A_TIME: usize = 100;

/// Attempts that wait, and what was said about them.
#[derive(Default)]
pub(super) struct Queued {
    known: BTreeMap<AttemptId, Known>,
    order: BTreeSet<(Time, AttemptId)>,
    not_before: Time,
}

struct Known {
    /// When it may be spoken about next.
    due: Time,
    said: Option<String>,
}

impl Queued {
    /// An attempt waits; one that is known goes on waiting.
    pub(super) fn add(&mut self, attempt: &AttemptId, since: Time) {
        if !self.known.contains_key(attempt) {
            let due = since.plus_millis(WORTH_SAYING_MS);
            self.known.insert(attempt.clone(), Known { due, said: None });
            self.order.insert((due, attempt.clone()));
        }
    }

    /// An attempt does not wait any more.
    pub(super) fn remove(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.known.remove(attempt) {
            self.order.remove(&(known.due, attempt.clone()));
        }
    }

    /// When somebody is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.order.first().map(|(due, _)| (*due).max(self.not_before))
    }

    /// Those who are due, who then are again later.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<AttemptId> {
        self.not_before = now.plus_millis(BETWEEN_MS);
        let due = self.order.iter().take_while(|(due, _)| *due <= now).take(AT_A_TIME);
        let due: Vec<(Time, AttemptId)> = due.cloned().collect();
        let again = now.plus_millis(SAY_AGAIN_MS);
        let mut attempts = Vec::new();
        for (at, attempt) in due {
            if let Some(known) = self.known.get_mut(&attempt) {
                known.due = again;
                self.order.insert((again, attempt.clone()));
            }
            self.order.remove(&(at, attempt.clone()));
            attempts.push(attempt);
        }
        attempts
    }

    /// Whether this was not said yet, and then it is said. Other figures alone are no news.
    pub(super) fn is_news(&mut self, attempt: &AttemptId, message: &str) -> bool {
        let Some(known) = self.known.get_mut(attempt) else { return false };
        let words =
            |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).collect() };
        let new = known.said.as_ref().is_none_or(|said| words(said) != words(message));
        if new {
            known.said = Some(message.to_owned());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use tenon_engine::RunId;

    use super::*;

    #[test]
    fn what_waits_is_spoken_about_now_and_then() {
        let attempt =
            AttemptId { run: RunId::default(), task_run: "t".to_owned(), attempt: 1, placement: 1 };
        let mut queued = Queued::default();
        queued.add(&attempt, Time(0));
        queued.add(&attempt, Time(5));
        assert_eq!(queued.next(), Some(Time(2_000)));
        assert_eq!(queued.take_due(Time(2_000)), std::slice::from_ref(&attempt));
        assert!(queued.is_news(&attempt, "1 is full: 0.5 free"));
        assert!(!queued.is_news(&attempt, "1 is full: 0.25 free"), "only a figure differs");
        assert_eq!(queued.next(), Some(Time(12_000)));
        assert!(queued.is_news(&attempt, "2 are cordoned"));
        queued.remove(&attempt);
        assert_eq!(queued.next(), None);
        assert!(!queued.is_news(&attempt, "gone"));
    }
}
