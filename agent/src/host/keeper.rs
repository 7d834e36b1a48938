//! The launcher of one container, as its agent holds it: told what to launch, told to stop or to kill
//! it, and waited for; by the agent that started it, or by another one that goes on with the attempt.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tenon_entrypoint::KILL_SIGNAL;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use super::launchers::{self, exit_file, said_file};
use super::process::Process;
use crate::backend::BoxFuture;
use crate::owner::pid_and_start;

/// A launcher that lives, or that ended a moment ago.
pub struct Keeper {
    process: Process,
    /// Closing it kills a container that is not to outlive its agent.
    _life: Option<ChildStdin>,
}

/// How a launcher ended.
#[derive(Debug, Default)]
pub struct Exited {
    /// Its exit code; none where nobody knows, because it was killed.
    pub code: Option<i32>,
    /// What it said was wrong.
    pub said: String,
}

/// A launcher of an earlier agent.
pub enum Found {
    /// It lives.
    Alive(Keeper, BoxFuture<'static, Exited>),
    /// It has ended.
    Dead(Exited),
}

impl Keeper {
    /// Has `program` launch what `order` says, as the container of that place. Where its agent is an
    /// agent of a fleet it is written down in the attempt's directory `root` before it is told; what it
    /// launches lives on without the agent if it `outlives` it. The second value waits for its end.
    pub async fn launch(
        program: &Path,
        order: &[u8],
        place: Option<(&Path, usize)>,
        outlives: bool,
    ) -> io::Result<(Keeper, BoxFuture<'static, Exited>)> {
        let file = place.filter(|_| outlives).map(|(root, index)| said_file(root, index));
        let stderr = match &file {
            Some(path) => Stdio::from(File::create(path)?),
            None => Stdio::piped(),
        };
        let mut child = Command::new(program)
            .arg("launch")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(!outlives)
            .spawn()?;
        let process = Process::of_child(child.id().unwrap_or_default());
        if let Some((root, index)) = place {
            launchers::write_down(root, index, &process)?;
        }
        let mut life = child.stdin.take();
        if let Some(life) = &mut life {
            // One that is dead already says why by its exit.
            let _ = life.write_all(order).await;
        }
        let mut stderr = child.stderr.take();
        let ended = async move {
            let mut said = Vec::new();
            if let Some(stderr) = &mut stderr {
                let _ = stderr.read_to_end(&mut said).await;
            }
            let code = child.wait().await.ok().and_then(|status| status.code());
            if let Some(file) = file {
                said = fs::read(file).unwrap_or_default();
            }
            Exited { code, said: text(&said) }
        };
        let life = life.filter(|_| !outlives);
        Ok((Keeper { process, _life: life }, Box::pin(ended)))
    }

    /// The launcher that an earlier agent has written down for the container of that place.
    pub fn find(root: &Path, index: usize) -> Option<Found> {
        let names = launchers::names(root);
        let (_, name) = names.into_iter().rev().find(|(place, _)| *place == index)?;
        let (exit, said) = (exit_file(root, index), said_file(root, index));
        let Some(process) = Process::find(&name) else {
            return Some(Found::Dead(left(&exit, &said)));
        };
        let keeper = Keeper { process, _life: None };
        let ended = keeper.over(exit, said);
        Some(Found::Alive(keeper, ended))
    }

    fn over(&self, exit: PathBuf, said: PathBuf) -> BoxFuture<'static, Exited> {
        let over = self.process.over();
        Box::pin(async move {
            if let Err(error) = over.await {
                tracing::error!(%error, "a launcher's end cannot be seen");
            }
            left(&exit, &said)
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its number, and when it started.
    pub fn pid_and_start(&self) -> (u32, String) {
        let start = pid_and_start(self.process.name()).map(|(_, start)| start.to_owned());
        (self.pid(), start.unwrap_or_default())
    }

    /// Sends a signal to the container's first process.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Kills the container. The launcher ends when nothing of it is left.
    pub fn kill(&self) {
        self.process.signal(KILL_SIGNAL);
    }
}

/// What a launcher has left.
fn left(exit: &Path, said: &Path) -> Exited {
    let code = fs::read_to_string(exit).unwrap_or_default();
    Exited { code: code.parse().ok(), said: text(&fs::read(said).unwrap_or_default()) }
}

fn text(said: &[u8]) -> String {
    String::from_utf8_lossy(said).trim().to_owned()
}
