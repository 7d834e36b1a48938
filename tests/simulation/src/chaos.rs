//! What goes wrong, and how it is put right.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use tenon_consensus::{ChangeKind, MembershipChange};
use tenon_coordinator::Error;
use tenon_coordinator::coordinator::Input;
use tenon_coordinator::node::raft_thread::RaftInput;
use tenon_journal::disk::sim::{Fault, Kind, Random};
use tenon_store::Fault as StoreFault;
use tokio::sync::oneshot;

use crate::client::Ask;
use crate::machine::{Machine, Running};
use crate::oracle::Violation;
use crate::queue::{MS, SECOND};
use crate::settings::{Trouble, pick};
use crate::world::{Event, Life, Phase, World, agent_address, client_address};

/// More machines than this are never there.
const MACHINES: usize = 8;

impl World {
    /// The first node, and everybody who wants something.
    pub fn begin(&mut self) -> Result<(), Violation> {
        let first = self.new_machine(true);
        self.start(first)?;
        self.queue.after(50 * MS, Event::Membership);
        for agent in 0..self.agents.len() {
            self.queue.after(self.settings.delay, Event::AgentStarts(agent));
        }
        for client in 0..self.clients.len() {
            let delay = 100 * MS + self.random.below(SECOND);
            self.queue.after(delay, Event::ClientTurn(client));
        }
        for subscriber in 0..self.subscribers.len() {
            self.queue.after(100 * MS, Event::Subscribe(subscriber));
        }
        Ok(())
    }

