//! From a submission to a run: references are resolved and everything is checked that Tekton's
//! reconciler checks before it creates the first child. A run refused here ends at once, `rejected`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenon_tekton::graph::Graph;
use tenon_tekton::k8s::ObjectMeta;
use tenon_tekton::pipelinerun::ResolvedTask;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::{Pipeline, PipelineRun, Task, TaskRun};

use super::held::{GROUP_FULL, is_pending};
use super::resolve::{resolve, resolve_pipeline, resolve_task};
use super::{Materials, Run};
use crate::admission::Admission;
use crate::claims::RunClaims;
use crate::command::{CancelMode, RunObject, Submission};
use crate::due::Due;
use crate::event::{Kind, Status};
use crate::log::{Header, Log, non_empty};
use crate::outcome::RunOutcome;
use crate::pipeline::{Books, PipelineState, Truth};
use crate::policy::Policy;
use crate::taskrun::TaskRunState;
use crate::work::StopReason;
use crate::{RunId, Time, TraceContext};

pub(super) type Tasks = BTreeMap<String, Task>;

impl Run {
    /// A new run, started as far as it goes at once; one that may not begin yet is held back.
    pub(crate) fn submit(
        now: Time,
        log: &mut Log,
        submission: Submission,
        admission: Admission,
    ) -> Run {
        let trace = TraceContext::of(submission.run_id, &submission.run);
        let header = Header::new(submission.run_id, trace);
        if submission.can_be_released && is_pending(&submission.run) {
            return Run::hold(now, log, submission, None);
        }
        match admission {
            Admission::Begins => Run::begin(now, log, header, submission, None),
            Admission::Waits(message) => Run::hold(now, log, submission, Some(message)),
            Admission::Refused(message) => {
                let refusal = Rejection::new(GROUP_FULL, message);
                Run::begin(now, log, header, submission, Some(refusal))
            }
        }
    }

    /// As above, for a run of which something may have been told already.
    pub(super) fn begin(
        now: Time,
        log: &mut Log,
        header: Header,
        submission: Submission,
        refusal: Option<Rejection>,
    ) -> Run {
        let Submission {
            run_id: _,
            run,
            tasks,
            pipelines,
            step_actions,
            service_accounts,
            flags,
            parallel,
            rerun,
            can_be_released: _,
        } = submission;
        let (policy, refusal) = match Policy::of(run.metadata(), run.params()) {
            Ok(policy) => (policy, refusal),
            Err(wrong) => (Policy::default(), Some(wrong)),
        };
        let materials = Materials {
            run_uid: String::new(),
            step_actions,
            service_accounts,
            flags,
            parallel,
            rerun,
            policy,
        };
        match run {
            RunObject::PipelineRun(object) => {
                let known = (&tasks, &pipelines);
                submit_pipeline_run(now, log, header, *object, known, materials, refusal)
            }
            RunObject::TaskRun(object) => {
                submit_task_run(now, log, header, *object, &tasks, materials, refusal)
            }
        }
    }

    pub(super) fn new(
        now: Time,
        mut header: Header,
        metadata: &ObjectMeta,
        mut materials: Materials,
    ) -> Run {
        materials.run_uid = metadata.uid.clone();
        header.namespace.clone_from(&metadata.namespace);
        let claims = materials.rerun.as_ref().and_then(|rerun| rerun.claims.as_ref());
        let claims = claims.map(|claims| claims.homes.clone()).unwrap_or_default();
        Run {
            header,
            name: metadata.name.clone(),
            materials,
            pipeline: None,
            task_runs: Vec::new(),
            custom_runs: Vec::new(),
            by_name: BTreeMap::new(),
            queue: std::collections::VecDeque::new(),
            active: std::collections::BTreeSet::new(),
            to_do: std::collections::BTreeSet::new(),
            due: Due::new(),
            agents: std::collections::BTreeSet::new(),
            claims: RunClaims::of_earlier(claims),
            clock: now,
            moved: Vec::new(),
            held: None,
            held_by_group: None,
            start: now,
            outcome: None,
            ended_at: None,
        }
    }
}

