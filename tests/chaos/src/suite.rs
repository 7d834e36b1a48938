//! One chaos run, from the first process to the last check.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenon_client::{Client, Options as ClientOptions};
use tenon_proto::control::v1::{GetRunRequest, InitRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::{Harm, standings, wait_for_leader};
use crate::history::Read;
use crate::kinds::kinds;
use crate::placements::{self, Placements};
use crate::processes::Processes;
use crate::random::Random;
use crate::users::{Asked, Users};
use crate::watch::{Watchers, one_node, read_all};
use crate::{Backend, Failure};

/// How many coordinators.
const NODES: usize = 3;
/// How many agents.
const AGENTS: usize = 2;
/// How long runs may take to end, once nothing is wrong any more.
const HEALING: Duration = Duration::from_secs(240);
/// How long the nodes may take to agree on how many events there are.
const AGREEMENT: Duration = Duration::from_secs(60);

/// What a chaos run is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many leaders are killed.
    pub kills: usize,
    /// Decides what is done, though not what comes of it.
    pub seed: u64,
    /// What runs the steps.
    pub backend: Backend,
    /// How many runs are under way at any time.
    pub users: usize,
    /// The `tenon` to test.
    pub binary: PathBuf,
    /// Keep logs and data even if all went well.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `kill -9` of coordinators.
    pub kills: usize,
    /// Runs that were accepted.
    pub runs: usize,
    /// Acknowledged submissions that are gone.
    pub lost: Vec<String>,
    /// What ran twice.
    pub doubled: Vec<String>,
    /// Where two nodes, or one node at two times, said different things.
    pub diverged: Vec<String>,
    /// Everything else that must not be: a run that hangs or ended as it should not, a node that
    /// ended, something left behind.
    pub faults: Vec<String>,
    /// Where logs and data are, if they were kept.
    pub kept: Option<PathBuf>,
}

impl Outcome {
    /// Whether all was as it must be.
    pub fn is_good(&self) -> bool {
        [&self.lost, &self.doubled, &self.diverged, &self.faults].iter().all(|list| list.is_empty())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} kills, {} runs, {} lost, {} doubled, {} diverged",
            self.kills,
            self.runs,
            self.lost.len(),
            self.doubled.len(),
            self.diverged.len()
        )
    }
}

/// Does a chaos run. An error is one of the suite's own: there could be no run.
pub fn run(options: &Options) -> Result<Outcome, Failure> {
    let dir = tempfile::Builder::new()
        .prefix("tenon-chaos-")
        .tempdir()
        .map_err(|error| format!("no directory for logs: {error}"))?;
    println!("seed {}, logs in {}", options.seed, dir.path().display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mut outcome = Outcome::default();
    let mut agents = Vec::new();
    // Interrupted, everything must go too; so it ends as after a failure.
    let result = runtime.block_on(async {
        tokio::select! {
            result = attempt(options, dir.path(), &mut outcome, &mut agents) => result,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
            () = terminated() => Err("told to end".to_owned()),
        }
    });
    drop(runtime);
    if options.backend == Backend::Docker {
        placements::clean_up(&agents);
    }
    if let Err(error) = result {
        if agents.is_empty() {
            return Err(error);
        }
        outcome.faults.push(error);
    }
    if options.keep || !outcome.is_good() {
        outcome.kept = Some(dir.keep());
    }
    Ok(outcome)
}

/// Waits for SIGTERM.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        // Then it ends us as it ends others.
        Err(_) => std::future::pending().await,
    }
}

