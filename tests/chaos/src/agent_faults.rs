//! What is done to the agents: one fault after the other, while the coordinators have theirs.

use std::time::Duration;

use tokio::time::sleep;

use crate::Failure;
use crate::agents::Agents;
use crate::network::{Cut, Host};
use crate::random::Random;

/// How long an agent may act when nobody answers, in milliseconds.
pub const LEASE_MS: u64 = 2500;
/// How much longer nobody may act in its place, in milliseconds.
pub const MARGIN_MS: u64 = 2500;
/// After this time an agent that is out of contact has been given up, in milliseconds.
pub const GIVEN_UP_MS: u64 = LEASE_MS + MARGIN_MS + 1000;
/// Coordinators that an agent can be cut off from.
const NODES: usize = 3;

/// Does harm to agents, and counts it.
#[derive(Debug, Default)]
pub struct AgentHarm {
    /// `kill -9`.
    pub kills: usize,
    /// SIGSTOP, later SIGCONT.
    pub stops: usize,
    /// Cuts of the network.
    pub cuts: usize,
    /// `kill -9` of guards.
    pub guards: usize,
    /// Restarts by SIGTERM.
    pub restarts: usize,
    /// Machines that are gone for good, and were replaced.
    pub gone: usize,
}

impl std::fmt::Display for AgentHarm {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "agents: {} kills, {} stops, {} cuts, {} guards killed, {} restarts, {} gone for good",
            self.kills, self.stops, self.cuts, self.guards, self.restarts, self.gone
        )
    }
}

impl AgentHarm {
    /// How many faults there were.
    pub fn count(&self) -> usize {
        self.kills + self.stops + self.cuts + self.guards + self.restarts + self.gone
    }

    /// Does harm until so many faults were had.
    pub async fn until(
        &mut self,
        faults: usize,
        agents: &mut Agents,
        random: &mut Random,
    ) -> Result<(), Failure> {
        while self.count() < faults {
            self.round(agents, random).await?;
            pause(random, 0, 3000).await;
        }
        Ok(())
    }

    /// Does harm until it is dropped, with time between for those who use the agents.
    pub async fn for_ever(
        &mut self,
        agents: &mut Agents,
        random: &mut Random,
    ) -> Result<(), Failure> {
        loop {
            pause(random, 2000, 8000).await;
            self.round(agents, random).await?;
        }
    }

    /// One fault, or two that belong together, from its beginning to its end.
    async fn round(&mut self, agents: &mut Agents, random: &mut Random) -> Result<(), Failure> {
        let agent = random.among(agents.count());
        match random.below(100) {
            0..25 => {
                self.kill(agent, agents);
                agents.start_agent(agent)
            }
            25..40 => {
                self.kill(agent, agents);
                // Its guard freezes what it ran, and somebody else does it.
                pause(random, 0, GIVEN_UP_MS + 3000).await;
                agents.start_agent(agent)
            }
            40..55 => {
                agents.remark(agent, "stopped");
                agents.stop(agent);
                self.stops += 1;
                pause(random, 500, GIVEN_UP_MS + 3000).await;
                agents.remark(agent, "goes on");
                agents.go_on(agent);
                Ok(())
            }
            55..75 => {
                let how = self.cut(agent, agents, random)?;
                pause(random, 500, GIVEN_UP_MS + 3000).await;
                if random.below(4) == 0 {
                    // While nobody hears of it.
                    self.kill(agent, agents);
                    pause(random, 0, 1000).await;
                    agents.start_agent(agent)?;
                    pause(random, 0, 2000).await;
                }
                agents.remark(agent, &format!("healed of {how:?}"));
                agents.network.heal(Host::Agent(agent))
            }
            75..85 => {
                // The agent is to start another one, also while it is out of contact.
                if random.below(2) == 0 {
                    agents.remark(agent, "guard killed");
                    self.guards += usize::from(agents.kill_guard(agent));
                    return Ok(());
                }
                agents.remark(agent, "cut off, then guard killed");
                agents.network.cut(Host::Agent(agent), &Cut::Off)?;
                self.cuts += 1;
                pause(random, 0, LEASE_MS).await;
                self.guards += usize::from(agents.kill_guard(agent));
                pause(random, GIVEN_UP_MS, GIVEN_UP_MS + 2000).await;
                agents.remark(agent, "healed");
                agents.network.heal(Host::Agent(agent))
            }
            85..93 => {
                agents.remark(agent, "asked to end");
                self.restarts += 1;
                agents.terminate(agent).await?;
                pause(random, 0, 500).await;
                agents.start_agent(agent)
            }
            _ => {
                agents.remark(agent, "destroyed");
                self.gone += 1;
                agents.destroy(agent)
            }
        }
    }

    fn kill(&mut self, agent: usize, agents: &mut Agents) {
        agents.remark(agent, "killed");
        agents.kill(agent);
        self.kills += 1;
    }

    fn cut(&mut self, agent: usize, agents: &Agents, random: &mut Random) -> Result<Cut, Failure> {
        let node = |random: &mut Random| Host::Node(random.among(NODES));
        let how = match random.below(6) {
            0..3 => Cut::Off,
            3 => Cut::From(vec![node(random)]),
            4 => Cut::From(vec![node(random), node(random)]),
            _ => Cut::Lossy,
        };
        agents.remark(agent, &format!("cut: {how:?}"));
        agents.network.cut(Host::Agent(agent), &how)?;
        self.cuts += 1;
        Ok(how)
    }
}

async fn pause(random: &mut Random, from: u64, to: u64) {
    sleep(Duration::from_millis(random.between(from, to))).await;
}
