//! A group of nodes in one thread: simulated disks, a network that loses, doubles, delays and reorders, crashes, and an oracle.
//!
//! Everything comes from one seed: `SEED=7 cargo test -p tenon-consensus` repeats a failure exactly.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

pub mod machine;
pub mod network;
pub mod oracle;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

pub use tenon_consensus::*;
use tenon_journal::disk::sim::Random;

pub use machine::{App, Machine};
pub use network::Network;
pub use oracle::Oracle;

/// Runs a story with several seeds, or with the one that `SEED` says.
pub fn with_seeds(seeds: u64, story: impl Fn(u64)) {
    let chosen = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let more = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let range = chosen.map_or(0..more.unwrap_or(seeds), |seed| seed..seed + 1);
    for seed in range {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
            eprintln!("repeat it with SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A snapshot's content, as peers can fetch it.
pub type Snapshots = BTreeMap<Vec<u8>, Rc<App>>;

/// How many faults happen.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Of 1000 messages, so many are lost.
    pub lost: u64,
    /// Of 1000 messages, so many arrive twice.
    pub doubled: u64,
    /// Messages take up to so many steps.
    pub delay: u64,
    /// In 10,000 steps, so many crashes.
    pub crashes: u64,
    /// In 10,000 steps, so many changes of the network's partition.
    pub partitions: u64,
    /// The applied state becomes durable, and the log compacted, once in so many steps of a node.
    pub persist: u64,
    /// A log's thread gets something done once in so many steps.
    pub slow_disk: u64,
}

impl Weather {
    pub const FINE: Weather = Weather {
        lost: 0,
        doubled: 0,
        delay: 2,
        crashes: 0,
        partitions: 0,
        persist: 50,
        slow_disk: 1,
    };
    pub const STORM: Weather = Weather {
        lost: 50,
        doubled: 50,
        delay: 20,
        crashes: 30,
        partitions: 40,
        persist: 60,
        slow_disk: 2,
    };
}

pub struct Cluster {
    pub random: Random,
    pub step: u64,
    pub machines: BTreeMap<NodeId, Machine>,
    pub network: Network,
    pub oracle: Oracle,
    pub snapshots: Snapshots,
    pub weather: Weather,
    next_proposal: u64,
    next_read: u64,
}

impl Cluster {
    /// A group of `voters` nodes, all running.
    pub fn new(seed: u64, voters: u64) -> Cluster {
        let mut cluster = Cluster {
            random: Random::new(seed),
            step: 0,
            machines: BTreeMap::new(),
            network: Network::default(),
            oracle: Oracle::default(),
            snapshots: Snapshots::new(),
            weather: Weather::FINE,
            next_proposal: 0,
            next_read: 0,
        };
        let members = ConfState::of_voters(1..=voters);
        for id in 1..=voters {
            let machine = Machine::bootstrapped(id, cluster.random.draw(), &members);
            cluster.machines.insert(id, machine);
            cluster.start(id);
        }
        cluster
    }

    /// A machine that has joined nothing yet, running.
    pub fn add_machine(&mut self, id: NodeId) {
        let machine = Machine::empty(id, self.random.draw());
        self.machines.insert(id, machine);
        self.start(id);
    }

    pub fn start(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).unwrap();
        machine.start();
        self.drain(id);
    }

    /// Cuts the power of a machine.
    pub fn crash(&mut self, id: NodeId) {
        let mut random = Random::new(self.random.draw());
        let machine = self.machines.get_mut(&id).unwrap();
        machine.crash(&mut random);
        self.oracle.forget_node(id);
    }

    /// Takes the work out of a node and spreads it.
    pub fn drain(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let messages = machine.drain(&mut self.oracle, &mut self.snapshots, self.step);
        for outgoing in messages {
            self.network.send(
                &mut self.random,
                &self.weather,
                self.step,
                id,
                outgoing.to,
                &outgoing.bytes,
            );
        }
    }

    /// Lets something happen everywhere.
    pub fn step(&mut self) {
        self.step += 1;
        self.misfortune();
        for (from, to, bytes) in self.network.arrived(self.step) {
            let Some(process) = self.machines.get_mut(&to).and_then(|m| m.process.as_mut()) else {
                continue;
            };
            match process.core.step(from, &bytes) {
                Ok(()) | Err(Refused::Installing) => {}
                // An answer to somebody who is no member any more, or that nobody knows yet.
                Err(Refused::Stranger { .. }) => {}
                Err(refused) => {
                    panic!("step {}: {to} refuses a message of {from}: {refused}", self.step)
                }
            }
            self.drain(to);
        }
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        for id in ids {
            for task in 0..4 {
                let network = &self.network;
                let Some(machine) = self.machines.get_mut(&id) else { continue };
                if machine.process.is_none() {
                    continue;
                }
                match task {
                    0 if self.random.one_in(4) => machine.tick(),
                    1 if self.random.one_in(self.weather.slow_disk) => {
                        machine.work_on_log(&mut self.random);
                    }
                    2 if !self.random.one_in(3) => {
                        machine.work_on_state(&mut self.random, &mut self.oracle, &self.weather);
                    }
                    3 => machine.work_on_fetching(&mut self.random, network, &self.snapshots),
                    _ => continue,
                }
                self.drain(id);
            }
        }
        if self.step.is_multiple_of(64) {
            self.oracle.check_logs(&self.machines);
        }
    }

    pub fn run(&mut self, steps: u64) {
        (0..steps).for_each(|_| self.step());
    }

    /// Steps until it is so; fails after very many steps.
    pub fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Cluster) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        for machine in self.machines.values() {
            eprintln!("{}", machine.describe());
        }
        panic!("not within 20,000 steps: {what}");
    }

    fn misfortune(&mut self) {
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        let any = ids[self.random.below(ids.len() as u64) as usize];
        if self.random.below(10_000) < self.weather.crashes {
            self.crash(any);
        }
        let is_down = self.machines[&any].process.is_none();
        if is_down && self.random.one_in(50) && !self.machines[&any].retired {
            self.start(any);
        }
        if self.random.below(10_000) < self.weather.partitions {
            match self.random.below(6) {
                0..=2 => self.network.heal(),
                3 => self.network.isolate(any, &ids),
                4 => {
                    let other = ids[self.random.below(ids.len() as u64) as usize];
                    self.network.cut(any, other);
                }
                _ => {
                    let half: Vec<_> =
                        ids.iter().copied().filter(|_| self.random.one_in(2)).collect();
                    self.network.split(&half, &ids);
                }
            }
        }
    }

    /// The weather gets fine, everybody is connected and running.
    pub fn heal(&mut self) {
        self.weather = Weather::FINE;
        self.network.heal();
        let down: Vec<NodeId> = self
            .machines
            .values()
            .filter(|machine| machine.process.is_none() && !machine.retired)
            .map(|machine| machine.id)
            .collect();
        down.into_iter().for_each(|id| self.start(id));
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leaders = self.machines.values().filter_map(|machine| {
            let status = machine.process.as_ref()?.core.status();
            (status.role == Role::Leader).then_some((status.term, status.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// Waits for a leader who has applied an entry of its term.
    pub fn elect(&mut self) -> NodeId {
        self.run_until("a leader", |cluster| {
            cluster.leader().is_some_and(|id| cluster.core(id).status().leads_fully)
        });
        self.leader().unwrap()
    }

    pub fn core(&mut self, id: NodeId) -> &mut Core {
        &mut self.machines.get_mut(&id).unwrap().process.as_mut().unwrap().core
    }

    /// Proposes something at a node, and returns its number if it was taken there.
    pub fn propose(&mut self, id: NodeId) -> Option<u64> {
        self.next_proposal += 1;
        let number = self.next_proposal;
        let padding = self.random.below(200) as usize;
        let data = [&number.to_le_bytes()[..], &vec![b'.'; padding]].concat();
        let machine = self.machines.get_mut(&id)?;
        let taken = machine.process.as_mut()?.core.propose(data).is_ok();
        if taken {
            machine.process.as_mut()?.waiting.insert(number);
        }
        self.drain(id);
        taken.then_some(number)
    }

    /// Proposes a change of the membership at the leader, and returns its id if it was taken.
    pub fn change(&mut self, changes: &[(ChangeKind, NodeId)]) -> Result<u64, Dropped> {
        self.next_proposal += 1;
        let id = self.next_proposal;
        let Some(leader) = self.leader() else { return Err(Dropped::NoLeader) };
        let change = MembershipChange {
            id: id.to_le_bytes().to_vec(),
            changes: changes.to_vec(),
            context: b"context".to_vec(),
        };
        let proposed = self.core(leader).propose_change(&change);
        self.drain(leader);
        proposed.map(|()| id)
    }

    /// Makes a change happen: proposes it until the membership is so.
    pub fn change_until(
        &mut self,
        changes: &[(ChangeKind, NodeId)],
        is_so: impl Fn(&ConfState) -> bool,
    ) {
        self.run_until("the membership changes", |cluster| {
            let Some(leader) = cluster.leader() else { return false };
            let status = cluster.core(leader).status();
            if is_so(&status.conf_state) && !status.conf_state.is_joint() {
                return true;
            }
            if cluster.step.is_multiple_of(20) {
                let _ = cluster.change(changes);
            }
            false
        });
    }

    /// Begins a read at a node.
    pub fn read(&mut self, id: NodeId) -> Option<u64> {
        self.next_read += 1;
        let number = self.next_read;
        let process = self.machines.get_mut(&id)?.process.as_mut()?;
        process.core.read_index(&number.to_le_bytes()).ok()?;
        self.oracle.read_begins(id, number);
        self.drain(id);
        Some(number)
    }

    /// Proposes at the leader and waits until every running member has applied it.
    pub fn commit_everywhere(&mut self) {
        self.run_until("everybody applies a new entry", |cluster| {
            cluster.leader().is_some_and(|leader| cluster.propose(leader).is_some())
        });
        let floor = self.next_proposal;
        self.run_until("everybody applies it", |cluster| {
            if cluster.step.is_multiple_of(500)
                && let Some(leader) = cluster.leader()
            {
                // It may be lost with its leader.
                cluster.propose(leader);
            }
            let members = cluster.members();
            cluster.machines.values().filter(|m| members.contains(&m.id)).all(|machine| {
                let process = machine.process.as_ref();
                process.is_some_and(|process| process.app.max_number() >= floor)
            })
        });
    }

    /// The members, as the leader has it.
    pub fn members(&mut self) -> Vec<NodeId> {
        self.leader().map_or(Vec::new(), |leader| self.core(leader).status().conf_state.members())
    }

    /// The end of a story: the network heals, everything goes on, and nothing that was acknowledged is missing.
    pub fn settle_and_check(&mut self) {
        self.heal();
        self.elect();
        self.commit_everywhere();
        let leader = self.elect();
        let members = self.core(leader).status().conf_state.members();
        self.run_until("everybody applies all", |cluster| {
            let end = cluster.oracle.last_applied();
            let mut applied = members.iter().map(|id| cluster.machines[id].applied());
            applied.all(|applied| applied == Some(end))
        });
        self.oracle.check_logs(&self.machines);
        self.oracle.check_applied(&self.machines, &members);
    }
}
