//! Agents that are being emptied: at the deadline, what still runs there is stopped. That it ended is
//! then an infrastructure failure (the replicas know of the drain), so it runs again elsewhere.

use tenon_engine::{AttemptId, Engine, Time};

use super::{Agents, Duties, Messages};

const REASON: &str = "the agent is being drained";

impl Duties {
    /// When the next deadline of a drain has come.
    pub(crate) fn next_drain(&self, agents: &Agents) -> Option<Time> {
        let drains = self.draining.iter().filter_map(|name| agents.get(name)?.drain);
        drains.filter_map(|drain| drain.deadline).min()
    }

    /// Stops what runs where the deadline has passed. What begins there or comes back later is found
    /// because the agent is looked at again then ([`Duties::know`]).
    pub(crate) fn drain(
        &mut self,
        engine: &Engine,
        agents: &Agents,
        now: Time,
        out: &mut Messages,
    ) {
        let is_due = |name: &String| agents.get(name).is_some_and(|it| it.is_to_be_empty(now));
        let due: Vec<String> = self.draining.extract_if(.., |name| is_due(name)).collect();
        if due.is_empty() {
            return;
        }
        let here = engine.placed().filter(|(_, at)| due.iter().any(|name| name == at));
        let here: Vec<(AttemptId, String)> =
            here.map(|(attempt, at)| (attempt, at.to_owned())).collect();
        for (attempt, agent) in here {
            self.stop(&attempt, &agent, REASON, out);
        }
    }
}
