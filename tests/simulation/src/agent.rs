//! Agents: they run what they are told, and repeat what they have to say until it is acknowledged.
//!
//! What an agent remembers and what it forgets is as in the real one (`tenon-agent`'s `work` and
//! `outgoing`); what it runs is made up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tenon_coordinator::SessionId;
use tenon_coordinator::coordinator::{CloseReason, Input};
use tenon_engine::AttemptId;
use tenon_journal::disk::sim::Random;
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::agent_message::Message as Says;
use tenon_proto::agent::v1::coordinator_message::Message as Told;
use tenon_proto::agent::v1::report::What;

use crate::oracle::Violation;
use crate::queue::{MS, Micros, SECOND};
use crate::settings::pick;
use crate::world::{Event, Life, Phase, World, agent_address};

/// An agent.
pub struct Agent {
    name: String,
    slots: u32,
    /// Counts the lives of its process.
    pub life: u64,
    pub is_on: bool,
    /// The session that it has or tries to have.
    session: Option<u64>,
    /// Where that session ends on the other side.
    remote: Option<(Life, SessionId)>,
    welcome: bool,
    /// A node that is asked next, if somebody has said so.
    last_session: u64,
    live: BTreeMap<AttemptId, Live>,
    ended: BTreeSet<AttemptId>,
    runs: BTreeSet<String>,
    ending_runs: Vec<String>,
    /// Reports that are not acknowledged, and the lines in them.
    reports: VecDeque<(proto::Report, Vec<String>)>,
    /// So many of them were sent in this session.
    sent: usize,
    last_number: u64,
}

struct Live {
    /// What it will do, and after which time.
    plan: VecDeque<(Micros, Act)>,
    /// The plan's number: what was planned before does not happen.
    number: u64,
    /// Steps that have not ended.
    left: VecDeque<String>,
    stopping: bool,
}

enum Act {
    Say(What),
    Lines(String, u32),
    StepEnds(proto::StepEnded),
    Ends(proto::ended::Outcome),
}

impl Agent {
    /// An agent that is off.
    pub fn new(index: usize, random: &mut Random) -> Agent {
        Agent {
            name: format!("agent-{index}"),
            slots: 1 + random.below(4) as u32,
            life: 0,
            is_on: false,
            session: None,
            remote: None,
            welcome: false,
            last_session: 0,
            live: BTreeMap::new(),
            ended: BTreeSet::new(),
            runs: BTreeSet::new(),
            ending_runs: Vec::new(),
            reports: VecDeque::new(),
            sent: 0,
            last_number: 0,
        }
    }

    /// It runs nothing and has said everything.
    pub fn is_quiet(&self) -> bool {
        self.live.is_empty() && self.reports.is_empty()
    }

    fn hello(&self) -> proto::Hello {
        proto::Hello {
            name: self.name.clone(),
            slots: self.slots,
            backends: vec!["simulated".to_owned()],
            running: self.live.keys().map(to_wire).collect(),
            incarnation: format!("life-{}", self.life),
            runs: self.runs.iter().cloned().collect(),
            protocol: 1,
            ..proto::Hello::default()
        }
    }

