//! The chunks of the whole cluster as one store, for work that may wait.

use tenon_blobs::{ChunkId, ChunkStore, Error, Packed, Result};

use crate::node::Handle;
use crate::server::Fault;

/// So many chunks are asked for at a time.
const AT_A_TIME: usize = 8;

/// What every node has, asked by one of them.
pub(super) struct ClusterChunks(pub Handle);

impl ClusterChunks {
    fn wait<T>(
        &self,
        action: &str,
        id: Option<ChunkId>,
        work: impl Future<Output = crate::server::Result<T>>,
    ) -> Result<T> {
        self.0.shared.runtime.block_on(work).map_err(|fault: Fault| match (fault.code(), id) {
            ("not-found/chunk", Some(id)) => Error::Missing { id },
            _ => Error::Remote { action: action.to_owned(), reason: fault.to_string() },
        })
    }
}

impl ChunkStore for ClusterChunks {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        self.wait("ask for chunks", None, self.0.chunks_missing(ids.to_vec()))
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        self.wait("keep chunks", None, self.0.chunks_put(chunks.to_vec()))
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        let mut chunks = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_A_TIME) {
            let first = ids.first().copied();
            chunks.extend(self.wait("get chunks", first, self.0.chunks_get(ids.to_vec()))?);
        }
        Ok(chunks)
    }
}
