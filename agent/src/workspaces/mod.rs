//! The claims of attempts that may move: made of what they were elsewhere before the first step, saved after the last.
//!
//! A claim's directory has a [`marker`] that says which home of the claim it is. It is used as it is only when that is
//! the one that the coordinator means; otherwise it is made anew, once nobody uses it any more. What another process needs in
//! order to save what this one did not is in [`notes`].

mod chunks;
mod marker;
mod notes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenon_blobs::{ChunkStore, Error, Options, SnapshotId, SnapshotIndex, is_unfinished};
use tenon_proto::agent::v1::claim_use::From;
use tenon_proto::agent::v1::ended::Outcome;
use tenon_proto::agent::v1::{
    AttemptId, ClaimUse, Infra, RunSpec, Stopped, TaskInvocation, Transfer, WorkspaceUse,
};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};
use tokio_util::sync::CancellationToken;

use crate::attempt::AttemptSink;
use crate::backend::{Backend, Cancel, Sink};
use crate::lease::LeaseView;
use crate::pod::{claims, make_dir, remove_tree};
pub(crate) use chunks::CoordinatorChunks;
use marker::Marker;
use notes::Notes;

/// So long chunks are asked for, or offered, that cannot be had or given.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The claims of one agent.
#[derive(Clone, Default)]
pub(crate) struct Workspaces {
    /// None where claims stay where they are.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    runs: PathBuf,
    notes: Notes,
    chunks: Arc<dyn ChunkStore>,
    places: Mutex<HashMap<PathBuf, Place>>,
}

/// Who does what with one directory.
#[derive(Clone, Default)]
struct Place {
    /// Read by who uses it, written by who makes it anew.
    used: Arc<RwLock<()>>,
    /// One save after the other: the later one is told later.
    saved: Arc<tokio::sync::Mutex<()>>,
}

/// The claims that an attempt uses, as long as it does.
#[derive(Default)]
pub(crate) struct Used {
    claims: Vec<UsedClaim>,
    saving: Vec<OwnedMutexGuard<()>>,
}

struct UsedClaim {
    told: ClaimUse,
    dir: PathBuf,
    restored: Option<Transfer>,
    _use: Option<OwnedRwLockReadGuard<()>>,
}

impl Workspaces {
    /// The claims below an agent's directory, whose snapshots are in `chunks`.
    pub fn new(data_dir: &Path, chunks: Arc<dyn ChunkStore>) -> Workspaces {
        let inner = Inner {
            runs: data_dir.join("runs"),
            notes: Notes::new(data_dir),
            chunks,
            places: Mutex::default(),
        };
        Workspaces { inner: Some(Arc::new(inner)) }
    }

    /// Whether claims can be saved, and made of what was saved.
    pub fn can_move(&self) -> bool {
        self.inner.is_some()
    }

    /// Has the claims of an attempt as they are to be; otherwise the attempt ends so.
    pub async fn begin(
        &self,
        backend: &dyn Backend,
        task: &TaskInvocation,
        sink: &AttemptSink,
        cancel: &Cancel,
    ) -> Result<Used, Outcome> {
        let mut used = Used::default();
        let Some(inner) = self.inner.as_ref().filter(|_| !task.claim_uses.is_empty()) else {
            return Ok(used);
        };
        for told in &task.claim_uses {
            let claim = inner.make(backend, told, sink, cancel).await;
            used.claims.push(claim.map_err(|failure| failure.into_outcome(&told.name))?);
        }
        let noted = inner.notes.begin(&sink.attempt, &task.claim_uses);
        noted.map_err(|error| Failure::Files(error).into_outcome("the attempt"))?;
        Ok(used)
    }

    /// The claims of an attempt of an earlier process, and how it ended if it has.
    pub fn recall(&self, attempt: &AttemptId) -> (Used, Option<Outcome>) {
        let mut used = Used::default();
        let Some(inner) = &self.inner else { return (used, None) };
        let (uses, outcome) = inner.notes.of(attempt);
        for told in uses {
            let Ok(dir) = inner.directory(&told) else { continue };
            // Nobody has begun anything yet.
            let lock = inner.place(&dir).used.try_read_owned().ok();
            used.claims.push(UsedClaim { told, dir, restored: None, _use: lock });
        }
        (used, outcome)
    }

