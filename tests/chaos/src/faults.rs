//! What is done to the nodes: one fault after the other, sometimes several at once.

use std::time::Duration;

use tenon_client::{Client, Options};
use tokio::time::{Instant, sleep, timeout};

use crate::Failure;
use crate::network::{Cut, Host};
use crate::processes::Processes;
use crate::random::Random;
use crate::users::Users;

/// How long a node may take to say how it stands.
const ANSWER: Duration = Duration::from_millis(700);
/// How long the cluster may take to have a leader, once nothing is wrong any more.
const RECOVERY: Duration = Duration::from_secs(60);
/// Longest that is waited for a run to end before the next fault.
const PROGRESS: Duration = Duration::from_secs(6);

/// A node's own account of itself.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which node, counted from 1.
    pub node: usize,
    /// It says that it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// The newest event it can give.
    pub last_seq: u64,
    /// Runs that have not ended.
    pub active_runs: u64,
}

/// Does the harm, and counts it.
#[derive(Debug, Default)]
pub struct Harm {
    /// `kill -9` of any node.
    pub kills: usize,
    /// Of those, kills of the leader.
    pub leader_kills: usize,
    /// SIGSTOP, later SIGCONT.
    pub stops: usize,
    /// Cuts of the network.
    pub cuts: usize,
    /// Restarts by SIGTERM.
    pub restarts: usize,
    /// How long the cluster had no leader after a leader was killed, in milliseconds.
    pub gaps: Vec<u64>,
}

impl std::fmt::Display for Harm {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Harm { kills, leader_kills, stops, cuts, restarts, .. } = self;
        write!(
            out,
            "{kills} kills ({leader_kills} of leaders), {stops} stops, {cuts} cuts, {restarts} restarts"
        )
    }
}

/// Asks each node how it stands; those that do not answer are left out.
pub async fn standings(processes: &Processes) -> Vec<Standing> {
    let mut all = Vec::new();
    for node in &processes.nodes {
        if !processes.is_started(node.number) {
            continue;
        }
        let options = Options { deadline: ANSWER, attempt: ANSWER, ..Options::default() };
        let Ok(client) = Client::new(&[&node.url], options) else { continue };
        if let Ok(Ok(status)) = timeout(ANSWER, client.status()).await {
            all.push(Standing {
                node: node.number,
                leads: status.role == "leader",
                term: status.term,
                last_seq: status.last_seq,
                active_runs: status.active_runs,
            });
        }
    }
    all
}

async fn leader(processes: &Processes) -> Option<usize> {
    let standings = standings(processes).await;
    let leaders = standings.iter().filter(|standing| standing.leads);
    leaders.max_by_key(|standing| standing.term).map(|standing| standing.node)
}

