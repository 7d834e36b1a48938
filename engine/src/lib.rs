//! The run state machine: commands in, events out.
//!
//! Pure and deterministic: time, ids and random bits arrive inside a command, so every node that
//! applies the same commands has the same state and the same events (invariant 2).

mod admission;
pub mod claims;
pub mod command;
mod due;
pub mod engine;
pub mod event;
pub mod explain;
mod groups;
pub mod ids;
mod log;
pub mod outcome;
mod pipeline;
pub mod plan;
mod policy;
pub mod report;
pub mod rerun;
mod run;
mod state;
mod taskrun;
#[cfg(test)]
mod tests;
pub mod time;
pub mod trace;
pub mod usage;
pub mod work;

pub use claims::Claim;
pub use command::{Command, RunObject, Submission};
pub use engine::Engine;
pub use event::{Event, Kind};
pub use explain::Explanation;
pub use ids::{AttemptId, RunId};
pub use outcome::RunOutcome;
pub use report::Report;
pub use rerun::Rerun;
pub use state::Undecodable;
pub use time::Time;
pub use trace::TraceContext;
pub use work::{Requirements, StopReason, Usage, Work};
