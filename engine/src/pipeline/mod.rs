//! A PipelineRun: its tasks, which of them may start, which never will, and how it all ends.
//!
//! After every command that matters, [`schedule`] derives from the state what follows, as Tekton's
//! reconciler does: nothing is remembered that could be derived, and what was skipped for one reason
//! may later be skipped for another.

mod books;
mod children;
mod custom;
mod finish;
mod schedule;
mod skip;
mod state;
mod status;
mod timeouts;

pub(crate) use books::Books;
pub(crate) use custom::CustomRunState;
pub(crate) use finish::Truth;
pub(crate) use state::{Child, PipelineState, PipelineTaskState};

/// Tekton's messages for TaskRuns that their PipelineRun stops.
pub(crate) const CANCELLED_BY_PIPELINE: &str =
    "TaskRun cancelled as the PipelineRun it belongs to has been cancelled.";
/// The same, for a timeout.
pub(crate) const CANCELLED_BY_TIMEOUT: &str =
    "TaskRun cancelled as the PipelineRun it belongs to has timed out.";
