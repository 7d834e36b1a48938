//! Whether an agent may run an attempt, and why not: the hard constraints.

use std::collections::BTreeSet;

use tenon_tekton::pod::{Demand, image_is_allowed};

use super::{Agent, Closed};
use crate::work::Requirements;

/// Why an agent cannot take an attempt now, what can be changed least first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It has not this label with this value.
    Label(String, String),
    /// No term of the node affinity matches it.
    Affinity,
    /// It does not run this image.
    Image(String),
    /// It does not let a pod have this.
    Demand(Demand),
    /// A volume of the run is on another agent, and cannot move now.
    Volume,
    /// The run's volume would have to be restored there, which it cannot do.
    Restore,
    /// It gets no new work.
    Closed(Closed),
    /// Its CPU would not be enough even if it had nothing to do.
    SmallCpu,
    /// The same of its memory.
    SmallMemory,
    /// All its slots are taken.
    Slots,
    /// Too little of its CPU is free.
    Cpu,
    /// Too little of its memory is free.
    Memory,
}

impl Refusal {
    /// Whether waiting for other attempts to end is enough.
    pub fn passes(&self) -> bool {
        matches!(self, Refusal::Slots | Refusal::Cpu | Refusal::Memory)
    }
}

/// Whether labels, affinity, demands and images allow the agent, whatever else goes on.
pub(super) fn suits(agent: &Agent, requirements: &Requirements) -> Result<(), Refusal> {
    let labels = &agent.labels;
    let lacking =
        requirements.node_selector.iter().find(|(key, value)| labels.get(*key) != Some(*value));
    if let Some((key, value)) = lacking {
        return Err(Refusal::Label(key.clone(), value.clone()));
    }
    let terms = &requirements.affinity;
    if !terms.is_empty() && !terms.iter().any(|term| term.matches(&agent.name, labels)) {
        return Err(Refusal::Affinity);
    }
    let refused = requirements.demands.iter().find(|demand| !demand.is_granted(&agent.grants));
    if let Some(demand) = refused {
        return Err(Refusal::Demand(demand.clone()));
    }
    match forbidden_image(agent, &requirements.images) {
        Some(image) => Err(Refusal::Image(image.clone())),
        None => Ok(()),
    }
}

fn forbidden_image<'a>(agent: &Agent, images: &'a BTreeSet<String>) -> Option<&'a String> {
    images.iter().find(|image| !image_is_allowed(&agent.allowed_images, image))
}

/// Whether the files of the attempt's claims are there, or can be brought there.
pub(super) fn takes_files(agent: &Agent, requirements: &Requirements) -> bool {
    !agent.cannot_restore || requirements.near.as_ref().is_none_or(|near| *near == agent.name)
}

/// Whether the agent could take the attempt if it had nothing else to do.
pub(super) fn could_fit(agent: &Agent, requirements: &Requirements) -> Result<(), Refusal> {
    suits(agent, requirements)?;
    let home = requirements.home.as_ref();
    if home.is_some_and(|home| *home != agent.name) || requirements.apart.is_some() {
        return Err(Refusal::Volume);
    }
    if !takes_files(agent, requirements) {
        return Err(Refusal::Restore);
    }
    if let Some(closed) = agent.closed {
        return Err(Refusal::Closed(closed));
    }
    let demand = requirements.usage();
    if agent.cpu_millis != 0 && demand.cpu_millis > agent.cpu_millis {
        return Err(Refusal::SmallCpu);
    }
    if agent.memory_bytes != 0 && demand.memory_bytes > agent.memory_bytes {
        return Err(Refusal::SmallMemory);
    }
    Ok(())
}

/// Whether the agent has room for it now.
pub(super) fn has_room(agent: &Agent, requirements: &Requirements) -> Result<(), Refusal> {
    let demand = requirements.usage();
    let (cpu, memory) = free(agent);
    if agent.used.attempts >= agent.slots {
        return Err(Refusal::Slots);
    }
    if demand.cpu_millis > cpu {
        return Err(Refusal::Cpu);
    }
    if demand.memory_bytes > memory {
        return Err(Refusal::Memory);
    }
    Ok(())
}

/// CPU and memory that are free; without end where the agent does not say what it has.
pub(super) fn free(agent: &Agent) -> (u64, u64) {
    let left = |all: u64, used: u64| if all == 0 { u64::MAX } else { all.saturating_sub(used) };
    (
        left(agent.cpu_millis, agent.used.cpu_millis),
        left(agent.memory_bytes, agent.used.memory_bytes),
    )
}

/// How much of what it has is taken, in thousandths: of what is scarcest.
pub(super) fn load(agent: &Agent) -> u32 {
    let share = |used: u64, all: u64| match all {
        0 => 0,
        all => u32::try_from(used.min(all).saturating_mul(1000) / all).unwrap_or(1000),
    };
    let slots = share(u64::from(agent.used.attempts), u64::from(agent.slots));
    let cpu = share(agent.used.cpu_millis, agent.cpu_millis);
    slots.max(cpu).max(share(agent.used.memory_bytes, agent.memory_bytes))
}
