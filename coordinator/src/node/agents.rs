//! The agents, as the node's API shows them: from the state that every node has.

use std::collections::BTreeMap;

use tenon_engine::Time;
use tenon_engine::work::Usage;
use tenon_proto::control::v1::{Agent, AgentAttempt};
use tokio::time::Instant;

use super::Handle;
use super::apply_thread::now;
use super::membership::{as_time, stopping};
use crate::coordinator::{Coordinator, Request};
use crate::replica::{AgentChange, AgentRecord, Reply};
use crate::server::{AgentDecision, Fault, Result, no_such_agent};

impl Handle {
    pub(super) fn show_agents(&self) -> Result<Vec<Agent>> {
        self.joined()?;
        let look = |it: &Coordinator| of_all(it);
        self.look_blocking(look).ok_or_else(stopping)
    }

    pub(super) fn show_agent(&self, name: &str) -> Result<Option<Agent>> {
        self.joined()?;
        let wanted = name.to_owned();
        self.look_blocking(move |it| of_one(it, &wanted)).ok_or_else(stopping)
    }

    pub(super) async fn decide_about_agent(
        &self,
        agent: String,
        decision: AgentDecision,
        deadline: Instant,
    ) -> Result<()> {
        let change = match decision {
            AgentDecision::Cordon => AgentChange::Cordon,
            AgentDecision::Uncordon => AgentChange::Uncordon,
            AgentDecision::Drain { within_ms } => {
                AgentChange::Drain { deadline: within_ms.map(|within| now().plus_millis(within)) }
            }
            AgentDecision::Remove => AgentChange::Remove,
        };
        if change == AgentChange::Remove {
            self.request(Request::Read, as_time(deadline)).await?;
            let name = agent.clone();
            let stays = self.look(move |it| why_it_stays(it, &name)).await.ok_or_else(stopping)?;
            stays.map_or(Ok(()), Err)?;
        }
        match self.request(Request::ChangeAgent { agent, change }, as_time(deadline)).await? {
            Reply::NoSuchAgent(name) => Err(no_such_agent(&name)),
            Reply::AgentInUse(attempts) => Err(in_use(attempts)),
            _ => Ok(()),
        }
    }
}

/// Why an agent cannot be removed now. One that may still be in contact would dial in again at once;
/// the others know that it is not when its lease is over.
fn why_it_stays(coordinator: &Coordinator, name: &str) -> Option<Fault> {
    let replica = coordinator.replica();
    let record = replica.meta().agents.get(name)?;
    let attempts = replica.engine().used().get(name).map_or(0, |used| used.attempts);
    if record.removed {
        return None;
    }
    if attempts > 0 {
        return Some(in_use(attempts));
    }
    (record.lease_ms > 0 && record.is_up()).then(|| {
        let message = format!("agent {name} is in contact, or its lease is not over yet");
        Fault::new("conflict/agent-up", message)
            .hint("stop it first, and wait until `tenon agents list` says that it is down")
    })
}

fn in_use(attempts: u32) -> Fault {
    Fault::new("conflict/agent-in-use", format!("{attempts} attempts are placed on the agent"))
        .hint("drain it first, and stop it: `tenon agents drain NAME`")
}

/// The agents in contact, as this node knows when it leads.
pub(super) fn in_contact(coordinator: &Coordinator) -> Vec<Agent> {
    let (meta, used) = (coordinator.replica().meta(), coordinator.replica().engine().used());
    let known = coordinator.agents().filter_map(|hello| {
        let record = meta.agents.get(&hello.name).filter(|record| !record.removed)?;
        Some(Agent { state: "up".to_owned(), ..show(&hello.name, record, used) })
    });
    known.collect()
}

fn of_all(coordinator: &Coordinator) -> Vec<Agent> {
    let replica = coordinator.replica();
    let known = replica.meta().agents.iter().filter(|(_, record)| !record.removed);
    let used = replica.engine().used();
    known.map(|(name, record)| show(name, record, used)).collect()
}

fn of_one(coordinator: &Coordinator, name: &str) -> Option<Agent> {
    let replica = coordinator.replica();
    let record = replica.meta().agents.get(name).filter(|record| !record.removed)?;
    let mut agent = show(name, record, replica.engine().used());
    let here = replica.engine().placed().filter(|(_, at)| *at == name);
    agent.attempts = here
        .map(|(attempt, _)| AgentAttempt {
            run_id: attempt.run.to_string(),
            task_run: attempt.task_run,
            attempt: attempt.attempt,
            placement: attempt.placement,
        })
        .collect();
    Some(agent)
}

/// An agent, as the API shows it.
fn show(name: &str, record: &AgentRecord, used: &BTreeMap<String, Usage>) -> Agent {
    let used = used.get(name).copied().unwrap_or_default();
    let offer = record.offer.clone();
    let deadline = record.drain.and_then(|drain| drain.deadline);
    Agent {
        name: name.to_owned(),
        state: state(record, used.attempts).to_owned(),
        slots: offer.slots,
        running: used.attempts,
        backends: offer.backends,
        labels: offer.labels,
        cpu_millis: offer.cpu_millis,
        cpu_millis_used: used.cpu_millis,
        memory_bytes: offer.memory_bytes,
        memory_bytes_used: used.memory_bytes,
        allowed_images: offer.allowed_images,
        grants: offer.grants,
        seen_at: record.seen.to_string(),
        drain_deadline: deadline.as_ref().map(Time::to_string).unwrap_or_default(),
        software: offer.software,
        incarnation: record.incarnation.clone(),
        attempts: Vec::new(),
    }
}

fn state(record: &AgentRecord, attempts: u32) -> &'static str {
    match record {
        record if record.down => "down",
        record if record.drain.is_some() && attempts == 0 => "drained",
        record if record.drain.is_some() => "draining",
        record if record.cordoned => "cordoned",
        _ => "up",
    }
}
