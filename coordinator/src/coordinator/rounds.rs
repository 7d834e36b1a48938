//! Hellos and heartbeats wait here until a quorum has confirmed that this member leads.
//!
//! A member that was held up may not know that another one leads by now. To welcome an agent, or to
//! answer its heartbeat, it has to be sure that it still led when that came: so each round of them
//! waits for a read through a quorum that was asked for after they had come. One round is under way
//! at a time, the next one gathers meanwhile, and heartbeats, which nobody waits for, gather for a
//! moment; so the number of rounds does not depend on that of the agents.

use std::collections::{BTreeMap, BTreeSet};

use tenon_engine::Time;

use crate::duties::SessionId;
use crate::entry::RequestId;

/// A round is asked for again after so long, in milliseconds.
const AGAIN_MS: i64 = 300;

/// Heartbeats gather for so long, in milliseconds: far less than any lease.
const GATHER_MS: i64 = 20;

/// What waits together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Sessions that want to be welcomed.
    pub hellos: BTreeSet<SessionId>,
    /// The newest heartbeat of each session.
    pub heartbeats: BTreeMap<SessionId, u64>,
}

struct Asked {
    id: RequestId,
    again: Time,
    /// Confirmed; it counts once this is applied.
    index: Option<u64>,
    round: Round,
}

/// The round under way and the next one.
#[derive(Default)]
pub(crate) struct Rounds {
    gathering: Round,
    /// When the first heartbeat that gathers had come.
    since: Option<Time>,
    asked: Option<Asked>,
}

impl Rounds {
    /// An agent has said hello.
    pub(crate) fn hello(&mut self, session: SessionId) {
        self.gathering.hellos.insert(session);
    }

    /// A heartbeat has come.
    pub(crate) fn heartbeat(&mut self, session: SessionId, number: u64, now: Time) {
        self.since.get_or_insert(now);
        self.gathering.heartbeats.insert(session, number);
    }

    /// Whether a round is to be asked for.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// When one is to be asked for: at once if an agent waits to be welcomed.
    fn due(&self) -> Option<Time> {
        match &self.asked {
            Some(_) => None,
            None if !self.gathering.hellos.is_empty() => Some(Time(0)),
            None => self.since.map(|since| since.plus_millis(GATHER_MS)),
        }
    }

    /// What has gathered is asked for under this id.
    pub(crate) fn ask(&mut self, id: RequestId, now: Time) {
        let round = std::mem::take(&mut self.gathering);
        self.since = None;
        self.asked = Some(Asked { id, again: now.plus_millis(AGAIN_MS), index: None, round });
    }

    /// A quorum has confirmed a read; it may be the round's.
    pub(crate) fn confirmed(&mut self, id: RequestId, index: u64) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.id == id) {
            asked.index = Some(index);
        }
    }

    /// The round under way, if it is confirmed and so much is applied.
    pub(crate) fn take(&mut self, applied: u64) -> Option<Round> {
        let is_over = |asked: &mut Asked| asked.index.is_some_and(|index| index <= applied);
        self.asked.take_if(is_over).map(|asked| asked.round)
    }

    /// The round that is to be asked for once more.
    pub(crate) fn again(&mut self, now: Time) -> Option<RequestId> {
        let asked = self.asked.as_mut()?;
        if asked.index.is_some() || asked.again > now {
            return None;
        }
        asked.again = now.plus_millis(AGAIN_MS);
        Some(asked.id)
    }

    /// When [`Rounds::is_due`] or [`Rounds::again`] has something to say.
    pub(crate) fn next_wakeup(&self) -> Option<Time> {
        match &self.asked {
            Some(asked) => asked.index.is_none().then_some(asked.again),
            None => self.due(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> RequestId {
        RequestId { node: 1, number }
    }

    #[test]
    fn a_heartbeat_waits_for_a_read_that_was_asked_for_after_it() {
        let mut rounds = Rounds::default();
        assert!(!rounds.is_due(Time(0)));
        rounds.heartbeat(7, 1, Time(0));
        rounds.ask(id(1), Time(20));
        rounds.heartbeat(7, 2, Time(20));
        assert!(!rounds.is_due(Time(200)));
        rounds.confirmed(id(1), 10);
        assert_eq!(rounds.take(9), None);
        assert_eq!(rounds.take(10).unwrap().heartbeats, BTreeMap::from([(7, 1)]));
        assert!(rounds.is_due(Time(200)));
    }

    #[test]
    fn heartbeats_gather_for_a_moment_and_hellos_do_not_wait() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next_wakeup(), None);
        rounds.heartbeat(7, 1, Time(100));
        rounds.heartbeat(8, 1, Time(110));
        assert!(!rounds.is_due(Time(119)));
        assert_eq!(rounds.next_wakeup(), Some(Time(120)));
        assert!(rounds.is_due(Time(120)));
        rounds.ask(id(1), Time(120));
        rounds.confirmed(id(1), 1);
        assert_eq!(rounds.take(1).unwrap().heartbeats.len(), 2);
        assert_eq!(rounds.next_wakeup(), None);
        rounds.hello(9);
        assert!(rounds.is_due(Time(121)));
    }

    #[test]
    fn a_read_that_is_lost_is_asked_for_again() {
        let mut rounds = Rounds::default();
        rounds.hello(7);
        rounds.ask(id(1), Time(0));
        assert_eq!(rounds.again(Time(299)), None);
        assert_eq!(rounds.next_wakeup(), Some(Time(300)));
        assert_eq!(rounds.again(Time(300)), Some(id(1)));
        rounds.confirmed(id(2), 1);
        assert_eq!(rounds.take(u64::MAX), None);
        rounds.confirmed(id(1), 1);
        assert_eq!(rounds.next_wakeup(), None);
        assert_eq!(rounds.take(1).unwrap().hellos, BTreeSet::from([7]));
    }
}
