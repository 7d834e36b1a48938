//! Going on with an attempt whose agent died: its launchers are found by what is written down in its
//! directory, and what is to be known of it in the private one, which is in memory because there are
//! values of Secrets in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenon_proto::agent::v1::{AttemptId, ended::Outcome};

use super::{Attempt, end};
use crate::backend::{Cancel, Sink};
use crate::docker::Failure;
use crate::host::keeper::{Exited, Found, Keeper};
use crate::host::{HostBackend, launchers};
use crate::mask::Masker;
use crate::pod::{PodDir, PodPlan, SPEC_FILE, attempt_key};
use crate::record::Mark;

/// What another process needs in order to go on.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    /// The launcher's program: the orders are in its language.
    pub launcher: PathBuf,
    /// What the containers are.
    pub plan: PodPlan,
    /// What each launcher is told: of the steps, then of the sidecars.
    pub orders: Vec<Vec<u8>>,
    /// Containers live on without the agent.
    pub outlives: bool,
}

/// Goes on with an attempt of an earlier process.
pub async fn adopt(
    backend: &HostBackend,
    attempt: &AttemptId,
    marks: &BTreeMap<u32, Mark>,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Outcome {
    let dir = match PodDir::of(&backend.options.data_dir, &attempt_key(attempt)) {
        Ok(dir) => dir,
        Err(error) => return Failure::from(error).into_outcome(&backend.options.data_dir),
    };
    let outcome = adopt_in(backend, sink, cancel, &dir, marks).await;
    if outcome.is_err() {
        launchers::kill_all(dir.root()).await;
    }
    end(backend, attempt, sink, &dir, outcome).await
}

async fn adopt_in(
    backend: &HostBackend,
    sink: &dyn Sink,
    cancel: &Cancel,
    dir: &PodDir,
    marks: &BTreeMap<u32, Mark>,
) -> Result<(), Failure> {
    let saved: Saved = dir.saved().ok_or_else(Failure::forgotten)?;
    let masker = Masker::new(saved.plan.secrets.iter().map(Vec::as_slice));
    let mut running = Attempt::new(backend, sink, dir, cancel, &saved, masker, marks)?;
    running.find_launchers();
    running.run(cancel).await
}

impl Attempt<'_> {
    /// Finds out what an earlier process has left running, and does what it has left undone.
    fn find_launchers(&mut self) {
        let is_open = std::fs::metadata(self.dir.ready_file()).is_ok_and(|file| file.len() > 0);
        let mut dead = Vec::new();
        for index in 0..self.containers.len() {
            let found = Keeper::find(self.dir.root(), index);
            let container = &mut self.containers[index];
            container.adopted = true;
            container.ready = is_open;
            match found {
                Some(Found::Alive(keeper, ended)) => {
                    container.keeper = Some(keeper);
                    self.exits.spawn(async move { (index, ended.await) });
                }
                Some(Found::Dead(exited)) => dead.push((index, exited)),
                None => dead.push((index, Exited::default())),
            }
        }
        for (index, exited) in dead {
            self.containers[index].vanished = exited.code.is_none();
            self.exited(index, exited);
        }
        for index in self.steps..self.containers.len() {
            let container = &self.containers[index];
            match (container.over, container.begun, container.ready) {
                (true, _, false) => self.ready(index),
                (false, true, false) => self.await_ready(index),
                _ => {}
            }
        }
    }

    /// Whether an earlier agent died before it had told the launcher what to launch: then nobody knows how
    /// that ended, and nothing of the container has run. The first that it does is to take its spec away.
    pub(super) fn is_unlaunched(&self, index: usize, exited: &Exited) -> bool {
        let container = &self.containers[index];
        let spec = || std::fs::metadata(self.plans[index].spec_dir.join(SPEC_FILE));
        container.adopted
            && !container.over
            && exited.code.is_none()
            && spec().is_ok_and(|spec| spec.len() > 0)
    }
}
