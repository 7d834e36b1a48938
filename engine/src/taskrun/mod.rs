//! One TaskRun: its attempts one after the other, and the placements of each.
//!
//! An attempt is over only when its agent has said so (`Ended`), or when it was never given to an
//! agent; until then a wish to stop it is pending work. Reports of any other placement change
//! nothing. What Tekton writes into `status` is derived on demand ([`status`]).

mod conclude;
mod plan;
mod report;
mod results;
mod status;
mod verdict;

pub(crate) use plan::{no_resolver, not_found};
pub(crate) use status::condition;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenon_tekton::k8s::ServiceAccount;
use tenon_tekton::pipelinerun::ResolvedTask;
use tenon_tekton::pod::Pod;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::{TaskRun, TaskRunResult, TaskRunStatus, TaskSpec};

use crate::event::{Event, Kind, MatrixCell, Status};
use crate::log::{Header, Log};
use crate::report::{Outcome, Report, StepEnd, WorkspaceUse};
use crate::run::Materials;
use crate::usage::ResourceUsage;
use crate::work::{Requirements, StopReason, Usage};
use crate::{AttemptId, RunId, Time};

/// An attempt is placed anew at most so often after infrastructure failures.
pub(crate) const MAX_REPLACEMENTS: u32 = 3;
/// A status keeps no more tries than this of a TaskRun that is wrong from the beginning.
const REFUSED_AGAIN: usize = 100;

/// What a command may touch besides the TaskRun itself.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) header: &'a mut Header,
    pub(crate) log: &'a mut Log,
    pub(crate) materials: &'a Materials,
}

impl Context<'_> {
    pub(crate) fn service_account(&self, name: &str) -> Option<&ServiceAccount> {
        let name = if name.is_empty() { "default" } else { name };
        self.materials.service_accounts.get(name)
    }
}

/// Where the current attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Held back by the run's own limit of attempts at a time.
    Queued,
    /// Needs an agent.
    Waiting,
    /// Has an agent, which has not yet said that it began.
    Placed,
    /// The agent works on it.
    Running,
    /// Nothing of it runs any more.
    Over,
}

/// How a TaskRun or an attempt ended, in Tekton's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) kind: VerdictKind,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VerdictKind {
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    /// Cancelled because a timeout of the PipelineRun was reached.
    CancelledByTimeout,
    Infra,
}

impl VerdictKind {
    pub(crate) fn event_status(self) -> Status {
        match self {
            VerdictKind::Succeeded => Status::Succeeded,
            VerdictKind::Failed => Status::Failed,
            VerdictKind::TimedOut | VerdictKind::CancelledByTimeout => Status::Timeout,
            VerdictKind::Cancelled => Status::Cancelled,
            VerdictKind::Infra => Status::InfraFailed,
        }
    }
}

/// One step of the current placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepProgress {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) span_id: String,
    pub(crate) started: Option<Time>,
    pub(crate) end: Option<(Time, StepEnd)>,
    /// Its `step-end` is out, though the agent never reported one.
    pub(crate) closed: bool,
}

/// One sidecar of the current placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SidecarProgress {
    pub(crate) name: String,
    pub(crate) span_id: String,
    pub(crate) started: Option<Time>,
    pub(crate) end: Option<SidecarEnd>,
}

/// How a sidecar ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SidecarEnd {
    pub(crate) time: Time,
    pub(crate) exit_code: i32,
    pub(crate) stopped: bool,
    pub(crate) oom_killed: bool,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
}

/// Why an attempt waits for an agent: for programs, and for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waits {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The current attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) placement: u32,
    pub(crate) phase: Phase,
    pub(crate) agent: Option<String>,
    /// Why no agent can take it, as far as somebody said so.
    pub(crate) waits: Option<Waits>,
    /// When it left the queue: Tekton's `status.startTime`, from which its timeout counts.
    pub(crate) start: Option<Time>,
    /// When the agent began, by the agent's clock.
    agent_start: Option<Time>,
    pub(crate) completion: Option<Time>,
    pub(crate) deadline: Option<Time>,
    pub(crate) stopping: Option<StopReason>,
    /// `task-start` is out.
    announced: bool,
    span_id: String,
    /// Name of the Pod, also when that is not needed any more.
    pub(crate) pod_name: String,
    pod: Option<Arc<Pod>>,
    requirements: Arc<Requirements>,
    pub(crate) task_spec: Option<Arc<TaskSpec>>,
    pub(crate) steps: Vec<StepProgress>,
    pub(crate) sidecars: Vec<SidecarProgress>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) results: Vec<TaskRunResult>,
    /// What the agent has said of its claims; told once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workspaces: Vec<WorkspaceUse>,
}

impl Attempt {
    /// What its steps have used together.
    fn usage(&self) -> ResourceUsage {
        let ends = self.steps.iter().filter_map(|step| step.end.as_ref());
        ResourceUsage::all(ends.filter_map(|(_, end)| end.usage))
    }
}

