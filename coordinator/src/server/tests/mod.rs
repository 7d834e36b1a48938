//! The server in front of a node that is made up: what it parses, limits and formats. The same with
//! real nodes is in tests/.

mod hostile;
mod http;
mod node;
mod rights;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tenon_trust::SharedIdentity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Limits, Metrics, ServerOptions, serve};
use node::MadeUp;

/// Nothing takes longer than this.
const LATE: Duration = Duration::from_secs(20);

/// A server on a port of its own.
struct Server {
    node: Arc<MadeUp>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
}

impl Server {
    async fn start(limits: Limits) -> Server {
        Server::start_as(MadeUp::new(), limits, None).await
    }

    async fn start_as(node: MadeUp, limits: Limits, identity: Option<SharedIdentity>) -> Server {
        let node = Arc::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let options = ServerOptions { limits, identity, ..ServerOptions::default() };
        let mut serving = JoinSet::new();
        let serve =
            serve(node.clone(), Arc::new(Metrics::new()), listener, options, shutdown.clone());
        serving.spawn(async move { serve.await.unwrap() });
        Server { node, address, shutdown, serving }
    }

    /// Sends a request as it is written, and reads until the other side closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A refusal may come, and the connection close, before all was sent.
        let _ = tokio::time::timeout(LATE, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
             {headers}\r\n{body}",
            body.len()
        );
        Answer::parse(&self.raw(request.as_bytes()).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, "content-type: application/json\r\n", body).await
    }

    /// Ends the server, which must not hang.
    async fn stop(mut self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(LATE, self.serving.join_next()).await;
        stopped.unwrap().unwrap().unwrap();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Answer { status, head: head.to_ascii_lowercase(), body }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of a fault.
    fn fault(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        out.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    out
}
