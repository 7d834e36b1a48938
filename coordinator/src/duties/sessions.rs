//! Sessions with agents, and the agents as placement sees them.

use std::collections::{BTreeMap, BTreeSet};

use tenon_engine::plan::{self, Closed};
use tenon_engine::{AttemptId, Engine, RunId};
use tenon_proto::agent::v1::Hello;

use super::{Agents, Duties, SessionId};
use crate::coordinator::Terms;
use crate::replica::Offer;

/// The first protocol whose agents make claims of snapshots.
const RESTORES: u32 = 2;

/// A session, and what was said in it.
pub(super) struct Session {
    pub(super) id: SessionId,
    hello: Hello,
    /// It was welcomed: every member knows of this life of the agent, and has given up what an earlier
    /// one ran. Before that the agent is given nothing.
    pub(super) admitted: bool,
    terms: Terms,
    /// The newest heartbeat that came before the welcome.
    heartbeat: Option<u64>,
    pub(super) told: BTreeMap<RunId, Told>,
}

/// What was said of a run in a session.
#[derive(Default)]
pub(super) struct Told {
    pub(super) prepared: bool,
    pub(super) started: BTreeSet<AttemptId>,
    pub(super) stopped: BTreeSet<AttemptId>,
}

/// Why an agent gets no new work whose disk is nearly full.
fn low_disk(hello: &Hello) -> Option<Closed> {
    let (free, floor) = (hello.disk_free_bytes?, hello.disk_floor_bytes);
    (free < floor).then_some(Closed::Disk { free, floor })
}

impl Duties {
    /// A session begins. Returns the one that it takes the place of.
    pub(crate) fn attach(
        &mut self,
        id: SessionId,
        hello: Hello,
        terms: Terms,
        engine: &Engine,
        agents: &Agents,
    ) -> Option<SessionId> {
        let name = hello.name.clone();
        let session =
            Session { id, admitted: false, terms, heartbeat: None, told: BTreeMap::new(), hello };
        let before = self.sessions.insert(name.clone(), session);
        if let Some(before) = &before {
            self.names.remove(&before.id);
        }
        self.names.insert(id, name.clone());
        self.know(&name, engine, agents);
        before.map(|session| session.id)
    }

    /// The agent of a session that is not welcomed yet, and what it will be told.
    pub(crate) fn newcomer(&self, id: SessionId) -> Option<(&Hello, Terms)> {
        let session = self.by_id(id)?;
        (!session.admitted).then_some((&session.hello, session.terms))
    }

    /// A session was welcomed. Returns the heartbeat that has waited for that.
    pub(crate) fn admit(&mut self, id: SessionId, engine: &Engine, agents: &Agents) -> Option<u64> {
        let session = self.by_id_mut(id)?;
        session.admitted = true;
        let (agent, heartbeat) = (session.hello.name.clone(), session.heartbeat.take());
        self.look_at_runs_on(&agent, engine);
        self.know(&agent, engine, agents);
        heartbeat
    }

    /// Whether a heartbeat is to be answered now: not before the welcome.
    pub(crate) fn take_heartbeat(&mut self, id: SessionId, number: u64) -> bool {
        let Some(session) = self.by_id_mut(id) else { return false };
        if !session.admitted {
            session.heartbeat = Some(number);
        }
        session.admitted
    }

    /// What an agent says of its disk. One that falls below its floor, or comes above it again, is known
    /// as that at once.
    pub(crate) fn take_disk(
        &mut self,
        id: SessionId,
        free: Option<u64>,
        engine: &Engine,
        agents: &Agents,
    ) {
        let Some(session) = self.by_id_mut(id) else { return };
        let before = std::mem::replace(&mut session.hello.disk_free_bytes, free);
        let floor = session.hello.disk_floor_bytes;
        let is_low = |free: Option<u64>| free.is_some_and(|free| free < floor);
        if is_low(before) != is_low(free) {
            let name = session.hello.name.clone();
            self.know(&name, engine, agents);
        }
    }

    /// Whether the heartbeats of a session come too often for a fleet of so many agents.
    pub(crate) fn is_outgrown(&self, id: SessionId, agents: usize) -> bool {
        let session = self.by_id(id);
        session.is_some_and(|session| session.admitted && session.terms.are_outgrown(agents))
    }

    fn by_id(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(self.names.get(&id)?)
    }

    fn by_id_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(self.names.get(&id)?)
    }

    fn look_at_runs_on(&mut self, agent: &str, engine: &Engine) {
        let here = engine.placed().filter(|(_, at)| *at == agent);
        self.changed.extend(here.map(|(attempt, _)| attempt.run));
        self.plan_due = true;
    }

    /// A session is over.
    pub(crate) fn detach(&mut self, id: SessionId, engine: &Engine, agents: &Agents) {
        let Some(name) = self.names.remove(&id) else { return };
        self.sessions.remove(&name);
        self.know(&name, engine, agents);
    }

    /// The agent of a session.
    pub(crate) fn agent(&self, id: SessionId) -> Option<&Hello> {
        self.by_id(id).map(|session| &session.hello)
    }

    /// The session of an agent, if it has one.
    pub(crate) fn session(&self, agent: &str) -> Option<SessionId> {
        self.sessions.get(agent).map(|session| session.id)
    }

    /// The agents in contact.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Hello> {
        self.sessions.values().map(|session| &session.hello)
    }

    /// Has an agent on the board as it is now: in contact or not, and open for work or not.
    pub(crate) fn know(&mut self, name: &str, engine: &Engine, agents: &Agents) {
        self.plan_due = true;
        let record = agents.get(name);
        if record.is_some_and(|record| record.removed) {
            // One that is in contact all the same gets nothing until it dials in again.
            self.board.remove_agent(name);
            return;
        }
        let session = self.sessions.get(name).filter(|session| session.admitted);
        let offer = match (session, record) {
            (Some(session), _) => Offer::of(&session.hello),
            (None, Some(record)) => record.offer.clone(),
            (None, None) => {
                self.board.remove_agent(name);
                return;
            }
        };
        let closed = match record {
            _ if session.is_none() => Some(Closed::Down),
            Some(record) if record.drain.is_some() => Some(Closed::Draining),
            Some(record) if record.cordoned => Some(Closed::Cordoned),
            _ => session.and_then(|session| low_disk(&session.hello)),
        };
        let images = session.map(|session| session.hello.images.iter().cloned().collect());
        self.board.set_agent(plan::Agent {
            name: name.to_owned(),
            labels: offer.labels,
            slots: offer.slots,
            cpu_millis: offer.cpu_millis,
            memory_bytes: offer.memory_bytes,
            used: engine.used().get(name).copied().unwrap_or_default(),
            images: images.unwrap_or_default(),
            allowed_images: offer.allowed_images,
            // What this node does not know is as if it were not granted.
            grants: offer.grants.iter().filter_map(|grant| grant.parse().ok()).collect(),
            closed,
            cannot_restore: session.is_some_and(|it| it.hello.protocol < RESTORES),
        });
        if record.is_some_and(|record| record.drain.is_some()) {
            self.draining.insert(name.to_owned());
        }
    }
}
