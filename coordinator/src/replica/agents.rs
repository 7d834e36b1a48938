//! What the replicas know of the agents: what each offers, how far its reports are applied, and what
//! operators have decided about it.
//!
//! An agent that was removed leaves its numbers behind: should it dial in again, its reports go on
//! where they ended, and an older life of it stays an older life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_engine::report::Outcome;
use tenon_engine::{Report, Time};
use tenon_proto::agent::v1::Hello;

use super::{Effects, Replica, Reply};

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The life of the agent that numbers the reports.
    pub incarnation: String,
    /// The number of the last report that was applied.
    pub last: u64,
    /// What it said of itself.
    #[serde(default)]
    pub offer: Offer,
    /// When a command told of it last.
    #[serde(default)]
    pub seen: Time,
    /// It gets no new work.
    #[serde(default)]
    pub cordoned: bool,
    /// It is to be emptied; it is cordoned as well.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// It belongs to the fleet no more, until it dials in again.
    #[serde(default)]
    pub removed: bool,
    /// The longest lease that this life was given, in milliseconds; 0 for none.
    #[serde(default)]
    pub lease_ms: u64,
    /// It was given up, and has not dialled in since.
    #[serde(default)]
    pub down: bool,
}

/// An agent that is being emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when.
    pub since: Time,
    /// What still runs then is stopped, and runs again elsewhere; `None` for never.
    pub deadline: Option<Time>,
}

/// What an agent has, as it said when it dialled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// CPU for attempts, in thousandths; 0 where that is not known.
    pub cpu_millis: u64,
    /// Memory for attempts, in bytes; 0 where that is not known.
    pub memory_bytes: u64,
    /// Its labels, with those that follow from the rest.
    pub labels: BTreeMap<String, String>,
    /// What it runs attempts on, best first.
    pub backends: Vec<String>,
    /// Images that it runs, as patterns with `*`; empty for all.
    pub allowed_images: Vec<String>,
    /// What it lets a pod have beyond what every agent does, as [`tenon_tekton::pod::Demand`]s.
    pub grants: Vec<String>,
    /// Its software, for people.
    pub software: String,
}

impl Offer {
    /// What an agent says of itself. Labels that Kubernetes gives every node are added where it has
    /// none of its own: `kubernetes.io/hostname`, and `tenon.dev/backend-NAME` for each backend.
    pub fn of(hello: &Hello) -> Offer {
        let mut labels: BTreeMap<String, String> = hello.labels.clone().into_iter().collect();
        labels.entry("kubernetes.io/hostname".to_owned()).or_insert_with(|| hello.name.clone());
        for backend in &hello.backends {
            let label = format!("tenon.dev/backend-{backend}");
            labels.entry(label).or_insert_with(|| "true".to_owned());
        }
        Offer {
            slots: hello.slots,
            cpu_millis: hello.cpu_millis,
            memory_bytes: hello.memory_bytes,
            labels,
            backends: hello.backends.clone(),
            allowed_images: hello.allowed_images.clone(),
            grants: hello.grants.clone(),
            software: hello.software.clone(),
        }
    }
}

/// What an operator decides about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentChange {
    /// No new work.
    Cordon,
    /// Work again; ends a drain as well.
    Uncordon,
    /// No new work; what still runs at the deadline runs again elsewhere.
    Drain {
        /// `None` for never.
        deadline: Option<Time>,
    },
    /// It belongs to the fleet no more.
    Remove,
}

impl AgentRecord {
    /// Whether it may be given attempts, and may be acting.
    pub fn is_up(&self) -> bool {
        !self.down && !self.removed
    }

    /// Takes note of a decision, and says whether anything is different now.
    pub fn decide(&mut self, time: Time, change: AgentChange) -> bool {
        let before = (self.cordoned, self.drain, self.removed);
        match change {
            AgentChange::Cordon => self.cordoned = true,
            AgentChange::Uncordon => (self.cordoned, self.drain) = (false, None),
            AgentChange::Drain { deadline } => {
                self.cordoned = true;
                let since = self.drain.map_or(time, |drain| drain.since);
                self.drain = Some(Drain { since, deadline });
            }
            AgentChange::Remove => {
                (self.cordoned, self.drain, self.removed) = (false, None, true);
            }
        }
        before != (self.cordoned, self.drain, self.removed)
    }

    /// Whether what it runs is to be handed over by now.
    pub fn is_to_be_empty(&self, now: Time) -> bool {
        self.drain.is_some_and(|drain| drain.deadline.is_some_and(|deadline| deadline <= now))
    }
}

impl Replica {
    /// Applies a decision about an agent.
    pub(super) fn change_agent(
        &mut self,
        index: u64,
        time: Time,
        agent: String,
        change: AgentChange,
        effects: &mut Effects,
    ) -> Reply {
        let attempts = self.engine.used().get(&agent).map_or(0, |used| used.attempts);
        let record = self.meta.agents.get_mut(&agent).filter(|record| !record.removed);
        let Some(record) = record else { return Reply::NoSuchAgent(agent) };
        if change == AgentChange::Remove && attempts > 0 {
            return Reply::AgentInUse(attempts);
        }
        if record.decide(time, change) {
            effects.decided.insert(agent);
        }
        Reply::Done { index }
    }

    /// That an attempt was stopped at the deadline of a drain is no failure of its own: it runs again
    /// elsewhere.
    pub(super) fn see_drained(&self, agent: &str, time: Time, report: &mut Report) {
        let record = self.meta.agents.get(agent);
        let drained = record.is_some_and(|record| record.is_to_be_empty(time));
        if let Report::Ended { outcome, .. } = report
            && *outcome == Outcome::Stopped
            && drained
        {
            let message = format!("agent {agent} was drained");
            *outcome = Outcome::Infra { reason: "infra/drained".to_owned(), message };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_about_an_agent() {
        let mut agent = AgentRecord::default();
        assert!(agent.decide(Time(1), AgentChange::Cordon));
        assert!(!agent.decide(Time(2), AgentChange::Cordon));
        assert!(agent.decide(Time(3), AgentChange::Drain { deadline: Some(Time(9)) }));
        assert!(agent.decide(Time(4), AgentChange::Drain { deadline: None }));
        assert_eq!(agent.drain, Some(Drain { since: Time(3), deadline: None }));
        assert!(!agent.is_to_be_empty(Time(100)));
        agent.decide(Time(5), AgentChange::Drain { deadline: Some(Time(9)) });
        assert!(!agent.is_to_be_empty(Time(8)) && agent.is_to_be_empty(Time(9)));
        assert!(agent.decide(Time(6), AgentChange::Uncordon));
        assert_eq!(agent, AgentRecord::default());
    }

    #[test]
    fn an_offer_has_the_labels_that_every_node_has() {
        let hello = Hello {
            name: "a".to_owned(),
            backends: vec!["host".to_owned()],
            labels: [("kubernetes.io/hostname".to_owned(), "mine".to_owned())].into(),
            ..Hello::default()
        };
        let labels = Offer::of(&hello).labels;
        assert_eq!(labels["kubernetes.io/hostname"], "mine");
        assert_eq!(labels["tenon.dev/backend-host"], "true");
    }
}
