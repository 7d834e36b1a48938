//! Knows what everybody was told, and what must therefore be so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tenon_coordinator::coordinator::{Answer, Committed, Input};
use tenon_coordinator::replica::Configuration;
use tenon_coordinator::{Coordinator, Token};
use tenon_engine::{AttemptId, RunId};

use crate::queue::Micros;
use crate::trace::hash_of;
use crate::world::{Event, Life, World, client_address};

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which rule is broken.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

impl Violation {
    /// A rule is broken so.
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Violation {
        Violation { invariant, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.what)
    }
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, Default)]
pub struct Key {
    /// The run that a client was told to have started with it, and with which body.
    pub acknowledged: Option<(RunId, u64)>,
    /// Bodies that were sent.
    pub bodies: BTreeSet<u64>,
}

/// What is known of a schedule.
#[derive(Default)]
pub struct Oracle {
    /// Who leads in a term, as anybody has seen it.
    leaders: BTreeMap<u64, u64>,
    /// Hashes of committed entries.
    entries: BTreeMap<u64, u64>,
    /// Hashes of the records of the history that anybody was shown, from the first on.
    pub records: Vec<u64>,
    /// Hashes of states by applied index: what is cheap to look at, and everything.
    states: BTreeMap<u64, u64>,
    whole_states: BTreeMap<u64, u64>,
    /// Which agent runs an attempt, not frozen, and in which placement.
    acting: BTreeMap<(RunId, String, u32), (usize, u32)>,
    /// The claims that attempts use.
    claims: BTreeMap<(RunId, String, u32), BTreeSet<String>>,
    /// Who has written to which claim.
    pub wrote: BTreeSet<(AttemptId, String)>,
    /// Runs that were cancelled because their files are lost.
    pub given_up: BTreeSet<RunId>,
    /// Placements that were begun.
    begun: BTreeSet<AttemptId>,
    /// Runs that were acknowledged, and when the client knew it.
    pub acknowledged: Vec<(RunId, Micros)>,
    pub keys: BTreeMap<String, Key>,
    /// Lines that agents were told to be stored, and of which placement they are.
    pub lines: BTreeMap<String, AttemptId>,
    /// The newest configuration that is committed, and its index.
    pub configuration: Configuration,
    configured_at: u64,
    /// Who was ever a member.
    members: BTreeSet<u64>,
    /// How often what happened: to see whether schedules are worth something.
    pub snapshots: u64,
    pub installed: u64,
    pub starts: u64,
    pub frozen: u64,
    pub thawed: u64,
    pub lost: u64,
    pub moved: u64,
    pub restored: u64,
    pub returned: u64,
    /// Agents that were down at some time.
    pub lost_agents: BTreeSet<String>,
}

fn key_of(attempt: &AttemptId) -> (RunId, String, u32) {
    (attempt.run, attempt.task_run.clone(), attempt.attempt)
}

impl Oracle {
    /// The highest index that any node has ever applied.
    pub fn newest_applied(&self) -> u64 {
        self.states.keys().next_back().copied().unwrap_or(0)
    }

    /// An agent begins to run an attempt.
    pub fn begins(&mut self, agent: usize, attempt: &AttemptId) -> Result<(), Violation> {
        if !self.begun.insert(attempt.clone()) {
            let what = format!("agent {agent} begins {attempt}, which was begun before");
            return Err(Violation::new("a placement begins once", what));
        }
        self.starts += 1;
        self.acts(agent, attempt)
    }

    /// An attempt will use these claims.
    pub fn uses(&mut self, attempt: &AttemptId, claims: impl Iterator<Item = String>) {
        let claims: BTreeSet<String> = claims.collect();
        if !claims.is_empty() {
            self.claims.insert(key_of(attempt), claims);
        }
    }

