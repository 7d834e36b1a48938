//! Tekton's `status` of a PipelineRun, made of the state whenever somebody asks.

use tenon_tekton::pipelinerun::display_name;
use tenon_tekton::v1::{
    ChildStatusReference, PipelineRun, PipelineRunStatus, SkippedTask, TaskRun,
};

use super::skip::Skip;
use super::state::{Child, PipelineState, PipelineTaskState};
use crate::Time;
use crate::rerun::KEPT;
use crate::run::Run;
use crate::taskrun::condition;

impl Run {
    /// The PipelineRun with its status.
    pub(crate) fn pipeline_run_with_status(&self, pipeline: &PipelineState) -> PipelineRun {
        let (status, reason, message) = pipeline.verdict();
        let since = self.ended_at.unwrap_or(self.start);
        let children = pipeline.tasks.iter().flat_map(|state| {
            let children = state.children.iter();
            children.map(|child| self.child_reference(state, *child))
        });
        PipelineRun {
            status: Some(PipelineRunStatus {
                conditions: vec![condition(status.as_str(), &reason, &message, since)],
                start_time: Some(self.start.to_seconds_string()),
                completion_time: self.ended_at.map(Time::to_seconds_string),
                results: pipeline.results.clone(),
                pipeline_spec: pipeline.spec.clone(),
                skipped_tasks: skipped_tasks(pipeline),
                child_references: children.collect(),
                finally_start_time: pipeline.finally_start.map(Time::to_seconds_string),
                ..PipelineRunStatus::default()
            }),
            ..pipeline.object.clone()
        }
    }

    fn child_reference(&self, state: &PipelineTaskState, child: Child) -> ChildStatusReference {
        let (api_version, kind, name, params) = match child {
            Child::TaskRun(index) => {
                let TaskRun { metadata, spec, .. } = &self.task_runs[index].object;
                ("tekton.dev/v1", "TaskRun", &metadata.name, &spec.params)
            }
            Child::CustomRun(index) => {
                let object = &self.custom_runs[index].object;
                let (name, params) = (&object.metadata.name, &object.spec.params);
                ("tekton.dev/v1beta1", "CustomRun", name, params)
            }
        };
        ChildStatusReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.clone(),
            display_name: display_name(&state.task, params),
            pipeline_task_name: state.task.name.clone(),
            when_expressions: state.task.when.clone(),
        }
    }
}

/// DAG tasks show their `when` whatever the reason, finally tasks only when it was the reason. What an
/// earlier run did is listed too, with a reason of its own.
fn skipped_tasks(pipeline: &PipelineState) -> Vec<SkippedTask> {
    let skipped = pipeline.tasks.iter().enumerate();
    skipped
        .filter_map(|(index, state)| {
            let reason = match (state.skip, &state.kept) {
                (Some(skip), _) => skip.as_str(),
                (None, Some(_)) => KEPT,
                (None, None) => return None,
            };
            let shows_when = index < pipeline.dag_len || state.skip == Some(Skip::When);
            Some(SkippedTask {
                name: state.task.name.clone(),
                reason: reason.to_owned(),
                when_expressions: match shows_when {
                    true => state.task.when.clone(),
                    false => Vec::new(),
                },
            })
        })
        .collect()
}
