//! The gRPC services: each method takes its message apart, asks, and answers. Nothing is decided here.

mod agents;
mod blobs;
mod cluster;
mod control;
mod events;
mod fleet;
mod health;
mod peers;
mod trust;

use std::pin::Pin;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::middleware::from_fn_with_state;
use futures_util::Stream;
use tenon_proto::DESCRIPTORS;
use tenon_proto::agent::v1::agents_server::AgentsServer;
use tenon_proto::agent::v1::blobs_server::BlobsServer;
use tenon_proto::control::v1::cluster_server::ClusterServer;
use tenon_proto::control::v1::control_server::ControlServer;
use tenon_proto::control::v1::events_server::EventsServer;
use tenon_proto::control::v1::fleet_server::FleetServer;
use tenon_proto::control::v1::trust_server::TrustServer;
use tenon_proto::raft::v1::peers_server::PeersServer;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Request, Status};
use tonic_health::pb::health_server::HealthServer;

use super::access::{Caller, Guard, pass};
use super::api::{Api, Asked};
use super::deadline;
use super::fault::{Fault, Result};
use super::tasks::Tasks;

/// What a streaming method answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Largest message of an agent: reports with output. An agent sends a quarter of a MiB, or one report,
/// whose output takes 8 MiB at most.
const AGENT_MESSAGE: usize = 16 << 20;
/// Largest message of a peer: a batch of Raft messages, each with entries of up to a manifest's size.
const PEER_MESSAGE: usize = 128 << 20;
/// Largest message with chunks.
const CHUNKS: usize = 20 << 20;
/// What a message may have besides a manifest.
const ENVELOPE: usize = 1 << 20;
/// The metadata of reads that need no quorum.
const STALE: &str = "tenon-stale";

/// All services behind one state.
#[derive(Clone)]
struct Service {
    api: Api,
    tasks: Arc<Tasks>,
}

/// Adds the gRPC services to the routes of HTTP, and puts the guard before all of them.
pub fn add(routes: Routes, api: &Api, tasks: &Arc<Tasks>, guard: Guard) -> Result<Routes> {
    let service = Service { api: api.clone(), tasks: tasks.clone() };
    let manifest = api.limits.manifest_bytes + ENVELOPE;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let events = EventsServer::new(service.clone());
    let routes = routes
        .add_service(ControlServer::new(service.clone()).max_decoding_message_size(manifest))
        .add_service(events.send_compressed(CompressionEncoding::Zstd))
        .add_service(ClusterServer::new(service.clone()))
        .add_service(FleetServer::new(service.clone()))
        .add_service(TrustServer::new(service.clone()).max_decoding_message_size(ENVELOPE))
        .add_service(AgentsServer::new(service.clone()).max_decoding_message_size(AGENT_MESSAGE))
        .add_service(BlobsServer::new(service.clone()).max_decoding_message_size(CHUNKS))
        .add_service(PeersServer::new(service.clone()).max_decoding_message_size(PEER_MESSAGE))
        .add_service(HealthServer::new(service))
        .add_service(reflection().build_v1().map_err(Fault::internal)?)
        .add_service(reflection().build_v1alpha().map_err(Fault::internal)?)
        .prepare();
    Ok(routes.into_axum_router().layer(from_fn_with_state(guard, pass)).into())
}

/// Who asks: the guard has found it out.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_else(Caller::everybody)
}

/// What a request says besides its message.
fn asked<T>(request: &Request<T>) -> Result<Asked> {
    let headers: &HeaderMap = request.metadata().as_ref();
    let stale = headers.get(STALE).is_some_and(|value| value == "true");
    Ok(Asked { deadline: deadline::of(headers)?, stale, caller: caller(request) })
}
