//! A snapshot that is changed piece by piece, and the wave of placements that it leads to.
//!
//! A wave serves the queue in its turns, as far as there is room. What it places is *under way* and
//! counts as used until [`Board::settle`] says that the command was applied or refused.
//!
//! **Patience.** An attempt that asks for much would wait for ever where small ones take every bit
//! that gets free, or where they take what it needs in the turns before its own. Whoever comes first in a namespace, has
//! waited for [`PATIENCE_MS`] and has no room before or after a wave's turns has an agent *reserved*, which gets nothing
//! else until there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fit::Refusal;
use super::fleet::{Failed, Fleet, Name};
use super::queue::{Lane, Place, Position, Queue, cost};
use super::{Agent, Closed, Explanation, Packing, Placement, Waiting, fit, words};
use crate::work::{Requirements, Usage};
use crate::{AttemptId, RunId, Time};

/// Who has waited so long, in milliseconds, has an agent reserved.
pub const PATIENCE_MS: i64 = 60_000;

/// So long an attempt waits for the agent that has its files, in milliseconds; then any other that fits will do,
/// and the files move.
pub const AFFINITY_MS: i64 = 10_000;

/// One agent of so many may be reserved, and one in any case.
const RESERVED_SHARE: usize = 8;
/// So many attempts are looked at in one wave for whether they need a reservation.
const PATIENT_LOOKS: usize = 64;
/// So many lists are kept at least before those are forgotten that nobody may need any more.
const LISTS: usize = 1024;

/// All agents and all that waits.
#[derive(Clone, Debug, Default)]
pub struct Board {
    fleet: Fleet,
    queue: Queue,
    /// What is placed and applied, by agent.
    settled: BTreeMap<Name, Usage>,
    /// What is placed and not applied yet, by agent.
    pending: BTreeMap<Name, Usage>,
    under_way: BTreeMap<AttemptId, UnderWay>,
    /// Where claims will live, as far as that is under way.
    homes: BTreeMap<(RunId, String), (Name, usize)>,
    reserved: BTreeMap<Name, AttemptId>,
    /// What no agent could run, as long as the agents stay as they are.
    hopeless: BTreeSet<Arc<Requirements>>,
    /// The namespace that was served last.
    last: Option<Arc<str>>,
    /// The namespace whose patience was served last.
    last_patient: Option<Arc<str>>,
}

/// A placement that is not applied yet.
#[derive(Clone, Debug)]
struct UnderWay {
    agent: Name,
    usage: Usage,
    claims: BTreeSet<String>,
}

/// What a wave has come to.
#[derive(Default)]
struct Wave {
    now: Time,
    failed: Failed,
    placements: Vec<Placement>,
}

impl Board {
    /// No agents, and nothing waits.
    pub fn new(packing: Packing) -> Board {
        Board { fleet: Fleet::new(packing), ..Board::default() }
    }

    /// Adds an agent, or takes note of what is different about one. Its `used` is what is applied.
    pub fn set_agent(&mut self, mut agent: Agent) {
        let name: Name = agent.name.as_str().into();
        let pending = self.pending.get(&name).copied().unwrap_or_default();
        self.settled.insert(name, agent.used);
        agent.used = agent.used.plus(pending);
        self.queue.unpark(&agent.name);
        self.fleet.set(agent);
        self.hopeless.clear();
    }

    /// An agent is gone.
    pub fn remove_agent(&mut self, name: &str) {
        self.fleet.remove(name);
        self.settled.remove(name);
        self.reserved.remove(name);
        self.queue.unpark(name);
        self.hopeless.clear();
    }

