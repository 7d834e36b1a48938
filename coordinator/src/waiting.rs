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
        self.waiting.insert(id, Waiting { token, proposal, deadline, again });
    }

    /// It was applied.
    pub fn take(&mut self, id: RequestId) -> Option<Token> {
        self.waiting.remove(&id).map(|waiting| waiting.token)
    }

    /// It was not taken, because there is no leader now.
    pub fn refused(&mut self, id: RequestId, now: Time) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.again = now.plus_millis(REFUSED_MS);
        }
    }

    /// There is another leader: whatever was under way may be lost.
    pub fn leader_changed(&mut self, now: Time) {
        for waiting in self.waiting.values_mut() {
            waiting.again = now;
        }
    }

    /// Those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Token> {
        let expired = self.waiting.extract_if(.., |_, waiting| waiting.deadline <= now);
        expired.map(|(_, waiting)| waiting.token).collect()
    }

    /// Those that are to be proposed again.
    pub fn due(&mut self, now: Time) -> Vec<(RequestId, Vec<u8>)> {
        let due = self.waiting.iter_mut().filter(|(_, waiting)| waiting.again <= now);
        due.map(|(id, waiting)| {
            waiting.again = now.plus_millis(AGAIN_MS);
            (*id, waiting.proposal.clone())
        })
        .collect()
    }

    /// When the next one expires or, with a leader to propose to, is due.
    pub fn next_wakeup(&self, with_leader: bool) -> Option<Time> {
        let wakeup = |waiting: &Waiting| match with_leader {
            true => waiting.deadline.min(waiting.again),
            false => waiting.deadline,
        };
        self.waiting.values().map(wakeup).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}
