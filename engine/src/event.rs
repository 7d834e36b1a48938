//! The domain event: one line of the JSON contract (docs/events.md), key for key.
//!
//! The serialised form of an event *is* its line in the stream, so what is stored and what is
//! printed are the same bytes. Only step output is different: one event carries many lines as a
//! packed chunk and claims as many `seq` and `runSeq` numbers as it has lines; the reporter
//! unfolds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_tekton::v1::ParamValue;

use crate::report::WorkspaceUse;
use crate::usage::ResourceUsage;
use crate::{RunId, Time};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the contract's own, described in docs/events.md")]
pub enum Kind {
    RunStart,
    RunEnd,
    TaskStart,
    TaskRetry,
    TaskEnd,
    TaskSkip,
    TaskLost,
    StepStart,
    StepLog,
    StepEnd,
    SidecarStart,
    SidecarLog,
    SidecarEnd,
    ResolverStart,
    ResolverEnd,
    Error,
    Debug,
    RunQueued,
    TaskQueued,
    AgentUp,
    AgentDown,
    LeaderChange,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the contract's own, described in docs/events.md")]
pub enum Status {
    Succeeded,
    Failed,
    #[serde(rename = "infrafailed")]
    InfraFailed,
    Skipped,
    NotRun,
    Timeout,
    Cancelled,
}

/// Where a TaskRun stands in its matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// The PipelineTask that fans out.
    pub parent: String,
    /// 0-based position among the combinations.
    pub index: u32,
    /// How many combinations there are.
    pub of: u32,
    /// This combination's params.
    pub params: BTreeMap<String, ParamValue>,
}

/// One event. Keys are described in docs/events.md; `None` and empty keys are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the keys are the contract's own, described in docs/events.md")]
pub struct Event {
    pub kind: Kind,
    pub time: Time,
    pub seq: u64,
    /// `None`, like the two after it, for what belongs to no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<MatrixCell>,
    /// Step or sidecar name, without `step-` or `sidecar-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUsage>,
    /// Of `task-end`: since the task's first attempt could be placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_duration_ms: Option<i64>,
    /// Of `task-end`, `task-retry` and `task-lost`: what became of its claims on the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<BTreeMap<String, ParamValue>>,
    #[serde(rename = "display_name", default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Of `leader-change`: the coordinator that leads now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Of `leader-change`: the term that it leads in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Of `run-*`: the span of whoever submitted the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// `00` where whoever submitted the run does not record its trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_flags: Option<String>,
    /// Of `step-log` and `sidecar-log`: the packed lines. `time`, `seq` and `runSeq` above are
    /// those of the first line.
    #[serde(skip)]
    pub output: Option<Output>,
}

impl Event {
    /// An event of which only this much is known.
    pub fn new(kind: Kind, time: Time) -> Event {
        Event {
            kind,
            time,
            seq: 0,
            run_seq: None,
            run_id: None,
            namespace: None,
            pipeline: None,
            pipeline_run: None,
            task: None,
            task_run: None,
            attempt: None,
            placement: None,
            matrix: None,
            step: None,
            status: None,
            reason: None,
            message: None,
            exit_code: None,
            duration_ms: None,
            usage: None,
            task_duration_ms: None,
            workspaces: Vec::new(),
            results: None,
            display_name: None,
            description: None,
            agent: None,
            node: None,
            term: None,
            trace_id: None,
            span_id: None,
            parent_span_id: None,
            trace_flags: None,
            output: None,
        }
    }
}

/// Lines of one container, packed by `tenon_journal::output`.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// How many lines the chunk holds, each with its own `seq` and `runSeq`.
    pub lines: u32,
    /// The packed chunk.
    pub chunk: Vec<u8>,
}
