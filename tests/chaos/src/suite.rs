//! One chaos run, from the first process to the last check.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tenon_client::{Client, Options as ClientOptions};
use tenon_proto::control::v1::GetRunRequest;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent_faults::AgentHarm;
use crate::faults::Harm;
use crate::fleet::{Fleet, HEALING};
use crate::kinds::kinds;
use crate::placements::{self, Placements};
use crate::random::Random;
use crate::users::{Asked, Users};
use crate::{Backend, Failure, around, fence};

/// How many agents.
const AGENTS: usize = 3;

/// What a chaos run is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done.
    pub work: Work,
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

/// What is done.
#[derive(Clone, Debug)]
pub enum Work {
    /// Everything is harmed, while users submit runs.
    Harm {
        /// How many leaders are killed.
        kills: usize,
        /// How many faults agents have.
        agents: usize,
    },
    /// Agents are cut off so often, while steps write to a file that they share.
    Partitions(usize),
    /// Everything is harmed while a command uses the fleet.
    Around {
        /// The command and its arguments; `TENON_SERVER` says where the fleet is.
        command: Vec<String>,
        /// Nothing is harmed.
        calm: bool,
    },
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was done, in words.
    pub done: String,
    /// Acknowledged submissions, or what steps have written, that are gone.
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
            "{}, {} lost, {} doubled, {} diverged",
            self.done,
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
    let mut began = false;
    // Interrupted, everything must go too; so it ends as after a failure.
    let result = runtime.block_on(async {
        tokio::select! {
            result = attempt(options, dir.path(), &mut outcome, &mut began) => result,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
            () = terminated() => Err("told to end".to_owned()),
        }
    });
    drop(runtime);
    if options.backend == Backend::Docker {
        placements::clean_up(dir.path());
    }
    if let Err(error) = result {
        if !began {
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
    began: &mut bool,
) -> Result<(), Failure> {
    let agents = match options.work {
        Work::Partitions(_) => fence::AGENTS,
        _ => AGENTS,
    };
    let fleet = Fleet::start(options, dir, agents).await?;
    *began = true;
    match &options.work {
        Work::Harm { kills, agents } => harm(options, (*kills, *agents), fleet, dir, outcome).await,
        Work::Partitions(count) => fence::partitions(options, *count, fleet, dir, outcome).await,
        Work::Around { command, calm } => {
            around::around(options, command, *calm, fleet, dir, outcome).await
        }
    }
}

/// Users submit runs while everything is harmed.
async fn harm(
    options: &Options,
    (kills, faults): (usize, usize),
    mut fleet: Fleet,
    dir: &Path,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut random = Random::new(options.seed);
    let placements = Placements::record(options.backend, dir)?;
    let (urls, marks) = (fleet.urls.clone(), placements.marks());
    let users = Users::start(options.users, &urls, kinds(options.backend), marks, &mut random);
    let (mut harm, mut agent_harm) = (Harm::default(), AgentHarm::default());
    let mut other = Random::new(random.bits());
    let harmed = tokio::try_join!(
        harm.until(kills, &mut fleet.processes, &users, &mut random),
        agent_harm.until(faults, &mut fleet.agents, &mut other),
    );
    println!("{harm}; {}; {agent_harm}; healing", gaps(&mut harm.gaps));
    outcome.done = format!(
        "{} kills, {} faults of agents, {} runs",
        harm.kills,
        agent_harm.count(),
        users.acknowledged()
    );
    harmed?;
    fleet.heal().await?;
    let (asked, faults) = users.finish(HEALING).await;
    outcome.faults.extend(faults);
    let runs = asked.iter().filter(|asked| asked.run.is_some()).count();
    outcome.done =
        format!("{} kills, {} faults of agents, {runs} runs", harm.kills, agent_harm.count());
    println!("{runs} runs were accepted; comparing");

    ask_again(&urls, &asked, outcome).await?;
    let mut read = fleet.compare(outcome).await?;
    outcome.lost.extend(read.compare(&asked));
    outcome.doubled.append(&mut read.doubled);
    outcome.faults.append(&mut read.faults);
    println!(
        "{} runs in the event log, {} placements were lost, {} runs given up for that",
        read.runs(),
        read.losses(),
        read.given_up
    );
    let found = placements.finish(dir, &read.lost)?;
    println!("{} placements or steps began, by what is seen without a coordinator", found.began);
    outcome.doubled.extend(found.doubled);
    fleet.end(outcome).await
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