    /// An attempt has ended: saves the claims that are to be saved, and says what became of all of them. Nobody else
    /// saves them before `used` is dropped, which is to be when the end is told.
    pub async fn end(
        &self,
        used: &mut Used,
        outcome: &Outcome,
        sink: &AttemptSink,
        cancel: &Cancel,
    ) -> Vec<WorkspaceUse> {
        let Some(inner) = &self.inner else { return Vec::new() };
        let ran = matches!(outcome, Outcome::Ran(_) | Outcome::Stopped(_));
        if ran && used.claims.iter().any(|claim| claim.told.save) {
            // Everything that it has said is safe before it counts as ended.
            sink.flush().await;
            if let Err(error) = inner.notes.end(&sink.attempt, outcome) {
                tracing::warn!(%error, "an attempt's end cannot be noted");
            }
        }
        let mut told = Vec::new();
        for claim in &used.claims {
            let mut it = WorkspaceUse {
                claim: claim.told.name.clone(),
                restored: claim.restored.clone(),
                ..WorkspaceUse::default()
            };
            if ran && claim.told.save {
                used.saving.push(inner.place(&claim.dir).saved.lock_owned().await);
                sink.progress(&format!("saving workspace {}", it.claim), 0, 0);
                match inner.save(&claim.dir, cancel).await {
                    Ok(saved) => it.saved = Some(saved),
                    Err(error) => {
                        it.message = format!("{error} [{}]", error.code());
                        tracing::warn!(claim = %it.claim, %error, "a workspace cannot be saved");
                        let note = format!(
                            "warning: workspace {} was not saved, and stays on this agent: {error}",
                            it.claim
                        );
                        sink.note(&note).await;
                    }
                }
            }
            if it.restored.is_some() || it.saved.is_some() || !it.message.is_empty() {
                told.push(it);
            }
        }
        told
    }

    /// An attempt's end is told for good.
    pub fn forget(&self, attempt: &AttemptId) {
        if let Some(inner) = &self.inner {
            inner.notes.forget(attempt);
        }
    }

    /// Only these attempts of an earlier process are gone on with.
    pub fn keep_only(&self, attempts: &[AttemptId]) {
        if let Some(inner) = &self.inner {
            inner.notes.keep_only(attempts);
        }
    }
}

impl Inner {
    fn place(&self, dir: &Path) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, it| Arc::strong_count(&it.used) + Arc::strong_count(&it.saved) > 2);
        places.entry(dir.to_owned()).or_default().clone()
    }

    /// The directory of a claim.
    fn directory(&self, told: &ClaimUse) -> Result<PathBuf, Failure> {
        claims::place(&self.runs, &told.owner, &told.name).map_err(|_| Failure::BadName)
    }

    async fn make(
        &self,
        backend: &dyn Backend,
        told: &ClaimUse,
        sink: &AttemptSink,
        cancel: &Cancel,
    ) -> Result<UsedClaim, Failure> {
        let dir = self.directory(told)?;
        let place = self.place(&dir);
        let wanted = Marker::of(told);
        let claim = |restored, lock| UsedClaim {
            told: told.clone(),
            dir: dir.clone(),
            restored,
            _use: Some(lock),
        };
        let lock = place.used.clone().read_owned().await;
        if wanted.fits(&dir, told) {
            return Ok(claim(None, lock));
        }
        drop(lock);
        let lock = place.used.write_owned().await;
        if wanted.fits(&dir, told) {
            return Ok(claim(None, lock.downgrade()));
        }
        let run_dir = self.runs.join(&told.owner);
        if !run_dir.is_dir() {
            let run = RunSpec { run_id: told.owner.clone(), ..RunSpec::default() };
            let prepared = backend.prepare(&run).await;
            prepared.map_err(|error| Failure::Files(std::io::Error::other(error.message)))?;
        }
        Marker::remove(&dir)?;
        let restored = match &told.from {
            Some(From::Empty(_)) => {
                self.clear(&dir)?;
                None
            }
            Some(From::Snapshot(snapshot)) => {
                let id: SnapshotId = snapshot.parse().map_err(|_| Failure::BadName)?;
                sink.progress(&format!("restoring workspace {}", told.name), 0, 0);
                Some(self.restore(id, &dir, cancel).await?)
            }
            Some(From::OnlyHere(_)) | None => return Err(Failure::Lost),
        };
        wanted.write(&dir)?;
        Ok(claim(restored, lock.downgrade()))
    }

    /// An empty directory.
    fn clear(&self, dir: &Path) -> std::io::Result<()> {
        self.put_aside(dir)?;
        make_dir(dir, 0o777)
    }

    /// What is there goes. Where containers have left what this user may not remove it goes with the run.
    fn put_aside(&self, dir: &Path) -> std::io::Result<()> {
        if !dir.exists() || remove_tree(dir).is_ok() {
            return Ok(());
        }
        let number = marker::fresh_number();
        let aside = marker::beside(dir, &format!("old-{number}"));
        if let Some(parent) = aside.parent() {
            make_dir(parent, 0o700)?;
        }
        std::fs::rename(dir, aside)
    }

    async fn restore(
        &self,
        id: SnapshotId,
        dir: &Path,
        cancel: &Cancel,
    ) -> Result<Transfer, Failure> {
        let began = Instant::now();
        // What another user has written cannot be changed: it is made from nothing then.
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            self.put_aside(dir)?;
        }
        make_dir(dir, 0o777)?;
        let (chunks, to) = (self.chunks.clone(), dir.to_owned());
        let restored = again(&cancel.stop, &cancel.lease, move |options| {
            let file = marker::index(&to);
            let index = SnapshotIndex::load(&file);
            let restored = tenon_blobs::restore(id, &to, &*chunks, index.as_ref(), options)?;
            restored.index.store(&file)?;
            Ok(restored)
        });
        let restored = restored.await.map_err(|error| match error {
            Error::Cancelled => Failure::Stopped,
            error => Failure::Restore(error),
        })?;
        Ok(Transfer {
            snapshot: id.to_string(),
            bytes: restored.bytes,
            new_bytes: restored.fetched_bytes,
            duration_ms: millis(began),
        })
    }

    async fn save(&self, dir: &Path, cancel: &Cancel) -> Result<Transfer, Error> {
        let began = Instant::now();
        let (chunks, from) = (self.chunks.clone(), dir.to_owned());
        let saved = again(&cancel.unwanted, &cancel.lease, move |options| {
            let file = marker::index(&from);
            let index = SnapshotIndex::load(&file);
            let saved = tenon_blobs::save(&from, &*chunks, index.as_ref(), options)?;
            saved.index.store(&file)?;
            Ok(saved)
        });
        let saved = saved.await?;
        Ok(Transfer {
            snapshot: saved.id.to_string(),
            bytes: saved.bytes,
            new_bytes: saved.new_bytes,
            duration_ms: millis(began),
        })
    }
}

