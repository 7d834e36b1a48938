//! Raft's messages to the other members, over gRPC streams. A message may be lost here: Raft sends
//! again what matters. A stream that breaks is begun anew, with growing pauses.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenon_client::Access;
use tenon_consensus::{NodeId, Outgoing};
use tenon_proto::control::v1::StatusRequest;
use tenon_proto::control::v1::cluster_client::ClusterClient;
use tenon_proto::raft::v1::peers_client::PeersClient;
use tenon_proto::raft::v1::{
    Batch, Chunk, FetchRequest, Header, PeerMessage, peer_message, peer_reply,
};
use tenon_trust::SharedIdentity;
use tenon_trust::tls::Expect;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::raft_thread::RaftInput;
use crate::replica::Member;

/// Messages that may wait for one member; more are dropped, as a network would.
const QUEUE: usize = 4096;
/// Messages are put together up to about this size.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that may wait in a stream.
const BATCHES: usize = 16;
/// Between attempts to reach a member.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
];
/// How long a member may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a part of a snapshot may take.
const FETCH: Duration = Duration::from_secs(30);

/// Sends to all members; cheap to clone.
#[derive(Clone)]
pub(super) struct Transport {
    header: Arc<dyn Fn(NodeId) -> Header + Send + Sync>,
    own: Arc<dyn Fn() -> Option<SharedIdentity> + Send + Sync>,
    members: watch::Receiver<BTreeMap<NodeId, Member>>,
    peers: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Outgoing>>>>,
    raft: Sender<RaftInput>,
    runtime: tokio::runtime::Handle,
}

impl Transport {
    /// `header` says who speaks to whom, `own` is the node's certificate; members are found under the URLs in `members`.
    pub fn new(
        header: Arc<dyn Fn(NodeId) -> Header + Send + Sync>,
        own: Arc<dyn Fn() -> Option<SharedIdentity> + Send + Sync>,
        members: watch::Receiver<BTreeMap<NodeId, Member>>,
        raft: Sender<RaftInput>,
        runtime: tokio::runtime::Handle,
    ) -> Transport {
        Transport { header, own, members, peers: Arc::default(), raft, runtime }
    }

