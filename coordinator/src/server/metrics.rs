//! The node's figures as Prometheus reads them. Names are a contract: docs/operations.md lists them.
//!
//! Counters and histograms are fed where things happen, through the handles of [`Metrics`]; gauges are
//! asked of the node when somebody looks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A series for each value of one label.
type ByLabel<M, C = fn() -> M> = Family<[(&'static str, String); 1], M, C>;
/// Name and meaning of a gauge, and how it is found.
type Shows = (&'static str, &'static str, fn(&Gauges) -> u64);

/// What a node says about itself at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Raft's term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Log positions.
    pub commit_index: u64,
    /// Applied on this node.
    pub applied_index: u64,
    /// The last entry of this node's log.
    pub last_index: u64,
    /// The first one.
    pub first_index: u64,
    /// Members, with and without a vote.
    pub members: u64,
    /// Proposals of this node that wait for their entry to be applied.
    pub proposals_pending: u64,
    /// Bytes of the Raft log on the disk.
    pub log_bytes: u64,
    /// Bytes of the event log on the disk.
    pub history_bytes: u64,
    /// Bytes of the state's store on the disk.
    pub store_bytes: u64,
    /// Runs that go on.
    pub active_runs: u64,
    /// Tasks of active runs by state: `waiting`, `running`, …
    pub tasks: BTreeMap<String, u64>,
    /// `seq` of the newest event.
    pub last_seq: u64,
    /// Agents with a session; on the leader only.
    pub agents: u64,
    /// Agents of the fleet, in contact or not.
    pub known_agents: u64,
    /// Those of them that are cordoned or being drained.
    pub closed_agents: u64,
    /// How many attempts the agents with a session run at a time; on the leader only.
    pub slots: u64,
    /// Runs that wait because their concurrency group is full.
    pub queued_runs: u64,
    /// Chunks of workspaces' snapshots in this node's own store.
    pub blob_chunks: u64,
    /// Bytes of them on the disk.
    pub blob_bytes: u64,
}

/// The handles through which things are counted; cheap to clone where they are used.
pub struct Metrics {
    /// How long it took to make the Raft log durable, each time.
    pub log_sync: Histogram,
    /// How long it took to apply a batch of committed entries.
    pub apply: Histogram,
    /// How long persist points took.
    pub persist: Histogram,
    /// Proposals of this node.
    pub proposals: Counter,
    /// Proposals of this node that were not done in their time.
    pub proposals_failed: Counter,
    /// Events that were applied.
    pub events: Counter,
    /// Snapshots that were made for others, installed here, and failed.
    pub snapshots: Family<[(&'static str, &'static str); 1], Counter>,
    /// Elections that this node has begun.
    pub elections: Counter,
    /// Requests, by protocol, operation and code.
    pub requests: Family<[(&'static str, Cow<'static, str>); 3], Counter>,
    /// How long requests took, by operation.
    pub request_duration: Family<[(&'static str, &'static str); 1], Histogram>,
    /// Spans that a tracing backend has taken.
    pub spans: Counter,
    /// Spans that were gone before they could be sent.
    pub spans_lost: Counter,
    /// Attempts to send spans that failed.
    pub span_failures: Counter,
    /// Streams of events that are open.
    pub subscribers: Gauge,
    shown: Mutex<Shown>,
}

/// The registry, and the gauges that are set when somebody looks.
struct Shown {
    registry: Registry,
    values: Vec<(&'static str, Gauge<u64, AtomicU64>)>,
    tasks: ByLabel<Gauge<u64, AtomicU64>>,
}

/// From 0.1 ms to 3.3 s, doubling.
fn seconds() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0001, 2.0, 16))
}

const GAUGES: [Shows; 22] = [
    ("tenon_raft_term", "Raft's term", |it| it.term),
    ("tenon_raft_is_leader", "1 on the leader", |it| it.is_leader.into()),
    ("tenon_raft_has_leader", "1 where a leader is known", |it| it.has_leader.into()),
    ("tenon_raft_commit_index", "Last committed entry", |it| it.commit_index),
    ("tenon_raft_applied_index", "Last entry applied on this node", |it| it.applied_index),
    ("tenon_raft_last_index", "Last entry of this node's log", |it| it.last_index),
    ("tenon_raft_first_index", "First entry of this node's log", |it| it.first_index),
    ("tenon_raft_members", "Members, with and without a vote", |it| it.members),
    ("tenon_proposals_pending", "Proposals of this node that wait", |it| it.proposals_pending),
    ("tenon_log_bytes", "Bytes of the Raft log on the disk", |it| it.log_bytes),
    ("tenon_history_bytes", "Bytes of the event log on the disk", |it| it.history_bytes),
    ("tenon_store_bytes", "Bytes of the state's store on the disk", |it| it.store_bytes),
    ("tenon_runs_active", "Runs that go on", |it| it.active_runs),
    ("tenon_events_last_seq", "seq of the newest event", |it| it.last_seq),
    ("tenon_agents", "Agents with a session; on the leader only", |it| it.agents),
    ("tenon_agents_known", "Agents of the fleet, in contact or not", |it| it.known_agents),
    ("tenon_agents_closed", "Agents that are cordoned or drained", |it| it.closed_agents),
    ("tenon_slots", "Slots of agents with a session; on the leader only", |it| it.slots),
    ("tenon_runs_queued", "Runs whose concurrency group is full", |it| it.queued_runs),
    ("tenon_blobs_chunks", "Chunks of workspaces on this node", |it| it.blob_chunks),
    ("tenon_blobs_bytes", "Bytes of chunks on this node's disk", |it| it.blob_bytes),
    ("tenon_up", "1", |_| 1),
];

