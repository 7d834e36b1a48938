//! The lease of an agent: when it is over, what runs is frozen or killed, also when the agent's
//! process is not there, and it goes on when a heartbeat was answered.

use tenon_engine::AttemptId;
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::report::What;

use crate::oracle::Violation;
use crate::queue::{MS, Micros};
use crate::world::{Event, World};

impl World {
    /// A heartbeat was answered.
    pub(super) fn lease_renewed(&mut self, agent: usize, number: u64) -> Result<(), Violation> {
        let now = self.now();
        let state = &mut self.agents[agent];
        let sent = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let Some(sent) = sent.and_then(|number| state.beats.get(number)) else {
            let what = format!("{} was answered heartbeat {number}", state.name);
            return Err(Violation::new("answers fit", what));
        };
        let until = sent + state.lease;
        if until <= state.leased_until.max(now) {
            return Ok(());
        }
        (state.leased_until, state.guarded_until) = (until, until.max(state.guarded_until));
        self.queue.at(until, Event::LeaseEnds(agent, until));
        let state = &mut self.agents[agent];
        let starts = std::mem::take(&mut state.to_start);
        let frozen: Vec<AttemptId> = state
            .live
            .iter_mut()
            .filter(|(_, live)| live.frozen && !live.stopping)
            .map(|(attempt, live)| {
                live.frozen = false;
                attempt.clone()
            })
            .collect();
        for attempt in frozen {
            self.say(|| format!("agent {agent} goes on with {attempt}"));
            self.oracle.acts(agent, &attempt)?;
            self.oracle.thawed += 1;
            self.plan_next(agent, &attempt);
        }
        for start in starts {
            self.told_to_start(agent, start)?;
        }
        Ok(())
    }

    /// A lease is over, unless it was renewed.
    pub fn lease_ends(&mut self, agent: usize, until: Micros) {
        let state = &mut self.agents[agent];
        if state.guarded_until != until {
            return;
        }
        let mut frozen = Vec::new();
        for (attempt, live) in state.live.iter_mut().filter(|(_, live)| !live.frozen) {
            live.frozen = true;
            live.number += 1;
            frozen.push(attempt.clone());
        }
        let kills = state.kills;
        for attempt in frozen {
            self.say(|| format!("the lease of agent {agent} is over: {attempt}"));
            self.oracle.rests(agent, &attempt);
            self.oracle.frozen += 1;
            let is_stopping = self.agents[agent].live.get(&attempt).is_some_and(|l| l.stopping);
            if kills {
                self.agents[agent].live.remove(&attempt);
                self.agents[agent].gone.push(attempt);
            } else if is_stopping {
                self.plan_next(agent, &attempt);
            }
        }
        if self.agents[agent].is_on {
            self.report_gone(agent, "infra/lease-over");
        }
    }

    /// Reports attempts whose containers are gone.
    pub(super) fn report_gone(&mut self, agent: usize, reason: &str) {
        for attempt in std::mem::take(&mut self.agents[agent].gone) {
            self.agents[agent].ended.insert(attempt.clone());
            let infra = proto::Infra { reason: reason.to_owned(), message: String::new() };
            let outcome = Some(proto::ended::Outcome::Infra(infra));
            let ended = proto::Ended { outcome, ..Default::default() };
            self.report(agent, &attempt, What::Ended(ended), Vec::new());
        }
        self.agents[agent].end_runs();
    }
}

impl super::Agent {
    /// So many milliseconds of the agent's clock, which goes at its own speed.
    pub(super) fn by_true_time(&self, millis: u64) -> Micros {
        millis * MS * 1000 / self.rate
    }
}
