//! The guard of an agent: a small process of its own that freezes (or kills) what the agent runs when
//! the agent's lease is over, whether the agent lives, hangs, or is dead.
//!
//! Agent and guard share one file: until when the lease holds, and whether something was frozen. Who
//! writes or acts on it holds its lock, so a lease that is renewed is never frozen on afterwards. Only
//! the agent thaws. The guard ends when another one takes its place, when its agent says so, or when
//! its agent is dead and nothing of it moves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::since_boot;
use crate::owner::{boot_id, is_dead, owner};
use crate::{docker, host};

/// How often the guard looks at the file at least, and how soon after it has frozen something.
const LOOK: Duration = Duration::from_secs(1);
/// How soon it looks for more to freeze when there was something.
const LOOK_FOR_MORE: Duration = Duration::from_millis(10);
/// How soon it does when there was nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Guards are started at least so far apart.
const APART: Duration = Duration::from_millis(100);
/// The file's name.
const FILE: &str = "lease";

/// What to do with what runs when the lease is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// Nothing is lost, and nothing happens, until the agent is back in contact.
    #[default]
    Freeze,
    /// Attempts end as lost.
    Kill,
}

impl OnExpiry {
    /// `freeze` or `kill`.
    pub fn as_str(self) -> &'static str {
        match self {
            OnExpiry::Freeze => "freeze",
            OnExpiry::Kill => "kill",
        }
    }
}

/// What the agent and its guard share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// Times count since this boot.
    boot: String,
    /// Which guard it is that guards; empty for none.
    guard: String,
    /// Until when the lease holds, in nanoseconds since the boot.
    until: u64,
    /// Something was frozen since the agent has last asked.
    frozen: bool,
}

impl State {
    fn encode(&self) -> String {
        let frozen = u8::from(self.frozen);
        format!("{}\n{}\n{:020}\n{frozen}\n", self.boot, self.guard, self.until)
    }

    fn decode(text: &str) -> Option<State> {
        let mut lines = text.lines().map(str::to_owned);
        Some(State {
            boot: lines.next()?,
            guard: lines.next()?,
            until: lines.next()?.parse().ok()?,
            frozen: lines.next()? == "1",
        })
    }
}

/// The shared file, locked for as long as this lives.
struct Locked {
    file: File,
    state: State,
}

impl Locked {
    fn open(data_dir: &Path) -> io::Result<Locked> {
        let path = data_dir.join(FILE);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        let state = State::decode(&io::read_to_string(&file)?).unwrap_or_default();
        // What was said before the machine was started says nothing.
        let state = if state.boot == boot_id() { state } else { State::default() };
        Ok(Locked { file, state })
    }

    fn write(&mut self) -> io::Result<()> {
        self.state.boot = boot_id();
        let text = self.state.encode();
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// How an agent is guarded.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The agent's directory.
    pub data_dir: PathBuf,
    /// The program that has [`run`] behind the arguments that [`GuardArgs`] says.
    pub program: PathBuf,
    /// What it does.
    pub on_expiry: OnExpiry,
    /// `docker` or `host`.
    pub backend: &'static str,
    /// Whose the things are that it freezes.
    pub owner: String,
}

/// What the guard's process is told.
#[derive(Clone, Debug)]
pub struct GuardArgs {
    /// The agent's directory.
    pub data_dir: PathBuf,
    /// Its own name.
    pub id: String,
    /// The process that it guards.
    pub agent: String,
    /// Whose the things are that it freezes.
    pub owner: String,
    /// `docker` or `host`.
    pub backend: String,
    /// What it does.
    pub on_expiry: OnExpiry,
}

/// The agent's end: it renews, and starts the guard again as soon as it dies.
pub struct Guard {
    args: GuardArgs,
    /// Closed when there is to be no guard any more.
    wanted: mpsc::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Guard {
    /// Starts the guard. A lease that an earlier process of the agent was given goes on.
    pub fn start(options: GuardOptions) -> io::Result<Guard> {
        let id = owner();
        let mut shared = Locked::open(&options.data_dir)?;
        shared.state.guard.clone_from(&id);
        shared.write()?;
        drop(shared);
        let args = GuardArgs {
            data_dir: options.data_dir.clone(),
            id: id.clone(),
            agent: id.clone(),
            owner: options.owner.clone(),
            backend: options.backend.to_owned(),
            on_expiry: options.on_expiry,
        };
        let child = spawn(&options, &id)?;
        let (wanted, unwanted) = mpsc::channel();
        let keeper = std::thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || keep(child, &options, &id, &unwanted))?;
        Ok(Guard { args, wanted, keeper })
    }

