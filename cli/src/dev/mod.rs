//! `tenon dev`: a fleet on this machine. One process starts all others, and they end with it; a lock in
//! its directory says that it lives, and a file there says where everything is.

mod process;
mod up;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenon_client::{Client, Options};

use crate::args::{DevCommand, DevDownArgs, DevStatusArgs};
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::remote::runtime;

/// How long the parts may take to end.
const END: Duration = Duration::from_secs(60);
/// How long a node may take to say how it is.
const ASK: Duration = Duration::from_secs(2);

/// `tenon dev`.
pub fn dev(command: &DevCommand, state_dir: &Path) -> Result<Exit, Failure> {
    let place = |dir: &Option<PathBuf>| {
        let dir = dir.clone().unwrap_or_else(|| state_dir.join("dev"));
        Place(std::path::absolute(&dir).unwrap_or(dir))
    };
    match command {
        DevCommand::Up(args) => runtime()?.block_on(up::up(args, &place(&args.dir))),
        DevCommand::Down(args) => down(args, &place(&args.dir)),
        DevCommand::Status(args) => status(args, &place(&args.dir)),
    }
}

/// The fleet's directory.
pub struct Place(PathBuf);

/// Where everything is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fleet {
    /// The process that keeps it.
    pub pid: u32,
    /// What `--server` takes.
    pub server: String,
    /// The nodes.
    pub coordinators: Vec<Part>,
    /// The agents.
    pub agents: Vec<Part>,
}

/// One process of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Where it listens; an agent does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// What it says.
    pub log: PathBuf,
}

impl Place {
    /// Makes it, and takes it for this process.
    fn take(&self) -> Result<File, Failure> {
        let made = fs::create_dir_all(&self.0).and_then(|()| self.lock_file());
        let lock = made.map_err(|error| self.unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::Error(error)) => Err(self.unusable(&error)),
            Err(fs::TryLockError::WouldBlock) => {
                let fleet = self.read().unwrap_or_default();
                let message = format!(
                    "a fleet runs already in {} (process {}, {})",
                    self.0.display(),
                    fleet.pid,
                    fleet.server
                );
                Err(Failure::new(Exit::Environment, message).hint(
                    "`tenon dev down` ends it; --dir takes another directory for another fleet",
                ))
            }
        }
    }

    fn lock_file(&self) -> std::io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.0.join("lock"))
    }

    fn unusable(&self, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Environment, format!("{} cannot be used: {error}", self.0.display()))
            .hint("--dir takes another directory")
    }

    fn file(&self) -> PathBuf {
        self.0.join("fleet.json")
    }

    /// What was written last, by whoever.
    fn read(&self) -> Option<Fleet> {
        serde_json::from_slice(&fs::read(self.file()).ok()?).ok()
    }

    fn write(&self, fleet: &Fleet) -> Result<(), Failure> {
        let draft = self.0.join("fleet.json.new");
        let text = crate::terminal::to_json(fleet)?;
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, self.file()))
            .map_err(|error| self.unusable(&error))
    }

    /// The fleet that runs, if one does.
    fn running(&self) -> Option<Fleet> {
        let lock = self.lock_file().ok()?;
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => self.read(),
            _ => None,
        }
    }
}

/// `tenon dev down`.
fn down(args: &DevDownArgs, place: &Place) -> Result<Exit, Failure> {
    let fleet = place.running();
    if let Some(fleet) = &fleet {
        process::signal(fleet.pid, libc::SIGTERM);
        let lock = place.lock_file().map_err(|error| place.unusable(&error))?;
        let ended = runtime()?.block_on(async {
            // It is let go when the last part has ended; the waiting thread ends with the process.
            let waiting = tokio::task::spawn_blocking(move || lock.lock());
            tokio::time::timeout(END, waiting).await.is_ok()
        });
        if !ended {
            let message = format!("process {} does not end", fleet.pid);
            return Err(Failure::new(Exit::Environment, message)
                .hint("look at the logs in its directory; `kill -9` ends it and all its parts"));
        }
    }
    let value = serde_json::json!({"ended": fleet.is_some()});
    answer(args.output, &value, || match &fleet {
        Some(fleet) => format!("ended the fleet of process {}\n", fleet.pid),
        None => "no fleet runs\n".to_owned(),
    })?;
    Ok(Exit::Success)
}

/// How one part is.
#[derive(Serialize)]
struct State {
    #[serde(flatten)]
    part: Part,
    state: String,
}

/// `tenon dev status`.
fn status(args: &DevStatusArgs, place: &Place) -> Result<Exit, Failure> {
    let Some(fleet) = place.running() else {
        let value = serde_json::json!({"running": false});
        answer(args.output, &value, || "no fleet runs; `tenon dev up` starts one\n".to_owned())?;
        return Ok(Exit::Success);
    };
    let (coordinators, agents) = runtime()?.block_on(states(&fleet));
    let value = serde_json::json!({
        "running": true, "pid": fleet.pid, "server": fleet.server, "dir": place.0,
        "coordinators": coordinators, "agents": agents,
    });
    answer(args.output, &value, || {
        let rows: Vec<[String; 3]> = coordinators
            .iter()
            .chain(&agents)
            .map(|one| [one.part.name.clone(), one.state.clone(), one.part.url.clone()])
            .collect();
        format!(
            "{}\nprocess {}\nlogs in {}\nexport TENON_SERVER={}\n",
            table(&["NAME", "STATE", "URL"], &rows),
            fleet.pid,
            place.0.join("logs").display(),
            fleet.server
        )
    })?;
    Ok(Exit::Success)
}

async fn states(fleet: &Fleet) -> (Vec<State>, Vec<State>) {
    let mut coordinators = Vec::new();
    let mut up = Vec::new();
    for part in &fleet.coordinators {
        let options = Options { deadline: ASK, attempt: ASK, ..Options::default() };
        let asked = match Client::new(&[&part.url], options) {
            Ok(client) => client.status().await,
            Err(error) => Err(error),
        };
        let state = match asked {
            Ok(status) => {
                let leads = status.role == "leader";
                if leads {
                    let connected = status.agents.iter().filter(|agent| agent.state == "up");
                    up = connected.map(|agent| agent.name.clone()).collect();
                }
                match (status.ready, leads) {
                    (true, true) => "leads",
                    (true, false) => "ready",
                    (false, _) => "not ready",
                }
            }
            Err(_) => "does not answer",
        };
        coordinators.push(State { part: part.clone(), state: state.to_owned() });
    }
    let agents = fleet.agents.iter().map(|part| {
        let state = if up.contains(&part.name) { "up" } else { "not in contact" };
        State { part: part.clone(), state: state.to_owned() }
    });
    (coordinators, agents.collect())
}
