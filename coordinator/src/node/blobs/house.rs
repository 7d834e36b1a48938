//! Which chunks are still needed: now and then, and as often as needed, what the replicated state says is compared
//! with what is stored. What a node lacks it gets from the others; what nobody needs goes.
//!
//! Needed are the snapshots of runs that go on and of runs that may still be gone on with. A chunk that was lately put or
//! asked for stays in any case: its snapshot may not be known yet.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Weak;
use std::time::Duration;

use tenon_blobs::{ChunkId, ChunkStore, Error, Packed, SnapshotId, chunks_of};
use tenon_consensus::Role;
use tenon_engine::Time;

use super::cluster::ClusterChunks;
use super::{Blobs, Handle};
use crate::coordinator::{KEEP_CLAIMS_MS, Request};
use crate::node::Shared;
use crate::node::apply_thread::now;
use crate::replica::RunRecord;
use crate::server::Result;

/// What `NodeOptions::unasked` is in an object store, which remembers no questions: more than the week after which
/// a chunk is put again.
const OBJECT_AGE: Duration = Duration::from_secs(9 * 24 * 3600);
/// What a run that is over has is needed for so much longer than it may be gone on with.
const MARGIN_MS: i64 = 3_600_000;
/// How long a quorum may take to confirm that this node knows enough.
const CONFIRM_MS: i64 = 10_000;
/// So many chunks are fetched at a time.
const AT_A_TIME: usize = 8;

/// Looks after the chunks as long as the node runs.
pub(in crate::node) async fn keep_house(node: Weak<Shared>) {
    let Some(shared) = node.upgrade() else { return };
    let every = shared.options.sweep_every;
    Handle { shared }.try_shared_store().await;
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = node.upgrade() else { return };
        let handle = Handle { shared };
        if handle.member().is_none_or(|member| *member.ended.borrow()) {
            return;
        }
        match handle.tidy_chunks().await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the chunks of workspaces were not looked after"),
        }
    }
}

impl Handle {
    /// Puts something into the store that all nodes share. One that cannot be used is told of now, and not only when a
    /// task waits for its workspace to be saved; nothing else hangs on it, so the node goes on.
    async fn try_shared_store(&self) {
        let Some(member) = self.member() else { return };
        let Blobs::Shared(store) = member.blobs.clone() else { return };
        let tried = self.blocking(move || Ok(store.put(&[Packed::new(b"tenon")?])?)).await;
        if let Err(error) = tried {
            tracing::warn!(%error, "workspaces cannot be saved: look at --blobs and at its options");
        }
    }

    /// Gets what is needed and not here, and removes what is not needed.
    pub async fn tidy_chunks(&self) -> Result<()> {
        let member = self.joined()?;
        // What this node knows must not be older than this moment: a snapshot that it has not heard of is none.
        self.request(Request::Read, now().plus_millis(CONFIRM_MS)).await?;
        let leads = member.standing.raft().role == Role::Leader;
        if matches!(member.blobs, Blobs::Shared(_)) && !leads {
            return Ok(());
        }
        let running = self.look(|coordinator| {
            let engine = coordinator.replica().engine();
            let claims = engine.runs().flat_map(|run| engine.claims(run));
            claims.filter_map(|(_, claim)| snapshot(claim.snapshot()?)).collect::<BTreeSet<_>>()
        });
        let mut needed = running.await.ok_or_else(crate::node::membership::stopping)?;
        let handle = self.clone();
        self.blocking(move || {
            member.index.visit(None, &mut |record| {
                needed.extend(snapshots_of(&record, now()));
                ControlFlow::Continue(())
            })?;
            handle.tidy(&member.blobs, &needed)
        })
        .await
    }

    fn tidy(&self, blobs: &Blobs, needed: &BTreeSet<SnapshotId>) -> Result<()> {
        let cluster = ClusterChunks(self.clone());
        let mut live: HashSet<ChunkId> = HashSet::new();
        for snapshot in needed {
            let told = chunks_of(*snapshot, &cluster, &mut |id| {
                live.insert(id);
            });
            match told {
                Ok(()) => {}
                Err(
                    error
                    @ (Error::Missing { .. } | Error::Damaged { .. } | Error::Manifest { .. }),
                ) => {
                    tracing::warn!(%snapshot, %error, "a snapshot is not whole any more");
                }
                Err(error) => return Err(error.into()),
            }
        }
        match blobs {
            Blobs::Own(store) => {
                self.fetch_lacking(&**store, &cluster, &live)?;
                let unasked = self.shared.options.unasked;
                let swept = store.sweep(&|id| live.contains(id), unasked)?;
                if swept.chunks > 0 {
                    tracing::info!(chunks = swept.chunks, bytes = swept.freed, "removed chunks");
                }
            }
            Blobs::Shared(store) => {
                store.sweep(&|id| live.contains(id), OBJECT_AGE)?;
            }
        }
        Ok(())
    }

    /// A node that was away, or is new, gets what the others have.
    fn fetch_lacking(
        &self,
        own: &dyn ChunkStore,
        cluster: &ClusterChunks,
        live: &HashSet<ChunkId>,
    ) -> Result<()> {
        let live: Vec<ChunkId> = live.iter().copied().collect();
        for ids in own.missing(&live)?.chunks(AT_A_TIME) {
            match cluster.get(ids) {
                Ok(chunks) => own.put(&chunks)?,
                // The others have what they have.
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The snapshots of a run that is over, as long as another may go on with it.
fn snapshots_of(record: &RunRecord, now: Time) -> Vec<SnapshotId> {
    let ended = record.summary.ended.unwrap_or(now);
    let late = ended.plus_millis(KEEP_CLAIMS_MS + MARGIN_MS) < now;
    let succeeded = record.summary.status == tenon_reporter::history::RunStatus::Succeeded;
    if late || succeeded {
        return Vec::new();
    }
    record.homes.values().filter_map(|claim| snapshot(claim.snapshot()?)).collect()
}

/// An id that an agent has reported; what is none is of no use to anybody.
fn snapshot(text: &str) -> Option<SnapshotId> {
    text.parse().ok()
}
