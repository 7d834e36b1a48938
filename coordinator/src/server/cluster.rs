//! What clients may ask about the cluster and this node.

use bytes::Bytes;
use tenon_proto::control::v1::{
    AddMemberRequest, ClusterStatus, InitRequest, ProbeResponse, RemoveMemberRequest,
    TransferRequest,
};

use super::api::{Api, Asked};
use super::control_plane::{Change, Items, Readiness};
use super::fault::{Fault, Result};

impl Api {
    /// Whether this node can serve, and will for a while.
    pub fn readiness(&self) -> Readiness {
        match self.shutdown.is_cancelled() {
            true => Readiness::NotReady("it is stopping".to_owned()),
            false => self.node.readiness(),
        }
    }

    /// The cluster as this node sees it.
    pub async fn status(&self) -> ClusterStatus {
        self.node.status().await
    }

    /// Makes a cluster of this node.
    pub async fn init(&self, request: InitRequest, asked: Asked) -> Result<ClusterStatus> {
        request.peers.iter().try_for_each(|url| node_url("peers", url))?;
        asked.caller.says("a new cluster");
        self.change(Change::Init { peers: request.peers }, &asked).await
    }

    /// Adds a node.
    pub async fn add(&self, request: AddMemberRequest, asked: Asked) -> Result<ClusterStatus> {
        node_url("url", &request.url)?;
        let AddMemberRequest { url, name, learner } = request;
        asked.caller.says(format!("node at {url}"));
        // A node that has joined adds itself, and nobody else.
        let only = asked.caller.node();
        self.change(Change::Add { url, name, learner, only }, &asked).await
    }

    /// Removes a node.
    pub async fn remove(
        &self,
        request: RemoveMemberRequest,
        asked: Asked,
    ) -> Result<ClusterStatus> {
        if request.member.is_empty() {
            return Err(Fault::new("invalid/member", "no member is named").field("member"));
        }
        let RemoveMemberRequest { member, force } = request;
        asked.caller.says(format!("member {member}"));
        self.change(Change::Remove { member, force }, &asked).await
    }

    /// Hands leadership over.
    pub async fn transfer(&self, request: TransferRequest, asked: Asked) -> Result<ClusterStatus> {
        asked.caller.says(format!("to {:?}", request.to));
        self.change(Change::Transfer { to: request.to }, &asked).await
    }

    /// A copy of everything.
    pub async fn backup(&self, asked: Asked) -> Result<Items<Bytes>> {
        self.until(&asked, self.node.backup(asked.deadline)).await
    }

    /// Agrees on an entry that changes nothing.
    pub async fn probe(&self, payload: Bytes, asked: Asked) -> Result<ProbeResponse> {
        if payload.len() > self.limits.probe_bytes {
            let message = format!("the payload is larger than {} bytes", self.limits.probe_bytes);
            return Err(Fault::new("too-large/payload", message).field("payload"));
        }
        self.until(&asked, self.node.probe(payload, asked.deadline)).await
    }

    async fn change(&self, change: Change, asked: &Asked) -> Result<ClusterStatus> {
        self.until(asked, self.node.change(change, asked.deadline)).await?;
        Ok(self.node.status().await)
    }
}

fn node_url(field: &str, url: &str) -> Result<()> {
    let uri = url.parse::<axum::http::Uri>().ok();
    let good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.port_u16().is_some()
            && uri.path() == "/"
    });
    match good {
        true => Ok(()),
        false => {
            Err(Fault::new("invalid/url", format!("{url:?} is not where a node can be reached"))
                .hint("for example http://10.0.0.2:7420")
                .field(field))
        }
    }
}
