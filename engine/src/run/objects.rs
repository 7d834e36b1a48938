//! The objects of a run, with Tekton's status as of now.

use tenon_tekton::Object;

use super::Run;
use crate::taskrun::TaskRunState;

impl Run {
    /// The run object, then its children in the order of their creation.
    pub(crate) fn objects(&self) -> Vec<Object> {
        if let Some(object) = self.held_object() {
            return vec![object];
        }
        let task_runs = self.task_runs.iter().map(TaskRunState::object_with_status);
        let task_runs = task_runs.map(|task_run| Object::TaskRun(Box::new(task_run)));
        let Some(pipeline) = &self.pipeline else {
            return task_runs.collect();
        };
        let run = self.pipeline_run_with_status(pipeline);
        let custom_runs = self.custom_runs.iter().map(|run| run.object_with_status());
        std::iter::once(Object::PipelineRun(Box::new(run)))
            .chain(task_runs)
            .chain(custom_runs.map(|run| Object::CustomRun(Box::new(run))))
            .collect()
    }
}
