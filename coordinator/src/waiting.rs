//! Proposals whose outcome somebody waits for, on this member.
//!
//! A proposal may be lost on its way (no leader, a leader that dies). It is proposed again, under the
//! same id, until it was applied here or its deadline has passed; every command that is proposed so
//! changes nothing when it is applied twice.

use std::collections::BTreeMap;

use tenon_engine::Time;

use crate::entry::RequestId;

/// How long a proposal may be under way before it is proposed again, in milliseconds.
const AGAIN_MS: i64 = 1000;
/// How soon one is tried again that was not taken.
const REFUSED_MS: i64 = 30;

/// Whoever asked, as the driver knows it.
pub type Token = u64;

struct Waiting {
    token: Token,
    proposal: Vec<u8>,
    deadline: Time,
    again: Time,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Proposals {
    waiting: BTreeMap<RequestId, Waiting>,
    /// Nothing is due and nothing expires before this: looking at all of them for each batch of
    /// entries would cost more than applying it.
    quiet_until: Option<Time>,
}

impl Proposals {
    /// Somebody waits for `proposal`, which is about to be proposed.
    pub fn add(
        &mut self,
        id: RequestId,
        token: Token,
        proposal: Vec<u8>,
        now: Time,
        deadline: Time,
    ) {
        let again = now.plus_millis(AGAIN_MS);
        self.wake_by(deadline.min(again));
        self.waiting.insert(id, Waiting { token, proposal, deadline, again });
    }

    fn wake_by(&mut self, time: Time) {
        self.quiet_until = Some(self.quiet_until.map_or(time, |until| until.min(time)));
    }

    /// It was applied.
    pub fn take(&mut self, id: RequestId) -> Option<Token> {
        self.waiting.remove(&id).map(|waiting| waiting.token)
    }

    /// It was not taken, because there is no leader now.
    pub fn refused(&mut self, id: RequestId, now: Time) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.again = now.plus_millis(REFUSED_MS);
            self.wake_by(now.plus_millis(REFUSED_MS));
        }
    }

    /// There is another leader: whatever was under way may be lost.
    pub fn leader_changed(&mut self, now: Time) {
        for waiting in self.waiting.values_mut() {
            waiting.again = now;
        }
        self.wake_by(now);
    }

    /// Those whose time is over, and those that are to be proposed again, if there is a leader.
    pub fn due(&mut self, now: Time, has_leader: bool) -> (Vec<Token>, Vec<(RequestId, Vec<u8>)>) {
        if self.quiet_until.is_none_or(|until| now < until) {
            return (Vec::new(), Vec::new());
        }
        let expired = self.waiting.extract_if(.., |_, waiting| waiting.deadline <= now);
        let expired = expired.map(|(_, waiting)| waiting.token).collect();
        let mut again = Vec::new();
        for (id, waiting) in &mut self.waiting {
            if waiting.again <= now {
                waiting.again = now.plus_millis(AGAIN_MS);
                if has_leader {
                    again.push((*id, waiting.proposal.clone()));
                }
            }
        }
        self.quiet_until =
            self.waiting.values().map(|waiting| waiting.deadline.min(waiting.again)).min();
        (expired, again)
    }

    /// When to look again, at the latest; there may be nothing to do then.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.quiet_until
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}
