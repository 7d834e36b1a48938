//! Subscribers of one node's events, which note when they saw what.

use std::time::Instant;

use tenon_proto::control::v1::SubscribeRequest;
use tenon_proto::control::v1::events_client::EventsClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use crate::Result;

/// An event that was seen.
pub struct Seen {
    pub seq: u64,
    pub run: String,
    pub at: Instant,
}

/// A subscription of one node; ends when dropped.
pub struct Watch {
    pub events: mpsc::UnboundedReceiver<Seen>,
    _task: JoinSet<()>,
}

impl Watch {
    /// Events of these kinds (of all, if none is named) behind `since`.
    pub async fn begin(channel: Channel, since: u64, kinds: &[&str]) -> Result<Watch> {
        let request = SubscribeRequest {
            since,
            follow: true,
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
            ..SubscribeRequest::default()
        };
        let answer = EventsClient::new(channel).subscribe(request).await;
        let mut stream = answer.map_err(|status| status.message().to_owned())?.into_inner();
        let (sender, events) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The end of the stream is what a node that dies leaves.
            while let Some(Ok(batch)) = stream.next().await {
                let at = Instant::now();
                for line in &batch.lines {
                    let Ok(event) = serde_json::from_slice::<serde_json::Value>(line) else {
                        continue;
                    };
                    let run = event["runId"].as_str().unwrap_or_default().to_owned();
                    let seen = Seen { seq: event["seq"].as_u64().unwrap_or(0), run, at };
                    if sender.send(seen).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Watch { events, _task: task })
    }
}
