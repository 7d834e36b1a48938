//! The node's part in trust: its own certificate, the authority, and the beginning of both.
//!
//! Every node has the key that the authority's key is sealed with, so every node can sign: for agents
//! that ask it, and for itself. A node's own certificate is in `tls/` of its data directory
//! ([`tenon_trust::files`]).

use std::sync::{Arc, PoisonError};

use tenon_engine::AttemptId;
use tenon_trust::{
    ApiToken, Authority, AuthorityRecord, Change, Done, Grant, Identity, Kind, Role, SecretHash,
    SharedIdentity, Subject, Token, Trust, files,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::apply_thread::now;
use super::membership::as_time;
use super::{Handle, Shared};
use crate::coordinator::Request;
use crate::replica::Reply;
use crate::server::audit::Audit;
use crate::server::{Fault, NODE_CERTIFICATE, Result, after, hosts};

/// Where a node keeps its certificate, in its data directory.
pub const TLS_DIR: &str = "tls";
/// What the authority's key is sealed as.
const SEALED_AS: &str = "authority key";

impl Shared {
    /// An agent has reported of what it was not given.
    pub(super) fn note_forged(&self, agent: &str, attempt: &AttemptId) {
        if let Some(audit) = self.audit.get() {
            audit.forged_report(agent, format!("run {}, {}", attempt.run, attempt.task_run));
        }
    }
}

impl Handle {
    /// Opens the audit log of this node, once; from then on the node writes there too.
    pub fn audit(&self) -> crate::error::Result<Audit> {
        if let Some(audit) = self.shared.audit.get() {
            return Ok(audit.clone());
        }
        let audit = Audit::open(&self.options().data_dir)?;
        Ok(self.shared.audit.get_or_init(|| audit).clone())
    }

    /// The node's own certificate, with which it also speaks to other nodes.
    pub fn identity(&self) -> Option<SharedIdentity> {
        self.shared.own()
    }

    /// The id with which this node has joined, by its certificate.
    pub(super) fn joined_as(&self) -> Option<u64> {
        match self.identity()?.current().certificate().subject {
            Subject::Node(id) => Some(id),
            Subject::Agent(_) => None,
        }
    }

    /// From now on this is the node's own certificate.
    pub fn set_identity(&self, identity: SharedIdentity) {
        *self.shared.own.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// Gives the cluster of this node an authority, and a first token, for an admin. The token's text
    /// is told only now.
    pub async fn found_trust(&self, deadline: Instant) -> Result<Token> {
        let key = self.shared.options.key.as_ref().ok_or_else(no_key)?;
        let now = now().0;
        let (authority, private) = Authority::random(now)?;
        let certificate = authority.certificate().to_owned();
        let sealed_key = key.seal_text(SEALED_AS, &private)?;
        let record = AuthorityRecord { certificate, sealed_key };
        self.agree_on_trust(Change::Found(record), deadline).await?;
        let token = Token::random(Kind::Api, authority.fingerprint()?)?;
        let record = ApiToken {
            name: "first admin".to_owned(),
            hash: SecretHash::of(&token.secret),
            grant: Grant::everywhere(Role::Admin),
            created: now,
            expires: None,
            created_by: format!("node {}", self.options().name),
        };
        self.agree_on_trust(Change::AddToken(token.id.clone(), record), deadline).await?;
        Ok(token)
    }

    /// Has a certificate for this node, if its cluster has an authority: the one on the disk, or a new
    /// one where that is missing or grows old. Blocks on the disk for a moment.
    pub fn ensure_identity(&self) -> Result<Option<SharedIdentity>> {
        let dir = self.options().data_dir.join(TLS_DIR);
        let known = match self.identity() {
            Some(known) => Some(known),
            None => files::read(&dir)?.map(SharedIdentity::new),
        };
        if let Some(known) = &known {
            self.set_identity(known.clone());
            if known.current().certificate().renew_at() > now().0 {
                return Ok(Some(known.clone()));
            }
        }
        let Some(member) = self.member() else { return Ok(known) };
        if member.trust.newest().authority.is_none() {
            return Ok(known);
        }
        let authority = self.open_authority()?;
        let now = now().0;
        let until = after(now, NODE_CERTIFICATE.as_secs());
        let request = tenon_trust::Request::new()?;
        let subject = Subject::Node(member.identity.node);
        let hosts = hosts(&self.options().url)?;
        let issued = authority.issue(&request.request, &subject, &hosts, now, until)?;
        let identity = Identity::new(authority.certificate(), &issued, &request.key)?;
        files::write(&dir, &identity)?;
        Ok(Some(match known {
            Some(known) => {
                known.replace(identity);
                known
            }
            None => {
                let made = SharedIdentity::new(identity);
                self.set_identity(made.clone());
                made
            }
        }))
    }

    pub(super) fn trust_view(&self) -> watch::Receiver<Arc<Trust>> {
        match self.member() {
            Some(member) => member.trust.watch(),
            None => self.shared.unknown.watch(),
        }
    }

    pub(super) async fn agree_on_trust(&self, change: Change, deadline: Instant) -> Result<Done> {
        match self.request(Request::Trust { change }, as_time(deadline)).await? {
            Reply::Trust(done) => Ok(done?),
            other => Err(Fault::internal(format!("a change of trust gave {other:?}"))),
        }
    }

    pub(super) fn open_authority(&self) -> Result<Authority> {
        let trust = self.trust_view().borrow().clone();
        let Some(record) = &trust.authority else {
            return Err(Fault::new(
                "conflict/no-authority",
                "nobody has to say who they are in this cluster: it has no authority",
            )
            .hint("`tenon cluster init --data-dir DIR` makes a cluster with one"));
        };
        let key = self.shared.options.key.as_ref().ok_or_else(no_key)?;
        let private = key.open_text(SEALED_AS, &record.sealed_key);
        let private =
            private.map_err(|error| Fault::new("internal/secrets-key", error.to_string()))?;
        Ok(Authority::open(&record.certificate, &private)?)
    }

    pub(super) fn key_for_joining(&self) -> Result<String> {
        Ok(self.shared.options.key.as_ref().ok_or_else(no_key)?.to_text())
    }
}

fn no_key() -> Fault {
    Fault::new(
        "conflict/no-secrets-key",
        "this node has no secrets key, and cannot sign without it",
    )
    .hint("start every coordinator with --secrets-key FILE")
}