/// Does it, and again as long as it makes sense, until it is told to stop. While the agent is out of contact, it
/// makes sense however long that takes.
async fn again<T: Send + 'static>(
    stop: &CancellationToken,
    lease: &LeaseView,
    work: impl Fn(&Options) -> tenon_blobs::Result<T> + Send + Sync + 'static,
) -> tenon_blobs::Result<T> {
    let (began, work) = (Instant::now(), Arc::new(work));
    let mut pause = FIRST_PAUSE;
    loop {
        let (options, work) = (Options::default(), work.clone());
        let cancel = options.cancel.clone();
        let mut working = tokio::task::spawn_blocking(move || work(&options));
        let done = tokio::select! {
            done = &mut working => done,
            () = stop.cancelled() => {
                cancel.store(true, std::sync::atomic::Ordering::Relaxed);
                working.await
            }
        };
        let done = done.unwrap_or_else(|error| {
            let action = "work on a workspace".to_owned();
            Err(Error::Remote { action, reason: error.to_string() })
        });
        match done {
            Err(error)
                if error.is_transient() && (began.elapsed() < PATIENCE || !lease.holds()) =>
            {
                tracing::debug!(%error, "trying again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = stop.cancelled() => return Err(Error::Cancelled),
                }
            }
            done => return done,
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Why an attempt does not have its claims.
#[derive(Debug)]
enum Failure {
    Stopped,
    BadName,
    Lost,
    Files(std::io::Error),
    Restore(Error),
}

impl std::convert::From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Files(error)
    }
}

impl Failure {
    fn into_outcome(self, claim: &str) -> Outcome {
        let infra = |reason: &str, message: String| {
            Outcome::Infra(Infra { reason: format!("infra/{reason}"), message })
        };
        match self {
            Failure::Stopped => Outcome::Stopped(Stopped {}),
            Failure::BadName => {
                infra("workspace-restore", format!("{claim} is no claim that could be made"))
            }
            Failure::Lost => infra(
                "workspace-lost",
                format!(
                    "the files of workspace {claim} were on this agent only, and are not there any \
                     more: run the tasks that made them again"
                ),
            ),
            Failure::Files(error) => {
                infra("agent-files", format!("workspace {claim} cannot be made: {error}"))
            }
            Failure::Restore(error) => infra(
                "workspace-restore",
                format!("workspace {claim} cannot be restored: {error} [{}]", error.code()),
            ),
        }
    }
}

/// Whether a directory is one, and whole.
fn is_whole(dir: &Path) -> bool {
    dir.is_dir() && !is_unfinished(dir)
}

#[cfg(test)]
mod tests;
