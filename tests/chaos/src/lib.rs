//! Chaos on real processes: a fleet whose coordinators and agents are killed, stopped and cut off while
//! users run pipelines on it. In the end nothing may be lost, doubled, or told differently by two nodes.
//!
//! Needs root, `ip` and `iptables`; Docker where steps run in it. Time is never part of a check,
//! except that what does not end within minutes after the last fault counts as hanging.

mod agent_faults;
mod agents;
mod around;
mod faults;
mod fence;
mod fleet;
mod history;
mod kinds;
mod network;
mod placements;
mod processes;
mod random;
mod suite;
mod users;
mod watch;

pub use suite::{Options, Outcome, Work, run};

/// What went wrong, for people.
pub type Failure = String;

/// What runs the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Containers.
    Docker,
    /// Processes of this machine.
    Host,
}

impl Backend {
    /// As `--backend` says it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Docker => "docker",
            Backend::Host => "host",
        }
    }
}