    /// Whoever acts on one of the claims does so on this agent.
    fn shares(&self, agent: usize, attempt: &AttemptId) -> Result<(), Violation> {
        let Some(claims) = self.claims.get(&key_of(attempt)) else { return Ok(()) };
        let of_run = self.acting.range((attempt.run, String::new(), 0)..);
        for (key, (other, _)) in of_run.take_while(|(key, _)| key.0 == attempt.run) {
            let shared = self.claims.get(key).is_some_and(|it| !it.is_disjoint(claims));
            if shared && *other != agent {
                let what = format!(
                    "{attempt} acts on agent {agent}, while {} acts on a claim of it on agent {other}",
                    key.1
                );
                return Err(Violation::new("one agent acts on a claim", what));
            }
        }
        Ok(())
    }

    /// An attempt acts from now on: it has begun, or goes on after it was frozen.
    pub fn acts(&mut self, agent: usize, attempt: &AttemptId) -> Result<(), Violation> {
        self.shares(agent, attempt)?;
        match self.acting.insert(key_of(attempt), (agent, attempt.placement)) {
            None => Ok(()),
            Some((other, placement)) => Err(Violation::new(
                "at most one placement acts",
                format!(
                    "{attempt} acts on agent {agent}, while placement {placement} acts on agent {other}"
                ),
            )),
        }
    }

    /// It has ended, or is frozen.
    pub fn rests(&mut self, agent: usize, attempt: &AttemptId) {
        let key = key_of(attempt);
        if self.acting.get(&key) == Some(&(agent, attempt.placement)) {
            self.acting.remove(&key);
        }
    }

    fn leads(&mut self, node: u64, term: u64) -> Result<(), Violation> {
        match self.leaders.insert(term, node) {
            Some(other) if other != node => Err(Violation::new(
                "one leader in a term",
                format!("nodes {other} and {node} both lead in term {term}"),
            )),
            _ => Ok(()),
        }
    }

    fn committed(&mut self, node: u64, entry: &Committed) -> Result<(), Violation> {
        let (index, hash) = match entry {
            Committed::Entry { index, term, data } => (*index, hash_of((term, &data[..]))),
            Committed::Membership { index, term, configuration, .. } => {
                if *index > self.configured_at {
                    (self.configured_at, self.configuration) = (*index, configuration.clone());
                }
                (*index, hash_of((term, format!("{configuration:?}"))))
            }
        };
        match self.entries.insert(index, hash) {
            Some(other) if other != hash => Err(Violation::new(
                "what is committed stays",
                format!("node {node} has another entry {index} than another node"),
            )),
            _ => Ok(()),
        }
    }

    /// A record of the history was shown.
    pub fn shown(&mut self, node: u64, index: u64, record: &[u8]) -> Result<(), Violation> {
        let hash = hash_of(record);
        let at = index as usize - 1;
        match self.records.get(at) {
            Some(known) if *known == hash => Ok(()),
            Some(_) => Err(Violation::new(
                "one history",
                format!("node {node} shows another record {index} than was shown before"),
            )),
            None if at == self.records.len() => {
                self.records.push(hash);
                Ok(())
            }
            None => Err(Violation::new(
                "one history",
                format!(
                    "node {node} shows record {index} before anybody has shown record {}",
                    self.records.len() + 1
                ),
            )),
        }
    }
}

/// The state that all nodes share at an applied index, in short.
fn short_state(coordinator: &Coordinator) -> u64 {
    let mut meta = coordinator.replica().meta().clone();
    // Known only at persist points.
    meta.next_record = 0;
    hash_of(format!("{meta:?}"))
}

/// Likewise, with all runs that go on.
fn whole_state(coordinator: &Coordinator) -> u64 {
    let engine = coordinator.replica().engine();
    let runs: Vec<(RunId, Option<Vec<u8>>)> =
        engine.runs().map(|run| (run, engine.export(run))).collect();
    hash_of((short_state(coordinator), runs, engine.next_seq()))
}

