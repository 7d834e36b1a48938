//! Results: of steps, of tasks, of a Pipeline, and the references between them.
//!
//! A result's file is taken as it is, trailing newline and all. What is here decides values only; when
//! a task may start is the engine's business.

mod pipeline;
mod resolve;
mod task;

pub use pipeline::{PipelineResults, pipeline_results};
pub use resolve::{MissingResult, Producer, ResolvedRef, matrix_values, replacements, resolve};
pub use task::{StepOutput, TaskResults, task_results};
