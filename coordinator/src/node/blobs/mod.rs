//! Chunks of workspaces' snapshots: a store on each node, or one object store for all of them.
//!
//! With a store on each node, a chunk is kept when a majority of the voters has it on disk, and it is *there*
//! only if a majority says so: what one node has of a put that failed is not relied on. It is got from whoever has
//! it. Which chunks are still needed, the replicated state says ([`house`]).

mod cluster;
mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tenon_blobs::{ChunkId, ChunkStore, Error, LocalStore, ObjectStore, Packed};
use tenon_proto::agent::v1::{ChunkIds, Chunks, PackedChunk};
use tenon_proto::raft::v1::chunks_request::Ask;
use tenon_proto::raft::v1::peers_client::PeersClient;
use tenon_proto::raft::v1::{ChunksReply, ChunksRequest};
use tokio::sync::{Mutex, Semaphore};
use tonic::transport::Channel;

use super::{Handle, NodeOptions, transport};
use crate::server::{Fault, Result};

pub(super) use house::keep_house;

/// So much of the disk the chunks never use: the log and the history come first.
const KEEP_FREE: u64 = 1 << 30;
/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many puts may go on at slow nodes after a majority was fast enough.
const BEHIND: usize = 8;

/// Where the chunks of a node are.
#[derive(Clone)]
pub(super) enum Blobs {
    /// In its data directory.
    Own(Arc<LocalStore>),
    /// Where all nodes have them.
    Shared(Arc<ObjectStore>),
}

/// Connections to other nodes.
pub(super) struct Peers {
    clients: Mutex<BTreeMap<u64, (String, PeersClient<Channel>)>>,
    behind: Arc<Semaphore>,
}

impl Default for Peers {
    fn default() -> Peers {
        Peers { clients: Mutex::default(), behind: Arc::new(Semaphore::new(BEHIND)) }
    }
}

impl Blobs {
    pub fn open(options: &NodeOptions) -> crate::error::Result<Blobs> {
        Ok(match &options.blobs {
            Some(url) => {
                let environment = ObjectStore::options_of_environment();
                Blobs::Shared(Arc::new(ObjectStore::new(url, environment)?))
            }
            None => {
                Blobs::Own(Arc::new(LocalStore::open(&options.data_dir.join("blobs"), KEEP_FREE)?))
            }
        })
    }

    /// Chunks and bytes on this node's disk.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Blobs::Own(store) => {
                let size = store.size();
                (size.chunks, size.bytes)
            }
            Blobs::Shared(_) => (0, 0),
        }
    }

    fn store(&self) -> Arc<dyn ChunkStore> {
        match self {
            Blobs::Own(store) => store.clone(),
            Blobs::Shared(store) => store.clone(),
        }
    }
}

