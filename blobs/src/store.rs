//! Where chunks are kept.

use crate::{ChunkId, Packed, Result};

/// A place that keeps chunks by their ids.
///
/// All methods block and may be called from many threads at a time. A store may forget chunks that belong to no
/// snapshot and were neither put nor asked for lately; how long that is, the one who sweeps it says.
pub trait ChunkStore: Send + Sync {
    /// Those of the ids that are not here, in their order. What is not among them may be relied on by a snapshot that
    /// is being saved.
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>>;

    /// Keeps the chunks; they are durable when it returns. Chunks that are here already change nothing. The caller
    /// vouches that each is what its id says: see [`Packed::received`].
    fn put(&self, chunks: &[Packed]) -> Result<()>;

    /// The chunks with these ids, in their order. Whoever unpacks them finds out whether they are what was put. One
    /// that is not here is [`Error::Missing`](crate::Error::Missing). The caller bounds how many it asks for at a time:
    /// each may have [`MAX_PACKED`](crate::MAX_PACKED) bytes.
    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>>;
}

impl<S: ChunkStore + ?Sized> ChunkStore for std::sync::Arc<S> {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        (**self).missing(ids)
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        (**self).put(chunks)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        (**self).get(ids)
    }
}
