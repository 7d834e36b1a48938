//! Following the records of an attempt's containers, and making reports of them.

mod follow;
mod inotify;
mod lines;
mod reports;
mod tail;

pub use follow::{Followed, Follower, Record, follow};
pub use lines::{LONGEST_LINE, Lines};
pub use reports::{Fate, output, sidecar_ended, step_ended};
