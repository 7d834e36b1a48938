//! What can be asked of a cluster, one method a request.

use tenon_proto::control::v1::cluster_client::ClusterClient;
use tenon_proto::control::v1::control_client::ControlClient;
use tenon_proto::control::v1::fleet_client::FleetClient;
use tenon_proto::control::v1::trust_client::TrustClient;
use tenon_proto::control::v1::{
    AddMemberRequest, Agent, AuditRequest, AuditResponse, BackupChunk, BackupRequest,
    CancelRunRequest, ClusterStatus, CordonAgentRequest, CreateJoinTokenRequest,
    CreateJoinTokenResponse, CreateTokenRequest, CreateTokenResponse, DrainAgentRequest,
    ExplainRunRequest, ExplainRunResponse, GetAgentRequest, GetRunObjectsRequest, GetRunRequest,
    InitRequest, JoinRequest, JoinResponse, ListAgentsRequest, ListAgentsResponse,
    ListCertificatesRequest, ListCertificatesResponse, ListRunsRequest, ListRunsResponse,
    ListTokensRequest, ListTokensResponse, ProbeRequest, ProbeResponse, ReleaseRunRequest,
    RemoveAgentRequest, RemoveAgentResponse, RemoveMemberRequest, RenewRequest, RenewResponse,
    RerunRunRequest, RerunRunResponse, RevokeCertificateRequest, RevokeCertificateResponse,
    RevokeTokenRequest, RevokeTokenResponse, Run, RunObjects, StatusRequest, SubmitRequest,
    SubmitResponse, TransferRequest, UncordonAgentRequest, WhoAmIRequest, WhoAmIResponse,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::client::{Client, Repeat};
use crate::connect::{MAX_MESSAGE, random};
use crate::error::{Error, Result};

fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

fn fleet(channel: Channel) -> FleetClient<Channel> {
    FleetClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

fn trust(channel: Channel) -> TrustClient<Channel> {
    TrustClient::new(channel)
}

/// Defines a method that asks one question until it is answered.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $question:ty => $answer:ty, $service:ident, $repeat:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub async fn $name(&self, question: $question) -> Result<$answer> {
                    self.call(Repeat::$repeat, question, |channel, request| async move {
                        $service(channel).$name(request).await
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// One run.
    get_run: GetRunRequest => Run, control, Always;
    /// A page of runs, newest first.
    list_runs: ListRunsRequest => ListRunsResponse, control, Always;
    /// Ends a run early; to cancel one that has ended changes nothing.
    cancel_run: CancelRunRequest => Run, control, Always;
    /// Starts a run that waits to be released.
    release_run: ReleaseRunRequest => Run, control, IfRefused;
    /// What every task of a run does or waits for.
    explain_run: ExplainRunRequest => ExplainRunResponse, control, Always;
    /// The run object and its children as YAML.
    get_run_objects: GetRunObjectsRequest => RunObjects, control, Always;
    /// All agents.
    list_agents: ListAgentsRequest => ListAgentsResponse, fleet, Always;
    /// One agent, with what it runs.
    get_agent: GetAgentRequest => Agent, fleet, Always;
    /// Gives an agent no new work.
    cordon_agent: CordonAgentRequest => Agent, fleet, Always;
    /// Gives an agent work again.
    uncordon_agent: UncordonAgentRequest => Agent, fleet, Always;
    /// Has an agent emptied.
    drain_agent: DrainAgentRequest => Agent, fleet, Always;
    /// Makes an agent none of the fleet's.
    remove_agent: RemoveAgentRequest => RemoveAgentResponse, fleet, IfRefused;
    /// Makes a cluster of the answering node.
    init: InitRequest => ClusterStatus, cluster, IfRefused;
    /// Makes an empty node a member.
    add: AddMemberRequest => ClusterStatus, cluster, Always;
    /// Makes a member none.
    remove: RemoveMemberRequest => ClusterStatus, cluster, IfRefused;
    /// Hands leadership over.
    transfer: TransferRequest => ClusterStatus, cluster, IfRefused;
    /// The newest entries of the audit log.
    audit: AuditRequest => AuditResponse, cluster, Always;
    /// Lets a machine in that shows a join token.
    join: JoinRequest => JoinResponse, trust, Always;
    /// Gives an agent its next certificate.
    renew: RenewRequest => RenewResponse, trust, Always;
    /// What the caller may do.
    who_am_i: WhoAmIRequest => WhoAmIResponse, trust, Always;
    /// Makes an API token.
    create_token: CreateTokenRequest => CreateTokenResponse, trust, IfRefused;
    /// All tokens, without their secrets.
    list_tokens: ListTokensRequest => ListTokensResponse, trust, Always;
    /// Makes a token good no more.
    revoke_token: RevokeTokenRequest => RevokeTokenResponse, trust, IfRefused;
    /// Makes a join token.
    create_join_token: CreateJoinTokenRequest => CreateJoinTokenResponse, trust, IfRefused;
    /// The agents that have certificates.
    list_certificates: ListCertificatesRequest => ListCertificatesResponse, trust, Always;
    /// Shuts an agent out.
    revoke_certificate: RevokeCertificateRequest => RevokeCertificateResponse, trust, Always;
    /// Agrees on an entry that changes nothing.
    probe: ProbeRequest => ProbeResponse, cluster, Always;
}

impl Client {
    /// Submits a run. Without an idempotency key one is made, so that repeating the request, which
    /// this does when nobody knows whether it arrived, never makes a second run.
    pub async fn submit(&self, mut question: SubmitRequest) -> Result<SubmitResponse> {
        question.idempotency_key.get_or_insert_with(new_key);
        self.call(Repeat::Always, question, |channel, request| async move {
            control(channel).submit(request).await
        })
        .await
    }

    /// Runs the same again; as with [`Client::submit`] never twice.
    pub async fn rerun_run(&self, mut question: RerunRunRequest) -> Result<RerunRunResponse> {
        question.idempotency_key.get_or_insert_with(new_key);
        self.call(Repeat::Always, question, |channel, request| async move {
            control(channel).rerun_run(request).await
        })
        .await
    }

    /// The cluster, as a node that answers sees it. Its members are tried from now on too.
    pub async fn status(&self) -> Result<ClusterStatus> {
        let status: ClusterStatus = self
            .call(Repeat::Always, StatusRequest {}, |channel, request| async move {
                cluster(channel).status(request).await
            })
            .await?;
        self.learn(status.members.iter().map(|member| member.url.clone()));
        Ok(status)
    }

    /// A consistent copy of everything, given to `take` piece by piece. Not repeated: a copy that
    /// broke off is none.
    pub async fn backup(
        &self,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), BackupError> {
        let node = self.node(Instant::now()).await?;
        let failed = |status: &tonic::Status| Error::of_status(&node.url, status);
        let mut stream = cluster(node.channel.clone())
            .backup(self.options().access.request(BackupRequest {}))
            .await
            .map_err(|status| failed(&status))?
            .into_inner();
        self.worked(&node.url);
        while let Some(BackupChunk { data }) =
            stream.message().await.map_err(|status| failed(&status))?
        {
            take(&data)?;
        }
        Ok(())
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The cluster gave none.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// It could not be written.
    #[error("cannot write it: {0}")]
    Write(#[from] std::io::Error),
}

/// A key that nobody else uses.
fn new_key() -> String {
    format!("client-{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_the_contract_and_differ() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        assert!(one.len() <= 128 && one.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
