//! `tekton.dev/v1`: the documents as Tekton's API names them.
//!
//! Documents of `v1beta1` are converted to these while loading; nothing else in Tenon knows v1beta1
//! (StepAction and CustomRun, which have no v1, excepted).

mod param;
mod pipeline;
mod pipelinerun;
mod stepaction;
mod task;
mod taskrun;
mod when;
mod workspace;

pub use param::*;
pub use pipeline::*;
pub use pipelinerun::*;
pub use stepaction::*;
pub use task::*;
pub use taskrun::*;
pub use when::*;
pub use workspace::*;
