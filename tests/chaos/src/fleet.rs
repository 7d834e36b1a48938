//! A fleet of real processes: from its first process to the comparison of what its nodes say.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tenon_client::{Client, Options as ClientOptions};
use tenon_proto::control::v1::{InitRequest, ListAgentsRequest};
use tokio::time::{Instant, sleep, timeout};

use crate::agent_faults::{LEASE_MS, MARGIN_MS};
use crate::agents::Agents;
use crate::faults::{standings, wait_for_leader};
use crate::history::Read;
use crate::network::{Host, Network};
use crate::processes::{Processes, log};
use crate::watch::{Watchers, one_node, read_all};
use crate::{Backend, Failure, Options, Outcome, placements};

/// How many coordinators.
pub const NODES: usize = 3;
/// How long runs may take to end, once nothing is wrong any more.
pub const HEALING: Duration = Duration::from_secs(240);
/// How long the nodes may take to agree on how many events there are.
const AGREEMENT: Duration = Duration::from_secs(60);

/// Coordinators, agents, and who watches them.
pub struct Fleet {
    /// The coordinators.
    pub processes: Processes,
    /// The agents.
    pub agents: Agents,
    /// Where the coordinators are reached.
    pub urls: Vec<String>,
    watchers: Watchers,
    backend: Backend,
    dir: PathBuf,
}

impl Fleet {
    /// Starts so many agents and the coordinators, makes a cluster of them, and watches it.
    pub async fn start(options: &Options, dir: &Path, agents: usize) -> Result<Fleet, Failure> {
        let network = Rc::new(Network::new(NODES, agents)?);
        let (lease, margin) = (LEASE_MS.to_string(), MARGIN_MS.to_string());
        let leases = ["--lease-ms", &lease, "--lease-margin-ms", &margin];
        let binary = &options.binary;
        let mut processes = Processes::start(binary, dir, NODES, &leases, network.clone())?;
        let urls = processes.urls();
        make_cluster(&mut processes, dir).await?;
        let agents = Agents::start(binary, dir, agents, options.backend, &urls, network)?;
        let watchers = Watchers::start(&urls, dir)?;
        let (backend, dir) = (options.backend, dir.to_owned());
        let fleet = Fleet { processes, agents, urls, watchers, backend, dir };
        fleet.until_all_are_up().await?;
        Ok(fleet)
    }

    /// Waits until every agent is in contact.
    pub async fn until_all_are_up(&self) -> Result<(), Failure> {
        for number in 1..=self.agents.count() {
            self.until(number, "up").await?;
        }
        Ok(())
    }

