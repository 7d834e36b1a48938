//! The leases of agents, as the leader sees them. No I/O and no clock: the time comes with each call.
//!
//! An agent may act for [`LeaseTimes::lease_ms`] after it has *sent* a heartbeat that was answered. The
//! leader gives it up when the lease and a margin have passed since it has *heard* from it, which
//! is later; so what it ran is frozen or dead by then, and may be placed again (invariant 4). The
//! margin is for clocks that go at different speeds. It need not cover leaders that do not know that
//! they are none any more: a heartbeat is answered only after a quorum has confirmed that this leader
//! still led when it came, and a new leader begins every lease anew.

use std::collections::{BTreeMap, BTreeSet};

use tenon_journal::bugs::{self, Bug};

use super::options::LeaseTimes;

/// At most so many heartbeats come in a second from the whole fleet: with fewer, leases in large fleets would be longer, and
/// what a lost agent ran would wait longer. What they cost is in docs/performance.md.
const HEARTBEATS_A_SECOND: u64 = 1000;
/// Agents are welcomed for a fleet that is larger by this share, in percent: they need not be told
/// anew whenever another one joins.
const ROOM_TO_GROW: u64 = 125;
/// A lease is worth at least so many heartbeats.
const HEARTBEATS_A_LEASE: u64 = 3;

/// What an agent is told when a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// See [`LeaseTimes::lease_ms`].
    pub lease_ms: u64,
    /// How often it sends a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
}

impl Terms {
    /// Those of an agent in a fleet of so many.
    pub(crate) fn of_fleet(times: &LeaseTimes, agents: usize) -> Terms {
        let each = agents as u64 * 1000 / HEARTBEATS_A_SECOND;
        let heartbeat_ms = times.heartbeat_ms.max(each * ROOM_TO_GROW / 100);
        let lease_ms = match times.lease_ms {
            0 => 0,
            lease => lease.max(HEARTBEATS_A_LEASE * heartbeat_ms),
        };
        Terms { lease_ms, heartbeat_ms }
    }

    /// Whether an agent with these terms sends heartbeats too often for a fleet of so many.
    pub(crate) fn are_outgrown(&self, agents: usize) -> bool {
        self.heartbeat_ms < agents as u64 * 1000 / HEARTBEATS_A_SECOND
    }
}

/// An agent that may be acting.
struct Lease {
    lease_ms: u64,
    /// When it was last heard from, by the leader's steady clock.
    heard: u64,
}

/// The agents that may be acting, and when each was last heard from.
pub(crate) struct Leases {
    times: LeaseTimes,
    leases: BTreeMap<String, Lease>,
    /// To be given up: that is proposed, and nobody knows yet whether it is so.
    given_up: BTreeSet<String>,
    /// No lease is over before then.
    look_at: Option<u64>,
}

impl Leases {
    /// No agents.
    pub(crate) fn new(times: LeaseTimes) -> Leases {
        Leases { times, leases: BTreeMap::new(), given_up: BTreeSet::new(), look_at: None }
    }

    /// Whether agents have leases at all.
    pub(crate) fn are_given(&self) -> bool {
        self.times.lease_ms > 0
    }

    /// How many agents may be acting.
    pub(crate) fn count(&self) -> usize {
        self.leases.len()
    }

    /// Leadership begins or is over: these agents may be acting, and their leases begin now.
    pub(crate) fn begin(&mut self, agents: impl IntoIterator<Item = (String, u64)>, now: u64) {
        *self = Leases::new(self.times);
        for (agent, lease_ms) in agents {
            self.admit(agent, lease_ms, now);
        }
    }

    /// Every member knows that this agent is up, and with which lease.
    pub(crate) fn admit(&mut self, agent: String, lease_ms: u64, now: u64) {
        if !self.are_given() {
            return;
        }
        self.given_up.remove(&agent);
        self.leases.insert(agent, Lease { lease_ms, heard: now });
        let over = self.over(lease_ms, now);
        self.look_at = Some(self.look_at.map_or(over, |look_at| look_at.min(over)));
    }

    /// An agent has said something.
    pub(crate) fn heard(&mut self, agent: &str, now: u64) {
        if let Some(lease) = self.leases.get_mut(agent) {
            lease.heard = now;
        }
    }

    /// Every member knows that this agent was given up.
    pub(crate) fn lost(&mut self, agent: &str) {
        self.given_up.remove(agent);
        self.leases.remove(agent);
    }

    /// Giving an agent up was not taken: it is tried again.
    pub(crate) fn not_lost(&mut self, agent: &str, now: u64) {
        if self.given_up.remove(agent) {
            self.look_at = Some(now);
        }
    }

    /// Whether it may be that every member is about to know that this agent was given up. Its
    /// heartbeats are not answered.
    pub(crate) fn is_given_up(&self, agent: &str) -> bool {
        self.given_up.contains(agent)
    }

