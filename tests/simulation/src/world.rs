//! Everything there is in a schedule, and what happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenon_consensus::SnapshotMeta;
use tenon_coordinator::coordinator::{Answer, Clocks, CloseReason, Input, Output};
use tenon_coordinator::node::raft_thread::RaftInput;
use tenon_coordinator::server::Metrics;
use tenon_engine::{AttemptId, Time};
use tenon_journal::disk::sim::Random;
use tenon_proto::agent::v1::{CoordinatorMessage, Hello};
use tenon_proto::raft::v1::{Chunk, FetchRequest};

use crate::agent::Agent;
use crate::client::Client;
use crate::duel::Duel;
use crate::machine::Machine;
use crate::oracle::{Oracle, Violation};
use crate::queue::{MS, Micros, Queue, SECOND};
use crate::settings::{Choice, Settings, chance};
use crate::subscriber::Subscriber;
use crate::trace::{Trace, Words, hash_of};

/// The wall clock when a schedule begins, in milliseconds since the epoch.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// A node's life: what is meant for it is lost when that is over.
pub type Life = (u64, u64);

/// What can happen.
pub enum Event {
    Tick(Life),
    RaftTurn(Life),
    LogTurn(Life),
    LogSync(Life),
    ApplyTurn(Life),
    Wakeup(Life),
    /// A Raft message: from, to.
    Peer(u64, u64, Vec<u8>),
    /// A part of a snapshot is asked for: by whom, of whom.
    Fetch(Life, u64, FetchRequest),
    Fetched(Life, Option<Chunk>),
    ToRaft(Life, RaftInput),
    /// Input of an agent or a client.
    ToUser(Life, Input),
    /// A client asks: client, try, input is made when it arrives.
    Ask {
        life: Life,
        client: usize,
        attempt: u64,
        request: crate::client::Ask,
    },
    Answered {
        client: usize,
        attempt: u64,
        answer: Option<Answer>,
    },
    ClientTurn(usize),
    ClientGivesUp(usize, u64),
    /// An agent dials in: agent, session.
    Dial(Life, usize, u64, Box<Hello>),
    /// A heartbeat of an agent is due, in this session.
    Beat(usize, u64),
    /// An agent's lease is over, unless it was renewed.
    LeaseEnds(usize, Micros),
    ToAgent {
        agent: usize,
        session: u64,
        message: Box<CoordinatorMessage>,
    },
    SessionEnds {
        agent: usize,
        session: u64,
        reason: Option<CloseReason>,
    },
    AgentTurn(usize, u64),
    Attempt {
        agent: usize,
        life: u64,
        attempt: AttemptId,
        number: u64,
    },
    AgentStarts(usize),
    Subscribe(usize),
    Trouble,
    Start(u64),
    PowerCut(Life),
    EndOfDiskTrouble(u64),
    /// A node loses power so many times.
    Flicker(u64, u64),
    /// Only this agent gets new work, and then the next, so many times.
    EmptyInTurns(usize, u64),
    Membership,
    Heal,
    Look,
}

/// Where a schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first members come together.
    Growing,
    /// Things go wrong.
    Chaos,
    /// Nothing goes wrong any more.
    Healed,
}

/// A schedule.
pub struct World {
    pub seed: u64,
    pub settings: Settings,
    pub random: Random,
    pub queue: Queue<Event>,
    pub trace: Trace,
    pub metrics: Arc<Metrics>,
    pub machines: BTreeMap<u64, Machine>,
    pub agents: Vec<Agent>,
    pub clients: Vec<Client>,
    pub subscribers: Vec<Subscriber>,
    pub oracle: Oracle,
    pub phase: Phase,
    /// Links that are cut: from, to. Nodes by id, agents from 1000 on, clients from 2000 on.
    pub cut: BTreeSet<(u64, u64)>,
    /// When the last message of a link arrives, where order is kept.
    arrivals: BTreeMap<(u64, u64), Micros>,
    /// Sessions that are broken, though not both ends know it.
    pub broken: BTreeSet<u64>,
    pub next_node: u64,
    pub healed_at: Micros,
    /// The next leader is cut off before it has said a word, and this node, without which it would
    /// not have been elected, loses power.
    pub cut_off_next_leader: Option<u64>,
    pub duel: Option<Duel>,
    pub done: bool,
    /// Who has written what is in each snapshot of a claim.
    pub snapshots: BTreeMap<String, BTreeSet<AttemptId>>,
}

/// How nodes, agents and clients are named on links.
pub fn agent_address(agent: usize) -> u64 {
    1000 + agent as u64
}

