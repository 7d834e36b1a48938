//! The one durable primitive: an append-only, segmented, checksummed log of records.
//!
//! A [`Journal`] is a directory of segment files with exactly one writer (an exclusive lock on the directory). Records have
//! consecutive indices. `append` buffers, `sync` makes durable (a true `fdatasync`, shared by concurrent callers); what
//! `sync` has returned for survives `kill -9` and a power cut. A torn tail is cut at open, and damage anywhere else is
//! refused with the file, the byte and what to do. A [`Reader`] follows a journal, from this process or from another.
//! [`output`] is the packed form of step output, which is stored in journals but is opaque to them.
//! It does not interpret records, and knows nothing of runs.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! use tenon_journal::{Journal, Options};
//!
//! let (journal, recovered) = Journal::open(dir, Options::default())?;
//! assert_eq!(recovered.last_index, 0);
//! let first = journal.append(&[b"one", b"two"])?;
//! assert_eq!(journal.sync()?, first + 1); // both are on the disk now
//! let mut reader = journal.reader(first);
//! while let Some(record) = reader.next()? {
//!     println!("{}: {} bytes", record.index, record.payload.len());
//! }
//! # Ok::<(), tenon_journal::Error>(())
//! ```

mod active;
pub mod bugs;
mod directory;
pub mod disk;
mod error;
mod frame;
mod journal;
mod maintain;
pub mod output;
mod reader;
mod recover;
mod scan;
mod segment;
mod source;
mod watch;

pub use error::Error;
pub use frame::MAX_RECORD;
pub use journal::{Iter, Journal, Options, Verify};
pub use reader::{Reader, Record};
pub use recover::{Cut, Recovered};