impl World {
    /// Looks at what a Raft thread says.
    pub fn watch_raft(&mut self, life: Life, input: &Input) -> Result<(), Violation> {
        match input {
            Input::Leader { leader, term } => {
                let (leader, term) = (*leader, *term);
                self.trace.hash((life, leader, term));
                self.say(|| format!("node {} sees leader {leader:?} in term {term}", life.0));
                let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
                if let Some(running) = running {
                    running.leads = Some(term).filter(|_| leader == Some(life.0));
                }
                match leader {
                    Some(leader) => self.oracle.leads(leader, term),
                    None => Ok(()),
                }
            }
            Input::Committed(entries) => {
                for entry in entries {
                    self.oracle.committed(life.0, entry)?;
                    if let Committed::Membership { .. } = entry {
                        self.note_removed();
                    }
                    if let Committed::Membership { index, configuration, .. } = entry {
                        self.say(|| format!("node {} at {index}: {configuration:?}", life.0));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note_removed(&mut self) {
        let Configuration { voters, learners, voters_outgoing, .. } = &self.oracle.configuration;
        let members: BTreeSet<u64> =
            voters.iter().chain(learners).chain(voters_outgoing).copied().collect();
        self.oracle.members.extend(&members);
        for machine in self.machines.values_mut() {
            let was = self.oracle.members.contains(&machine.id) || machine.founder;
            machine.removed |= was && !members.contains(&machine.id);
        }
    }

    /// Looks at the state of a node after a turn.
    pub fn watch_state(&mut self, life: Life) -> Result<(), Violation> {
        let now = self.clock(life.0);
        let whole = self.random.one_in(64);
        let Some(machine) = self.machines.get_mut(&life.0) else { return Ok(()) };
        let trouble = machine.disk_trouble;
        let Some(running) = machine.running.as_mut() else { return Ok(()) };
        let coordinator = &running.coordinator;
        if let Some(wakeup) = coordinator.next_wakeup()
            && wakeup <= now
        {
            return Err(Violation::new(
                "no spinning",
                format!("node {} wants to be woken in the past", life.0),
            ));
        }
        let applied = coordinator.replica().meta().applied;
        let mut differs = false;
        if running.watched != Some(applied) {
            running.watched = Some(applied);
            let short = short_state(coordinator);
            differs = *self.oracle.states.entry(applied).or_insert(short) != short;
        }
        if whole {
            let whole = whole_state(coordinator);
            differs |= *self.oracle.whole_states.entry(applied).or_insert(whole) != whole;
        }
        if differs {
            return Err(Violation::new(
                "one state",
                format!("node {} differs from another one at index {applied}", life.0),
            ));
        }
        let visible = running.events.visible();
        while running.compared < visible {
            let records = match running.events.read(running.compared + 1, 64 << 10) {
                Ok(records) => records,
                Err(_) if trouble => return Ok(()),
                Err(error) => return Err(Violation::new("readable history", error.to_string())),
            };
            if records.is_empty() {
                return Err(Violation::new(
                    "readable history",
                    format!("node {} has no record {}", life.0, running.compared + 1),
                ));
            }
            for (index, record) in records {
                if index != running.compared + 1 {
                    return Err(Violation::new("readable history", "a gap in the records"));
                }
                self.oracle.shown(life.0, index, &record)?;
                running.compared = index;
            }
        }
        Ok(())
    }

    /// A node answers a client.
    pub fn answer(&mut self, life: Life, token: Token, answer: Answer) -> Result<(), Violation> {
        let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
        let Some(running) = running else { return Ok(()) };
        let Some((client, attempt)) = running.waiting.remove(&token) else { return Ok(()) };
        if answer.is_ok()
            && let Some(asked) = self.clients[client].reads_since(attempt)
        {
            for (run, known) in self.oracle.acknowledged.iter().rev().take(20) {
                if *known < asked && !matches!(running.index.get(*run), Ok(Some(_))) {
                    return Err(Violation::new(
                        "reads see what was acknowledged",
                        format!("node {} answers a read without run {run}", life.0),
                    ));
                }
            }
        }
        if let Some(delay) = self.way(life.0, client_address(client)) {
            let answer = Some(answer);
            self.queue.after(delay, Event::Answered { client, attempt, answer });
        }
        Ok(())
    }
}