/// All outcomes are shown from the beginning: what appears with its first 1 has no rate.
fn snapshots() -> Family<[(&'static str, &'static str); 1], Counter> {
    let family = Family::default();
    for outcome in ["made", "installed", "failed"] {
        drop(family.get_or_create(&[("outcome", outcome)]));
    }
    family
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let mut values = Vec::new();
        for (name, help, _) in GAUGES {
            let gauge = Gauge::<u64, AtomicU64>::default();
            registry.register(name, help, gauge.clone());
            values.push((name, gauge));
        }
        let tasks = ByLabel::new_with_constructor(Gauge::default as fn() -> _);
        registry.register("tenon_tasks", "Tasks of active runs by state", tasks.clone());
        let metrics = Metrics {
            log_sync: seconds(),
            apply: seconds(),
            persist: seconds(),
            proposals: Counter::default(),
            proposals_failed: Counter::default(),
            events: Counter::default(),
            snapshots: snapshots(),
            elections: Counter::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(seconds),
            spans: Counter::default(),
            spans_lost: Counter::default(),
            span_failures: Counter::default(),
            subscribers: Gauge::default(),
            shown: Mutex::new(Shown { registry: Registry::default(), values, tasks }),
        };
        let (second, it) = (Unit::Seconds, &metrics);
        registry.register_with_unit(
            "tenon_log_sync",
            "Time to make the Raft log durable",
            second.clone(),
            it.log_sync.clone(),
        );
        registry.register_with_unit(
            "tenon_apply",
            "Time to apply a batch of entries",
            second.clone(),
            it.apply.clone(),
        );
        registry.register_with_unit(
            "tenon_persist",
            "Time of a persist point",
            second.clone(),
            it.persist.clone(),
        );
        registry.register("tenon_proposals", "Proposals of this node", it.proposals.clone());
        registry.register(
            "tenon_proposals_failed",
            "Proposals of this node that were not done in time",
            it.proposals_failed.clone(),
        );
        registry.register("tenon_events", "Events that were applied", it.events.clone());
        registry.register(
            "tenon_snapshots",
            "Snapshots by what happened: made, installed, failed",
            it.snapshots.clone(),
        );
        registry.register(
            "tenon_elections",
            "Elections that this node has begun",
            it.elections.clone(),
        );
        registry.register(
            "tenon_requests",
            "Requests by protocol, operation and code",
            it.requests.clone(),
        );
        registry.register_with_unit(
            "tenon_request_duration",
            "Time of requests by operation",
            second,
            it.request_duration.clone(),
        );
        registry.register("tenon_spans", "Spans that the tracing backend took", it.spans.clone());
        registry.register(
            "tenon_spans_lost",
            "Records that were gone before their spans were sent",
            it.spans_lost.clone(),
        );
        registry.register(
            "tenon_span_failures",
            "Failed attempts to send spans",
            it.span_failures.clone(),
        );
        registry.register(
            "tenon_subscribers",
            "Streams of events that are open",
            it.subscribers.clone(),
        );
        metrics.shown.lock().unwrap_or_else(PoisonError::into_inner).registry = registry;
        metrics
    }

    /// The text that Prometheus reads.
    pub fn text(&self, gauges: &Gauges) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, gauge), (_, _, value)) in shown.values.iter().zip(GAUGES) {
            gauge.set(value(gauges));
        }
        shown.tasks.clear();
        for (state, count) in &gauges.tasks {
            shown.tasks.get_or_create(&[("state", state.clone())]).set(*count);
        }
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &shown.registry);
        text
    }
}

/// One open stream of events, for as long as it lives.
pub struct Counted(Arc<Metrics>);

impl Counted {
    /// Counts one more.
    pub fn new(metrics: Arc<Metrics>) -> Counted {
        metrics.subscribers.inc();
        Counted(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.subscribers.dec();
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.log_sync.observe(0.002);
        metrics.snapshots.get_or_create(&[("outcome", "made")]).inc();
        let mut gauges = Gauges { term: 7, is_leader: true, ..Gauges::default() };
        gauges.tasks.insert("running".to_owned(), 3);
        let text = metrics.text(&gauges);
        for line in [
            "tenon_raft_term 7",
            "tenon_raft_is_leader 1",
            "tenon_tasks{state=\"running\"} 3",
            "tenon_log_sync_seconds_count 1",
            "tenon_snapshots_total{outcome=\"made\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        gauges.tasks.clear();
        assert!(!metrics.text(&gauges).contains("state="));
    }

    #[test]
    fn every_metric_is_in_the_manual_and_the_other_way_round() {
        let manual = include_str!("../../../docs/operations.md");
        let metrics = Metrics::new();
        // Without a series, a family is not shown.
        metrics.snapshots.get_or_create(&[("outcome", "made")]).inc();
        let request = ["protocol", "operation", "code"].map(|label| (label, Cow::Borrowed("")));
        metrics.requests.get_or_create(&request).inc();
        metrics.request_duration.get_or_create(&[("operation", "")]).observe(0.0);
        let tasks = [("waiting".to_owned(), 0)].into();
        let text = metrics.text(&Gauges { tasks, ..Gauges::default() });
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names: Vec<String> = types
            .map(|line| match line.split_once(' ').unwrap() {
                (name, "counter") => format!("{name}_total"),
                (name, _) => name.to_owned(),
            })
            .collect();
        for name in &names {
            assert!(
                manual.contains(&format!("`{name}`")) || manual.contains(&format!("`{name}{{")),
                "docs/operations.md does not name {name}"
            );
        }
        names.sort();
        let words = manual.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        for word in words.filter(|word| word.starts_with("tenon_") && word.len() > 6) {
            assert!(names.binary_search(&word.to_owned()).is_ok(), "there is no metric {word}");
        }
    }
}