    fn acknowledge(&mut self, number: u64) -> Result<Vec<String>, Violation> {
        if number > self.last_number {
            let what = format!("{} was told that report {number} is stored", self.name);
            return Err(Violation::new("acknowledgements fit", what));
        }
        let mut lines = Vec::new();
        while self.reports.front().is_some_and(|(report, _)| report.number <= number) {
            lines.extend(self.reports.pop_front().into_iter().flat_map(|(_, lines)| lines));
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(lines)
    }

    fn end_runs(&mut self) {
        let live = &self.live;
        let (waiting, ready): (Vec<_>, Vec<_>) = self
            .ending_runs
            .drain(..)
            .partition(|run| live.keys().any(|attempt| attempt.run.to_string() == *run));
        self.ending_runs = waiting;
        for run in ready {
            self.runs.remove(&run);
            self.ended.retain(|attempt| attempt.run.to_string() != run);
        }
    }
}

fn to_wire(attempt: &AttemptId) -> proto::AttemptId {
    proto::AttemptId {
        run_id: attempt.run.to_string(),
        task_run: attempt.task_run.clone(),
        attempt: attempt.attempt,
        placement: attempt.placement,
    }
}

fn from_wire(attempt: Option<proto::AttemptId>) -> Result<AttemptId, Violation> {
    let known = attempt.and_then(|attempt| {
        Some(AttemptId {
            run: attempt.run_id.parse().ok()?,
            task_run: attempt.task_run,
            attempt: attempt.attempt,
            placement: attempt.placement,
        })
    });
    known.ok_or_else(|| Violation::new("messages fit", "an attempt without an identity"))
}

impl World {
    /// An agent's process starts.
    pub fn agent_starts(&mut self, agent: usize) {
        let state = &mut self.agents[agent];
        if state.is_on {
            return;
        }
        let life = state.life + 1;
        *state = Agent {
            name: state.name.clone(),
            slots: state.slots,
            last_session: state.last_session,
            life,
            is_on: true,
            ..Agent::new(agent, &mut Random::new(0))
        };
        self.queue.after(MS, Event::AgentTurn(agent, life));
    }

    /// An agent is killed, and what it runs with it.
    pub fn agent_crashes(&mut self, agent: usize) {
        self.say(|| format!("agent {agent} is killed"));
        self.oracle.agent_dies(agent);
        self.break_session(agent);
        let state = &mut self.agents[agent];
        state.is_on = false;
        state.live.clear();
        let delay = 10 * MS + self.random.below(4 * SECOND);
        self.queue.after(delay, Event::AgentStarts(agent));
    }

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
        let state = &mut self.agents[agent];
        state.last_session = session;
        state.session = Some(number);
        state.remote = None;
        state.welcome = false;
        state.sent = 0;
        let way = self.way(agent_address(agent), node);
        let gives_up = match (self.life(node), way) {
            (Some(life), Some(delay)) => {
                self.queue.after(delay, Event::Dial(life, agent, number));
                5 * SECOND
            }
            _ => 20 * MS + self.random.below(200 * MS),
        };
        // If nobody has said welcome by then.
        self.queue.after(gives_up, Event::SessionEnds { agent, session: number, reason: None });
    }

    /// A node is dialled.
    pub fn dialled(&mut self, life: Life, agent: usize, session: u64) {
        if !self.is_alive(life) || self.agents[agent].session != Some(session) {
            return;
        }
        let hello = self.agents[agent].hello();
        let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
        let Some(running) = running else { return };
        running.next_number += 1;
        let id = running.next_number;
        running.sessions.insert(id, (agent, session));
        self.agents[agent].remote = Some((life, id));
        self.tell_user(life, Input::Attach { session: id, hello });
    }