/// Waits until there is a leader.
pub async fn wait_for_leader(processes: &mut Processes) -> Result<usize, Failure> {
    let began = Instant::now();
    loop {
        let ended = processes.ended_by_themselves();
        if !ended.is_empty() {
            return Err(format!("ended by themselves: {}", ended.join(", ")));
        }
        if let Some(leader) = leader(processes).await {
            return Ok(leader);
        }
        if began.elapsed() > RECOVERY {
            let standings = standings(processes).await;
            return Err(format!("no leader within {} s: {standings:?}", RECOVERY.as_secs()));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Harm {
    /// Does harm until so many leaders were killed.
    pub async fn until(
        &mut self,
        kills: usize,
        processes: &mut Processes,
        users: &Users,
        random: &mut Random,
    ) -> Result<(), Failure> {
        let mut round = 0;
        while self.leader_kills < kills {
            let leader = wait_for_leader(processes).await?;
            // Every other round something happens while the harm of the last one still works.
            if random.below(3) > 0 {
                progress(users).await;
            }
            round += 1;
            self.round(leader, processes, random).await?;
            if round % 10 == 0 {
                let (accepted, ended) = (users.acknowledged(), users.ended());
                println!("round {round}: {self}; {accepted} runs accepted, {ended} ended");
            }
        }
        Ok(())
    }

    /// Does harm until it is dropped, with time between for those who use the cluster.
    pub async fn for_ever(
        &mut self,
        processes: &mut Processes,
        random: &mut Random,
    ) -> Result<(), Failure> {
        loop {
            pause(random, 1000, 6000).await;
            let leader = wait_for_leader(processes).await?;
            self.round(leader, processes, random).await?;
        }
    }

    async fn round(
        &mut self,
        leader: usize,
        processes: &mut Processes,
        random: &mut Random,
    ) -> Result<(), Failure> {
        let count = processes.nodes.len();
        let any = random.among(count);
        match random.below(100) {
            0..50 => self.kill_leader(leader, processes, random).await,
            50..58 => {
                self.kill(any, any == leader, processes);
                pause(random, 0, 3000).await;
                processes.start_node(any)
            }
            58..63 => {
                // Everything at once, as when the power fails.
                for node in 1..=count {
                    self.kill(node, node == leader, processes);
                }
                pause(random, 0, 1500).await;
                for node in 1..=count {
                    processes.start_node(node)?;
                    pause(random, 0, 300).await;
                }
                Ok(())
            }
            63..75 => {
                let node = if random.below(3) > 0 { leader } else { any };
                processes.remark(node, "stopped");
                processes.stop(node);
                self.stops += 1;
                // Longer than an election takes.
                pause(random, 1200, 4000).await;
                if random.below(3) == 0 {
                    // Another one leads by now: so it is one of two, until the stopped one goes on.
                    let next = wait_briefly(processes).await;
                    if let Some(next) = next.filter(|next| *next != node) {
                        self.kill(next, true, processes);
                        processes.go_on(node);
                        pause(random, 0, 1000).await;
                        return processes.start_node(next);
                    }
                }
                processes.go_on(node);
                Ok(())
            }
            75..93 => {
                let node = if random.below(3) > 0 { leader } else { any };
                self.cut(node, leader, processes, random).await
            }
            _ => {
                let node = if random.below(2) == 0 { leader } else { any };
                processes.remark(node, "asked to end");
                self.restarts += 1;
                processes.terminate(node);
                pause(random, 0, 500).await;
                processes.start_node(node)
            }
        }
    }

    async fn kill_leader(
        &mut self,
        leader: usize,
        processes: &mut Processes,
        random: &mut Random,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        self.kill(leader, true, processes);
        if random.below(4) == 0 {
            // It is back before anybody misses it.
            return processes.start_node(leader);
        }
        let next = wait_briefly(processes).await;
        if next.is_some() {
            self.gaps.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        pause(random, 0, 2500).await;
        processes.start_node(leader)
    }

    fn kill(&mut self, node: usize, leads: bool, processes: &mut Processes) {
        processes.remark(node, "killed");
        if processes.kill(node) {
            self.kills += 1;
            self.leader_kills += usize::from(leads);
        }
    }

    async fn cut(
        &mut self,
        node: usize,
        leader: usize,
        processes: &mut Processes,
        random: &mut Random,
    ) -> Result<(), Failure> {
        use Cut::{Deaf, FromClients, FromPeers, Lossy, Mute, Off, Slow};
        let mut cuts = vec![Off, Off, FromPeers, FromPeers, Deaf, Mute, FromClients, Lossy];
        if processes.network.can_delay() {
            cuts.push(Slow);
        }
        let how = random.pick(&cuts).clone();
        processes.remark(node, &format!("cut: {how:?}"));
        processes.network.cut(Host::Node(node), &how)?;
        self.cuts += 1;
        pause(random, 500, 5000).await;
        if random.below(4) == 0 {
            // While it is cut off.
            self.kill(node, node == leader && how != Off && how != FromPeers, processes);
            pause(random, 0, 500).await;
            processes.start_node(node)?;
            pause(random, 0, 1500).await;
        }
        processes.remark(node, "healed");
        processes.network.heal(Host::Node(node))
    }
}

/// The leader, if there is one soon.
async fn wait_briefly(processes: &Processes) -> Option<usize> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        if let Some(leader) = leader(processes).await {
            return Some(leader);
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Waits until a run ends: a cluster that is only killed has nothing to lose.
async fn progress(users: &Users) {
    let (began, before) = (Instant::now(), users.ended());
    while users.ended() == before && began.elapsed() < PROGRESS {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn pause(random: &mut Random, from: u64, to: u64) {
    sleep(Duration::from_millis(random.between(from, to))).await;
}
