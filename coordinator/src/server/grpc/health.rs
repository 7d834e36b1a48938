//! `grpc.health.v1.Health`: the same as `/readyz`. Of any service, since all are one node.

use std::time::Duration;

use futures_util::stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Answers, Service};
use crate::server::control_plane::Readiness;

/// Watchers learn of a change within this time.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Service {
    fn health(&self) -> HealthCheckResponse {
        let status = match self.api.readiness() {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::NotReady(_) => ServingStatus::NotServing,
        };
        HealthCheckResponse { status: status.into() }
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(self.health()))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let state = (self.clone(), None);
        let changes = stream::unfold(state, |(service, last)| async move {
            loop {
                let now = service.health();
                if last.as_ref() != Some(&now) {
                    return Some((Ok(now), (service, Some(now))));
                }
                tokio::select! {
                    () = service.api.shutdown.cancelled() => return None,
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