async fn attempt(
    options: &Options,
    dir: &Path,
    outcome: &mut Outcome,
    agents: &mut Vec<u32>,
) -> Result<(), Failure> {
    let mut random = Random::new(options.seed);
    let mut processes = Processes::start(&options.binary, dir, NODES)?;
    let urls = processes.urls();
    make_cluster(&mut processes).await?;
    let placements = Placements::record(options.backend, dir)?;
    processes.start_agents(AGENTS, options.backend)?;
    *agents = processes.agents();
    let watchers = Watchers::start(&urls, dir)?;
    let kinds = kinds(options.backend);
    let users = Users::start(options.users, &urls, kinds, placements.marks(), &mut random);

    let mut harm = Harm::default();
    let harmed = harm.until(options.kills, &mut processes, &users, &mut random).await;
    outcome.kills = harm.kills;
    println!(
        "{} kills ({} of leaders), {} stops, {} cuts, {} restarts; {}; healing",
        harm.kills,
        harm.leader_kills,
        harm.stops,
        harm.cuts,
        harm.restarts,
        gaps(&mut harm.gaps)
    );
    for node in 1..=NODES {
        processes.network.heal(node)?;
        processes.go_on(node);
    }
    outcome.runs = users.acknowledged();
    harmed?;
    wait_for_leader(&mut processes).await?;
    let (asked, faults) = users.finish(HEALING).await;
    outcome.faults.extend(faults);
    outcome.runs = asked.iter().filter(|asked| asked.run.is_some()).count();
    println!("{} runs were accepted; comparing", outcome.runs);

    let last = agree(&processes, &watchers).await?;
    ask_again(&urls, &asked, outcome).await?;
    compare(&urls, watchers, last, dir, outcome).await?;
    let mut read = read(&dir.join("c1.events"))?;
    println!("events: {:?}", read.kinds);
    outcome.lost.extend(read.compare(&asked));
    outcome.doubled.append(&mut read.doubled);
    outcome.faults.append(&mut read.faults);
    println!(
        "{} runs in the event log, {} TaskRuns were placed again",
        read.runs(),
        read.lost.len()
    );
    let pids = processes.agents();
    let found = placements.finish(&pids, &read.lost)?;
    println!("{} placements or steps began, by what is seen without a coordinator", found.began);
    outcome.doubled.extend(found.doubled);
    nothing_left(options.backend, &processes, outcome).await?;
    outcome.faults.extend(processes.ended_by_themselves());
    processes.terminate_agents();
    for node in 1..=NODES {
        processes.terminate(node);
    }
    Ok(())
}

async fn make_cluster(processes: &mut Processes) -> Result<(), Failure> {
    let began = Instant::now();
    let urls = processes.urls();
    let client = one_node(&urls[0])?;
    while standings(processes).await.len() < NODES {
        let ended = processes.ended_by_themselves();
        if !ended.is_empty() || began.elapsed() > AGREEMENT {
            return Err(format!(
                "the nodes do not start: {ended:?}, see {:?}",
                processes.log("c1")
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let peers = urls[1..].to_vec();
    client.init(InitRequest { peers }).await.map_err(|error| format!("init: {error}"))?;
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

/// Asks again for every run that was acknowledged, and repeats its submission.
async fn ask_again(urls: &[String], asked: &[Asked], outcome: &mut Outcome) -> Result<(), Failure> {
    let clients = urls.iter().map(|url| {
        let deadline = Duration::from_secs(30);
        let options = ClientOptions { deadline, ..ClientOptions::default() };
        Client::new(&[url], options).map_err(|error| error.to_string())
    });
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    for (index, asked) in asked.iter().enumerate() {
        let Some(run) = &asked.run else { continue };
        let client = &clients[index % clients.len()];
        match client.get_run(GetRunRequest { id: run.clone() }).await {
            Ok(_) => {}
            Err(error) if error.code().starts_with("not-found/") => {
                outcome.lost.push(format!("{} ({run}): {error}", asked.name));
            }
            Err(error) => outcome.faults.push(format!("{} ({run}): {error}", asked.name)),
        }
        match client.submit(asked.request.clone()).await {
            Ok(answer) => {
                let again = answer.run.unwrap_or_default().id;
                if again != *run || !answer.replayed {
                    outcome.doubled.push(format!("{} is {run}, and again {again}", asked.name));
                }
            }
            Err(error) => outcome.faults.push(format!("{} again: {error}", asked.name)),
        }
    }
    Ok(())
}

/// Compares what each watcher saw with what each node gives now, byte for byte.
async fn compare(
    urls: &[String],
    watchers: Watchers,
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

/// Waits until the agents hold nothing any more, for a while.
async fn nothing_left(
    backend: Backend,
    processes: &Processes,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let mut left: Vec<String> =
            processes.held().iter().map(|path| path.display().to_string()).collect();
        if backend == Backend::Docker {
            left.extend(placements::leftovers(&processes.agents())?);
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

/// How long the cluster had no leader, in words.
fn gaps(gaps: &mut [u64]) -> String {
    gaps.sort_unstable();
    let at =
        |percent: usize| gaps.get((gaps.len() * percent / 100).min(gaps.len().saturating_sub(1)));
    match (at(50), at(99)) {
        (Some(half), Some(most)) => {
            format!("a new leader after {half} ms (half of the kills), {most} ms (99 of 100)")
        }
        _ => "no leader was replaced".to_owned(),
    }
}
