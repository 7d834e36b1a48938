//! The Tekton language: typed documents, loading with source positions, conversion, defaulting,
//! validation, substitution, matrix, `when`, the DAG, and the plan of a TaskRun's Pod.
//!
//! Pure: no I/O, no clock, no randomness, no async. Whatever varies is an argument.

pub mod duration;
pub mod flags;
pub mod k8s;
pub mod load;
pub mod object;
pub mod pod;
pub mod secrets;
pub mod v1;

pub use object::Object;
