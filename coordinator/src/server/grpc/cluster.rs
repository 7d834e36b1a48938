//! `tenon.control.v1.Cluster`.

use futures_util::StreamExt;
use tenon_proto::control::v1::cluster_server::Cluster;
use tenon_proto::control::v1::{
    AddMemberRequest, AuditRequest, AuditResponse, BackupChunk, BackupRequest, ClusterStatus,
    InitRequest, ProbeRequest, ProbeResponse, RemoveMemberRequest, StatusRequest, TransferRequest,
};
use tonic::{Request, Response, Status};

use super::{Answers, Service, asked};

#[tonic::async_trait]
impl Cluster for Service {
    type BackupStream = Answers<BackupChunk>;

    async fn init(&self, request: Request<InitRequest>) -> Result<Response<ClusterStatus>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.init(request.into_inner(), asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_init", answer).await?))
    }

    async fn add(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<ClusterStatus>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.add(request.into_inner(), asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_add", answer).await?))
    }

    async fn remove(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<ClusterStatus>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.remove(request.into_inner(), asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_remove", answer).await?))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<ClusterStatus>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.transfer(request.into_inner(), asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_transfer", answer).await?))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        Ok(Response::new(self.api.status().await))
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let answer = async { self.api.backup(asked(&request)?).await };
        let parts = self.api.counted("grpc", "cluster_backup", answer).await?;
        let chunks = parts.map(|part| part.map(|data| BackupChunk { data }).map_err(Status::from));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn audit(
        &self,
        request: Request<AuditRequest>,
    ) -> Result<Response<AuditResponse>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.audit(request.into_inner(), asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_audit", answer).await?))
    }

    async fn probe(
        &self,
        request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        let answer = async {
            let asked = asked(&request)?;
            self.api.probe(request.into_inner().payload, asked).await
        };
        Ok(Response::new(self.api.counted("grpc", "cluster_probe", answer).await?))
    }
}
