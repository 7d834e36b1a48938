//! `tenon.raft.v1.Peers`: lets in who belongs to the cluster, and hands on what they send.

use futures_util::{StreamExt, stream};
use tenon_proto::raft::v1::peers_server::Peers;
use tenon_proto::raft::v1::{
    AdoptReply, AdoptRequest, Chunk, ChunksReply, ChunksRequest, FetchRequest, Header, PeerMessage,
    PeerReply, peer_message, peer_reply,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Service, caller};
use crate::server::api::stopping;
use crate::server::fault::{Fault, Result};

/// A stream of a peer that was let in.
struct Exchange {
    service: Service,
    inbound: Streaming<PeerMessage>,
    from: u64,
    /// Said first.
    own: Option<Header>,
}

impl Exchange {
    /// What is answered next: the own header, then nothing but a fault.
    async fn next(&mut self) -> Option<Result<PeerReply, Status>> {
        if let Some(header) = self.own.take() {
            return Some(Ok(PeerReply { reply: Some(peer_reply::Reply::Header(header)) }));
        }
        loop {
            // Later than everything else: requests under way still need the other nodes.
            let closing = self.service.api.closing.clone();
            let message = tokio::select! {
                message = self.inbound.message() => message,
                () = closing.cancelled() => return Some(Err(stopping().into())),
            };
            let batch = match message {
                Ok(Some(PeerMessage { message: Some(peer_message::Message::Batch(batch)) })) => {
                    batch
                }
                Ok(Some(_)) => return Some(Err(malformed().into())),
                Ok(None) => return None,
                Err(status) => return Some(Err(status)),
            };
            if let Err(fault) = self.service.api.node.receive(self.from, batch.messages).await {
                return Some(Err(fault.into()));
            }
        }
    }
}

#[tonic::async_trait]
impl Peers for Service {
    type ExchangeStream = Answers<PeerReply>;
    type FetchStream = Answers<Chunk>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerMessage>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let caller = caller(&request);
        let mut inbound = request.into_inner();
        let greet = async {
            match inbound.message().await {
                Ok(Some(PeerMessage { message: Some(peer_message::Message::Header(header)) })) => {
                    caller.may_be_node(header.from)?;
                    Ok((header.from, self.api.node.greet(&header)?))
                }
                Ok(_) => Err(malformed()),
                Err(status) => Err(Fault::new("peer/malformed", status.message())),
            }
        };
        let (from, own) = self.api.counted("grpc", "peer_exchange", greet).await?;
        let exchange = Exchange { service: self.clone(), inbound, from, own: Some(own) };
        let replies = stream::unfold(Some(exchange), |exchange| async {
            let mut exchange = exchange?;
            let reply = exchange.next().await?;
            let rest = reply.is_ok().then_some(exchange);
            Some((reply, rest))
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let fetch = async {
            let header = request.header.as_ref().ok_or_else(malformed)?;
            caller.may_be_node(header.from)?;
            self.api.node.greet(header)?;
            self.api.node.fetch(request).await
        };
        let chunks = self.api.counted("grpc", "peer_fetch", fetch).await?;
        Ok(Response::new(Box::pin(chunks.map(|chunk| chunk.map_err(Status::from)))))
    }

    async fn chunks(
        &self,
        request: Request<ChunksRequest>,
    ) -> Result<Response<ChunksReply>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let chunks = async {
            let header = request.header.as_ref().ok_or_else(malformed)?;
            caller.may_be_node(header.from)?;
            self.api.node.own_chunks(request).await
        };
        Ok(Response::new(self.api.counted("grpc", "peer_chunks", chunks).await?))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Result<Response<AdoptReply>, Status> {
        let adopt = self.api.node.adopt(request.into_inner());
        Ok(Response::new(self.api.counted("grpc", "peer_adopt", adopt).await?))
    }
}

fn malformed() -> Fault {
    Fault::new("peer/malformed", "a stream between nodes is a header, then batches of messages")
}