impl Handle {
    /// Those of the chunks that may not be relied on.
    pub(super) async fn chunks_missing(&self, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>> {
        let blobs = self.joined()?.blobs.clone();
        if let Blobs::Shared(_) = blobs {
            return self.with_store(&blobs, move |store| store.missing(&ids)).await;
        }
        let (me, voters) = self.voters()?;
        let wire = ChunkIds { ids: ids.iter().map(|id| id.0.to_vec()).collect() };
        let mut answers: FuturesUnordered<_> = voters
            .iter()
            .map(|voter| async {
                match *voter == me {
                    true => {
                        let ids = ids.clone();
                        self.with_store(&blobs, move |store| store.missing(&ids)).await
                    }
                    false => {
                        let reply = self.ask(*voter, Ask::Missing(wire.clone())).await?;
                        let known = reply.missing.iter();
                        Ok(known.filter_map(|id| ChunkId::from_bytes(id)).collect())
                    }
                }
            })
            .collect();
        let needed = voters.len() / 2 + 1;
        let mut there: BTreeMap<ChunkId, usize> = BTreeMap::new();
        let (mut answered, mut failure) = (0, None);
        while answered < needed
            && let Some(answer) = answers.next().await
        {
            match answer {
                Ok(missing) => {
                    answered += 1;
                    let missing: BTreeSet<ChunkId> = missing.into_iter().collect();
                    for id in ids.iter().filter(|id| !missing.contains(id)) {
                        *there.entry(*id).or_default() += 1;
                    }
                }
                Err(fault) => failure = Some(fault),
            }
        }
        if answered < needed {
            return Err(failure.unwrap_or_else(no_majority));
        }
        let is_kept = |id: &ChunkId| there.get(id).is_some_and(|count| *count >= needed);
        Ok(ids.iter().filter(|id| !is_kept(id)).copied().collect())
    }

    /// Keeps chunks, which are what their ids say.
    pub(super) async fn chunks_put(&self, chunks: Vec<Packed>) -> Result<()> {
        let blobs = self.joined()?.blobs.clone();
        if let Blobs::Shared(_) = blobs {
            return self.with_store(&blobs, move |store| store.put(&chunks)).await;
        }
        let (me, voters) = self.voters()?;
        let mut answers: FuturesUnordered<_> = voters
            .iter()
            .map(|voter| {
                let (handle, blobs, voter) = (self.clone(), blobs.clone(), *voter);
                let chunks = chunks.clone();
                async move {
                    if voter == me {
                        handle.with_store(&blobs, move |store| store.put(&chunks)).await
                    } else {
                        handle.ask(voter, Ask::Put(to_wire(chunks))).await.map(|_| ())
                    }
                }
            })
            .collect();
        let needed = voters.len() / 2 + 1;
        let (mut kept, mut failure) = (0, None);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(()) => kept += 1,
                Err(fault) => failure = Some(fault),
            }
            if kept >= needed {
                // Who is too slow gets them later ([`house`]).
                if let Ok(permit) = self.shared.chunk_peers.behind.clone().try_acquire_owned() {
                    self.shared.runtime.spawn(async move {
                        while answers.next().await.is_some() {}
                        drop(permit);
                    });
                }
                return Ok(());
            }
        }
        Err(failure.unwrap_or_else(no_majority))
    }

    /// Chunks in the order of their ids, from whoever has them.
    pub(super) async fn chunks_get(&self, ids: Vec<ChunkId>) -> Result<Vec<Packed>> {
        let member = self.joined()?;
        let mut found: BTreeMap<ChunkId, Packed> = BTreeMap::new();
        let wanted = ids.clone();
        if let Blobs::Shared(_) = member.blobs {
            // It calls old ones missing, so that they are put again.
            return self.with_store(&member.blobs, move |store| store.get(&wanted)).await;
        }
        let here = self.with_store(&member.blobs, move |store| there(store, &wanted)).await?;
        found.extend(here.into_iter().map(|chunk| (chunk.id, chunk)));
        let mut failure = None;
        let others: Vec<u64> = member.members.borrow().keys().copied().collect();
        for node in others.into_iter().filter(|node| *node != member.identity.node) {
            let left = ids.iter().filter(|id| !found.contains_key(id));
            let left: Vec<Vec<u8>> = left.map(|id| id.0.to_vec()).collect();
            if left.is_empty() {
                break;
            }
            match self.ask(node, Ask::Get(ChunkIds { ids: left })).await {
                Ok(reply) => {
                    let chunks = from_wire(Chunks { chunks: reply.chunks });
                    let chunks = self.blocking(move || verified(chunks?)).await?;
                    found.extend(chunks.into_iter().map(|chunk| (chunk.id, chunk)));
                }
                Err(fault) => failure = Some(fault),
            }
        }
        let chunk = |id: &ChunkId| {
            // As long as somebody did not answer, nobody knows that it is nowhere.
            let missing = || failure.clone().unwrap_or_else(|| fault(&Error::Missing { id: *id }));
            found.get(id).cloned().ok_or_else(missing)
        };
        ids.iter().map(chunk).collect()
    }

    /// What another node asks of the store of this one.
    pub(super) async fn own_chunks(&self, request: ChunksRequest) -> Result<ChunksReply> {
        self.answer_greeting(&request.header.unwrap_or_default())?;
        let blobs = self.joined()?.blobs.clone();
        let mut reply = ChunksReply::default();
        match request.ask {
            Some(Ask::Missing(ids)) => {
                let ids = ids_from_wire(ids)?;
                let missing = self.with_store(&blobs, move |store| store.missing(&ids)).await?;
                reply.missing = missing.iter().map(|id| id.0.to_vec().into()).collect();
            }
            Some(Ask::Put(chunks)) => {
                let chunks = from_wire(chunks)?;
                let store = blobs.store();
                self.blocking(move || Ok(store.put(&verified(chunks)?)?)).await?;
            }
            Some(Ask::Get(ids)) => {
                let ids = ids_from_wire(ids)?;
                let chunks = self.with_store(&blobs, move |store| there(store, &ids)).await?;
                reply.chunks = to_wire(chunks).chunks;
            }
            None => return Err(Fault::new("peer/malformed", "it does not say what it wants")),
        }
        Ok(reply)
    }

    /// This node, and those whose word counts.
    fn voters(&self) -> Result<(u64, BTreeSet<u64>)> {
        let member = self.joined()?;
        let me = member.identity.node;
        let configuration = member.standing.raft().conf_state;
        let voters = configuration.voters.iter().chain(&configuration.voters_outgoing);
        let mut voters: BTreeSet<u64> = voters.copied().collect();
        if voters.is_empty() {
            // Before the first look at how Raft stands.
            voters.extend(member.members.borrow().keys());
        }
        Ok((me, voters))
    }

    /// Does something with a store, on a thread that may wait.
    async fn with_store<T: Send + 'static>(
        &self,
        blobs: &Blobs,
        work: impl FnOnce(&dyn ChunkStore) -> tenon_blobs::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = blobs.store();
        self.blocking(move || Ok(work(&*store)?)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.runtime.spawn_blocking(work).await.map_err(Fault::internal)?
    }

    /// Asks another node.
    async fn ask(&self, node: u64, ask: Ask) -> Result<ChunksReply> {
        let member = self.joined()?;
        let url = member.members.borrow().get(&node).map(|member| member.url.clone());
        let unreachable = |why: String| {
            Fault::new("unavailable/peer", format!("node {node} cannot be asked for chunks: {why}"))
        };
        let url = url.ok_or_else(|| unreachable("its address is unknown".to_owned()))?;
        let mut clients = self.shared.chunk_peers.clients.lock().await;
        let known = clients.get(&node).filter(|(known, _)| *known == url);
        let known = known.map(|(_, client)| client.clone());
        drop(clients);
        let mut client = match known {
            Some(client) => client,
            None => {
                let own = self.shared.own();
                let client =
                    transport::connect(&url, node, own.as_ref()).await.map_err(&unreachable)?;
                clients = self.shared.chunk_peers.clients.lock().await;
                clients.insert(node, (url, client.clone()));
                drop(clients);
                client
            }
        };
        let request = ChunksRequest { header: self.header(node), ask: Some(ask) };
        match tokio::time::timeout(PATIENCE, client.chunks(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => {
                let refusal = tenon_proto::status::from_status(&status);
                if refusal.code.starts_with("overloaded/") {
                    let message = format!("node {node}: {}", refusal.message);
                    return Err(Fault::new(refusal.code, message));
                }
                self.shared.chunk_peers.clients.lock().await.remove(&node);
                Err(unreachable(status.message().to_owned()))
            }
            Err(_) => Err(unreachable("it does not answer".to_owned())),
        }
    }
}

