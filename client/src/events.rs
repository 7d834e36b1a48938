//! The event stream, whole although connections break and nodes die.
//!
//! Each batch says how far the node has looked; a new connection, to whichever node, begins behind
//! the last batch that was handed out. So no line is lost, and none comes twice.

use std::time::Duration;

use tenon_proto::control::v1::events_client::EventsClient;
use tenon_proto::control::v1::{EventBatch, GetRunRequest, Run, SubscribeRequest};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use crate::client::{Client, Node};
use crate::connect::MAX_MESSAGE;
use crate::error::{Error, Result};

/// How long a node may take to accept a subscription: longer than it takes by itself to say that it cannot.
const ANSWER: Duration = Duration::from_secs(15);

/// A subscription that held so long worked, though nothing happened meanwhile.
const STABLE: Duration = Duration::from_secs(5);

/// Events as they come.
pub struct Events {
    client: Client,
    request: SubscribeRequest,
    stream: Option<Open>,
    /// Since when no node gives anything.
    failing: Option<Instant>,
    ended: bool,
}

/// A subscription that a node has accepted.
struct Open {
    node: Node,
    stream: Streaming<EventBatch>,
    since: Instant,
}

impl Client {
    /// Events behind `request.since`. With `follow` the stream goes on until it is dropped, or, of
    /// one run, until the run has ended.
    pub fn events(&self, request: SubscribeRequest) -> Events {
        Events { client: self.clone(), request, stream: None, failing: None, ended: false }
    }

    /// Waits until a run has ended, however long that takes.
    pub async fn wait(&self, run: &str) -> Result<Run> {
        let mut events = self.events(SubscribeRequest {
            run: run.to_owned(),
            kinds: vec!["run-end".to_owned()],
            follow: true,
            ..SubscribeRequest::default()
        });
        while events.next().await?.is_some() {}
        self.get_run(GetRunRequest { id: run.to_owned() }).await
    }
}

impl Events {
    /// Everything up to this `seq` was handed out: whoever wants to go on later begins here.
    pub fn seq(&self) -> u64 {
        self.request.since
    }

    /// The next events, in order; `None` when there will be no more. An error only when no node gave
    /// an answer for as long as the client's deadline, or when the request itself is refused.
    pub async fn next(&mut self) -> Result<Option<EventBatch>> {
        while !self.ended {
            let began = self.failing.unwrap_or_else(Instant::now);
            let error = match self.advance(began).await {
                Ok(Some(batch)) => {
                    self.failing = None;
                    if !batch.lines.is_empty() {
                        return Ok(Some(batch));
                    }
                    continue;
                }
                Ok(None) => break,
                Err(error) => error,
            };
            if !error.is_passing() {
                return Err(error);
            }
            let began = *self.failing.get_or_insert_with(Instant::now);
            if began.elapsed() >= self.client.options().deadline {
                return Err(self.client.out_of_time(began, error));
            }
        }
        self.ended = true;
        self.stream = None;
        Ok(None)
    }

    /// One step: connects if need be, and takes one batch.
    async fn advance(&mut self, began: Instant) -> Result<Option<EventBatch>> {
        let Open { node, mut stream, since } = match self.stream.take() {
            Some(open) => open,
            None => self.subscribe(began).await?,
        };
        let error = match stream.message().await {
            Ok(Some(mut batch)) => {
                self.client.worked(&node.url);
                batch.lines.retain(|line| seq(line).is_none_or(|seq| seq > self.request.since));
                let last = batch.lines.last().and_then(|line| seq(line)).unwrap_or(0);
                self.request.since = self.request.since.max(batch.last_seq).max(last);
                self.stream = Some(Open { node, stream, since });
                return Ok(Some(batch));
            }
            Ok(None) if self.request.follow && self.request.run.is_empty() => {
                // Such a stream has no end: the node has one.
                let message = "it ended the stream of events".to_owned();
                Error::Unreachable { url: node.url.to_string(), message }
            }
            Ok(None) => {
                self.client.worked(&node.url);
                return Ok(None);
            }
            Err(status) => Error::of_status(&node.url, &status),
        };
        if error.is_passing() {
            self.client.failed(&node.url, &error);
        }
        if since.elapsed() >= STABLE {
            self.failing = None;
        }
        Err(error)
    }

    async fn subscribe(&self, began: Instant) -> Result<Open> {
        let node = self.client.node(began).await?;
        let mut service =
            EventsClient::new(node.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.client.options().access.request(self.request.clone());
        let error = match timeout(ANSWER, service.subscribe(request)).await {
            Ok(Ok(answer)) => {
                let stream = answer.into_inner();
                return Ok(Open { node, stream, since: Instant::now() });
            }
            Ok(Err(status)) => Error::of_status(&node.url, &status),
            Err(_) => Error::Unreachable {
                url: node.url.to_string(),
                message: "it does not answer in time".to_owned(),
            },
        };
        if error.is_passing() {
            self.client.failed(&node.url, &error);
        }
        Err(error)
    }
}

/// The number of an event, from its line. Only `kind` and `time` come before it.
fn seq(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b",\"seq\":";
    let head = &line[..line.len().min(128)];
    let at = head.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut seq: Option<u64> = None;
    for digit in digits {
        let more = seq.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        seq = Some(more);
    }
    seq
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_line() {
        let line =
            br#"{"kind":"run-start","time":"2026-01-01T00:00:00.000Z","seq":4711,"runSeq":1}"#;
        assert_eq!(seq(line), Some(4711));
        for nonsense in
            [&b"{}"[..], b"", br#"{"x":1,"seq":}"#, br#"{"x":1,"seq":99999999999999999999999}"#]
        {
            assert_eq!(seq(nonsense), None);
        }
    }
}