/// Likewise.
pub fn client_address(client: usize) -> u64 {
    2000 + client as u64
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, choice: &Choice, words: Words) -> World {
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7e4e);
        let settings = Settings::draw(&mut random, choice);
        let mut trace = Trace::new(words);
        trace.say(0, || format!("{settings:?}"));
        let agents = (0..settings.agents).map(|index| Agent::new(index, &mut random)).collect();
        // The last one is the operator.
        let clients = (0..=settings.clients).map(|_| Client::default()).collect();
        let subscribers = (0..settings.subscribers).map(|_| Subscriber::default()).collect();
        World {
            seed,
            queue: Queue::new(random.draw()),
            trace,
            metrics: metrics(),
            machines: BTreeMap::new(),
            agents,
            clients,
            subscribers,
            oracle: Oracle::default(),
            phase: Phase::Growing,
            cut: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            broken: BTreeSet::new(),
            next_node: 1,
            healed_at: 0,
            cut_off_next_leader: None,
            duel: None,
            done: false,
            snapshots: BTreeMap::new(),
            settings,
            random,
        }
    }

    /// Lets everything happen; an error is a violation.
    pub fn run(&mut self) -> Result<(), Violation> {
        self.begin()?;
        while !self.done {
            let Some(event) = self.queue.next() else {
                return Err(Violation::new("liveness", "nothing is going to happen any more"));
            };
            self.happen(event)?;
        }
        self.final_check()
    }

    pub fn now(&self) -> Micros {
        self.queue.now()
    }

    /// The wall clock of a node.
    pub fn clock(&self, node: u64) -> Time {
        let skew = self.machines.get(&node).map_or(0, |machine| machine.skew_ms);
        Time(EPOCH_MS + (self.now() / MS) as i64 + skew)
    }

    /// The wall clock of everybody else.
    pub fn true_time(&self) -> Time {
        Time(EPOCH_MS + (self.now() / MS) as i64)
    }

    /// The client that asks for nothing of its own accord.
    pub fn operator(&self) -> usize {
        self.settings.clients
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(self.queue.now(), line);
    }

    /// How long a message takes; `None` if it never arrives.
    pub fn way(&mut self, from: u64, to: u64) -> Option<Micros> {
        if self.cut.contains(&(from, to)) {
            return None;
        }
        let delay = match self.phase {
            Phase::Chaos if chance(&mut self.random, self.settings.late_one_in) => {
                self.random.below(2 * SECOND)
            }
            Phase::Chaos => 50 + self.random.below(self.settings.delay),
            _ => 50 + self.random.below(MS),
        };
        Some(delay)
    }

    /// Likewise, after everything that went the same way before.
    pub fn way_in_order(&mut self, from: u64, to: u64) -> Option<Micros> {
        let delay = self.way(from, to)?;
        Some(self.behind((from, to), delay))
    }

    /// Queues up behind everything that went the same way before.
    pub fn behind(&mut self, way: (u64, u64), delay: Micros) -> Micros {
        let last = self.arrivals.entry(way).or_default();
        *last = (self.queue.now() + delay).max(*last + 1);
        *last - self.queue.now()
    }

    /// The life of a node, if it is on.
    pub fn life(&self, node: u64) -> Option<Life> {
        let machine = self.machines.get(&node)?;
        machine.running.as_ref().map(|_| (node, machine.life))
    }

    pub fn is_alive(&self, life: Life) -> bool {
        self.life(life.0) == Some(life)
    }

    /// The nodes that are on.
    pub fn nodes(&self) -> Vec<u64> {
        let on = self.machines.values().filter(|machine| machine.running.is_some());
        on.map(|machine| machine.id).collect()
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.trace.hash((self.queue.now(), std::mem::discriminant(&event)));
        match event {
            Event::Tick(life) => self.tick(life),
            Event::RaftTurn(life) => self.raft_turn(life),
            Event::LogTurn(life) => self.log_turn(life),
            Event::LogSync(life) => self.log_sync(life),
            Event::ApplyTurn(life) => self.apply_turn(life),
            Event::Wakeup(life) => self.wakeup(life),
            Event::Peer(from, to, bytes) => {
                self.trace.hash((from, to, hash_of(&bytes)));
                if let Some(life) = self.life(to) {
                    self.tell_raft(life, RaftInput::Messages(from, vec![bytes.into()]));
                }
                Ok(())
            }
            Event::Fetch(asker, of, request) => {
                self.serve_fetch(asker, of, &request);
                Ok(())
            }
            Event::Fetched(life, chunk) => {
                self.tell_apply(life, chunk.map_or(Input::FetchBroken, Input::Chunk));
                Ok(())
            }
            Event::ToRaft(life, input) => {
                self.tell_raft(life, input);
                Ok(())
            }
            Event::ToUser(life, input) => {
                self.tell_user(life, input);
                Ok(())
            }
            Event::Ask { life, client, attempt, request } => {
                self.asked(life, client, attempt, request);
                Ok(())
            }
            Event::Answered { client, attempt, answer } => self.answered(client, attempt, answer),
            Event::ClientTurn(client) => {
                self.client_turn(client);
                Ok(())
            }
            Event::ClientGivesUp(client, attempt) => self.answered(client, attempt, None),
            Event::Dial(life, agent, session, hello) => {
                self.dialled(life, agent, session, *hello);
                Ok(())
            }
            Event::Beat(agent, session) => {
                self.beat(agent, session);
                Ok(())
            }
            Event::LeaseEnds(agent, until) => {
                self.lease_ends(agent, until);
                Ok(())
            }
            Event::ToAgent { agent, session, message } => {
                self.agent_hears(agent, session, *message)
            }
            Event::SessionEnds { agent, session, reason } => {
                self.session_ends(agent, session, reason);
                Ok(())
            }
            Event::AgentTurn(agent, life) => {
                self.agent_turn(agent, life);
                Ok(())
            }
            Event::Attempt { agent, life, attempt, number } => {
                self.attempt_goes_on(agent, life, &attempt, number);
                Ok(())
            }
            Event::AgentStarts(agent) => {
                self.agent_starts(agent);
                Ok(())
            }
            Event::Subscribe(subscriber) => self.subscriber_turn(subscriber),
            Event::Trouble => self.trouble(),
            Event::Start(node) => self.start(node),
            Event::PowerCut(life) => {
                if self.is_alive(life) {
                    self.power_cut(life.0);
                }
                Ok(())
            }
            Event::EndOfDiskTrouble(node) => {
                self.end_of_disk_trouble(node);
                Ok(())
            }
            Event::Flicker(node, times) => {
                self.flicker(node, times);
                Ok(())
            }
            Event::EmptyInTurns(agent, times) => {
                self.empty_in_turns(agent, times);
                Ok(())
            }
            Event::Membership => {
                self.grow();
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// A thread's turn comes after a moment, sometimes a long one.
    fn turn(&mut self, node: u64) -> Micros {
        let delay = self.random.below(self.settings.turn) + 1;
        let delay = match self.phase {
            Phase::Chaos if self.random.one_in(100) => delay * 20,
            Phase::Chaos => delay,
            _ => delay.min(200),
        };
        let paused = self.machines.get(&node).map_or(0, |machine| machine.paused_until);
        delay + paused.saturating_sub(self.queue.now())
    }

    pub fn tell_raft(&mut self, life: Life, input: RaftInput) {
        if !self.is_alive(life) {
            return;
        }
        let delay = self.turn(life.0);
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return;
        };
        running.raft_queue.push_back(input);
        if !std::mem::replace(&mut running.raft_due, true) {
            self.queue.after(delay, Event::RaftTurn(life));
        }
    }

    pub fn tell_apply(&mut self, life: Life, input: Input) {
        self.tell_coordinator(life, input, false);
    }

    pub fn tell_user(&mut self, life: Life, input: Input) {
        self.tell_coordinator(life, input, true);
    }

    fn tell_coordinator(&mut self, life: Life, input: Input, user: bool) {
        if !self.is_alive(life) {
            return;
        }
        let delay = self.turn(life.0);
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return;
        };
        if user {
            running.users.push_back(input);
        } else {
            running.apply_queue.push_back(input);
        }
        if !std::mem::replace(&mut running.apply_due, true) {
            self.queue.after(delay, Event::ApplyTurn(life));
        }
    }

    fn tick(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        let machine = &self.machines[&life.0];
        let paused = machine.paused_until.saturating_sub(self.queue.now());
        let tick = machine.tick + paused;
        self.queue.after(tick, Event::Tick(life));
        if paused > 0 {
            return Ok(());
        }
        self.raft_step(life, true)
    }

    fn raft_turn(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        if let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) {
            running.raft_due = false;
        }
        self.raft_step(life, false)
    }

    /// How many of so many things a thread takes in one turn.
    fn take(&mut self, all: usize) -> usize {
        if all > 1 && self.random.one_in(4) {
            1 + self.random.below(all as u64) as usize
        } else {
            all
        }
    }

    pub fn raft_step(&mut self, life: Life, ticks: bool) -> Result<(), Violation> {
        let all = self.machines[&life.0].running.as_ref().map_or(0, |r| r.raft_queue.len());
        let take = self.take(all);
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let inputs: Vec<RaftInput> = running.raft_queue.drain(..take).collect();
        let rest =
            !running.raft_queue.is_empty() && !std::mem::replace(&mut running.raft_due, true);
        let stepped = running.raft.step(inputs, ticks);
        let (messages, to_apply) = running.made_by_raft();
        let log_due =
            !running.log_queue.is_empty() && !std::mem::replace(&mut running.log_due, true);
        if rest {
            let delay = self.turn(life.0);
            self.queue.after(delay, Event::RaftTurn(life));
        }
        if log_due {
            let delay = self.turn(life.0);
            self.queue.after(delay, Event::LogTurn(life));
        }
        if to_apply.iter().any(|input| is_elected(life.0, input)) {
            self.elected(life.0);
        }
        for message in messages {
            self.send(life, message);
        }
        for input in to_apply {
            self.watch_raft(life, &input)?;
            self.tell_apply(life, input);
        }
        match stepped {
            Ok(()) => Ok(()),
            Err(error) => self.stopped(life, &error),
        }
    }

    /// Sends a Raft message, or loses it.
    fn send(&mut self, life: Life, message: tenon_consensus::Outgoing) {
        let (from, to) = (life.0, message.to);
        if self.duel.is_some() && !self.passes_duel(from, to, &message.bytes) {
            return;
        }
        let lost = self.phase == Phase::Chaos
            && chance(&mut self.random, self.settings.lost_one_in)
            || self.life(to).is_none();
        let way = match self.settings.in_order || self.phase != Phase::Chaos {
            true => self.way_in_order(from, to),
            false => self.way(from, to),
        };
        let Some(delay) = way.filter(|_| !lost) else {
            // The transport may notice that nobody is there, or not.
            if self.random.one_in(2) || message.is_snapshot {
                self.queue.after(MS, Event::ToRaft(life, RaftInput::Unreachable(to)));
            }
            if message.is_snapshot {
                self.queue.after(MS, Event::ToRaft(life, RaftInput::SnapshotReport(to, false)));
            }
            return;
        };
        if self.phase == Phase::Chaos && chance(&mut self.random, self.settings.doubled_one_in) {
            let again = delay + self.random.below(500 * MS);
            self.queue.after(again, Event::Peer(from, to, message.bytes.clone()));
        }
        self.queue.after(delay, Event::Peer(from, to, message.bytes));
    }

    /// How long a disk takes to sync.
    fn disk_delay(&mut self, node: u64) -> Micros {
        let (until, by) = self.machines[&node].slow;
        let slow = if self.queue.now() < until { self.random.below(by) } else { 0 };
        slow + self.turn(node)
    }

    fn log_turn(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        let all = self.machines[&life.0].running.as_ref().map_or(0, |r| r.log_queue.len());
        let take = self.take(all);
        let delay = self.disk_delay(life.0);
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let mut taken = Ok(true);
        for input in running.log_queue.drain(..take) {
            taken = running.log.take(input);
            if taken.is_err() {
                break;
            }
        }
        match taken {
            Ok(_) => {
                self.queue.after(delay, Event::LogSync(life));
                Ok(())
            }
            Err(error) => self.stopped(life, &error),
        }
    }

    fn log_sync(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        let (turn, raft_turn) = (self.turn(life.0), self.turn(life.0));
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let synced = running.log.sync();
        running.said_by_log();
        running.log_due = !running.log_queue.is_empty();
        if running.log_due {
            self.queue.after(turn, Event::LogTurn(life));
        }
        if !running.raft_queue.is_empty() && !std::mem::replace(&mut running.raft_due, true) {
            self.queue.after(raft_turn, Event::RaftTurn(life));
        }
        match synced {
            Ok(()) => Ok(()),
            Err(error) => self.stopped(life, &error),
        }
    }

    fn apply_turn(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        let (log, users) = self.machines[&life.0]
            .running
            .as_ref()
            .map_or((0, 0), |running| (running.apply_queue.len(), running.users.len()));
        let from_log = self.take(log);
        let from_users = if from_log == log { self.take(users) } else { 0 };
        let again = self.turn(life.0);
        let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let mut inputs: Vec<Input> = running.apply_queue.drain(..from_log).collect();
        inputs.extend(running.users.drain(..from_users));
        running.apply_due = !running.apply_queue.is_empty() || !running.users.is_empty();
        if running.apply_due {
            self.queue.after(again, Event::ApplyTurn(life));
        }
        if inputs.is_empty() {
            inputs.push(Input::Wake);
        }
        self.apply_step(life, inputs)
    }

    fn wakeup(&mut self, life: Life) -> Result<(), Violation> {
        if !self.is_alive(life) {
            return Ok(());
        }
        if let Some(running) = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut()) {
            running.wakeup = None;
        }
        self.apply_step(life, vec![Input::Wake])
    }

    pub fn apply_step(&mut self, life: Life, inputs: Vec<Input>) -> Result<(), Violation> {
        let now = self.clock(life.0);
        let at = self.queue.now();
        let Some(machine) = self.machines.get_mut(&life.0) else { return Ok(()) };
        let steady = at / MS * machine.rate / 1000;
        let Some(running) = machine.running.as_mut() else { return Ok(()) };
        let clocks = Clocks { wall: now, steady };
        let outputs = match running.coordinator.handle(clocks, inputs) {
            Ok(outputs) => outputs,
            Err(error) => return self.stopped(life, &error),
        };
        let next = running.coordinator.next_wakeup();
        let applied = running.coordinator.replica().meta().applied;
        self.trace.hash((life, applied, outputs.len()));
        for output in outputs {
            self.put(life, output)?;
        }
        if let Some(next) = next {
            let millis = u64::try_from(next.0 - now.0).unwrap_or(0);
            let at = self.queue.now() + (millis * MS).max(100);
            let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
            if let Some(running) = running
                && running.wakeup.is_none_or(|planned| planned > at)
            {
                running.wakeup = Some(at);
                self.queue.at(at, Event::Wakeup(life));
            }
        }
        self.watch_state(life)
    }

    fn put(&mut self, life: Life, output: Output) -> Result<(), Violation> {
        match output {
            Output::Propose { id, proposal } => {
                self.tell_raft(life, RaftInput::Propose(vec![(id, proposal)]));
            }
            Output::ReadIndex(id) => self.tell_raft(life, RaftInput::ReadIndex(id)),
            Output::Applied(index) => self.tell_raft(life, RaftInput::Applied(index)),
            Output::Persisted(index) => self.tell_raft(life, RaftInput::Compact(index)),
            Output::Fetched(which) => self.tell_raft(life, RaftInput::Fetched(which)),
            Output::FetchFailed(which) => self.tell_raft(life, RaftInput::FetchFailed(which)),
            Output::Installed => {
                self.say(|| format!("node {} installed a snapshot", life.0));
                self.oracle.installed += 1;
                self.tell_raft(life, RaftInput::Installed);
            }
            Output::SnapshotMade(descriptor) => {
                self.oracle.snapshots += 1;
                let (index, term) = (descriptor.index, descriptor.term);
                self.say(|| format!("node {} made a snapshot at {index}", life.0));
                let meta = SnapshotMeta {
                    position: tenon_consensus::Position { index, term },
                    conf_state: descriptor.configuration.clone().into(),
                    data: descriptor.to_bytes(),
                };
                self.tell_raft(life, RaftInput::Offer(meta));
            }
            Output::Fetch(from, request) => match self.way(life.0, from) {
                Some(delay) => self.queue.after(delay, Event::Fetch(life, from, request)),
                None => {
                    let delay = self.random.below(SECOND);
                    self.queue.after(delay, Event::Fetched(life, None));
                }
            },
            Output::ToAgent(session, message) => self.tell_agent(life, session, message),
            Output::Close(session, reason) => self.close_session(life, session, reason),
            Output::Answer(token, answer) => return self.answer(life, token, answer),
            Output::Retired(_)
            | Output::Progress(_)
            | Output::Members(_)
            | Output::Forged { .. } => {}
        }
        Ok(())
    }

    fn serve_fetch(&mut self, asker: Life, of: u64, request: &FetchRequest) {
        let chunk = self
            .machines
            .get(&of)
            .and_then(|m| m.running.as_ref())
            .and_then(|running| running.snapshots.read(request).ok());
        match self.way(of, asker.0) {
            Some(delay) => self.queue.after(delay, Event::Fetched(asker, chunk)),
            None => self.queue.after(SECOND, Event::Fetched(asker, None)),
        }
    }
}

fn is_elected(node: u64, input: &Input) -> bool {
    matches!(input, Input::Leader { leader: Some(leader), .. } if *leader == node)
}

/// Building the metrics takes longer than many a schedule's turn: one set serves a thread.
fn metrics() -> Arc<Metrics> {
    thread_local! {
        static METRICS: Arc<Metrics> = Arc::new(Metrics::new());
    }
    METRICS.with(Arc::clone)
}
