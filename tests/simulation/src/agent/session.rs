//! Sessions of agents: they find a node that leads, and say again what was not acknowledged.

use tenon_coordinator::SessionId;
use tenon_coordinator::coordinator::{CloseReason, Input};
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::agent_message::Message as Says;
use tenon_proto::agent::v1::coordinator_message::Message as Told;

use crate::oracle::Violation;
use crate::queue::{MS, Micros, SECOND};
use crate::settings::pick;
use crate::world::{Event, Life, Phase, World, agent_address};

impl World {
    /// Breaks an agent's session: both ends learn of it some time.
    pub fn break_session(&mut self, agent: usize) {
        let state = &self.agents[agent];
        let Some(session) = state.session else { return };
        let remote = state.remote;
        self.broken.insert(session);
        let (here, there) = match self.phase {
            Phase::Chaos => (self.random.below(3 * SECOND), self.random.below(10 * SECOND)),
            _ => (self.random.below(50 * MS), self.random.below(50 * MS)),
        };
        self.queue.after(here, Event::SessionEnds { agent, session, reason: None });
        if let Some((life, id)) = remote {
            self.queue.after(there, Event::ToUser(life, Input::Detached(id)));
        }
    }

    /// An agent without a session looks for a node that takes it.
    pub fn agent_turn(&mut self, agent: usize, life: u64) {
        let state = &self.agents[agent];
        if !state.is_on || state.life != life || state.session.is_some() {
            return;
        }
        let session = state.last_session + 1;
        let nodes: Vec<u64> = self.machines.keys().copied().collect();
        let node = pick(&mut self.random, &nodes);
        let number = (agent as u64) << 32 | session;
        let now = self.now();
        let state = &mut self.agents[agent];
        state.last_session = session;
        state.session = Some(number);
        state.remote = None;
        state.welcome = None;
        state.sent = 0;
        // The first heartbeat follows the hello.
        state.beats = vec![now];
        let hello = Box::new(state.hello());
        let way = self.way(agent_address(agent), node);
        let gives_up = match (self.life(node), way) {
            (Some(life), Some(delay)) => {
                // A connection that was given up may still come about, and be taken for a new one.
                if self.phase == Phase::Chaos && self.random.one_in(10) {
                    let late = delay + self.random.below(4 * SECOND);
                    self.queue.after(late, Event::Dial(life, agent, number, hello.clone()));
                }
                self.queue.after(delay, Event::Dial(life, agent, number, hello));
                5 * SECOND
            }
            _ => 20 * MS + self.random.below(200 * MS),
        };
        // If nobody has said welcome by then.
        self.queue.after(gives_up, Event::SessionEnds { agent, session: number, reason: None });
    }