    /// The lease holds until then, since the boot; none is for ever. True when something was frozen
    /// meanwhile. Waits while the guard is about to freeze.
    pub fn renew(&self, until: Option<Duration>) -> io::Result<bool> {
        let mut shared = Locked::open(&self.args.data_dir)?;
        let nanos =
            until.map_or(u64::MAX, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        shared.state.until = nanos;
        shared.state.guard.clone_from(&self.args.id);
        let frozen = std::mem::take(&mut shared.state.frozen);
        shared.write()?;
        Ok(frozen)
    }

    /// Freezes (or kills) what moves, if the lease is over: for an agent that was held up while it
    /// thawed, and finds that its lease is over by now.
    pub async fn freeze(&self) -> Result<(), String> {
        pass(&self.args).await.map(|_| ())
    }

    /// Nothing runs any more: the guard may go.
    pub fn end(self) {
        drop(self.wanted);
        let ended = Locked::open(&self.args.data_dir).and_then(|mut shared| {
            shared.state.guard.clear();
            shared.write()
        });
        match ended {
            // It looks at the file within a moment.
            Ok(()) => drop(self.keeper.join()),
            Err(error) => tracing::warn!(%error, "the agent's guard cannot be ended"),
        }
    }
}

/// Waits for the guard's death, and starts another one, until there is to be none. A thread of its own
/// is told at once; the agent's loop would learn of it when the lease is renewed, and that may be too
/// late.
fn keep(mut child: Child, options: &GuardOptions, id: &str, unwanted: &mpsc::Receiver<()>) {
    loop {
        let started = Instant::now();
        let ended = child.wait();
        let pause = APART.saturating_sub(started.elapsed());
        if unwanted.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
        tracing::warn!(?ended, "the agent's guard has died; another one is started");
        match spawn(options, id) {
            Ok(next) => child = next,
            Err(error) => tracing::error!(%error, "the agent's guard cannot be started"),
        }
    }
}

fn spawn(options: &GuardOptions, id: &str) -> io::Result<Child> {
    let log = options.data_dir.join("guard.log");
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(&options.program)
        // As people look for it among the processes.
        .arg0("tenon")
        .arg("guard")
        .arg("--data-dir")
        .arg(&options.data_dir)
        .args(["--id", id, "--agent", &owner(), "--owner", &options.owner])
        .args(["--backend", options.backend, "--on-lease-expiry", options.on_expiry.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

/// The guard's process, until it is not needed any more.
pub async fn run(args: GuardArgs) {
    // SAFETY: no memory is involved. What ends the agent's session is not to end its guard.
    unsafe { libc::setsid() };
    loop {
        let Ok(text) = std::fs::read_to_string(args.data_dir.join(FILE)) else {
            return;
        };
        let state = State::decode(&text).unwrap_or_default();
        if state.guard != args.id {
            return;
        }
        let left = left(&state);
        let agent_is_dead = is_dead(&args.agent);
        let pause = match left {
            // Without a lease there is nothing to wait for.
            _ if agent_is_dead && state.until == u64::MAX => return,
            Some(left) => left.min(LOOK),
            None => match pass(&args).await {
                Ok(0) if agent_is_dead => return,
                Ok(0) => LOOK_AGAIN,
                Ok(_) => LOOK_FOR_MORE,
                Err(error) => {
                    eprintln!("cannot {}: {error}", args.on_expiry.as_str());
                    LOOK
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

/// How much longer the lease holds; none when it is over.
fn left(state: &State) -> Option<Duration> {
    let left = Duration::from_nanos(state.until).saturating_sub(since_boot());
    (!left.is_zero()).then_some(left)
}

/// Freezes or kills what moves, unless the lease was renewed meanwhile; says how many things that were.
async fn pass(args: &GuardArgs) -> Result<usize, String> {
    let data_dir = args.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Locked::open(&data_dir)).await;
    let mut shared = match opened {
        Ok(shared) => shared.map_err(|error| error.to_string())?,
        Err(error) => return Err(error.to_string()),
    };
    if left(&shared.state).is_some() || shared.state.guard != args.id {
        return Ok(1);
    }
    // Said before it is done, so that whoever finds it half done knows.
    if !shared.state.frozen {
        shared.state.frozen = true;
        shared.write().map_err(|error| error.to_string())?;
    }
    let kill = args.on_expiry == OnExpiry::Kill;
    let count = match args.backend.as_str() {
        "docker" => docker::freeze_all(&args.owner, kill).await.map_err(|error| error.message)?,
        _ => host::freeze_all(&args.data_dir, kill),
    };
    if count > 0 {
        eprintln!("the lease is over: {} {count}", args.on_expiry.as_str());
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_read_back_and_counts_for_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let mut shared = Locked::open(dir.path()).unwrap();
        assert_eq!(shared.state, State::default());
        shared.state = State { guard: "g".into(), until: 17, frozen: true, ..State::default() };
        shared.write().unwrap();
        let written = shared.state.clone();
        drop(shared);
        assert_eq!(Locked::open(dir.path()).unwrap().state, written);
        let other = State { boot: "other".into(), ..written };
        std::fs::write(dir.path().join(FILE), other.encode()).unwrap();
        assert_eq!(Locked::open(dir.path()).unwrap().state, State::default());
    }
}
