//! The agent's leave to act: until when it holds, and who is told.
//!
//! It is counted from when a heartbeat was sent that was answered later, by a clock that goes on while
//! the machine sleeps. Freezing what runs when the lease is over is not done here, because it must be
//! done for an agent that is dead, too: see [`crate::guard`].

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::since_boot;

/// Heartbeats that are remembered; an answer to an older one says too little.
const REMEMBERED: usize = 64;

/// When the heartbeats of a session were sent.
#[derive(Debug, Default)]
pub(crate) struct Beats(Mutex<VecDeque<(u64, Duration)>>);

impl Beats {
    /// One is about to be sent: its number, from 1.
    pub(crate) fn next(&self) -> u64 {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = beats.back().map_or(1, |(last, _)| last + 1);
        if beats.len() >= REMEMBERED {
            beats.pop_front();
        }
        beats.push_back((number, since_boot()));
        number
    }

    /// When it was sent, if that is known.
    pub(crate) fn sent(&self, number: u64) -> Option<Duration> {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.iter().find(|(beat, _)| *beat == number).map(|(_, sent)| *sent)
    }
}

/// The lease itself. Times are [`since_boot`].
pub(crate) struct Lease {
    /// Until when it holds; none is for ever.
    until: Option<Duration>,
    /// How long it is, as the coordinator says; none before that, and where there is no lease.
    pub(crate) length: Option<Duration>,
    told: watch::Sender<bool>,
}

impl Lease {
    /// One that holds for ever: with a coordinator in the same process.
    pub(crate) fn unlimited() -> Lease {
        Lease { until: None, length: None, told: watch::channel(true).0 }
    }

    /// One that was not given yet.
    pub(crate) fn none_yet() -> Lease {
        Lease { until: Some(Duration::ZERO), length: None, told: watch::channel(false).0 }
    }

    /// What attempts see of it.
    pub(crate) fn view(&self) -> LeaseView {
        LeaseView(Some(self.told.subscribe()))
    }

    /// Whether attempts may act, as they were told.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.borrow()
    }

    /// How much longer it holds; none is for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_sub(since_boot()))
    }

    /// It holds until then, or for ever; true when it does so now.
    pub(crate) fn renew(&mut self, until: Option<Duration>) -> bool {
        if self.until.is_some_and(|before| until.is_none_or(|until| until > before)) {
            self.until = until;
        }
        self.left().is_none_or(|left| !left.is_zero())
    }

    /// Tells the attempts whether they may act.
    pub(crate) fn tell(&self, holds: bool) {
        self.told.send_if_modified(|told| std::mem::replace(told, holds) != holds);
    }
}

/// What an attempt sees of its agent's lease; the default one holds for ever.
#[derive(Clone, Debug, Default)]
pub struct LeaseView(Option<watch::Receiver<bool>>);

impl LeaseView {
    /// Whether the agent may act.
    pub fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|told| *told.borrow())
    }

    /// Returns once the agent may act.
    pub async fn wait(&self) {
        self.change(false).await;
    }

    /// Returns, with what holds then, once something else holds than what was `known`.
    pub async fn change(&self, known: bool) -> bool {
        if let Some(told) = &self.0 {
            let mut told = told.clone();
            if let Ok(holds) = told.wait_for(|holds| *holds != known).await {
                return *holds;
            }
        } else if !known {
            return true;
        }
        // An agent that has ended changes nothing any more.
        std::future::pending().await
    }

    /// Does something while the agent may act, and stands still while it may not.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.wait().await;
            tokio::select! {
                biased;
                _ = self.change(true) => {}
                done = &mut work => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_never_shortened_and_ends() {
        let mut lease = Lease::none_yet();
        assert!(!lease.renew(Some(since_boot().saturating_sub(Duration::from_secs(1)))));
        let later = since_boot() + Duration::from_secs(600);
        assert!(lease.renew(Some(later)));
        // An older answer that comes late.
        assert!(lease.renew(Some(later - Duration::from_secs(300))));
        assert!(lease.left().unwrap() > Duration::from_secs(500));
        assert!(lease.renew(None) && lease.left().is_none());
    }

    #[test]
    fn only_a_heartbeat_that_was_sent_says_when() {
        let beats = Beats::default();
        assert_eq!((beats.next(), beats.next()), (1, 2));
        assert!(beats.sent(1) <= beats.sent(2) && beats.sent(3).is_none());
        for _ in 0..REMEMBERED {
            beats.next();
        }
        assert_eq!(beats.sent(1), None);
    }

    #[tokio::test]
    async fn work_stands_still_while_there_is_no_lease() {
        let lease = Lease::none_yet();
        let view = lease.view();
        assert!(!view.holds());
        let work = view.during(async { 7 });
        tokio::pin!(work);
        assert!(futures_util::poll!(&mut work).is_pending());
        lease.tell(true);
        assert_eq!(work.await, 7);
        assert_eq!(LeaseView::default().during(async { 8 }).await, 8);
    }
}
