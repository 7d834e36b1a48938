//! The store of runs: `<state>/runs/<RunId>/`, one directory a run.
//!
//! | file | what |
//! |---|---|
//! | `events/` | journal of the run's events (see [`record`]) |
//! | `run.json` | [`Summary`], replaced atomically |
//! | `objects.yaml` | the final run object and its children |
//! | `lock` | locked by the [`RunWriter`] while it lives: how others know that the run goes on |
//!
//! A run whose writer is gone without a `run-end` reads as `interrupted`.

mod find;
mod log;
mod prune;
mod reader;
mod record;
mod signal;
mod store;
mod summary;
mod writer;

pub use prune::{PrunePolicy, Pruned};
pub use reader::{Next, RunReader, Stored};
pub use record::{decode, encode};
pub use store::{Store, default_state_dir};
pub use summary::{RunStatus, Summary, TaskCounts};
pub use writer::RunWriter;
