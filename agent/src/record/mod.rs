//! Following the records of an attempt's containers, and making reports of them.

mod follow;
mod inotify;
mod lines;
pub mod mark;
mod reports;
mod tail;

pub use follow::{Followed, Follower, Record, follow};
pub use lines::{At, LONGEST_LINE, Lines};
pub use mark::{Mark, Marked, Pending};
pub use reports::{Fate, NEVER_BEGAN, output, sidecar_ended, step_ended};