/// Those of the chunks that are in a store, and whole.
fn there(store: &dyn ChunkStore, ids: &[ChunkId]) -> tenon_blobs::Result<Vec<Packed>> {
    let missing: BTreeSet<ChunkId> = store.missing(ids)?.into_iter().collect();
    let mut there: Vec<ChunkId> = ids.iter().filter(|id| !missing.contains(id)).copied().collect();
    loop {
        match store.get(&there) {
            // Others may have it.
            Err(Error::Damaged { id, .. } | Error::Missing { id }) => there.retain(|it| *it != id),
            got => return got,
        }
    }
}

/// Chunks that somebody has sent are what they are called.
pub(crate) fn verified(chunks: Vec<Packed>) -> Result<Vec<Packed>> {
    let verified = |chunk: Packed| Packed::received(chunk.id, chunk.bytes);
    Ok(chunks.into_iter().map(verified).collect::<tenon_blobs::Result<_>>()?)
}

/// Ids out of a message.
pub(crate) fn ids_from_wire(ids: ChunkIds) -> Result<Vec<ChunkId>> {
    let id = |id: Vec<u8>| ChunkId::from_bytes(&id).ok_or_else(not_an_id);
    ids.ids.into_iter().map(id).collect()
}

/// Chunks out of a message; what is in them is not looked at.
pub(crate) fn from_wire(chunks: Chunks) -> Result<Vec<Packed>> {
    let chunk = |chunk: PackedChunk| {
        let id = ChunkId::from_bytes(&chunk.id).ok_or_else(not_an_id)?;
        Ok(Packed { id, bytes: chunk.packed })
    };
    chunks.chunks.into_iter().map(chunk).collect()
}

/// Chunks into a message.
pub(crate) fn to_wire(chunks: Vec<Packed>) -> Chunks {
    let chunk = |chunk: Packed| PackedChunk { id: chunk.id.0.to_vec().into(), packed: chunk.bytes };
    Chunks { chunks: chunks.into_iter().map(chunk).collect() }
}

fn not_an_id() -> Fault {
    Fault::new("invalid/chunk", "the id of a chunk has 32 bytes")
}

fn no_majority() -> Fault {
    Fault::new("unavailable/no-quorum", "too few nodes answer to keep chunks")
}

fn fault(error: &Error) -> Fault {
    let code = match error {
        Error::Missing { .. } => "not-found/chunk",
        Error::Damaged { .. } => "invalid/chunk",
        Error::NoSpace { .. } => "overloaded/blobs-full",
        Error::Remote { .. } => "unavailable/blobs",
        _ => "internal/blobs",
    };
    Fault::new(code, error.to_string())
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        fault(&error)
    }
}
