//! The server of a node: gRPC for agents, peers, programs and operators, and HTTP with JSON, all on
//! one port.
//!
//! It parses, checks, limits and formats; what a request does is the node's ([`ControlPlane`]).

pub mod access;
mod api;
pub mod audit;
mod batch;
mod cluster;
mod control_plane;
mod deadline;
mod fault;
mod fields;
mod fleet;
mod grpc;
mod http;
mod metrics;
mod query;
mod subscription;
mod tasks;
mod trust;
mod wish;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use tenon_trust::SharedIdentity;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use access::{Guard, listen};
use api::Api;
use audit::Audit;
use tasks::Tasks;

pub use control_plane::{
    AgentDecision, Cancel, Change, ControlPlane, EventSource, Items, Once, Readiness, Session,
    Started, ToNode,
};
pub use fault::{Fault, Result};
pub use fleet::no_such_agent;
pub use metrics::{Gauges, Metrics};
pub use trust::{NODE_CERTIFICATE, after, hosts};

/// How much is too much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest manifest of a run, in bytes.
    pub manifest_bytes: usize,
    /// Largest payload of a probe, in bytes.
    pub probe_bytes: usize,
    /// Streams of events at a time.
    pub subscribers: i64,
    /// A stream of events says that it is alive after so long without an event.
    pub idle: Duration,
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// How long a connection may take to shake hands, and to say what it wants.
    pub handshake: Duration,
    /// How long an agent may take to say hello.
    pub hello: Duration,
    /// How long an agent's certificate is good.
    pub agent_certificate: Duration,
    /// A stream of events from which nothing is taken for so long, though there is something, ends.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            manifest_bytes: 16 << 20,
            probe_bytes: 1 << 20,
            subscribers: 10_000,
            idle: Duration::from_secs(15),
            connections: 20_000,
            handshake: Duration::from_secs(10),
            hello: Duration::from_secs(10),
            agent_certificate: Duration::from_secs(30 * 24 * 3600),
            stall: Duration::from_secs(30),
        }
    }
}

/// How a server is to be run.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Listen on addresses that others can reach, although nothing checks who they are.
    pub insecure: bool,
    /// Speak TLS with this certificate, and do for each caller only what is theirs.
    pub identity: Option<SharedIdentity>,
    /// Where calls that change something are written down.
    pub audit: Option<Audit>,
    /// How much is too much.
    pub limits: Limits,
}

/// How long requests that are being done may take when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// How long their answers may be on the way then.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// What may be under way on one stream: agents and peers send bulk.
const STREAM_WINDOW: u32 = 4 << 20;
/// And on one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A connection on which nothing is heard for so long is asked whether it is alive: less often than the agents of a
/// large fleet send heartbeats, which show the same.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// And then closed after so long.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time on one connection.
const STREAMS: u32 = 4096;

/// Refuses to listen where others could connect, unless that is said out loud.
pub fn check_address(address: SocketAddr, insecure: bool) -> Result<()> {
    if address.ip().is_loopback() || insecure {
        return Ok(());
    }
    let message = format!(
        "{address} can be reached from other machines, and nothing checks who connects: whoever does \
         can run anything"
    );
    Err(Fault::new("denied/insecure", message)
        .hint(
            "make a cluster that knows who asks (`tenon cluster init --data-dir`, or --bootstrap), join \
             one (--join), listen on a loopback address, or say --insecure if the network is trusted",
        ))
}

/// Serves until `shutdown`. Then streams end with the reason, no further request is let in, and those
/// under way are done, for which the other nodes are still listened to; then nobody is.
pub async fn serve(
    node: Arc<dyn ControlPlane>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<()> {
    let secured = options.identity.is_some();
    check_address(listener.local_addr().map_err(Fault::internal)?, options.insecure || secured)?;
    let guard = Guard { node: node.clone(), secured, audit: options.audit.clone() };
    let closing = CancellationToken::new();
    let (under_way, mut requests) = watch::channel(0);
    let api = Api {
        node,
        metrics,
        shutdown: shutdown.clone(),
        closing: closing.clone(),
        under_way,
        limits: options.limits,
        audit: options.audit.clone(),
    };
    let tasks = Arc::new(Tasks::default());
    let routes = grpc::add(http::router(&api).into(), &api, &tasks, guard)?;
    drop(api);
    let incoming =
        TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEP_ALIVE));
    let (ready, connections) = mpsc::channel(listen::READY);
    let serving = tonic::transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections),
            closing.clone().cancelled_owned(),
        );
    let stopping = async {
        shutdown.cancelled().await;
        let done = requests.wait_for(|requests| *requests == 0);
        // Those that take longer are told that their time is up, as they would be anyway.
        let _ = tokio::time::timeout(LAST_REQUESTS, done).await;
        closing.cancel();
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    let listening =
        listen::listen(incoming, options.identity, options.limits, options.audit, ready);
    let serving = async { tokio::try_join!(listening, serving.map_err(Fault::internal)) };
    tokio::select! {
        served = serving => served.map(|_| ()),
        () = stopping => Ok(()),
    }
}

#[cfg(test)]
mod tests;
