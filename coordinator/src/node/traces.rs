//! Sends the spans of what ends to a tracing backend, on the node that leads.
//!
//! The event log is the queue: it is on the disk anyway, and whoever leads goes on where the one before
//! is known to have come to ([`crate::replica::Meta::traced`]). So nothing waits for the backend, an
//! outage of it loses nothing that is still in the log, and a failover may send a span twice, with the
//! same ids, but never leaves one out.

use std::time::Duration;

use tenon_consensus::Role;
use tenon_reporter::history::Stored;
use tenon_reporter::spans::{self, Exporter, Span};
use tokio::time::Instant;

use super::apply_thread::now;
use super::{Handle, MemberNode};
use crate::coordinator::Request;
use crate::error::Result;
use crate::event_log::is_event;

/// Bytes of records that are looked at for one message to the backend.
const BATCH_BYTES: usize = 256 << 10;
/// How often a node looks whether it leads, and how long it waits after a failure at first.
const LOOK: Duration = Duration::from_secs(1);
/// How long it waits after a failure at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Between two words to the cluster about how far the sending has come.
const SAVE: Duration = Duration::from_secs(5);
/// How long such a word may take, in milliseconds. One that is lost is said again.
const SAVE_MS: i64 = 5_000;

/// How far the node that leads has come.
struct Progress {
    /// The record to go on with.
    next: u64,
    /// What the cluster knows of it.
    saved: u64,
    saved_at: Instant,
}

impl Handle {
    /// Sends spans for as long as the node runs, whenever it leads.
    pub async fn export_traces(self, exporter: Exporter) {
        let mut became_member = self.became_member();
        // The sender lives as long as this handle.
        let _ = became_member.wait_for(|became| *became).await;
        let Some(member) = self.member() else { return };
        let mut visible = member.events.watch();
        let mut progress = None;
        let mut wait = LOOK;
        while !*member.ended.borrow() {
            if member.standing.raft().role != Role::Leader {
                progress = None;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if progress.is_none() {
                progress = self.begin(&member).await;
            }
            let Some(now) = &mut progress else { continue };
            match self.send(&member, &exporter, now).await {
                Ok(more) => {
                    wait = LOOK;
                    if !more {
                        // More to send, or time to look around: both are a reason to go on.
                        let _ = tokio::time::timeout(LOOK, visible.changed()).await;
                    }
                }
                Err(why) => {
                    self.metrics().span_failures.inc();
                    tracing::warn!(%why, "will try again in {} s", wait.as_secs());
                    tokio::time::sleep(wait).await;
                    wait = (2 * wait).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Where to go on; what happened before anybody wanted spans is left alone.
    async fn begin(&self, member: &MemberNode) -> Option<Progress> {
        let saved = self.look(|it| it.replica().meta().traced).await?;
        let next = if saved == 0 { member.events.visible() + 1 } else { saved };
        Some(Progress { next, saved, saved_at: Instant::now() })
    }

    /// Sends one message. Whether there is more.
    async fn send(
        &self,
        member: &MemberNode,
        exporter: &Exporter,
        progress: &mut Progress,
    ) -> Result<bool, String> {
        let first = member.events.first_index();
        if progress.next < first {
            self.metrics().spans_lost.inc_by(first - progress.next);
            progress.next = first;
        }
        let (events, from) = (member.events.clone(), progress.next);
        let read = tokio::task::spawn_blocking(move || events.read(from, BATCH_BYTES));
        let records = read.await.map_err(|error| error.to_string())?;
        let records = records.map_err(|error| error.to_string())?;
        let Some((last, _)) = records.last() else {
            self.save(progress).await;
            return Ok(false);
        };
        let next = last + 1;
        let spans: Vec<Span> = records.iter().flat_map(|(_, record)| ended(record)).collect();
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        if count > 0 {
            exporter.export(spans).await.map_err(|error| error.to_string())?;
            self.metrics().spans.inc_by(count);
        }
        progress.next = next;
        self.save(progress).await;
        Ok(true)
    }

    /// Tells the cluster how far it has come, now and then.
    async fn save(&self, progress: &mut Progress) {
        if progress.next == progress.saved || progress.saved_at.elapsed() < SAVE {
            return;
        }
        progress.saved_at = Instant::now();
        let deadline = now().plus_millis(SAVE_MS);
        let request = Request::Traced { next: progress.next };
        if self.request(request, deadline).await.is_ok() {
            progress.saved = progress.next;
        }
    }
}

/// The spans that end with a record. Most records are lines and beginnings: those are not taken apart.
fn ended(record: &[u8]) -> Vec<Span> {
    let is_end = |record: &[u8]| {
        let head = &record[..record.len().min(40)];
        ["-end\"", "-retry\"", "-lost\""]
            .iter()
            .any(|end| head.windows(end.len()).any(|window| window == end.as_bytes()))
    };
    if !is_event(record) || !is_end(record) {
        return Vec::new();
    }
    let event = Stored::new(record.to_vec()).and_then(|stored| stored.event());
    event.map(|event| spans::of(&event)).unwrap_or_default()
}
