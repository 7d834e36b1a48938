//! State that must be looked up: sorted keys, changed by atomic batches.
//!
//! A [`Store`] holds byte strings under byte strings. A batch is visible as a whole at once and durable as a whole after
//! [`Store::sync`]; a crash before that loses the newest batches, never an older one and not a later one's part.
//! [`SledStore`] is the one on disk, [`MemoryStore`] the one for simulations and tests. It knows nothing of what is stored.

mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod memory;
mod sled_store;

use std::ops::{Bound, ControlFlow};

pub use batch::{Batch, Change};
pub use error::{Error, Result};
pub use memory::{Fault, MemoryStore};
pub use sled_store::SledStore;

/// From where to where a scan goes.
pub type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Called with each key and value of a scan; decides whether it goes on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Sorted keys with values. All methods can be called from several threads.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Visits the keys of a range in ascending (`reverse`: descending) order of their bytes. What is written meanwhile may
    /// be seen or not.
    fn scan(&self, range: Range, reverse: bool, visit: &mut Visit<'_>) -> Result<()>;

    /// Applies a batch: all of it or nothing. Not durable before `sync`.
    fn write(&self, batch: Batch) -> Result<()>;

    /// Makes everything durable that was written before this call.
    fn sync(&self) -> Result<()>;

    /// Starts a new content that replaces all of the present one when it is committed. Until then the store shows, and takes
    /// writes to, the present one. Dropped without a commit, nothing has happened.
    fn begin_replacement(&self) -> Result<Box<dyn Replacement>>;

    /// The bytes that it takes on disk (in memory, if it has no disk).
    fn disk_bytes(&self) -> u64;
}

/// A new content of a store, being written.
pub trait Replacement: Send {
    /// Adds to the new content.
    fn write(&mut self, batch: Batch) -> Result<()>;

    /// Makes the new content durable and then, atomically, the store's. After a crash on the way it is the old one or the
    /// new one, whole.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// The range of the keys that begin with a prefix.
pub fn prefix(prefix: &[u8]) -> Range {
    let start = Bound::Included(prefix.to_vec());
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (start, Bound::Excluded(end));
        }
    }
    (start, Bound::Unbounded)
}

/// Whether a range cannot contain any key; such ranges are allowed.
fn is_empty(range: &Range) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Included(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
    }
}