    /// Waits until the cluster says that an agent is so: `up`, `down`.
    pub async fn until(&self, agent: usize, state: &str) -> Result<(), Failure> {
        let name = self.agents.name(agent);
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < AGREEMENT {
            for url in &self.urls {
                let asked = timeout(Duration::from_secs(2), async {
                    one_node(url)?
                        .list_agents(ListAgentsRequest {})
                        .await
                        .map_err(|error| error.to_string())
                });
                // Another node answers, or the same one later.
                let Ok(Ok(answer)) = asked.await else { continue };
                let found = answer.agents.into_iter().find(|agent| agent.name == name);
                last = found.map(|agent| agent.state).unwrap_or_default();
                if last == state {
                    return Ok(());
                }
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("{name} is {last:?} and not {state} after {} s", AGREEMENT.as_secs()))
    }

    /// Nothing is wrong any more.
    pub async fn heal(&mut self) -> Result<(), Failure> {
        for node in 1..=NODES {
            self.processes.network.heal(Host::Node(node))?;
            if !self.processes.is_started(node) {
                self.processes.start_node(node)?;
            }
            self.processes.go_on(node);
        }
        for agent in 1..=self.agents.count() {
            self.agents.network.heal(Host::Agent(agent))?;
            if !self.agents.is_started(agent) {
                self.agents.start_agent(agent)?;
            }
            self.agents.go_on(agent);
        }
        wait_for_leader(&mut self.processes).await.map(|_| ())
    }

    /// Waits until all nodes say the same and every watcher has seen it; compares, byte for byte; gives
    /// the history.
    pub async fn compare(&mut self, outcome: &mut Outcome) -> Result<Read, Failure> {
        let last = agree(&self.processes, &self.watchers).await?;
        compare(&self.urls, &mut self.watchers, last, &self.dir, outcome).await?;
        let read = read(&self.dir.join("c1.events"))?;
        println!("events: {:?}", read.kinds);
        Ok(read)
    }

    /// Checks that nothing is left behind and that nobody has ended, and ends everybody.
    pub async fn end(mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        self.nothing_left(outcome).await?;
        outcome.faults.extend(self.processes.ended_by_themselves());
        outcome.faults.extend(self.agents.ended_by_themselves());
        self.agents.terminate_all().await?;
        for node in 1..=NODES {
            self.processes.terminate(node);
        }
        Ok(())
    }

    /// Waits until the agents hold nothing any more, for a while.
    async fn nothing_left(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        self.agents.clean_up_destroyed();
        let began = Instant::now();
        loop {
            let held = self.agents.held();
            let mut left: Vec<String> =
                held.iter().map(|path| path.display().to_string()).collect();
            if self.backend == Backend::Docker {
                left.extend(placements::leftovers(&self.dir)?);
            }
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > AGREEMENT {
                outcome.faults.extend(left.into_iter().map(|left| format!("left behind: {left}")));
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn make_cluster(processes: &mut Processes, dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    let urls = processes.urls();
    let client = one_node(&urls[0])?;
    while standings(processes).await.len() < NODES {
        let ended = processes.ended_by_themselves();
        if !ended.is_empty() || began.elapsed() > AGREEMENT {
            return Err(format!("the nodes do not start: {ended:?}, see {:?}", log(dir, "c1")));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let peers = urls[1..].to_vec();
    // On a busy machine it takes longer than a node may take to answer otherwise.
    let founder = ClientOptions { deadline: AGREEMENT, attempt: AGREEMENT, ..Default::default() };
    let founder = Client::new(&[&urls[0]], founder).map_err(|error| error.to_string())?;
    founder.init(InitRequest { peers }).await.map_err(|error| format!("init: {error}"))?;
    loop {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let voters = status.members.iter().filter(|member| member.role == "voter").count();
        if voters == NODES {
            println!("a cluster of {NODES} after {:.1} s", began.elapsed().as_secs_f64());
            return Ok(());
        }
        if began.elapsed() > AGREEMENT {
            return Err(format!("only {voters} of {NODES} nodes became members"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until all nodes have the same events, and every watcher has seen them. Gives the last one.
async fn agree(processes: &Processes, watchers: &Watchers) -> Result<u64, Failure> {
    let began = Instant::now();
    loop {
        let standings = standings(processes).await;
        let last = standings.iter().map(|standing| standing.last_seq).max().unwrap_or(0);
        let same = standings.len() == NODES
            && standings
                .iter()
                .all(|standing| standing.last_seq == last && standing.active_runs == 0);
        let reached = watchers.reached();
        if same && reached.iter().all(|reached| *reached >= last) {
            return Ok(last);
        }
        if began.elapsed() > AGREEMENT {
            return Err(format!(
                "the nodes do not agree: {standings:?}; watchers are at {reached:?}"
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Compares what each watcher saw with what each node gives now, byte for byte.
async fn compare(
    urls: &[String],
    watchers: &mut Watchers,
    last: u64,
    dir: &Path,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let watched: Vec<PathBuf> = (1..=urls.len()).map(|node| watchers.file(node)).collect();
    outcome.diverged.extend(watchers.stop().await?);
    let first = &watched[0];
    for (index, url) in urls.iter().enumerate() {
        let now = dir.join(format!("c{}.now", index + 1));
        let read = timeout(HEALING, read_all(url, &now)).await;
        read.map_err(|_| format!("{url} does not give its events"))??;
        for (what, file) in [("what was seen of", &watched[index]), ("what is given by", &now)] {
            if let Some(difference) = difference(first, file, last)? {
                outcome.diverged.push(format!("{what} {url}: {difference}"));
            }
        }
    }
    Ok(())
}

/// Where two files of events up to this `seq` differ first.
fn difference(one: &Path, other: &Path, last: u64) -> Result<Option<String>, Failure> {
    let open = |path: &Path| {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()));
        file.map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok))
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    let mut seq = 0;
    while seq < last {
        let lines = (one.next(), other.next());
        match &lines {
            (Some(a), Some(b)) if a == b => seq = crate::watch::seq(a).unwrap_or(last),
            (None, None) => return Ok(Some(format!("both end at {seq}, before {last}"))),
            (a, b) => {
                let text = |line: &Option<Vec<u8>>| {
                    let line = line.as_deref().map(String::from_utf8_lossy);
                    line.map_or_else(|| "the end".to_owned(), |line| line.into_owned())
                };
                return Ok(Some(format!("behind {seq}: {} and not {}", text(b), text(a))));
            }
        }
    }
    Ok(None)
}

fn read(file: &Path) -> Result<Read, Failure> {
    let open = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut read = Read::default();
    for line in BufReader::new(open).split(b'\n') {
        read.event(&line.map_err(|error| format!("{}: {error}", file.display()))?);
    }
    Ok(read)
}