    /// A node is dialled.
    pub fn dialled(&mut self, life: Life, agent: usize, session: u64, hello: proto::Hello) {
        if !self.is_alive(life) {
            return;
        }
        let state = &self.agents[agent];
        let is_wanted = state.session == Some(session) && state.remote.is_none();
        let gone = self.random.below(2 * SECOND);
        let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
        let Some(running) = running else { return };
        running.next_number += 1;
        let id = running.next_number;
        self.tell_user(life, Input::Attach { session: id, hello });
        if !is_wanted {
            self.queue.after(gone, Event::ToUser(life, Input::Detached(id)));
            return;
        }
        if let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) {
            running.sessions.insert(id, (agent, session));
        }
        self.agents[agent].remote = Some((life, id));
        self.tell_user(life, heartbeat(id, 1));
    }

    /// A heartbeat is due.
    pub fn beat(&mut self, agent: usize, session: u64) {
        let now = self.now();
        let state = &mut self.agents[agent];
        let (Some(every), Some((life, id))) = (state.welcome, state.remote) else { return };
        if state.session != Some(session) || self.broken.contains(&session) {
            return;
        }
        state.beats.push(now);
        let number = state.beats.len() as u64;
        self.queue.after(every, Event::Beat(agent, session));
        match self.session_way(life.0, agent, session, false) {
            Some(delay) => self.queue.after(delay, Event::ToUser(life, heartbeat(id, number))),
            None => self.break_session(agent),
        }
    }

    /// A session is over, as the agent sees it.
    pub fn session_ends(&mut self, agent: usize, session: u64, reason: Option<CloseReason>) {
        let state = &mut self.agents[agent];
        let given_up =
            reason.is_none() && !self.broken.contains(&session) && state.welcome.is_some();
        if state.session != Some(session) || given_up {
            return;
        }
        state.session = None;
        state.remote = None;
        state.welcome = None;
        state.to_start.clear();
        self.broken.insert(session);
        let life = state.life;
        let pause = 5 * MS + self.random.below(100 * MS);
        self.queue.after(pause, Event::AgentTurn(agent, life));
    }

    /// A node tells an agent something.
    pub fn tell_agent(
        &mut self,
        life: Life,
        session: SessionId,
        message: proto::CoordinatorMessage,
    ) {
        let running = self.machines.get(&life.0).and_then(|m| m.running.as_ref());
        let Some(&(agent, number)) = running.and_then(|running| running.sessions.get(&session))
        else {
            return;
        };
        if self.broken.contains(&number) {
            return;
        }
        match self.session_way(life.0, agent, number, true) {
            Some(delay) => {
                let message = Box::new(message);
                self.queue.after(delay, Event::ToAgent { agent, session: number, message });
            }
            None => self.break_session_of(agent, number, (life, session)),
        }
    }

    fn break_session_of(&mut self, agent: usize, number: u64, remote: (Life, SessionId)) {
        if self.agents[agent].session == Some(number) {
            self.agents[agent].remote = Some(remote);
            self.break_session(agent);
        }
    }

    /// What is said in a session keeps its order.
    fn session_way(
        &mut self,
        node: u64,
        agent: usize,
        session: u64,
        to_agent: bool,
    ) -> Option<Micros> {
        let address = agent_address(agent);
        let (from, to) = if to_agent { (node, address) } else { (address, node) };
        let delay = self.way(from, to)?;
        // Sessions have numbers that no node or agent has.
        let key = (session | 1 << 62, u64::from(to_agent));
        Some(self.behind(key, delay))
    }

    /// A node ends a session.
    pub fn close_session(&mut self, life: Life, session: SessionId, reason: CloseReason) {
        let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
        let Some((agent, number)) = running.and_then(|r| r.sessions.remove(&session)) else {
            return;
        };
        if self.broken.contains(&number) {
            return;
        }
        match self.session_way(life.0, agent, number, true) {
            Some(delay) => {
                let reason = Some(reason);
                self.queue.after(delay, Event::SessionEnds { agent, session: number, reason });
            }
            None => self.break_session_of(agent, number, (life, session)),
        }
    }

    /// An agent hears something.
    pub fn agent_hears(
        &mut self,
        agent: usize,
        session: u64,
        message: proto::CoordinatorMessage,
    ) -> Result<(), Violation> {
        let state = &mut self.agents[agent];
        if state.session != Some(session) || self.broken.contains(&session) {
            return Ok(());
        }
        let Some(message) = message.message else { return Ok(()) };
        match message {
            Told::Welcome(welcome) => {
                state.lease = state.by_true_time(welcome.lease_ms);
                let every = state.by_true_time(welcome.heartbeat_ms);
                state.welcome = Some(every);
                let stored = state.acknowledge(welcome.acknowledged)?;
                self.oracle.lines.extend(stored);
                self.queue.after(every, Event::Beat(agent, session));
                self.speak(agent);
            }
            Told::Acknowledge(upto) => {
                let stored = state.acknowledge(upto.number)?;
                self.oracle.lines.extend(stored);
            }
            Told::Prepare(spec) => {
                state.runs.insert(spec.run_id);
            }
            Told::EndRun(end) => {
                state.ending_runs.push(end.run_id);
                state.end_runs();
            }
            Told::Start(task) => self.told_to_start(agent, task)?,
            Told::Stop(stop) => self.told_to_stop(agent, stop)?,
            Told::Heartbeat(heartbeat) => self.lease_renewed(agent, heartbeat.number)?,
        }
        Ok(())
    }

    /// Sends what was not sent in this session.
    pub(super) fn speak(&mut self, agent: usize) {
        loop {
            let state = &mut self.agents[agent];
            let (Some(session), Some((life, id))) = (state.session, state.remote) else { return };
            if state.welcome.is_none() || state.sent >= state.reports.len() {
                return;
            }
            let count = (1 + self.random.below(8) as usize).min(state.reports.len() - state.sent);
            let next = state.reports.range(state.sent..state.sent + count);
            let mut reports: Vec<proto::Report> = next.map(|kept| kept.report.clone()).collect();
            state.sent += count;
            state.told = state.told.max(reports.last().map_or(0, |report| report.number));
            let says = match reports.len() {
                1 => reports.pop().map(Says::Report),
                _ => Some(Says::Reports(proto::Reports { reports })),
            };
            if self.broken.contains(&session) {
                return;
            }
            match self.session_way(life.0, agent, session, false) {
                Some(delay) => {
                    let message = proto::AgentMessage { message: says };
                    let said = Input::Said { session: id, message };
                    self.queue.after(delay, Event::ToUser(life, said));
                }
                None => {
                    self.break_session(agent);
                    return;
                }
            }
        }
    }

    /// The sessions of a node that is gone.
    pub fn sessions_of_dead(&mut self, sessions: impl IntoIterator<Item = (usize, u64)>) {
        for (agent, session) in sessions {
            self.broken.insert(session);
            let delay = self.random.below(3 * SECOND);
            self.queue.after(delay, Event::SessionEnds { agent, session, reason: None });
        }
    }
}

fn heartbeat(session: SessionId, number: u64) -> Input {
    let heartbeat = Says::Heartbeat(proto::Heartbeat { number, ..Default::default() });
    Input::Said { session, message: proto::AgentMessage { message: Some(heartbeat) } }
}
