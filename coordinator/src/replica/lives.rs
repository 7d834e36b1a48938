//! Agents come and go: applying what is agreed about their lives.

use tenon_engine::report::Outcome;
use tenon_engine::{AttemptId, Kind, Report, Time};

use super::{AgentRecord, Effects, Offer, Replica};
use crate::error::Result;

/// A life of an agent.
pub(super) struct Life {
    pub agent: String,
    pub incarnation: String,
    pub offer: Offer,
    pub lease_ms: u64,
}

/// Why what an agent ran is lost.
struct Loss {
    reason: &'static str,
    message: String,
}

impl Replica {
    /// Whether an agent may be given attempts.
    pub(super) fn is_up(&self, agent: &str) -> bool {
        self.meta.agents.get(agent).is_some_and(AgentRecord::is_up)
    }

    /// A life of an agent is the current one, and up, from here on. In one step with that, what an
    /// earlier life was given and this one does not run is lost: a placement that was told to it
    /// before would otherwise live beside the next one.
    pub(super) fn agent_is_up(
        &mut self,
        index: u64,
        time: Time,
        life: Life,
        running: &[AttemptId],
        effects: &mut Effects,
    ) -> Result<()> {
        let Life { agent, incarnation, offer, lease_ms } = life;
        let mut record = self.meta.agents.get(&agent).cloned().unwrap_or_default();
        let mut was_up = self.is_up(&agent);
        if record.incarnation != incarnation {
            let loss = Loss {
                reason: "infra/agent-restarted",
                message: format!("agent {agent} was restarted and lost what it ran"),
            };
            self.lose(index, time, &agent, &loss, running, effects)?;
            if was_up {
                self.note_down(index, time, &agent, lease_ms, &loss, effects)?;
            }
            was_up = false;
            (record.incarnation, record.last, record.lease_ms) = (incarnation, 0, 0);
        }
        record.lease_ms = record.lease_ms.max(lease_ms);
        (record.offer, record.seen) = (offer, time);
        (record.removed, record.down) = (false, false);
        self.meta.agents.insert(agent.clone(), record);
        effects.decided.insert(agent.clone());
        // Without a lease there is no fleet, but one agent inside one process.
        if !was_up && lease_ms > 0 {
            let event =
                self.engine.note(Kind::AgentUp, time, |event| event.agent = Some(agent.clone()));
            self.record(index, vec![event], effects)?;
        }
        Ok(())
    }

    /// An agent was given up: its lease is over, and what it ran is lost.
    pub(super) fn agent_is_lost(
        &mut self,
        index: u64,
        time: Time,
        (agent, incarnation): (String, &str),
        silent_ms: u64,
        effects: &mut Effects,
    ) -> Result<()> {
        let Some(known) = self.meta.agents.get_mut(&agent) else { return Ok(()) };
        if known.incarnation != incarnation || known.down {
            return Ok(());
        }
        known.down = true;
        let lease_ms = known.lease_ms;
        let seconds = silent_ms / 1000;
        let loss = Loss {
            reason: "infra/agent-lost",
            message: format!("agent {agent} has not been heard from for {seconds} s"),
        };
        self.lose(index, time, &agent, &loss, &[], effects)?;
        self.note_down(index, time, &agent, lease_ms, &loss, effects)?;
        effects.decided.insert(agent.clone());
        effects.lost.push(agent);
        Ok(())
    }

    /// What is placed on an agent, but for these attempts, is lost.
    fn lose(
        &mut self,
        index: u64,
        time: Time,
        agent: &str,
        loss: &Loss,
        but: &[AttemptId],
        effects: &mut Effects,
    ) -> Result<()> {
        let placed = self.engine.placed();
        let lost: Vec<AttemptId> = placed
            .filter(|(attempt, at)| *at == agent && !but.contains(attempt))
            .map(|(attempt, _)| attempt)
            .collect();
        for attempt in lost {
            let (reason, message) = (loss.reason.to_owned(), loss.message.clone());
            let outcome = Outcome::Infra { reason, message };
            let report = Report::Ended { time, outcome, workspaces: Vec::new() };
            let lost = tenon_engine::Command::Report { time, attempt, report };
            self.engine_command(index, lost, effects)?;
        }
        Ok(())
    }

    fn note_down(
        &mut self,
        index: u64,
        time: Time,
        agent: &str,
        lease_ms: u64,
        loss: &Loss,
        effects: &mut Effects,
    ) -> Result<()> {
        if lease_ms == 0 {
            return Ok(());
        }
        let event = self.engine.note(Kind::AgentDown, time, |event| {
            event.agent = Some(agent.to_owned());
            event.reason = Some(loss.reason.to_owned());
            event.message = Some(loss.message.clone());
        });
        self.record(index, vec![event], effects)
    }
}
