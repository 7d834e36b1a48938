//! The coordinators as a store of chunks. Any of them will do; one that does not answer is left for the next.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tenon_blobs::{ChunkId, ChunkStore, Error, Packed, Result};
use tenon_client::connect::{connect, random};
use tenon_client::route::Route;
use tenon_client::{Access, Error as ClientError};
use tenon_proto::agent::v1::blobs_client::BlobsClient;
use tenon_proto::agent::v1::{ChunkIds, Chunks, PackedChunk};
use tokio::runtime::Handle;
use tonic::transport::Channel;

use crate::session::ServeOptions;

/// Ids in one question.
const IDS: usize = 4096;
/// Bytes of chunks in one message, unless one chunk is more.
const PUT_BYTES: usize = 4 << 20;
/// Chunks in one answer, each of at most 1 MiB.
const GET: usize = 8;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest answer.
const MESSAGE: usize = 20 << 20;

/// The chunks that coordinators have.
pub(crate) struct CoordinatorChunks {
    access: Access,
    runtime: Handle,
    route: Mutex<Route>,
    /// The connection that worked last.
    client: Mutex<Option<(String, BlobsClient<Channel>)>>,
}

impl CoordinatorChunks {
    /// For work on threads that may wait; what is sent goes by the runtime that this is called in.
    pub fn new(options: &ServeOptions) -> CoordinatorChunks {
        CoordinatorChunks {
            access: options.access.clone(),
            runtime: Handle::current(),
            route: Mutex::new(Route::new(options.servers.clone(), random())),
            client: Mutex::new(None),
        }
    }

    /// Asks one coordinator after the other, each once.
    fn ask<T>(
        &self,
        action: &'static str,
        ask: &impl AsyncFn(&mut BlobsClient<Channel>) -> std::result::Result<T, tonic::Status>,
    ) -> Result<T> {
        let remote = |reason: String| Error::Remote { action: action.to_owned(), reason };
        self.runtime.block_on(async {
            let tries = lock(&self.route).urls().len().max(1) + 1;
            let mut last = ClientError::NoServer;
            for _ in 0..tries {
                let (url, mut client) = match self.client().await {
                    Ok(found) => found,
                    Err(error) => {
                        last = error;
                        continue;
                    }
                };
                let status = match tokio::time::timeout(ANSWER, ask(&mut client)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(status)) => status,
                    Err(_) => tonic::Status::deadline_exceeded("it does not answer in time"),
                };
                let error = ClientError::of_status(&url, &status);
                if let ClientError::Refused(refusal) = &error
                    && !refusal.code.starts_with("unavailable/")
                {
                    // Another one would say the same, and the same again later.
                    let said = format!("{} [{}]", refusal.message, refusal.code);
                    let path = PathBuf::from("the coordinators");
                    return Err(Error::Io { action, path, source: io::Error::other(said) });
                }
                lock(&self.client).take_if(|(known, _)| *known == url);
                lock(&self.route).failed(&url, None);
                last = error;
            }
            Err(remote(last.to_string()))
        })
    }

    async fn client(&self) -> std::result::Result<(String, BlobsClient<Channel>), ClientError> {
        if let Some(known) = lock(&self.client).clone() {
            return Ok(known);
        }
        let url = lock(&self.route).next_try().url;
        match connect(&url, &self.access).await {
            Ok(channel) => {
                lock(&self.route).worked(&url);
                let client = BlobsClient::new(channel).max_decoding_message_size(MESSAGE);
                *lock(&self.client) = Some((url.clone(), client.clone()));
                Ok((url, client))
            }
            Err(error) => {
                lock(&self.route).failed(&url, None);
                Err(error)
            }
        }
    }
}

impl ChunkStore for CoordinatorChunks {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        let mut missing = Vec::new();
        for ids in ids.chunks(IDS) {
            let asked = to_wire(ids);
            let answer = self.ask("ask the coordinators for chunks", &async |client| {
                Ok(client.missing(asked.clone()).await?.into_inner())
            })?;
            missing.extend(answer.ids.iter().filter_map(|id| ChunkId::from_bytes(id)));
        }
        Ok(missing)
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest.iter().take_while(|chunk| {
                bytes += chunk.bytes.len();
                bytes <= PUT_BYTES
            });
            let (batch, left) = rest.split_at(count.count().max(1));
            rest = left;
            let batch = batch.iter().map(|chunk| PackedChunk {
                id: chunk.id.0.to_vec().into(),
                packed: chunk.bytes.clone(),
            });
            let batch = Chunks { chunks: batch.collect() };
            self.ask("keep chunks with the coordinators", &async |client| {
                client.put(batch.clone()).await.map(|_| ())
            })?;
        }
        Ok(())
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        let mut chunks = Vec::with_capacity(ids.len());
        for ids in ids.chunks(GET) {
            let asked = to_wire(ids);
            let answer = self.ask("get chunks of the coordinators", &async |client| {
                Ok(client.get(asked.clone()).await?.into_inner())
            });
            let answer = answer.map_err(|error| match (&error, ids) {
                (Error::Remote { reason, .. }, [id, ..])
                    if reason.contains("[not-found/chunk]") =>
                {
                    Error::Missing { id: *id }
                }
                _ => error,
            })?;
            let packed = |chunk: PackedChunk| {
                let id = ChunkId::from_bytes(&chunk.id)?;
                Some(Packed { id, bytes: chunk.packed })
            };
            let before = chunks.len();
            chunks.extend(answer.chunks.into_iter().filter_map(packed));
            if !chunks[before..].iter().map(|chunk| chunk.id).eq(ids.iter().copied()) {
                let action = "get chunks of the coordinators".to_owned();
                let reason = "other ones came than were asked for".to_owned();
                return Err(Error::Remote { action, reason });
            }
        }
        Ok(chunks)
    }
}

fn to_wire(ids: &[ChunkId]) -> ChunkIds {
    ChunkIds { ids: ids.iter().map(|id| id.0.to_vec()).collect() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