/// What an API server fills in.
pub(super) fn admit(metadata: &mut ObjectMeta, kind: &str, run: RunId, now: Time) {
    if metadata.namespace.is_empty() {
        metadata.namespace = "default".to_owned();
    }
    if metadata.uid.is_empty() {
        metadata.uid = run.object_uid(kind, &metadata.name);
    }
    if metadata.creation_timestamp.is_none() {
        metadata.creation_timestamp = Some(now.to_seconds_string());
    }
    metadata.generation = metadata.generation.max(1);
    // Tekton drops what only its signer may write.
    let reserved = |key: &String| key.starts_with("chains.tekton.dev/");
    metadata.annotations.retain(|key, _| !reserved(key));
}

// ---- TaskRun --------------------------------------------------------------------------------------

fn submit_task_run(
    now: Time,
    log: &mut Log,
    header: Header,
    mut object: TaskRun,
    tasks: &Tasks,
    materials: Materials,
    refusal: Option<Rejection>,
) -> Run {
    let id = header.run;
    admit(&mut object.metadata, "TaskRun", id, now);
    object.api_version = "tekton.dev/v1".to_owned();
    object.kind = "TaskRun".to_owned();
    let mut run = Run::new(now, header, &object.metadata, materials);
    let minutes = run.materials.flags.default_timeout_minutes;
    let spec_status = object.spec.status.clone();
    let status_message = object.spec.status_message.clone();
    let task = match object.spec.task_ref.as_ref() {
        Some(reference) if !reference.name.is_empty() => reference.name.clone(),
        _ => object.metadata.name.clone(),
    };
    let (resolved, refusal) = match resolve_task_run(&object, tasks) {
        Ok(resolved) => (resolved, refusal),
        Err(rejection) => (ResolvedTask::default(), Some(refusal.unwrap_or(rejection))),
    };
    let refusal =
        managed_by_others("TaskRun", &object.metadata.name, object.spec.managed_by.as_deref())
            .or(refusal);
    let refusal = match spec_status.as_str() {
        "TaskRunPending" => Some(pending("TaskRun", &object.metadata.name, "TaskRunPending")),
        "TaskRunCancelled" => None,
        _ => refusal,
    };
    let mut state = TaskRunState::new(id, object, task, Arc::new(resolved), minutes);
    state.object.spec.status = String::new();
    let description = state.description.clone();
    let index = run.add_task_run(state);
    let mut event = run.run_event(Kind::RunStart, now);
    event.description = description;
    log.push(&mut run.header, event);
    if let Some(rejection) = refusal {
        run.task_runs[index].object.spec.status = spec_status;
        run.refuse(now, log, rejection);
    } else if spec_status == "TaskRunCancelled" {
        run.stop(now, log, index, StopReason::Cancelled, &status_message);
    } else if let Err(rejection) = run.check_plan(now, log, index) {
        run.refuse(now, log, rejection);
    }
    run.advance(now, log);
    run
}

fn resolve_task_run(object: &TaskRun, tasks: &Tasks) -> Result<ResolvedTask, Rejection> {
    let name = &object.metadata.name;
    if let Some(reference) = &object.spec.task_ref {
        return resolve_task(reference, tasks).map_err(|why| {
            let message = format!("error when listing tasks for taskRun {name}: {why}");
            Rejection::new("TaskRunResolutionFailed", message)
        });
    }
    let spec = object.spec.task_spec.clone().ok_or_else(|| {
        let message = format!("taskRun {name} not providing TaskRef or TaskSpec");
        Rejection::new("TaskRunResolutionFailed", message)
    })?;
    Ok(ResolvedTask { spec, ..ResolvedTask::default() })
}

// ---- PipelineRun ----------------------------------------------------------------------------------