    /// An agent that is there, with what is under way to it in `used`.
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.fleet.get(name)
    }

    /// What the attempts take that are placed on an agent.
    pub fn set_used(&mut self, name: &str, used: Usage) {
        if let Some(settled) = self.settled.get_mut(name) {
            *settled = used;
            self.count(name);
            self.queue.unpark(name);
        }
    }

    fn count(&mut self, name: &str) {
        let of = |known: &BTreeMap<Name, Usage>| known.get(name).copied().unwrap_or_default();
        let used = of(&self.settled).plus(of(&self.pending));
        self.fleet.set_used(name, used);
    }

    /// An attempt waits. One that is under way does not.
    pub fn wait(&mut self, waiting: Waiting) {
        if !self.under_way.contains_key(&waiting.attempt) {
            self.queue.insert(waiting);
        }
    }

    /// An attempt does not wait any more.
    pub fn forget(&mut self, attempt: &AttemptId) {
        self.queue.remove(attempt);
    }

    /// A placement was applied, or never will be.
    pub fn settle(&mut self, attempt: &AttemptId) {
        let Some(UnderWay { agent, usage, claims }) = self.under_way.remove(attempt) else {
            return;
        };
        for claim in claims {
            let key = (attempt.run, claim);
            if let Some((_, count)) = self.homes.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.homes.remove(&key);
                }
            }
        }
        if let Some(pending) = self.pending.get_mut(&agent) {
            *pending = pending.minus(usage);
            if pending.attempts == 0 {
                self.pending.remove(&agent);
            }
        }
        self.count(&agent);
        self.queue.unpark(&agent);
    }

    /// The placements of a run that are under way.
    pub fn under_way_of(&self, run: RunId) -> Vec<AttemptId> {
        let first = AttemptId { run, task_run: String::new(), attempt: 0, placement: 0 };
        let from_here = self.under_way.range(first..).map(|(attempt, _)| attempt);
        from_here.take_while(|attempt| attempt.run == run).cloned().collect()
    }

    /// How many attempts wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// All that waits, in the order of runs and tasks.
    pub fn waiting(&self) -> impl Iterator<Item = &AttemptId> {
        self.queue.iter().map(|waiting| &waiting.attempt)
    }

    /// What an attempt that waits would take of its agent.
    #[cfg(test)]
    pub(super) fn usage_of(&self, attempt: &AttemptId) -> Usage {
        self.queue.get(attempt).map(|waiting| waiting.requirements.usage()).unwrap_or_default()
    }

    /// Why attempts wait; nothing about those that do not.
    pub fn explain(&self, attempts: &[AttemptId]) -> Vec<Explanation> {
        let mut known: BTreeMap<&Arc<Requirements>, (String, bool)> = BTreeMap::new();
        let mut explanations = Vec::new();
        for attempt in attempts {
            let Some(waiting) = self.queue.get(attempt) else { continue };
            let requirements = self.with_home(attempt, &waiting.requirements);
            let explain = || {
                let agents = self.fleet.agents().map(|(name, agent)| {
                    let holder = self.reserved.get(name).filter(|holder| *holder != attempt);
                    (agent, holder)
                });
                words::explain(agents, &requirements)
            };
            let (message, could_fit) =
                known.entry(&waiting.requirements).or_insert_with(explain).clone();
            let position = self.queue.position(attempt);
            let attempt = attempt.clone();
            explanations.push(Explanation { attempt, message, could_fit, position });
        }
        explanations
    }

    /// Where an attempt stands in the queue.
    pub fn position(&self, attempt: &AttemptId) -> Position {
        self.queue.position(attempt)
    }

    /// The requirements, with the agents where claims are about to live.
    fn with_home(
        &self,
        attempt: &AttemptId,
        requirements: &Arc<Requirements>,
    ) -> Arc<Requirements> {
        let claims = requirements.claims.iter();
        let under_way = claims.filter_map(|claim| self.homes.get(&(attempt.run, claim.clone())));
        let under_way: BTreeSet<&str> = under_way.map(|(home, _)| &**home).collect();
        let Some(first) = under_way.first() else { return requirements.clone() };
        let home = requirements.home.as_deref().unwrap_or(first);
        let apart = under_way.iter().find(|other| **other != home).copied();
        let apart = requirements.apart.as_deref().or(apart);
        Arc::new(Requirements {
            home: Some(home.to_owned()),
            apart: apart.map(str::to_owned),
            near: None,
            ..requirements.as_ref().clone()
        })
    }

    /// Places what can be placed, `limit` attempts at most, in the order in which they are served.
    pub fn wave(&mut self, now: Time, limit: usize) -> Vec<Placement> {
        let mut wave = Wave { now, ..Wave::default() };
        self.queue.unpark_due(now);
        if self.fleet.has_room() && !self.is_empty() {
            if self.fleet.lists() > LISTS {
                self.fleet.forget_lists();
            }
            let served = self.serve_the_reserved(limit, &mut wave);
            self.reserve_for_the_patient(&served, &mut wave);
            self.serve_in_turns(limit, &mut wave);
            // Once more for those who had room until others took it in their turns: it would be so in each wave. The
            // turns of a wave that was full go on in the next.
            if wave.placements.len() < limit {
                self.reserve_for_the_patient(&served, &mut wave);
            }
        }
        wave.placements
    }

    fn serve_in_turns(&mut self, limit: usize, wave: &mut Wave) {
        let mut lanes: Vec<(Arc<str>, Option<Place>)> =
            self.queue.lanes_after(self.last.as_deref()).into_iter().map(|it| (it, None)).collect();
        while !lanes.is_empty() {
            let mut left = Vec::with_capacity(lanes.len());
            for (namespace, mut skipped) in lanes {
                if wave.placements.len() >= limit || !self.fleet.has_room() {
                    return;
                }
                if let Some(lane) = self.queue.lanes.get_mut(&namespace) {
                    lane.deficit += 1;
                }
                if self.serve_lane(&namespace, &mut skipped, limit, wave) {
                    left.push((namespace, skipped));
                }
            }
            lanes = left;
        }
    }

    /// One turn of a namespace. Says whether it has something for another turn.
    fn serve_lane(
        &mut self,
        namespace: &Arc<str>,
        skipped: &mut Option<Place>,
        limit: usize,
        wave: &mut Wave,
    ) -> bool {
        loop {
            let Some(lane) = self.queue.lanes.get_mut(namespace) else { return false };
            let Some((place, requirements)) = lane.head_after(skipped.as_ref()) else {
                lane.deficit = 0;
                return false;
            };
            let price = cost(requirements);
            if price > lane.deficit || wave.placements.len() >= limit {
                return true;
            }
            let (place, requirements) = (place.clone(), requirements.clone());
            match self.find(&place.1, &requirements, wave) {
                Some(agent) => {
                    self.last = Some(namespace.clone());
                    self.place(&place.1, &agent, wave);
                    if let Some(lane) = self.queue.lanes.get_mut(namespace) {
                        lane.deficit -= price;
                    }
                }
                None => {
                    if let Some(home) = &requirements.home {
                        self.queue.park(namespace, &place, home, None);
                    } else if let Some((near, until)) =
                        self.waits_for(&place.1, &requirements, wave.now)
                    {
                        self.queue.park(namespace, &place, &near, Some(until));
                    }
                    *skipped = Some(place);
                }
            }
        }
    }

    /// The agent for an attempt.
    fn find(
        &mut self,
        attempt: &AttemptId,
        requirements: &Arc<Requirements>,
        wave: &mut Wave,
    ) -> Option<Name> {
        let requirements = self.with_home(attempt, requirements);
        if let Some(home) = &requirements.home {
            return self.takes(home, attempt, &requirements).then(|| home.as_str().into());
        }
        if let Some(near) = &requirements.near {
            if self.takes(near, attempt, &requirements) {
                return Some(near.as_str().into());
            }
            if self.waits_for(attempt, &requirements, wave.now).is_some() {
                return None;
            }
        }
        self.fleet.choose(&requirements, &self.reserved, &mut wave.failed)
    }

    /// Whether an agent can take an attempt now.
    fn takes(&self, name: &str, attempt: &AttemptId, requirements: &Requirements) -> bool {
        let for_another = self.reserved.get(name).is_some_and(|holder| holder != attempt);
        let fits = |agent| {
            fit::could_fit(agent, requirements).is_ok()
                && fit::has_room(agent, requirements).is_ok()
        };
        !for_another && self.fleet.get(name).is_some_and(fits)
    }

    /// The agent that has an attempt's files, and until when it is waited for: not if it would not do even with
    /// nothing else to do, or gets no new work.
    fn waits_for(
        &self,
        attempt: &AttemptId,
        requirements: &Requirements,
        now: Time,
    ) -> Option<(Name, Time)> {
        let agent = self.fleet.get(requirements.near.as_ref()?)?;
        match fit::could_fit(agent, requirements) {
            // It may be back in a moment.
            Ok(()) | Err(Refusal::Closed(Closed::Down)) => {}
            Err(_) => return None,
        }
        let until = self.queue.get(attempt)?.since.plus_millis(AFFINITY_MS);
        (until > now).then(|| (agent.name.as_str().into(), until))
    }

    /// When time alone lets an attempt go to another agent than the one that has its files.
    pub fn next_wave(&self) -> Option<Time> {
        self.queue.next_due()
    }

    fn place(&mut self, attempt: &AttemptId, agent: &Name, wave: &mut Wave) {
        let Some(Waiting { requirements, .. }) = self.queue.remove(attempt) else { return };
        let usage = requirements.usage();
        let claims = requirements.claims.clone();
        for claim in &claims {
            let key = (attempt.run, claim.clone());
            self.homes.entry(key).or_insert_with(|| (agent.clone(), 0)).1 += 1;
        }
        let pending = self.pending.entry(agent.clone()).or_default();
        *pending = pending.plus(usage);
        self.under_way.insert(attempt.clone(), UnderWay { agent: agent.clone(), usage, claims });
        self.count(agent);
        wave.placements.push(Placement { attempt: attempt.clone(), agent: agent.to_string() });
    }

    /// Those for whom an agent is reserved are placed before all others. Returns their namespaces.
    fn serve_the_reserved(&mut self, limit: usize, wave: &mut Wave) -> BTreeSet<String> {
        let keeps = |name: &Name, attempt: &AttemptId| {
            let waiting = self.queue.get(attempt);
            let agent = self.fleet.get(name);
            waiting.zip(agent).is_some_and(|(waiting, agent)| {
                fit::could_fit(agent, &waiting.requirements).is_ok()
            })
        };
        let holds: Vec<(Name, AttemptId)> =
            self.reserved.iter().map(|(name, attempt)| (name.clone(), attempt.clone())).collect();
        let released: Vec<Name> = holds
            .into_iter()
            .filter(|(name, attempt)| !keeps(name, attempt))
            .map(|(name, _)| name)
            .collect();
        for name in released {
            self.reserved.remove(&name);
            self.queue.unpark(&name);
        }
        let mut served = BTreeSet::new();
        for (name, attempt) in self.reserved.clone() {
            let Some(waiting) = self.queue.get(&attempt) else { continue };
            let requirements = waiting.requirements.clone();
            served.insert(requirements.namespace.clone());
            let needs = self.with_home(&attempt, &requirements);
            let found = match self.takes(&name, &attempt, &needs) {
                true => Some(name.clone()),
                false => self.find(&attempt, &requirements, wave),
            };
            if let Some(found) = found.filter(|_| wave.placements.len() < limit) {
                self.reserved.remove(&name);
                self.queue.unpark(&name);
                self.place(&attempt, &found, wave);
                if let Some(lane) = self.queue.lanes.get_mut(requirements.namespace.as_str()) {
                    lane.deficit = lane.deficit.saturating_sub(cost(&requirements));
                }
            }
        }
        served
    }

    /// Those who have waited for long and have no room have an agent reserved. Who has room waits for the turn of his
    /// namespace.
    fn reserve_for_the_patient(&mut self, served: &BTreeSet<String>, wave: &mut Wave) {
        let most = (self.fleet.len() / RESERVED_SHARE).max(1);
        let mut looks = PATIENT_LOOKS;
        for namespace in self.queue.lanes_after(self.last_patient.as_deref()) {
            if self.reserved.len() >= most || looks == 0 {
                return;
            }
            if served.contains(&*namespace) {
                continue;
            }
            let lane = self.queue.lanes.get(&namespace);
            let patient = lane.and_then(|lane| self.first_patient(lane, wave.now, &mut looks));
            let Some((attempt, requirements)) = patient else { continue };
            self.last_patient = Some(namespace);
            if self.find(&attempt, &requirements, wave).is_some() {
                continue;
            }
            match self.agent_to_reserve(&attempt, &requirements) {
                Some(agent) => {
                    self.reserved.insert(agent, attempt.as_ref().clone());
                }
                None if requirements.claims.is_empty() => {
                    self.hopeless.insert(requirements);
                }
                // Where its claims will live may be decided yet.
                None => {}
            }
        }
    }

    /// The first of a namespace that has waited for long and is not hopeless.
    fn first_patient(
        &self,
        lane: &Lane,
        now: Time,
        looks: &mut usize,
    ) -> Option<(Arc<AttemptId>, Arc<Requirements>)> {
        let mut after = None;
        while *looks > 0 {
            *looks -= 1;
            let (place, requirements) = lane.head_after(after.as_ref())?;
            let since = self.queue.get(&place.1)?.since;
            if since.plus_millis(PATIENCE_MS) > now {
                return None;
            }
            if !self.hopeless.contains(requirements) {
                return Some((place.1.clone(), requirements.clone()));
            }
            after = Some(place.clone());
        }
        None
    }

    /// The agent that will have room for an attempt first, as far as one can tell: the one where least
    /// is missing.
    fn agent_to_reserve(
        &self,
        attempt: &AttemptId,
        requirements: &Arc<Requirements>,
    ) -> Option<Name> {
        let requirements = self.with_home(attempt, requirements);
        let demand = requirements.usage();
        let free_ones = self.fleet.agents().filter(|(name, agent)| {
            !self.reserved.contains_key(*name) && fit::could_fit(agent, &requirements).is_ok()
        });
        let lack = |agent: &Agent| {
            let (cpu, memory) = fit::free(agent);
            let slot = agent.used.attempts >= agent.slots;
            let memory = demand.memory_bytes.saturating_sub(memory) >> 20;
            (demand.cpu_millis.saturating_sub(cpu).max(memory), slot)
        };
        free_ones.min_by_key(|(_, agent)| lack(agent)).map(|(name, _)| name.clone())
    }
}
