//! `tenon.agent.v1.Blobs`: takes chunks of agents, and gives them.

use tenon_proto::agent::v1::blobs_server::Blobs;
use tenon_proto::agent::v1::{ChunkIds, Chunks, Kept};
use tonic::{Request, Response, Status};

use super::Service;
use crate::node::blobs::{from_wire, ids_from_wire, to_wire, verified};
use crate::server::fault::{Fault, Result};

/// Ids in one question.
const IDS: usize = 4096;
/// Bytes of chunks in one put.
const PUT_BYTES: usize = 16 << 20;
/// Chunks in one answer.
const GET: usize = 16;

#[tonic::async_trait]
impl Blobs for Service {
    async fn missing(&self, request: Request<ChunkIds>) -> Result<Response<ChunkIds>, Status> {
        let missing = async {
            let ids = ids_from_wire(request.into_inner())?;
            at_most(ids.len(), IDS)?;
            self.api.node.missing_chunks(ids).await
        };
        let missing = self.api.counted("grpc", "chunks_missing", missing).await?;
        Ok(Response::new(ChunkIds { ids: missing.iter().map(|id| id.0.to_vec()).collect() }))
    }

    async fn put(&self, request: Request<Chunks>) -> Result<Response<Kept>, Status> {
        let put = async {
            let chunks = from_wire(request.into_inner())?;
            at_most(chunks.iter().map(|chunk| chunk.bytes.len()).sum(), PUT_BYTES)?;
            let chunks = tokio::task::spawn_blocking(move || verified(chunks)).await;
            self.api.node.put_chunks(chunks.map_err(Fault::internal)??).await
        };
        self.api.counted("grpc", "chunks_put", put).await?;
        Ok(Response::new(Kept {}))
    }

    async fn get(&self, request: Request<ChunkIds>) -> Result<Response<Chunks>, Status> {
        let get = async {
            let ids = ids_from_wire(request.into_inner())?;
            at_most(ids.len(), GET)?;
            self.api.node.get_chunks(ids).await
        };
        Ok(Response::new(to_wire(self.api.counted("grpc", "chunks_get", get).await?)))
    }
}

fn at_most(count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Fault::new("too-large/chunks", format!("{count} are too many: {limit} at most")))
}
