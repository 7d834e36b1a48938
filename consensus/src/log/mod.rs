//! The log: what of it is in memory, how it is written to a journal, and how it is found again.
//!
//! Entries go into the [`LogView`] when the core gives out their `Write`, before they are on the disk: raft-rs reads them from
//! there. The [`LogWriter`] appends them to the journal and notes where; only then their data may leave the memory.

mod record;
mod recover;
mod view;
mod writer;

pub use recover::Recovered;
pub use view::LogView;
pub use writer::{Compaction, LogOptions, LogWriter, Repair};
