//! The host backend: attempts without a container engine. Each step and sidecar is a process tree
//! in its own mount, pid, IPC and host-name namespaces (and in a user namespace when the agent is
//! not root), made by the embedded entrypoint's launcher.
//!
//! The machine's files are there, read-only; `/tekton` and `/workspace` are the attempt's; `/tmp`,
//! `/var/tmp`, `/dev/shm` and the home directory are private and empty; other top-level paths can
//! be made, seen by nobody else. The network is the machine's: steps and sidecars meet on localhost,
//! but two attempts cannot use one port at a time. Images and resource limits are ignored.
//!
//! What an agent of a fleet runs lives on without it: the launchers are written down, and an agent that
//! is started again goes on with their attempts. What `tenon run` runs dies with it: the launcher kills
//! its container when the other end of a pipe closes.

mod attempt;
mod freeze;
mod keeper;
mod launch;
mod launchers;
mod process;
mod reach;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tenon_entrypoint::Launch;
use tenon_proto::agent::v1::{AttemptId, RunSpec, TaskInvocation, ended};

use crate::backend::{Backend, BackendError, BackendOptions, BoxFuture, Cancel, Left, Sink};
use crate::docker::place_entrypoint;
use crate::keeping::orphans::Orphans;
use crate::keeping::{Needed, claims as claims_of};
use crate::owner::{disown_directory, own_directory};
use crate::pod::{PodDir, attempt_key, claims, make_dir, remove_tree, runs_dir};
use crate::record::Mark;
pub(crate) use freeze::freeze_all;

/// Runs attempts as processes of this machine.
pub struct HostBackend {
    options: BackendOptions,
    entrypoint_dir: PathBuf,
    /// It was said that images are ignored.
    said: AtomicBool,
    orphans: Mutex<Orphans>,
}

impl HostBackend {
    /// Prepares the agent's directory. Whether the kernel lets containers be made is not tried
    /// here, because that takes longer than a step: see [`probe`].
    pub fn new(mut options: BackendOptions) -> Result<HostBackend, BackendError> {
        let fail = |error: std::io::Error| BackendError {
            code: "agent/data-dir",
            message: format!(
                "the agent's directory {} cannot be written: {error}",
                options.data_dir.display()
            ),
        };
        let entrypoint_dir = place_entrypoint(&options.data_dir).map_err(fail)?;
        options.data_dir = fs::canonicalize(&options.data_dir).map_err(fail)?;
        Ok(HostBackend {
            options,
            entrypoint_dir,
            said: AtomicBool::new(false),
            orphans: Mutex::default(),
        })
    }

    fn runs_dir(&self) -> PathBuf {
        runs_dir(&self.options.data_dir)
    }

    fn run_dir(&self, run_id: &str) -> PathBuf {
        self.runs_dir().join(run_id)
    }

    fn launcher(&self) -> PathBuf {
        self.entrypoint_dir.join("entrypoint")
    }
}

/// Whether this process is root.
fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Tries whether the kernel lets this user make containers, by making one that does nothing.
/// The error says what forbids it and what to do.
pub fn probe(data_dir: &Path) -> Result<(), BackendError> {
    let fail = |message: String| BackendError { code: "host/forbidden", message };
    let io = |error: std::io::Error| fail(format!("the host backend cannot be tried: {error}"));
    let entrypoint_dir = place_entrypoint(data_dir).map_err(io)?;
    let root =
        fs::canonicalize(data_dir).map_err(io)?.join(format!("probe-{}", std::process::id()));
    make_dir(&root, 0o700).map_err(io)?;
    let result = try_launch(&entrypoint_dir, &root);
    let _ = fs::remove_dir(&root);
    let output = result.map_err(io)?;
    if output.status.success() {
        return Ok(());
    }
    Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn try_launch(entrypoint_dir: &Path, root: &Path) -> std::io::Result<std::process::Output> {
    let bin = launch::text(entrypoint_dir)?;
    let launch = Launch {
        user_namespace: !is_root(),
        root: launch::text(root)?,
        mounts: vec![launch::bind("/tekton/bin", bin, true)],
        argv: vec![crate::pod::ENTRYPOINT.to_owned(), "purge".to_owned(), "/tmp".to_owned()],
        ..Launch::default()
    };
    let mut child = Command::new(entrypoint_dir.join("entrypoint"))
        .arg("launch")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // Held until the child has ended: closing it ends the container.
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(&launch.encode())?;
    }
    child.wait_with_output()
}