fn submit_pipeline_run(
    now: Time,
    log: &mut Log,
    header: Header,
    mut object: PipelineRun,
    (tasks, pipelines): (&Tasks, &BTreeMap<String, Pipeline>),
    materials: Materials,
    refusal: Option<Rejection>,
) -> Run {
    admit(&mut object.metadata, "PipelineRun", header.run, now);
    object.api_version = "tekton.dev/v1".to_owned();
    object.kind = "PipelineRun".to_owned();
    let mut run = Run::new(now, header, &object.metadata, materials);
    let mode = match object.spec.status.as_str() {
        "Cancelled" => Some(CancelMode::Cancelled),
        "CancelledRunFinally" => Some(CancelMode::CancelledRunFinally),
        "StoppedRunFinally" => Some(CancelMode::StoppedRunFinally),
        _ => None,
    };
    let waits = object.spec.status == "PipelineRunPending";
    let refusal =
        managed_by_others("PipelineRun", &object.metadata.name, object.spec.managed_by.as_deref())
            .or(refusal);
    label_with_pipeline(&mut object);
    let mut state = unresolved(object);
    state.cancel = mode;
    let mut description = None;
    let outcome = match resolve_pipeline(&mut state.object, pipelines) {
        Ok((name, referenced)) => {
            let runs = mode != Some(CancelMode::Cancelled) && !waits;
            let embedded = state.object.spec.pipeline_spec.take();
            let spec = referenced.or(embedded.as_ref());
            description = spec.and_then(|spec| non_empty(&spec.description));
            run.header.pipeline = Some(name.clone());
            let outcome = match spec.filter(|_| runs) {
                Some(spec) => resolve(&mut state, &name, spec, tasks, &run.materials),
                None => Ok(()),
            };
            if state.spec.is_none() {
                state.spec = spec.cloned();
            }
            state.object.spec.pipeline_spec = embedded;
            outcome
        }
        Err(rejection) => Err(rejection),
    };
    let outcome = match waits {
        true => Err(pending("PipelineRun", &run.name, "PipelineRunPending")),
        false => refusal.map_or(outcome, Err),
    };
    run.header.pipeline_run = Some(run.name.clone());
    run.task_runs.reserve(state.tasks.len());
    run.pipeline = Some(state);
    let mut event = run.run_event(Kind::RunStart, now);
    event.description = description;
    log.push(&mut run.header, event);
    match outcome {
        Err(rejection) if mode != Some(CancelMode::Cancelled) => run.refuse(now, log, rejection),
        _ => run.advance(now, log),
    }
    run
}

fn unresolved(object: PipelineRun) -> PipelineState {
    PipelineState {
        workspaces: object.spec.workspaces.clone(),
        object,
        spec: None,
        tasks: Vec::new(),
        dag_len: 0,
        graph: Graph::default(),
        order: Vec::new(),
        index: BTreeMap::new(),
        books: Books::default(),
        cancel: None,
        tasks_timed_out: false,
        timed_out: false,
        finally_timed_out: false,
        fatal: None,
        finally_start: None,
        end: None,
        results: Vec::new(),
    }
}

/// Tekton's label, which the TaskRuns inherit.
fn label_with_pipeline(object: &mut PipelineRun) {
    let metadata = &mut object.metadata;
    let referenced = object.spec.pipeline_ref.as_ref().map(|r| r.name.clone());
    let value = match referenced {
        Some(name) if !name.is_empty() => name,
        None if !metadata.generate_name.is_empty() => {
            tenon_tekton::names::restrict_length(&metadata.generate_name)
        }
        _ => metadata.name.clone(),
    };
    let label = "tekton.dev/pipeline".to_owned();
    metadata.labels.entry(label).or_insert(value);
}

// ---- refusal --------------------------------------------------------------------------------------

/// A run that says of itself that it must not start would wait for ever here: nobody edits it.
fn pending(kind: &str, name: &str, reason: &'static str) -> Rejection {
    let message = format!("{kind} \"{name}\" is pending: remove spec.status to run it");
    Rejection::new(reason, message)
}

/// Tekton leaves a run alone that says so, and it stays as it is for ever.
fn managed_by_others(kind: &str, name: &str, manager: Option<&str>) -> Option<Rejection> {
    let manager = manager.filter(|it| !matches!(*it, "" | "tekton.dev/pipeline"))?;
    let message =
        format!("{kind} \"{name}\" is left to {manager:?}: remove spec.managedBy to run it here");
    Some(Rejection::new("ManagedByOthers", message))
}

impl Run {
    /// Ends the run before anything of it ran.
    fn refuse(&mut self, now: Time, log: &mut Log, rejection: Rejection) {
        self.queue.clear();
        self.active.clear();
        let reason = rejection.reason.to_owned();
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.end = Some((Truth::False, reason, rejection.message));
            pipeline.forget_tasks();
            self.end_pipeline(now, log, true);
            return;
        }
        let run = self.id();
        self.task_runs[0].refuse(run, now, &rejection);
        let outcome = RunOutcome {
            status: Status::Failed,
            reason,
            message: rejection.message,
            rejected: true,
            timed_out: false,
        };
        self.end(now, log, outcome, None);
    }
}
