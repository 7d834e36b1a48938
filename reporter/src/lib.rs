//! Everything that turns events into something people or programs read.
//!
//! A run's events live in its own journal ([`history`]). Whoever shows a run, while it is going on
//! or a year later, follows that journal: live output and replay are one code path, so they cannot
//! differ. This crate starts nothing and decides nothing about a run.

pub mod error;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod follow;
pub mod history;
pub mod json;
pub mod line;
pub mod pretty;
pub mod spans;
mod stamp;

pub use error::{Error, Result};
