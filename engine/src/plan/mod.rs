//! Which waiting attempt goes to which agent: a pure function of a snapshot.
//!
//! Hard constraints first ([`fit`]), then preference (images that are there already, then the load).
//! In front of it stands the queue ([`queue`]): namespaces take turns, and inside a namespace goes
//! first who has waited longest, with a head start for priority.
//!
//! A leader keeps a [`Board`], which is a snapshot that can be changed piece by piece; [`plan`] makes
//! one of a whole [`Snapshot`]. The decision is the same, in whatever order the pieces came.

mod affinity;
mod board;
mod fit;
mod fleet;
mod queue;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use tenon_tekton::pod::Demand;

use crate::work::{Requirements, Usage};
use crate::{AttemptId, Time};

pub use affinity::{Expression, Term, required_terms};
pub use board::{AFFINITY_MS, Board, PATIENCE_MS};
pub use fit::Refusal;
pub use queue::{POINT_MS, Position, turn};

/// How agents are chosen that fit equally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// The one with the least load: attempts disturb each other least.
    #[default]
    Spread,
    /// The one with the most load that has room: the others stay free for large attempts, or can be
    /// switched off.
    Pack,
}

/// What is known of the agents and of what waits, in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Now.
    pub now: Time,
    /// How agents are chosen.
    pub packing: Packing,
    /// The agents.
    pub agents: Vec<Agent>,
    /// The attempts to place.
    pub waiting: Vec<Waiting>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// CPU for attempts in thousandths; 0 where that is not known, and then it is no limit.
    pub cpu_millis: u64,
    /// Memory for attempts in bytes; 0 where that is not known, and then it is no limit.
    pub memory_bytes: u64,
    /// What the attempts take that are placed on it.
    pub used: Usage,
    /// Images that it has.
    pub images: BTreeSet<String>,
    /// Images that it runs, as patterns with `*`; empty for all.
    pub allowed_images: Vec<String>,
    /// What it lets a pod have beyond what every agent does.
    pub grants: Vec<Demand>,
    /// Why it gets no new work, if it gets none.
    pub closed: Option<Closed>,
    /// It cannot make a claim of a snapshot.
    pub cannot_restore: bool,
}

/// Why an agent gets no new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// An operator has cordoned it.
    Cordoned,
    /// An operator has it emptied.
    Draining,
    /// It is out of contact.
    Down,
    /// Its disk is nearly full.
    Disk {
        /// Bytes that are free.
        free: u64,
        /// How many have to be.
        floor: u64,
    },
}

/// One attempt that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Which.
    pub attempt: AttemptId,
    /// Since when.
    pub since: Time,
    /// What it needs.
    pub requirements: Arc<Requirements>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Attempts that can be placed now, and where, in the order in which they were chosen.
    pub placements: Vec<Placement>,
    /// Why each of the others has to wait, in the order of the queue.
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
    /// Whether an agent could take it that had nothing else to do.
    pub could_fit: bool,
    /// Where it stands in the queue.
    pub position: Position,
}

impl std::fmt::Display for Explanation {
    /// The message, and how far back in the queue the attempt stands.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        let Position { ahead, waiting } = self.position;
        if waiting > 1 {
            write!(f, "; {ahead} before it in its namespace, {waiting} wait in all")?;
        }
        Ok(())
    }
}

/// Decides placements for everything in the snapshot.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut board = Board::new(snapshot.packing);
    for agent in &snapshot.agents {
        board.set_agent(agent.clone());
    }
    for waiting in &snapshot.waiting {
        board.wait(waiting.clone());
    }
    let placements = board.wave(snapshot.now, usize::MAX);
    let left: Vec<AttemptId> = board.waiting().cloned().collect();
    let explanations = board.explain(&left);
    Plan { placements, explanations }
}