    fn new_machine(&mut self, founder: bool) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        let machine = Machine::new(id, founder, &self.settings, &mut self.random);
        self.machines.insert(id, machine);
        id
    }

    /// Brings the first members together, one after the other.
    pub fn grow(&mut self) {
        if self.phase == Phase::Healed {
            return;
        }
        let configuration = self.oracle.configuration.clone();
        let grown = configuration.voters.len() as u64 >= self.settings.nodes
            || self.settings.nodes == 1 && !self.oracle.acknowledged.is_empty();
        if self.phase == Phase::Growing && (grown || self.random.one_in(60)) {
            self.say(|| "chaos begins".to_owned());
            self.phase = Phase::Chaos;
            self.queue.after(self.settings.trouble_every, Event::Trouble);
            self.queue.after(self.settings.chaos, Event::Heal);
        }
        if configuration.voters.len() as u64 >= self.settings.nodes {
            return;
        }
        self.queue.after(100 * MS, Event::Membership);
        if self.settings.nodes == 1 {
            return;
        }
        let change = match configuration.learners.first() {
            Some(learner) => (ChangeKind::AddVoter, *learner),
            None => (ChangeKind::AddLearner, self.outsider()),
        };
        self.change_members(vec![change]);
    }

    /// A machine that is no member yet, and on.
    fn outsider(&mut self) -> u64 {
        let configuration = &self.oracle.configuration;
        let known = |id: &u64| {
            configuration.voters.contains(id)
                || configuration.learners.contains(id)
                || configuration.voters_outgoing.contains(id)
        };
        let free = self
            .machines
            .values()
            .find(|machine| !machine.removed && !machine.founder && !known(&machine.id));
        match free {
            Some(machine) => machine.id,
            None => {
                let id = self.new_machine(false);
                self.queue.after(MS, Event::Start(id));
                id
            }
        }
    }

    /// The node that leads, as far as anybody knows.
    pub fn leader(&self) -> Option<Life> {
        let leads = |machine: &&Machine| {
            machine
                .running
                .as_ref()
                .and_then(|running| running.leads)
                .map(|term| (term, machine.id))
        };
        let newest = self.machines.values().filter_map(|machine| leads(&machine)).max();
        newest.and_then(|(_, node)| self.life(node))
    }

    fn change_members(&mut self, changes: Vec<(ChangeKind, u64)>) {
        let Some(leader) = self.leader() else { return };
        self.say(|| format!("node {} is asked for {changes:?}", leader.0));
        let members: BTreeMap<u64, _> = changes
            .iter()
            .filter(|(kind, _)| *kind != ChangeKind::Remove)
            .map(|(_, id)| (*id, Machine::member(*id)))
            .collect();
        let change = MembershipChange {
            id: self.random.draw().to_le_bytes().repeat(2),
            changes,
            context: serde_json::to_vec(&members).unwrap_or_default(),
        };
        // Whether it is taken shows when it is committed.
        let (reply, _) = oneshot::channel();
        self.tell_raft(leader, RaftInput::Change(change, reply));
    }

    /// Starts a node.
    pub fn start(&mut self, node: u64) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        if machine.running.is_some() || machine.removed && self.phase == Phase::Healed {
            return Ok(());
        }
        let started = machine.start(&self.settings, &self.metrics, &mut self.random);
        let (life, tick, trouble) = (machine.life, machine.tick, machine.disk_trouble);
        self.say(|| format!("node {node} starts for the {life}. time: {started:?}"));
        match started {
            Ok(()) => {
                let life = (node, life);
                // What it had stored when it died, before it could show it, it shows now.
                let known = self.oracle.records.len() as u64;
                if let Some(running) = self.machines.get_mut(&node).and_then(|m| m.running.as_mut())
                {
                    running.compared = running.compared.min(known);
                }
                let first = self.random.below(tick);
                self.queue.after(first, Event::Tick(life));
                self.tell_apply(life, Input::Wake);
                self.raft_step(life, false)
            }
            Err(_) if trouble => {
                let delay = 100 * MS + self.random.below(SECOND);
                self.queue.after(delay, Event::Start(node));
                Ok(())
            }
            Err(error) => Err(Violation::new(
                "a node starts again",
                format!("node {node} cannot: {error} ({})", error.code()),
            )),
        }
    }

    /// A node has stopped by itself.
    pub fn stopped(&mut self, life: Life, error: &Error) -> Result<(), Violation> {
        let node = life.0;
        let machine = &self.machines[&node];
        let (trouble, doomed) = (machine.disk_trouble, machine.doomed);
        self.say(|| format!("node {node} stops: {error}"));
        if !trouble || matches!(error, Error::Diverged(_) | Error::Forgotten(_)) {
            return Err(Violation::new(
                "a node goes on",
                format!("node {node} stops by itself: {error} ({})", error.code()),
            ));
        }
        if doomed {
            self.power_cut(node);
        } else {
            self.gone(node);
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.disk.kill();
            }
            let delay = 50 * MS + self.random.below(2 * SECOND);
            self.queue.after(delay, Event::Start(node));
        }
        Ok(())
    }

    /// What ran on a machine is gone.
    fn gone(&mut self, node: u64) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(running) = machine.running.take() else { return };
        let Running { waiting, sessions, .. } = running;
        self.sessions_of_dead(sessions.into_values());
        for (client, attempt) in waiting.into_values() {
            if self.random.one_in(2) {
                let delay = self.random.below(SECOND);
                self.queue.after(delay, Event::Answered { client, attempt, answer: None });
            }
        }
    }

    /// Cuts a machine's power; it comes back after a while.
    pub fn power_cut(&mut self, node: u64) {
        self.say(|| format!("node {node} loses power"));
        self.gone(node);
        let mut random = Random::new(self.random.draw());
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.disk.crash(&mut random);
        machine.store.crash(|unsynced| random.below(unsynced as u64 + 1) as usize);
        if machine.doomed {
            (machine.doomed, machine.disk_trouble) = (false, false);
        }
        machine.disk.set_capacity(None);
        let delay = 10 * MS + self.random.below(3 * SECOND);
        self.queue.after(delay, Event::Start(node));
    }

    /// Somebody makes room, or replaces a cable.
    pub fn end_of_disk_trouble(&mut self, node: u64) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.disk.clear_faults();
        machine.disk.set_capacity(None);
        machine.store.set_fault(None);
        machine.disk_trouble = false;
        // What was given up is tried again by the next process only.
        if machine.running.is_some() {
            self.kill(node);
        }
    }

    /// A node is elected that is to be cut off.
    pub fn elected(&mut self, node: u64) {
        let Some(voter) = self.cut_off_next_leader.filter(|voter| *voter != node) else { return };
        self.cut_off_next_leader = None;
        if self.phase == Phase::Chaos {
            for other in self.machines.keys().copied().filter(|other| *other != node) {
                self.cut.extend([(node, other), (other, node)]);
            }
            self.flicker(voter, 1);
        }
    }

    /// A node loses power for a moment, some times.
    pub fn flicker(&mut self, node: u64, times: u64) {
        if times == 0 || self.phase != Phase::Chaos {
            return;
        }
        if self.machines[&node].running.is_some() {
            self.power_cut(node);
            let pause = self.random.below(5 * MS);
            self.queue.after(pause, Event::Start(node));
        }
        let pause = 50 * MS + self.random.below(500 * MS);
        self.queue.after(pause, Event::Flicker(node, times - 1));
    }

    /// Only one agent gets new work, and after a while only the next one, some times.
    pub fn empty_in_turns(&mut self, open: usize, times: u64) {
        if times == 0 {
            return;
        }
        let here: Vec<usize> =
            (0..self.agents.len()).filter(|agent| !self.agents[*agent].is_gone).collect();
        if here.len() < 2 {
            return;
        }
        let open = here[open % here.len()];
        if self.clients[self.operator()].is_idle() {
            self.say(|| format!("only agent {open} gets new work"));
            self.ask_for(Ask::Cordon { agent: open, on: false });
            for agent in here.into_iter().filter(|agent| *agent != open) {
                self.ask_for(Ask::Cordon { agent, on: true });
            }
        }
        let pause = match self.phase {
            Phase::Chaos => 50 * MS + self.random.below(SECOND),
            _ => 20 * MS + self.random.below(150 * MS),
        };
        self.queue.after(pause, Event::EmptyInTurns(open + 1, times - 1));
    }

    fn kill(&mut self, node: u64) {
        if self.machines[&node].doomed {
            return self.power_cut(node);
        }
        self.say(|| format!("node {node} is killed"));
        self.gone(node);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.disk.kill();
        }
        let delay = 10 * MS + self.random.below(2 * SECOND);
        self.queue.after(delay, Event::Start(node));
    }

    /// Something goes wrong.
    pub fn trouble(&mut self) -> Result<(), Violation> {
        if self.phase != Phase::Chaos {
            return Ok(());
        }
        let every = self.settings.trouble_every;
        let next = every / 4 + self.random.below(every * 3 / 2);
        self.queue.after(next, Event::Trouble);
        let trouble = self.settings.trouble(&mut self.random);
        let on = self.nodes();
        // Leaders are more interesting than others.
        let leader = self.leader().map(|life| life.0).filter(|_| self.random.one_in(2));
        let node = match leader {
            Some(leader) => leader,
            None if on.is_empty() => return Ok(()),
            None => pick(&mut self.random, &on),
        };
        let agent = self.random.below(self.agents.len() as u64) as usize;
        self.say(|| format!("-- {trouble:?} (node {node}, agent {agent})"));
        let now = self.now();
        let draw = self.random.draw();
        let length = 100 * MS + self.random.below(4 * SECOND);
        let Some(life) = self.life(node) else { return Ok(()) };
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        match trouble {
            Trouble::PowerCut => self.power_cut(node),
            Trouble::PowerCutWithin => {
                (machine.doomed, machine.disk_trouble) = (true, true);
                let error = ErrorKind::Other;
                let fault = Fault { on: None, after: draw % 40, times: u64::MAX, error };
                machine.disk.inject(fault);
                self.queue.after(2 * SECOND, Event::PowerCut(life));
            }
            Trouble::Kill => self.kill(node),
            Trouble::Stop => {
                self.apply_step(life, vec![Input::Persist])?;
                if self.is_alive(life) {
                    self.kill(node);
                }
            }
            Trouble::Partition => self.partition(node),
            Trouble::Mend => self.cut.clear(),
            Trouble::ClockJump => {
                let wide = pick(&mut self.random, &[50, 1000, 20_000]);
                let by = self.random.below(2 * wide + 1) as i64 - wide as i64;
                self.machines.entry(node).and_modify(|machine| machine.skew_ms += by);
            }
            Trouble::DiskFull => {
                machine.disk_trouble = true;
                let room = draw % 4000;
                machine.disk.set_capacity(Some(machine.disk.used() + room));
                if draw.is_multiple_of(3) {
                    machine.store.set_fault(Some(StoreFault::NoSpace));
                }
                self.queue.after(length, Event::EndOfDiskTrouble(node));
            }
            Trouble::DiskError => {
                machine.disk_trouble = true;
                let kinds = [
                    None,
                    Some(Kind::Sync),
                    Some(Kind::Write),
                    Some(Kind::Read),
                    Some(Kind::Create),
                    Some(Kind::SyncDirectory),
                ];
                let on = kinds[(draw % kinds.len() as u64) as usize];
                let error = ErrorKind::Other;
                machine.disk.inject(Fault { on, after: draw % 30, times: 1 + draw % 2, error });
                if draw.is_multiple_of(5) {
                    machine.store.set_fault(Some(StoreFault::Io));
                }
                self.queue.after(length, Event::EndOfDiskTrouble(node));
            }
            Trouble::SlowDisk => machine.slow = (now + length, 20 * MS + draw % (400 * MS)),
            Trouble::Membership => self.membership(),
            Trouble::Transfer => {
                let voters = self.oracle.configuration.voters.clone();
                if let (Some(leader), false) = (self.leader(), voters.is_empty()) {
                    let to = pick(&mut self.random, &voters);
                    self.tell_raft(leader, RaftInput::Transfer(to));
                }
            }
            Trouble::AgentBreaks => self.break_session(agent),
            Trouble::AgentCrash => {
                if self.agents[agent].is_on {
                    self.agent_crashes(agent);
                }
            }
            Trouble::AgentGone => self.agent_goes(agent),
            Trouble::AgentsInTurns => self.empty_in_turns(agent, 3 + draw % 8),
            Trouble::Pause => machine.paused_until = now + length,
            Trouble::Flicker => {
                let others: Vec<u64> = on.iter().copied().filter(|id| *id != node).collect();
                for pair in others.windows(2) {
                    self.cut.extend([(pair[0], pair[1]), (pair[1], pair[0])]);
                }
                self.cut_off_next_leader = Some(node);
                self.flicker(node, 1 + draw % 6);
            }
            Trouble::Duel => self.begin_duel(),
        }
        Ok(())
    }

    /// Cuts links around a node, in both directions or in one.
    fn partition(&mut self, node: u64) {
        let mut others: Vec<u64> = self.machines.keys().copied().filter(|id| *id != node).collect();
        others.extend((0..self.agents.len()).map(agent_address));
        others.extend((0..self.clients.len()).map(client_address));
        let (out, back) = pick(&mut self.random, &[(true, true), (true, false), (false, true)]);
        let share = 1 + self.random.below(3);
        for other in others {
            // Machines together, the rest some of them.
            if other < 1000 && self.random.below(3) < share || self.random.one_in(2) {
                if out {
                    self.cut.insert((node, other));
                }
                if back {
                    self.cut.insert((other, node));
                }
            }
        }
    }

    fn membership(&mut self) {
        let configuration = self.oracle.configuration.clone();
        let leader = self.leader().map(|life| life.0);
        let voters = &configuration.voters;
        let others: Vec<u64> = voters.iter().copied().filter(|id| Some(*id) != leader).collect();
        let learner = configuration.learners.first().copied();
        let may_add = self.machines.len() < MACHINES;
        let may_remove = voters.len() > 2;
        let changes = match (self.random.below(5), learner) {
            (0, None) if may_add => vec![(ChangeKind::AddLearner, self.outsider())],
            (0 | 1, Some(learner)) => vec![(ChangeKind::AddVoter, learner)],
            (2, _) if may_remove => {
                vec![(ChangeKind::Remove, pick(&mut self.random, &others))]
            }
            (3, Some(learner)) if may_remove => {
                let remove = pick(&mut self.random, &others);
                vec![(ChangeKind::AddVoter, learner), (ChangeKind::Remove, remove)]
            }
            (3, None) if may_remove => {
                vec![(ChangeKind::AddLearner, pick(&mut self.random, &others))]
            }
            (4, Some(learner)) => vec![(ChangeKind::Remove, learner)],
            // The leader itself: it has to refuse.
            (4, None) => leader.map(|leader| (ChangeKind::Remove, leader)).into_iter().collect(),
            _ => Vec::new(),
        };
        if !changes.is_empty() {
            self.change_members(changes);
        }
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.say(|| "everything is put right".to_owned());
        self.phase = Phase::Healed;
        self.healed_at = self.now();
        self.cut.clear();
        self.duel = None;
        let nodes: Vec<u64> = self.machines.keys().copied().collect();
        for node in nodes {
            self.end_of_disk_trouble(node);
            if self.machines[&node].removed {
                self.gone(node);
                continue;
            }
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            machine.skew_ms = 0;
            machine.slow = (0, 0);
            machine.paused_until = 0;
            if machine.doomed {
                self.power_cut(node);
            }
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.doomed = false;
            }
            if self.machines[&node].running.is_none() {
                self.queue.after(10 * MS, Event::Start(node));
            }
        }
        // What is left then runs most quietly, so that files move most often.
        if self.random.one_in(3) {
            self.empty_in_turns(0, 30);
        }
        self.queue.after(500 * MS, Event::Look);
        Ok(())
    }
}
