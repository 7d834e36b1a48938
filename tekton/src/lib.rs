//! The Tekton language: typed documents, loading with source positions, conversion, defaulting,
//! validation, substitution, matrix, `when`, the DAG, and the plan of a TaskRun's Pod.
//!
//! Pure: no I/O, no clock, no randomness, no async. Whatever varies is an argument.

pub mod duration;
pub mod flags;
pub mod graph;
pub mod k8s;
pub mod load;
pub mod matrix;
pub mod names;
pub mod object;
pub mod params;
pub mod pipelinerun;
pub mod pod;
pub mod rejection;
pub mod resultref;
pub mod results;
pub mod secrets;
pub mod substitute;
pub mod taskrun;
pub mod v1;
pub mod validate;
pub mod when;
pub mod yaml_out;

pub use object::Object;
pub use rejection::Rejection;
