//! What a node knows, as its API shows it.

use std::sync::Arc;

use tenon_consensus::{PeerState, Role, Status};
use tenon_engine::RunId;
use tenon_engine::explain::Explanation;
use tenon_engine::plan;
use tenon_proto::control::v1::{
    ExplainRunResponse, Member as WireMember, Run, RunUsage, TaskCounts, TaskExplanation,
};
use tenon_reporter::history::RunStatus;
use tokio::sync::watch;

use crate::replica::{Member, RunRecord};
use crate::server::{EventSource, Result};

/// A run, as lists show it.
pub(crate) fn run(record: &RunRecord) -> Run {
    let summary = &record.summary;
    let created = i64::try_from(summary.id.0.timestamp_ms()).unwrap_or(i64::MAX);
    Run {
        id: summary.id.to_string(),
        namespace: summary.namespace.clone(),
        kind: summary.kind.clone(),
        name: summary.name.clone(),
        pipeline: summary.pipeline.clone().unwrap_or_default(),
        status: summary.status.as_str().to_owned(),
        reason: summary.reason.clone().unwrap_or_default(),
        message: summary.message.clone().unwrap_or_default(),
        created_at: tenon_engine::Time(created).to_string(),
        started_at: (summary.status != RunStatus::Pending).then(|| summary.started.to_string()),
        ended_at: summary.ended.map(|ended| ended.to_string()),
        duration_ms: summary.duration_ms(),
        tasks: Some(TaskCounts {
            succeeded: summary.tasks.succeeded,
            failed: summary.tasks.failed,
            skipped: summary.tasks.skipped,
            running: summary.tasks.running,
        }),
        labels: record.labels.clone().into_iter().collect(),
        exit_code: summary.exit_code,
        rerun_of: record.rerun_of.map(|run| run.to_string()),
        last_seq: record.last_seq,
        usage: summary.usage.map(|used| RunUsage {
            cpu_seconds: used.cpu_micros.map(|micros| micros as f64 / 1e6),
            memory_peak_bytes: used.memory_peak_bytes,
            io_read_bytes: used.io_read_bytes,
            io_write_bytes: used.io_write_bytes,
        }),
    }
}

/// What every task of a run does or waits for.
pub(crate) fn explanation(
    record: &RunRecord,
    told: Option<Explanation>,
    waiting: &[plan::Explanation],
) -> ExplainRunResponse {
    let Some(told) = told else {
        return ExplainRunResponse {
            run: Some(run(record)),
            why: "the run is over".to_owned(),
            ..ExplainRunResponse::default()
        };
    };
    let mut tasks = Vec::new();
    for task in &told.tasks {
        if task.task_runs.is_empty() {
            tasks.push(TaskExplanation {
                task: task.task.clone(),
                state: word(&task.state),
                why: task.message.clone(),
                ..TaskExplanation::default()
            });
        }
        for task_run in &task.task_runs {
            let plan = waiting.iter().find(|plan| plan.attempt.task_run == task_run.task_run);
            tasks.push(TaskExplanation {
                task: task.task.clone(),
                task_run: task_run.task_run.clone(),
                state: word(&task_run.state),
                why: plan.map_or_else(|| task_run.message.clone(), ToString::to_string),
                attempt: task_run.attempt,
                placement: task_run.placement,
                agent: task_run.agent.clone().unwrap_or_default(),
            });
        }
    }
    ExplainRunResponse { run: Some(run(record)), why: told.message, tasks }
}

/// A state's name in JSON.
fn word<T: serde::Serialize>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// What Raft calls this node.
pub(crate) fn role(status: &Status) -> &'static str {
    match status.role {
        Role::Leader => "leader",
        Role::Candidate | Role::PreCandidate => "candidate",
        Role::Follower if status.conf_state.learners.contains(&status.id) => "learner",
        Role::Follower => "follower",
    }
}

/// A member, as this node sees it.
pub(crate) fn member(id: u64, known: Member, status: &Status) -> WireMember {
    let configuration = &status.conf_state;
    let votes = configuration.voters.contains(&id);
    let voted = configuration.voters_outgoing.contains(&id);
    let role = match (votes, voted) {
        (true, _) if configuration.is_joint() && !voted => "joining",
        (true, _) => "voter",
        (false, true) => "leaving",
        (false, false) if configuration.learners.contains(&id) => "learner",
        (false, false) => "joining",
    };
    let peer = status.peers.iter().find(|peer| peer.id == id);
    let progress = peer.map_or("", |peer| match peer.state {
        PeerState::Probe => "probe",
        PeerState::Replicate => "replicate",
        PeerState::Snapshot => "snapshot",
    });
    WireMember {
        id,
        name: known.name,
        url: known.url,
        role: role.to_owned(),
        matched: peer.map_or(0, |peer| peer.matched),
        active: peer.is_some_and(|peer| peer.recent_active || peer.id == status.id),
        progress: progress.to_owned(),
    }
}

/// The events of a node that belongs to no cluster.
#[derive(Default)]
pub(crate) struct NoEvents {
    visible: watch::Sender<u64>,
}

impl EventSource for NoEvents {
    fn visible(&self) -> watch::Receiver<u64> {
        self.visible.subscribe()
    }

    fn first_index(&self) -> u64 {
        1
    }

    fn read_memory(&self, _: u64, _: usize) -> Option<Vec<(u64, Arc<[u8]>)>> {
        Some(Vec::new())
    }

    fn read(&self, _: u64, _: usize) -> Result<Vec<(u64, Arc<[u8]>)>> {
        Ok(Vec::new())
    }

    fn after(&self, _: u64) -> Result<u64> {
        Ok(1)
    }

    fn ranges_of(&self, _: RunId, _: u64) -> Result<Vec<(u64, u64)>> {
        Ok(Vec::new())
    }
}
