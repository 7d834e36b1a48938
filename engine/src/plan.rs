//! Which waiting attempt goes to which agent: a pure function of a snapshot.
//!
//! Hard constraints first (labels, free slots, where a claim lives), then preference (images
//! already there, then the fewest attempts, then the name). It neither remembers nor sends anything.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::AttemptId;
use crate::work::Requirements;

/// What is known of the agents and of what waits, in the order in which it should be served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The agents in contact.
    pub agents: Vec<Agent>,
    /// The attempts to place, first come first.
    pub waiting: Vec<Waiting>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// How many are placed on it now.
    pub used: u32,
    /// Images that it has.
    pub images: BTreeSet<String>,
    /// PersistentVolumeClaims that live on it, as `namespace/name`.
    pub claims: BTreeSet<String>,
}

/// One attempt that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Which.
    pub attempt: AttemptId,
    /// What it needs.
    pub requirements: Arc<Requirements>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Attempts that can be placed now, and where.
    pub placements: Vec<Placement>,
    /// Why each of the others has to wait.
    pub explanations: Vec<Explanation>,
}

/// An attempt and its agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The agent's name.
    pub agent: String,
}

/// Why an attempt waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Which attempt.
    pub attempt: AttemptId,
    /// For people: `3 agents: 2 lack label gpu=true, 1 is full`.
    pub message: String,
}

/// Decides placements for everything in the snapshot.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut agents = snapshot.agents.clone();
    let mut plan = Plan::default();
    for waiting in &snapshot.waiting {
        match choose(&agents, &waiting.requirements) {
            Ok(index) => {
                let agent = &mut agents[index];
                agent.used += 1;
                agent.claims.extend(qualified_claims(&waiting.requirements));
                plan.placements.push(Placement {
                    attempt: waiting.attempt.clone(),
                    agent: agent.name.clone(),
                });
            }
            Err(message) => {
                plan.explanations.push(Explanation { attempt: waiting.attempt.clone(), message });
            }
        }
    }
    plan
}

fn qualified_claims(requirements: &Requirements) -> impl Iterator<Item = String> {
    requirements.claims.iter().map(|claim| format!("{}/{claim}", requirements.namespace))
}

/// The best agent's index, or why there is none.
fn choose(agents: &[Agent], requirements: &Requirements) -> Result<usize, String> {
    if agents.is_empty() {
        return Err("no agent is in contact".to_owned());
    }
    let needed: Vec<String> = qualified_claims(requirements).collect();
    let home_of = |claim: &String| agents.iter().position(|agent| agent.claims.contains(claim));
    let homes: BTreeSet<usize> = needed.iter().filter_map(home_of).collect();
    let mut refusals: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let mut best: Option<(usize, (usize, u32, &str))> = None;
    for (index, agent) in agents.iter().enumerate() {
        let lacking = requirements
            .node_selector
            .iter()
            .find(|(key, value)| agent.labels.get(*key) != Some(*value));
        let elsewhere = requirements.home.as_ref().is_some_and(|home| *home != agent.name);
        let refusal = if let Some((key, value)) = lacking {
            Some(Cow::from(format!("lack label {key}={value}")))
        } else if elsewhere || homes.iter().any(|home| *home != index) {
            Some(Cow::from("do not have the run's volume"))
        } else if agent.used >= agent.slots {
            Some(Cow::from("have no free slot"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            *refusals.entry(refusal).or_default() += 1;
            continue;
        }
        let missing = requirements.images.difference(&agent.images).count();
        let rank = (missing, agent.used, agent.name.as_str());
        if best.is_none_or(|(_, best_rank)| rank < best_rank) {
            best = Some((index, rank));
        }
    }
    best.map(|(index, _)| index).ok_or_else(|| {
        let total = agents.len();
        let parts: Vec<String> =
            refusals.iter().map(|(refusal, count)| format!("{count} {refusal}")).collect();
        format!("{total} agent(s): {}", parts.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunId;

    fn agent(name: &str, slots: u32, used: u32) -> Agent {
        Agent { name: name.to_owned(), slots, used, ..Agent::default() }
    }

    fn waiting(task_run: &str, requirements: Requirements) -> Waiting {
        Waiting {
            attempt: AttemptId {
                run: RunId(ulid::Ulid(1)),
                task_run: task_run.to_owned(),
                attempt: 1,
                placement: 1,
            },
            requirements: Arc::new(requirements),
        }
    }

    fn agents_of(plan: &Plan) -> Vec<&str> {
        plan.placements.iter().map(|p| p.agent.as_str()).collect()
    }

    #[test]
    fn spreads_over_free_slots_in_order_and_explains_the_rest() {
        let snapshot = Snapshot {
            agents: vec![agent("b", 1, 0), agent("a", 2, 1)],
            waiting: ["x", "y", "z"].map(|name| waiting(name, Requirements::default())).to_vec(),
        };
        let plan = plan(&snapshot);
        assert_eq!(agents_of(&plan), ["b", "a"]);
        assert_eq!(plan.explanations[0].message, "2 agent(s): 2 have no free slot");
    }

    #[test]
    fn labels_and_claims_are_hard() {
        let mut gpu = agent("gpu", 4, 0);
        gpu.labels.insert("gpu".into(), "true".into());
        let mut needs_gpu = Requirements::default();
        needs_gpu.node_selector.insert("gpu".into(), "true".into());
        let mut with_claim =
            Requirements { namespace: "default".into(), ..Requirements::default() };
        with_claim.claims.insert("pvc-1".into());
        let snapshot = Snapshot {
            agents: vec![agent("a", 1, 0), agent("b", 4, 0), gpu],
            waiting: vec![
                waiting("g", needs_gpu.clone()),
                waiting("c1", with_claim.clone()),
                waiting("c2", with_claim),
            ],
        };
        let planned = plan(&snapshot);
        assert_eq!(agents_of(&planned), ["gpu", "a"]);
        assert_eq!(
            planned.explanations[0].message,
            "3 agent(s): 2 do not have the run's volume, 1 have no free slot"
        );
        let at_home = |home: &str| {
            let home = Some(home.to_owned());
            waiting("h", Requirements { home, ..Requirements::default() })
        };
        let agents = vec![agent("a", 1, 0), agent("b", 4, 3)];
        let snapshot = Snapshot { agents, waiting: vec![at_home("b"), at_home("gone")] };
        let planned = plan(&snapshot);
        assert_eq!(agents_of(&planned), ["b"]);
        assert_eq!(planned.explanations[0].message, "2 agent(s): 2 do not have the run's volume");
        let without_gpu =
            Snapshot { agents: vec![agent("a", 1, 0)], waiting: vec![waiting("g", needs_gpu)] };
        assert_eq!(plan(&without_gpu).explanations[0].message, "1 agent(s): 1 lack label gpu=true");
    }

    #[test]
    fn nobody_there() {
        let planned = plan(&Snapshot {
            agents: Vec::new(),
            waiting: vec![waiting("x", Requirements::default())],
        });
        assert_eq!(planned.explanations[0].message, "no agent is in contact");
    }
}
