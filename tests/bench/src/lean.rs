//! A gRPC connection that costs its client little. Clients and nodes share the machine's cores here: what the clients
//! take is missing in what is measured of the nodes, ours and the rival's alike.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tower::Service;

use crate::Result;

/// One connection, for any number of clients.
#[derive(Clone)]
pub struct Lean {
    sender: SendRequest<Body>,
    origin: Uri,
    /// Ends with the last client.
    _connection: Arc<JoinSet<Result<(), hyper::Error>>>,
}

impl Lean {
    /// Connects to `http://HOST:PORT`, with the windows that our own client has.
    pub async fn connect(url: &str) -> Result<Lean> {
        let failed = |why: String| format!("connect to {url}: {why}");
        let origin: Uri = url.parse().map_err(|_| failed("not a URL".to_owned()))?;
        let authority = origin.authority().map(|it| it.as_str()).unwrap_or_default();
        let stream =
            TcpStream::connect(authority).await.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(2 << 20).initial_connection_window_size(8 << 20);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| failed(error.to_string()))?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Lean { sender, origin, _connection: Arc::new(task) })
    }

    /// Where it is connected to.
    pub fn origin(&self) -> Uri {
        self.origin.clone()
    }
}

impl Service<Request<Body>> for Lean {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
