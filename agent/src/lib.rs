//! The agent: takes attempts from a coordinator, runs them on a backend, reports every event.

pub mod backend;