/// What a command did to a TaskRun, as far as the run has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that the run has to act on.
    None,
    /// The attempt failed and the next one waits in the queue.
    Retry,
    /// The TaskRun is over.
    Ended,
}

/// The claims that an ended placement could write to.
pub(crate) struct Written {
    pub(crate) namespace: String,
    pub(crate) claims: std::collections::BTreeSet<String>,
    pub(crate) uses: Vec<WorkspaceUse>,
    /// It may have written something that others rely on.
    pub(crate) counts: bool,
}

/// One TaskRun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRunState {
    /// Its metadata and spec; the status is made on demand.
    pub(crate) object: TaskRun,
    /// The event key `task`.
    pub(crate) task: String,
    pub(crate) matrix: Option<MatrixCell>,
    pub(crate) display_name: Option<String>,
    pub(crate) description: Option<String>,
    /// Index of the PipelineTask; `None` for a TaskRun of its own.
    pub(crate) pipeline_task: Option<usize>,
    /// Exported beside the state, because many TaskRuns may share it.
    #[serde(skip)]
    pub(crate) resolved: Arc<ResolvedTask>,
    /// `onError: continue` of the PipelineTask.
    pub(crate) failure_ignored: bool,
    /// `None` is no limit.
    pub(crate) timeout: Option<tenon_tekton::duration::GoDuration>,
    pub(crate) retries_status: Vec<TaskRunStatus>,
    /// When the first attempt left the queue.
    pub(crate) begun: Option<Time>,
    pub(crate) attempt: Attempt,
    /// The agent in whose count the current placement is.
    pub(crate) counted_on: Option<String>,
    /// What is counted there.
    #[serde(default)]
    pub(crate) counted: Usage,
}

impl TaskRunState {
    /// A TaskRun whose first attempt waits in the queue.
    pub(crate) fn new(
        run: RunId,
        object: TaskRun,
        task: String,
        resolved: Arc<ResolvedTask>,
        default_timeout_minutes: u32,
    ) -> Self {
        use tenon_tekton::duration::GoDuration;
        let timeout = object
            .spec
            .timeout
            .unwrap_or_else(|| GoDuration::from_secs(i64::from(default_timeout_minutes) * 60));
        let mut object = object;
        inherit(&mut object, &resolved);
        let attempt = Attempt::new(run, &object.metadata.name, 1);
        TaskRunState {
            description: crate::log::non_empty(&resolved.spec.description),
            display_name: crate::log::non_empty(&resolved.spec.display_name),
            object,
            task,
            matrix: None,
            pipeline_task: None,
            resolved,
            failure_ignored: false,
            timeout: (timeout.0 != 0).then_some(timeout),
            retries_status: Vec::new(),
            begun: None,
            attempt,
            counted_on: None,
            counted: Usage::default(),
        }
    }

    /// Whether a Pod can be made of it.
    pub(crate) fn check_plan(&self, ctx: &Context<'_>) -> Result<(), Rejection> {
        plan::plan_pod(self, ctx).map(|_| ())
    }

    /// Ends a TaskRun of its own before anything ran; no event tells of it.
    pub(crate) fn refuse(&mut self, run: RunId, now: Time, rejection: &Rejection) {
        // Tekton tries again what it found wrong, and finds it as wrong. Nothing is wrong with one that is pending.
        let retries = match rejection.reason {
            "TaskRunPending" => 0,
            _ => usize::try_from(self.object.spec.retries).unwrap_or(0).min(REFUSED_AGAIN),
        };
        for _ in 0..retries {
            self.refuse_once(now, rejection);
            self.retry(run);
        }
        self.refuse_once(now, rejection);
    }

    fn refuse_once(&mut self, now: Time, rejection: &Rejection) {
        let attempt = &mut self.attempt;
        attempt.phase = Phase::Over;
        if !self.resolved.spec.steps.is_empty() {
            attempt.task_spec = Some(Arc::new(self.resolved.spec.clone()));
        }
        attempt.start = Some(now);
        attempt.completion = Some(now);
        attempt.verdict = Some(Verdict {
            kind: VerdictKind::Failed,
            reason: rejection.reason.to_owned(),
            message: rejection.message.clone(),
        });
    }

    pub(crate) fn name(&self) -> &str {
        &self.object.metadata.name
    }

    pub(crate) fn attempt_id(&self, run: RunId) -> AttemptId {
        AttemptId {
            run,
            task_run: self.name().to_owned(),
            attempt: self.attempt.number,
            placement: self.attempt.placement,
        }
    }

    /// The final verdict; `None` while the TaskRun goes on.
    pub(crate) fn end(&self) -> Option<&Verdict> {
        self.attempt.verdict.as_ref()
    }

    pub(crate) fn is_cancelled_by_spec(&self) -> bool {
        self.object.spec.status == "TaskRunCancelled"
    }

    pub(crate) fn pod(&self) -> Option<&Pod> {
        match self.attempt.phase {
            Phase::Waiting | Phase::Placed | Phase::Running => self.attempt.pod.as_deref(),
            Phase::Queued | Phase::Over => None,
        }
    }

