//! What plans are made of small and of random snapshots.

mod examples;
mod properties;

use std::sync::Arc;

use super::*;
use crate::{RunId, Time};

fn agent(name: &str, slots: u32, attempts: u32) -> Agent {
    let used = Usage { attempts, ..Usage::default() };
    Agent { name: name.to_owned(), slots, used, ..Agent::default() }
}

fn waiting(run: u128, requirements: Requirements) -> Waiting {
    let run = RunId(ulid::Ulid(run));
    let attempt = AttemptId { run, task_run: "t".to_owned(), attempt: 1, placement: 1 };
    Waiting { attempt, since: Time(0), requirements: Arc::new(requirements) }
}

fn needs() -> Requirements {
    Requirements { namespace: "ns".to_owned(), ..Requirements::default() }
}

fn snapshot(agents: Vec<Agent>, waiting: Vec<Waiting>) -> Snapshot {
    Snapshot { agents, waiting, ..Snapshot::default() }
}

/// Run and agent of each placement, in their order.
fn placed(plan: &Plan) -> Vec<(u128, &str)> {
    plan.placements.iter().map(|it| (it.attempt.run.0.0, it.agent.as_str())).collect()
}

/// The only explanation.
fn why(agents: Vec<Agent>, requirements: Requirements) -> String {
    let plan = plan(&snapshot(agents, vec![waiting(1, requirements)]));
    assert_eq!(plan.placements, []);
    plan.explanations[0].message.clone()
}