    /// Sends one message, or drops it when its receiver is unknown or too far behind.
    pub fn send(&self, message: Outgoing) {
        let to = message.to;
        let is_snapshot = message.is_snapshot;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.entry(to).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            self.runtime.spawn(self.clone().serve(to, receiver));
            sender
        });
        if peer.try_send(message).is_err() {
            drop(peers);
            self.lost(to, is_snapshot);
        }
    }

    fn lost(&self, to: NodeId, is_snapshot: bool) {
        // The raft thread is gone only when the node is ending.
        let _ = self.raft.send(RaftInput::Unreachable(to));
        if is_snapshot {
            let _ = self.raft.send(RaftInput::SnapshotReport(to, false));
        }
    }

    fn url(&self, to: NodeId) -> Option<String> {
        self.members.borrow().get(&to).map(|member| member.url.clone())
    }

    /// Keeps a stream to one member as long as there is something to send.
    async fn serve(self, to: NodeId, mut queue: mpsc::Receiver<Outgoing>) {
        let mut failures = 0usize;
        while let Some(first) = queue.recv().await {
            let snapshot = first.is_snapshot;
            match self.stream(to, first, &mut queue).await {
                Stream::Closed => return,
                Stream::Worked => failures = 0,
                Stream::Refused => failures += 1,
            }
            self.lost(to, snapshot);
            tokio::time::sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
            // What waited meanwhile is old; Raft sends what is needed now.
            while let Ok(message) = queue.try_recv() {
                if message.is_snapshot {
                    self.lost(to, true);
                }
            }
        }
    }

    async fn stream(
        &self,
        to: NodeId,
        first: Outgoing,
        queue: &mut mpsc::Receiver<Outgoing>,
    ) -> Stream {
        let Some(url) = self.url(to) else { return Stream::Refused };
        let Ok(mut client) = connect(&url, to, (self.own)().as_ref()).await else {
            return Stream::Refused;
        };
        let (sender, receiver) = mpsc::channel(BATCHES);
        let header =
            PeerMessage { message: Some(peer_message::Message::Header((self.header)(to))) };
        if sender.send(header).await.is_err() {
            return Stream::Refused;
        }
        let Ok(replies) = client.exchange(ReceiverStream::new(receiver)).await else {
            return Stream::Refused;
        };
        let mut replies = replies.into_inner();
        match replies.message().await {
            Ok(Some(reply)) => {
                if let Some(peer_reply::Reply::Refused(refused)) = reply.reply {
                    tracing::warn!(to, code = refused.code, "{}", refused.message);
                    return Stream::Refused;
                }
            }
            _ => return Stream::Refused,
        }
        let mut next = Some(first);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => tokio::select! {
                    message = queue.recv() => match message {
                        Some(message) => message,
                        None => return Stream::Closed,
                    },
                    // A reply after the first one is the end of the stream, or a refusal.
                    _ = replies.message() => return Stream::Worked,
                },
            };
            let mut bytes = message.bytes.len();
            let mut messages = vec![message.bytes];
            while bytes < BATCH_BYTES
                && let Ok(message) = queue.try_recv()
            {
                bytes += message.bytes.len();
                messages.push(message.bytes);
            }
            let messages = messages.into_iter().map(Into::into).collect();
            let batch = peer_message::Message::Batch(Batch { messages });
            if sender.send(PeerMessage { message: Some(batch) }).await.is_err() {
                return Stream::Worked;
            }
            if self.url(to).as_deref() != Some(url.as_str()) {
                return Stream::Worked;
            }
        }
    }

    /// Asks a member for a part of a snapshot, chunk by chunk; `take` says whether to go on.
    pub async fn fetch(
        &self,
        from: NodeId,
        mut request: FetchRequest,
        mut take: impl FnMut(Chunk) -> bool,
    ) -> Result<(), String> {
        let url = self.url(from).ok_or("its address is unknown")?;
        let mut client = connect(&url, from, (self.own)().as_ref()).await?;
        request.header = Some((self.header)(from));
        let chunks = tokio::time::timeout(FETCH, client.fetch(request)).await;
        let chunks = chunks.map_err(|_| "it did not answer in time")?;
        let mut chunks = chunks.map_err(|status| status.message().to_owned())?.into_inner();
        loop {
            let chunk = tokio::time::timeout(FETCH, chunks.message()).await;
            let chunk = chunk.map_err(|_| "it did not go on in time")?;
            match chunk.map_err(|status| status.message().to_owned())? {
                Some(chunk) => {
                    if !take(chunk) {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }
}

/// How a stream ended.
enum Stream {
    /// There is nothing more to send: the node is ending.
    Closed,
    /// It stood for a while.
    Worked,
    /// It never did.
    Refused,
}

/// Connects to the node with this id; with TLS, where this node has a certificate of its `own`.
pub(super) async fn connect(
    url: &str,
    id: NodeId,
    own: Option<&SharedIdentity>,
) -> Result<PeersClient<Channel>, String> {
    let channel = channel(url, Expect::Node(id), own).await?;
    Ok(PeersClient::new(channel).max_decoding_message_size(64 << 20))
}

/// Connects to a node in order to ask what clients ask.
pub(super) async fn cluster(
    url: &str,
    id: NodeId,
    own: Option<&SharedIdentity>,
) -> Result<ClusterClient<Channel>, String> {
    let channel = channel(url, Expect::Node(id), own).await?;
    Ok(ClusterClient::new(channel).max_decoding_message_size(64 << 20))
}

/// The id of the node at a URL, which has a certificate of the cluster.
pub(super) async fn id_of(url: &str, own: &SharedIdentity) -> Result<NodeId, String> {
    let mut client = ClusterClient::new(channel(url, Expect::AnyNode, Some(own)).await?);
    let status = tokio::time::timeout(FETCH, client.status(StatusRequest {})).await;
    let status = status.map_err(|_| "it did not answer in time")?;
    Ok(status.map_err(|status| status.message().to_owned())?.into_inner().node)
}

async fn channel(
    url: &str,
    expect: Expect,
    own: Option<&SharedIdentity>,
) -> Result<Channel, String> {
    let tune = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
    };
    let access = own.cloned().map(Access::of_machine).unwrap_or_default();
    access.dial(url, expect, tune).await.map_err(|error| error.to_string())
}