    /// When [`Leases::expire`] is due.
    pub(crate) fn next_look(&self) -> Option<u64> {
        self.look_at
    }

    /// The agents that are to be given up: they have not been heard from for so many milliseconds.
    /// `in_contact` says whether an agent has a session.
    pub(crate) fn expire(
        &mut self,
        now: u64,
        in_contact: impl Fn(&str) -> bool,
    ) -> Vec<(String, u64)> {
        let at_once = bugs::is_on(Bug::ReplaceWithoutLease);
        if !at_once && self.look_at.is_none_or(|look_at| now < look_at) {
            return Vec::new();
        }
        let mut over = Vec::new();
        let mut look_at = None;
        for (agent, lease) in &self.leases {
            if self.given_up.contains(agent) {
                continue;
            }
            let ends = self.over(lease.lease_ms, lease.heard);
            if ends <= now || at_once && !in_contact(agent) {
                over.push((agent.clone(), now - lease.heard));
            } else {
                look_at = Some(look_at.map_or(ends, |look_at: u64| look_at.min(ends)));
            }
        }
        self.look_at = look_at;
        self.given_up.extend(over.iter().map(|(agent, _)| agent.clone()));
        over
    }

    fn over(&self, lease_ms: u64, heard: u64) -> u64 {
        heard.saturating_add(lease_ms).saturating_add(self.times.margin_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LeaseTimes =
        LeaseTimes { lease_ms: 30_000, margin_ms: 10_000, heartbeat_ms: 5_000 };

    fn lost(leases: &mut Leases, now: u64) -> Vec<String> {
        leases.expire(now, |_| true).into_iter().map(|(agent, _)| agent).collect()
    }

    fn one(now: u64) -> Leases {
        let mut leases = Leases::new(TIMES);
        leases.begin([("a".to_owned(), 30_000)], now);
        leases
    }

    #[test]
    fn an_agent_is_given_up_when_lease_and_margin_have_passed_since_it_was_heard() {
        let mut leases = one(1_000);
        leases.heard("a", 5_000);
        assert!(lost(&mut leases, 44_999).is_empty());
        assert_eq!(leases.next_look(), Some(45_000));
        assert_eq!(leases.expire(45_000, |_| true), [("a".to_owned(), 40_000)]);
        assert!(leases.is_given_up("a"));
        assert_eq!(leases.next_look(), None);
    }

    #[test]
    fn an_agent_is_given_up_once_and_again_if_that_was_not_taken() {
        let mut leases = one(0);
        assert_eq!(lost(&mut leases, 40_000), ["a"]);
        assert!(lost(&mut leases, 90_000).is_empty());
        leases.not_lost("a", 90_000);
        assert!(!leases.is_given_up("a"));
        assert_eq!(lost(&mut leases, 90_000), ["a"]);
        leases.lost("a");
        assert_eq!(leases.next_look(), None);
        // What it says now is of no use: it has to begin a session.
        leases.heard("a", 91_000);
        assert!(lost(&mut leases, 200_000).is_empty());
    }

    #[test]
    fn a_new_leader_begins_every_lease_anew() {
        let mut leases = one(0);
        leases.begin([("a".to_owned(), 30_000), ("b".to_owned(), 60_000)], 39_000);
        assert!(lost(&mut leases, 78_000).is_empty());
        assert_eq!(lost(&mut leases, 79_000), ["a"]);
        assert_eq!(lost(&mut leases, 109_000), ["b"]);
    }

    #[test]
    fn without_leases_nobody_is_given_up() {
        let mut leases = Leases::new(LeaseTimes { lease_ms: 0, ..TIMES });
        leases.begin([("a".to_owned(), 0)], 0);
        assert_eq!(leases.next_look(), None);
        assert!(lost(&mut leases, u64::MAX).is_empty());
    }

    #[test]
    fn heartbeats_of_a_fleet_of_any_size_stay_below_a_thousand_a_second() {
        for agents in [1, 10, 1_000, 4_999, 5_000, 10_000, 100_000] {
            let terms = Terms::of_fleet(&TIMES, agents);
            assert!(
                agents as u64 * 1000 <= HEARTBEATS_A_SECOND * terms.heartbeat_ms,
                "{agents}: {terms:?}"
            );
            assert!(terms.lease_ms >= 3 * terms.heartbeat_ms, "{agents}: {terms:?}");
            assert!(!terms.are_outgrown(agents));
            assert!(terms.heartbeat_ms == 5_000 || terms.are_outgrown(agents * 13 / 10));
        }
        assert_eq!(Terms::of_fleet(&TIMES, 3), Terms { lease_ms: 30_000, heartbeat_ms: 5_000 });
    }
}