impl Backend for HostBackend {
    fn name(&self) -> &'static str {
        "host"
    }

    fn data_dir(&self) -> Option<&Path> {
        Some(&self.options.data_dir)
    }

    fn prepare<'a>(&'a self, run: &'a RunSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move { own_directory(&self.run_dir(&run.run_id), &self.options.owner) })
    }

    fn run_task<'a>(
        &'a self,
        task: &'a TaskInvocation,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(attempt::run(self, task, sink, cancel))
    }

    fn left(&self) -> BoxFuture<'_, Result<Left, BackendError>> {
        Box::pin(async move { PodDir::left(&self.options.data_dir, &self.options.owner) })
    }

    fn adopt<'a>(
        &'a self,
        attempt: &'a AttemptId,
        marks: &'a BTreeMap<u32, Mark>,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(attempt::adopt(self, attempt, marks, sink, cancel))
    }

    fn thaw<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            if let Ok(dir) = PodDir::of(&self.options.data_dir, &attempt_key(attempt)) {
                freeze::thaw(dir.root());
            }
            Ok(())
        })
    }

    fn forget<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let dir = match PodDir::of(&self.options.data_dir, &attempt_key(attempt)) {
                Ok(dir) => dir,
                Err(error) => return tracing::warn!(%error, "an attempt cannot be removed"),
            };
            // Where the agent failed while it ran.
            launchers::kill_all(dir.root()).await;
            if self.options.keep {
                return;
            }
            if let Err(error) = dir.remove() {
                tracing::warn!(%error, "an attempt's directory cannot be removed");
            }
        })
    }

    fn cleanup<'a>(
        &'a self,
        run_id: &'a str,
        keep_claims: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let dir = self.run_dir(run_id);
            if self.options.keep || keep_claims && claims::of_run(&dir).is_dir() {
                disown_directory(&dir);
                return Ok(());
            }
            remove_tree(&dir).map_err(|error| BackendError {
                code: "infra/agent-files",
                message: format!("{} cannot be removed: {error}", dir.display()),
            })
        })
    }

    fn keep_house<'a>(&'a self, needed: &'a Needed) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let mut done = Vec::new();
            let keys = PodDir::keys(&self.options.data_dir, &self.options.owner);
            let orphans = {
                let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
                orphans.look(keys, &needed.attempts)
            };
            for key in orphans {
                let dir = PodDir::of(&self.options.data_dir, &key);
                // What still runs of it is killed, and the directory goes with the next look.
                let gone = dir.and_then(|dir| match launchers::kill(dir.root()) {
                    true => dir.remove(),
                    false => Ok(()),
                });
                match gone {
                    Ok(()) => done.push(format!("removed {key}, which is not known any more")),
                    Err(error) => tracing::warn!(%key, %error, "cannot be removed"),
                }
            }
            let keep = self.options.house.keep_claims;
            for dir in claims_of::outdated(&self.runs_dir(), needed, keep, SystemTime::now()) {
                match remove_tree(&dir) {
                    Ok(()) => {
                        done.push(format!(
                            "removed claims that nobody came for: {}",
                            dir.display()
                        ));
                    }
                    Err(error) => {
                        tracing::warn!(path = %dir.display(), %error, "cannot be removed");
                    }
                }
            }
            done
        })
    }

    fn places(&self) -> BoxFuture<'_, Vec<PathBuf>> {
        Box::pin(async move { vec![self.options.data_dir.clone()] })
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize, BackendError>> {
        Box::pin(async move {
            let (data_dir, me) = (&self.options.data_dir, &self.options.owner);
            for root in PodDir::outlived(data_dir, me) {
                launchers::kill_all(&root).await;
            }
            Ok(PodDir::reap(data_dir, me))
        })
    }
}