    /// A session is over, as the agent sees it.
    pub fn session_ends(&mut self, agent: usize, session: u64, reason: Option<CloseReason>) {
        let state = &mut self.agents[agent];
        let given_up = reason.is_none() && !self.broken.contains(&session) && state.welcome;
        if state.session != Some(session) || given_up {
            return;
        }
        state.session = None;
        state.remote = None;
        state.welcome = false;
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
                state.welcome = true;
                let lines = state.acknowledge(welcome.acknowledged)?;
                self.oracle.lines.extend(lines);
                self.speak(agent);
            }
            Told::Acknowledge(upto) => {
                let lines = state.acknowledge(upto.number)?;
                self.oracle.lines.extend(lines);
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
            Told::Heartbeat(_) => {}
        }
        Ok(())
    }

    fn told_to_start(
        &mut self,
        agent: usize,
        task: proto::TaskInvocation,
    ) -> Result<(), Violation> {
        let attempt = from_wire(task.attempt)?;
        let state = &mut self.agents[agent];
        if state.live.contains_key(&attempt) || state.ended.contains(&attempt) {
            return Ok(());
        }
        state.runs.insert(attempt.run.to_string());
        self.trace.say(self.queue.now(), || format!("agent {agent} begins {attempt}"));
        self.oracle.begins(agent, &attempt)?;
        let pod: serde_json::Value = serde_json::from_str(&task.pod_json)
            .map_err(|error| Violation::new("messages fit", format!("a Pod: {error}")))?;
        let steps: VecDeque<String> = pod["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|step| step["name"].as_str().map(str::to_owned))
            .collect();
        let plan = self.make_up(&steps);
        let live = Live { plan, number: 1, left: steps, stopping: false };
        self.agents[agent].live.insert(attempt.clone(), live);
        self.plan_next(agent, &attempt);
        Ok(())
    }

    /// What an attempt will do.
    fn make_up(&mut self, steps: &VecDeque<String>) -> VecDeque<(Micros, Act)> {
        let mut plan = VecDeque::new();
        let short = |world: &mut World| world.random.below(20 * MS);
        let delay = short(self);
        plan.push_back((delay, Act::Say(What::Started(proto::Started {}))));
        if self.phase == Phase::Chaos && self.random.one_in(15) {
            let outcome = match self.random.below(2) {
                0 => proto::ended::Outcome::Infra(proto::Infra {
                    reason: "infra/simulated".to_owned(),
                    message: "lost".to_owned(),
                }),
                _ => proto::ended::Outcome::Refused(proto::Refused {
                    reason: "PullImageFailed".to_owned(),
                    message: "no such image".to_owned(),
                }),
            };
            plan.push_back((short(self), Act::Ends(outcome)));
            return plan;
        }
        let mut failed = false;
        for step in steps {
            let mut end = proto::StepEnded { step: step.clone(), ..Default::default() };
            if failed {
                (end.exit_code, end.ending) = (1, proto::Ending::Skipped as i32);
                plan.push_back((short(self), Act::StepEnds(end)));
                continue;
            }
            let started = proto::StepStarted { step: step.clone() };
            plan.push_back((short(self), Act::Say(What::StepStarted(started))));
            let length = match self.phase {
                Phase::Chaos => pick(&mut self.random, &[MS, 50 * MS, 500 * MS, 8 * SECOND]),
                _ => 50 * MS,
            };
            for _ in 0..self.random.below(4) {
                let lines = 1 + self.random.below(3) as u32;
                plan.push_back((self.random.below(length), Act::Lines(step.clone(), lines)));
            }
            if self.random.one_in(6) {
                failed = true;
                (end.exit_code, end.ending) = (3, proto::Ending::Error as i32);
            } else if !self.random.one_in(8) {
                end.task_results.insert("r".to_owned(), "v".to_owned());
            }
            plan.push_back((self.random.below(length), Act::StepEnds(end)));
        }
        plan.push_back((short(self), Act::Ends(proto::ended::Outcome::Ran(proto::Ran {}))));
        plan
    }

    fn plan_next(&mut self, agent: usize, attempt: &AttemptId) {
        let state = &self.agents[agent];
        let Some(live) = state.live.get(attempt) else { return };
        let Some((delay, _)) = live.plan.front() else { return };
        let event = Event::Attempt {
            agent,
            life: state.life,
            attempt: attempt.clone(),
            number: live.number,
        };
        self.queue.after(*delay, event);
    }

    fn told_to_stop(&mut self, agent: usize, stop: proto::Stop) -> Result<(), Violation> {
        let attempt = from_wire(stop.attempt)?;
        let delay = self.random.below(stop.grace_ms * MS + 10 * MS);
        let state = &mut self.agents[agent];
        if let Some(live) = state.live.get_mut(&attempt) {
            if !std::mem::replace(&mut live.stopping, true) {
                live.number += 1;
                live.plan.clear();
                for (index, step) in live.left.iter().enumerate() {
                    let ending = proto::Ending::Cancelled as i32;
                    let end = proto::StepEnded {
                        step: step.clone(),
                        exit_code: 1,
                        ending,
                        ..Default::default()
                    };
                    let delay = if index == 0 { delay } else { 0 };
                    live.plan.push_back((delay, Act::StepEnds(end)));
                }
                let stopped = proto::ended::Outcome::Stopped(proto::Stopped {});
                live.plan.push_back((MS, Act::Ends(stopped)));
                self.plan_next(agent, &attempt);
            }
        } else if state.ended.insert(attempt.clone()) {
            let stopped = proto::ended::Outcome::Stopped(proto::Stopped {});
            let ended = proto::Ended { outcome: Some(stopped) };
            self.report(agent, &attempt, What::Ended(ended), Vec::new());
        }
        Ok(())
    }

    /// The next thing of an attempt's plan.
    pub fn attempt_goes_on(&mut self, agent: usize, life: u64, attempt: &AttemptId, number: u64) {
        let state = &mut self.agents[agent];
        if !state.is_on || state.life != life {
            return;
        }
        let Some(live) = state.live.get_mut(attempt) else { return };
        if live.number != number {
            return;
        }
        let Some((_, act)) = live.plan.pop_front() else { return };
        match act {
            Act::Say(what) => self.report(agent, attempt, what, Vec::new()),
            Act::Lines(step, count) => {
                let number = state.last_number + 1;
                let (name, life) = (state.name.clone(), state.life);
                let texts: Vec<String> =
                    (0..count).map(|line| format!("{name} {life} {number} {line}")).collect();
                let time = self.true_time();
                let (lines, chunk) = pack(&texts, time.0);
                let output = proto::Output { container: step, sidecar: false, lines, chunk };
                self.report(agent, attempt, What::Output(output), texts);
            }
            Act::StepEnds(end) => {
                live.left.retain(|step| *step != end.step);
                self.report(agent, attempt, What::StepEnded(end), Vec::new());
            }
            Act::Ends(outcome) => {
                state.live.remove(attempt);
                state.ended.insert(attempt.clone());
                self.oracle.ends(attempt);
                self.trace.say(self.queue.now(), || format!("agent {agent} ends {attempt}"));
                let ended = proto::Ended { outcome: Some(outcome) };
                self.report(agent, attempt, What::Ended(ended), Vec::new());
                self.agents[agent].end_runs();
                return;
            }
        }
        self.plan_next(agent, attempt);
    }

    fn report(&mut self, agent: usize, attempt: &AttemptId, what: What, lines: Vec<String>) {
        let time_ms = self.true_time().0;
        let state = &mut self.agents[agent];
        state.last_number += 1;
        let number = state.last_number;
        let attempt = Some(to_wire(attempt));
        let report = proto::Report { number, attempt, time_ms, what: Some(what) };
        state.reports.push_back((report, lines));
        self.speak(agent);
    }

    /// Sends what was not sent in this session.
    fn speak(&mut self, agent: usize) {
        loop {
            let state = &mut self.agents[agent];
            let (Some(session), Some((life, id))) = (state.session, state.remote) else { return };
            if !state.welcome || state.sent >= state.reports.len() {
                return;
            }
            let count = (1 + self.random.below(8) as usize).min(state.reports.len() - state.sent);
            let next = state.reports.range(state.sent..state.sent + count);
            let mut reports: Vec<proto::Report> = next.map(|(report, _)| report.clone()).collect();
            state.sent += count;
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

/// Packs lines as an agent does.
fn pack(texts: &[String], time: i64) -> (u32, Vec<u8>) {
    use std::cell::RefCell;
    thread_local! {
        static BUILDER: RefCell<ChunkBuilder> = RefCell::new(ChunkBuilder::new());
    }
    BUILDER.with_borrow_mut(|builder| {
        for text in texts {
            // A few short lines always fit.
            let _ = builder.push(time, Stream::Stdout, false, text);
        }
        builder.finish()
    })
}