    /// What the end of the current placement, if this is one, means for its claims.
    pub(crate) fn written(&self, report: &Report) -> Option<Written> {
        let Report::Ended { workspaces, outcome, .. } = report else { return None };
        let pod = self.pod()?;
        let claims = pod.claims().into_iter().filter(|(_, access)| access.writes);
        let attempt = &self.attempt;
        Some(Written {
            namespace: pod.namespace.clone(),
            claims: claims.map(|(name, _)| name.to_owned()).collect(),
            uses: workspaces.clone(),
            // What is lost was there for nobody, also when it is not tried again.
            counts: !matches!(outcome, Outcome::Infra { .. })
                && (attempt.steps.iter().any(|step| step.started.is_some())
                    || attempt.sidecars.iter().any(|sidecar| sidecar.started.is_some())),
        })
    }

    /// When the attempt's time is up, unless it is to stop anyway.
    pub(crate) fn due(&self) -> Option<Time> {
        let attempt = &self.attempt;
        let counts = matches!(attempt.phase, Phase::Waiting | Phase::Placed | Phase::Running);
        attempt.deadline.filter(|_| counts && attempt.stopping.is_none())
    }

    /// The agent that has the attempt, until it has ended.
    pub(crate) fn placed_on(&self) -> Option<&str> {
        let placed = matches!(self.attempt.phase, Phase::Placed | Phase::Running);
        self.attempt.agent.as_deref().filter(|_| placed)
    }

    /// Whether an agent is to be found, or told something.
    pub(crate) fn is_to_do(&self) -> bool {
        match self.attempt.phase {
            Phase::Waiting | Phase::Placed => true,
            Phase::Running => self.attempt.stopping.is_some(),
            Phase::Queued | Phase::Over => false,
        }
    }

    pub(crate) fn requirements(&self) -> &Arc<Requirements> {
        &self.attempt.requirements
    }

    /// An event about the current placement.
    fn event(&self, header: &Header, kind: Kind, time: Time) -> Event {
        Event {
            task: Some(self.task.clone()),
            task_run: Some(self.name().to_owned()),
            attempt: Some(self.attempt.number),
            placement: Some(self.attempt.placement),
            agent: self.attempt.agent.clone(),
            span_id: Some(self.attempt.span_id.clone()),
            ..header.event(kind, time)
        }
    }

    /// A `task-*` event: as above, with the matrix cell and the display name.
    fn task_event(&self, header: &Header, kind: Kind, time: Time) -> Event {
        Event {
            matrix: self.matrix.clone(),
            display_name: self.display_name.clone(),
            ..self.event(header, kind, time)
        }
    }
}

/// The TaskRun's labels and annotations, with those of its Task where it has none of that name.
fn inherit(object: &mut TaskRun, resolved: &ResolvedTask) {
    let metadata = &mut object.metadata;
    for (key, value) in &resolved.labels {
        let labels = &mut metadata.labels;
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &resolved.annotations {
        let annotations = &mut metadata.annotations;
        if key != "kubectl.kubernetes.io/last-applied-configuration" {
            annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if let Some(name) = &resolved.name {
        let label = "tekton.dev/task".to_owned();
        metadata.labels.insert(label, name.clone());
    }
}

impl Attempt {
    /// When the agent began, by its clock.
    pub(crate) fn agent_start(&self) -> Option<Time> {
        self.agent_start
    }

    fn new(run: RunId, task_run: &str, number: u32) -> Self {
        let mut attempt = Attempt {
            number,
            placement: 0,
            phase: Phase::Queued,
            agent: None,
            waits: None,
            start: None,
            agent_start: None,
            completion: None,
            deadline: None,
            stopping: None,
            announced: false,
            span_id: String::new(),
            pod_name: String::new(),
            pod: None,
            requirements: Arc::default(),
            task_spec: None,
            steps: Vec::new(),
            sidecars: Vec::new(),
            verdict: None,
            results: Vec::new(),
            workspaces: Vec::new(),
        };
        attempt.next_placement(run, task_run);
        attempt
    }

    /// Forgets what the last placement did; containers start from the beginning.
    fn next_placement(&mut self, run: RunId, task_run: &str) {
        self.placement += 1;
        self.agent = None;
        self.waits = None;
        self.agent_start = None;
        let id = AttemptId {
            run,
            task_run: task_run.to_owned(),
            attempt: self.number,
            placement: self.placement,
        };
        self.span_id = id.span_id();
        if let Some(pod) = &self.pod {
            self.steps = pod
                .steps
                .iter()
                .map(|step| StepProgress {
                    name: step.name.clone(),
                    display_name: crate::log::non_empty(&step.display_name),
                    span_id: id.container_span_id(&format!("step-{}", step.name)),
                    started: None,
                    end: None,
                    closed: false,
                })
                .collect();
            self.sidecars = pod
                .sidecars
                .iter()
                .map(|sidecar| SidecarProgress {
                    name: sidecar.name.clone(),
                    span_id: id.container_span_id(&format!("sidecar-{}", sidecar.name)),
                    started: None,
                    end: None,
                })
                .collect();
        }
    }
}
