//! Sessions with agents, and the agents as placement sees them.

use std::collections::BTreeSet;

use tenon_engine::plan::{self, Closed};
use tenon_engine::{AttemptId, Engine, RunId};
use tenon_proto::agent::v1::Hello;

use super::{Agents, Duties, SessionId};
use crate::replica::Offer;

/// A session, and what was said in it.
pub(super) struct Session {
    pub(super) id: SessionId,
    hello: Hello,
    /// Every member knows of this life of the agent, and has given up what an earlier one ran. Before
    /// that the agent is given nothing.
    pub(super) admitted: bool,
    pub(super) prepared: BTreeSet<RunId>,
    pub(super) started: BTreeSet<AttemptId>,
    pub(super) stopped: BTreeSet<AttemptId>,
}

impl Duties {
    /// A session begins. Returns the one that it takes the place of.
    pub(crate) fn attach(
        &mut self,
        id: SessionId,
        hello: Hello,
        admitted: bool,
        engine: &Engine,
        agents: &Agents,
    ) -> Option<SessionId> {
        let name = hello.name.clone();
        let session = Session {
            id,
            admitted,
            prepared: BTreeSet::new(),
            started: BTreeSet::new(),
            stopped: BTreeSet::new(),
            hello,
        };
        let before = self.sessions.insert(name.clone(), session);
        if admitted {
            self.look_at_runs_on(&name, engine);
        }
        self.know(&name, engine, agents);
        before.map(|session| session.id)
    }

    /// This life of an agent is the current one on every member.
    pub(crate) fn admit(
        &mut self,
        agent: &str,
        incarnation: &str,
        engine: &Engine,
        agents: &Agents,
    ) {
        let Some(session) = self.sessions.get_mut(agent) else { return };
        if session.hello.incarnation == incarnation && !session.admitted {
            session.admitted = true;
            self.look_at_runs_on(agent, engine);
            self.know(agent, engine, agents);
        }
    }

    fn look_at_runs_on(&mut self, agent: &str, engine: &Engine) {
        let here = engine.placed().filter(|(_, at)| *at == agent);
        self.changed.extend(here.map(|(attempt, _)| attempt.run));
        self.plan_due = true;
    }

    /// A session is over.
    pub(crate) fn detach(&mut self, id: SessionId, engine: &Engine, agents: &Agents) {
        let over = self.sessions.values().find(|session| session.id == id);
        let Some(name) = over.map(|session| session.hello.name.clone()) else { return };
        self.sessions.remove(&name);
        self.know(&name, engine, agents);
    }

    /// The agent of a session.
    pub(crate) fn agent(&self, id: SessionId) -> Option<&Hello> {
        self.sessions.values().find(|session| session.id == id).map(|session| &session.hello)
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
            _ => None,
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
            closed,
        });
        if record.is_some_and(|record| record.drain.is_some()) {
            self.draining.insert(name.to_owned());
        }
    }
}
