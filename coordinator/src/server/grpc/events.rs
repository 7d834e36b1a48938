//! `tenon.control.v1.Events`.

use futures_util::stream;
use tenon_proto::control::v1::events_server::Events;
use tenon_proto::control::v1::{EventBatch, SubscribeRequest};
use tonic::{Request, Response, Status};

use super::{Answers, Service, asked};
use crate::server::batch::Batch;
use crate::server::subscription::Next;

#[tonic::async_trait]
impl Events for Service {
    type SubscribeStream = Answers<EventBatch>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let asked = asked(&request)?;
        let open = self.api.subscribe(request.into_inner(), &asked);
        let subscription = self.api.counted("grpc", "subscribe", open).await?;
        let batches = stream::unfold(Some(subscription), |subscription| async {
            let mut subscription = subscription?;
            match subscription.next().await {
                Ok(Next::Batch(batch)) => Some((Ok(lines(&batch)), Some(subscription))),
                Ok(Next::Idle(last_seq)) => {
                    let alive = EventBatch { lines: Vec::new(), last_seq };
                    Some((Ok(alive), Some(subscription)))
                }
                Ok(Next::End) => None,
                Err(fault) => Some((Err(fault.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(batches)))
    }
}

/// The lines of a batch, without their ends and without a copy.
fn lines(batch: &Batch) -> EventBatch {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, _) in batch.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        lines.push(batch.text.slice(start..at));
        start = at + 1;
    }
    EventBatch { lines, last_seq: batch.last_seq }
}
