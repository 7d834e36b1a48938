//! Joining, tokens and certificates: what the API does about trust. What is agreed on is decided by the
//! record ([`tenon_trust::Trust`]); here random bits and signatures come in.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tenon_engine::Time;
use tenon_proto::control::v1::{
    AgentCertificates, CreateJoinTokenRequest, CreateJoinTokenResponse, CreateTokenRequest,
    CreateTokenResponse, JoinRequest, JoinResponse, ListCertificatesResponse, ListTokensResponse,
    RenewRequest, RenewResponse, RevokeCertificateRequest, RevokeCertificateResponse,
    RevokeTokenRequest, RevokeTokenResponse, TokenInfo, WhoAmIResponse,
};
use tenon_trust::{
    AgentRecord, ApiToken, Authority, Certificate, Change, Done, Grant, JoinToken, Kind, Millis,
    Refusal, Role, SecretHash, Subject, Token,
};

use super::access::{Caller, Who, now};
use super::api::{Api, Asked};
use super::fault::{Fault, Result};
use super::fields;

/// How long a join token is good if nothing is said.
const JOIN: Duration = Duration::from_secs(3600);
/// And at most.
const LONGEST_JOIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a node's certificate is good.
pub const NODE_CERTIFICATE: Duration = Duration::from_secs(90 * 24 * 3600);

impl From<tenon_trust::Error> for Fault {
    fn from(error: tenon_trust::Error) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let fault = Fault::new(refusal.code(), refusal.to_string());
        match refusal {
            Refusal::Expired | Refusal::Used | Refusal::UnknownToken => {
                fault.hint("`tenon tokens join` makes another")
            }
            Refusal::NameTaken => fault.hint(
                "choose another name; or, to take the place of that agent, use a token of \
                 `tenon tokens join --agent NAME`",
            ),
            _ => fault,
        }
    }
}

impl Api {
    /// Lets in whoever shows a join token.
    pub async fn join(&self, request: JoinRequest, asked: Asked) -> Result<JoinResponse> {
        let token = Token::parse(Kind::Join, &request.token)?;
        let hash = token.secret.hash();
        asked.caller.says(format!("join token {}", token.id));
        let authority = self.node.authority()?;
        if !request.agent.is_empty() {
            asked.caller.says(format!("agent {}", request.agent));
            let subject = Subject::Agent(request.agent.clone());
            let issued = self.issue(&authority, &request.certificate_request, &subject, &[])?;
            let (agent, serial) = (request.agent, issued.1.serial);
            let until = issued.1.until;
            let change = Change::JoinAgent { token: token.id, hash, agent, serial, until };
            self.change_trust(change, &asked).await?;
            let authority = authority.certificate().to_owned();
            return Ok(JoinResponse {
                certificate: issued.0,
                authority,
                ..JoinResponse::default()
            });
        }
        let hosts = hosts(&request.url)?;
        // The same request asked again is the same use of the token.
        let by = Sha256::digest(&request.certificate_request);
        let by = by.iter().map(|byte| format!("{byte:02x}")).collect();
        let secrets_key = self.node.secrets_key()?;
        let change = Change::JoinNode { token: token.id, hash, by };
        let Done::Node(node) = self.change_trust(change, &asked).await? else {
            return Err(Fault::internal("a node has joined and has no id"));
        };
        asked.caller.says(format!("node {node} at {}", request.url));
        let subject = Subject::Node(node);
        let issued = self.issue(&authority, &request.certificate_request, &subject, &hosts)?;
        let authority = authority.certificate().to_owned();
        Ok(JoinResponse { certificate: issued.0, authority, node, secrets_key })
    }

    /// Gives an agent its next certificate.
    pub async fn renew(&self, request: RenewRequest, asked: Asked) -> Result<RenewResponse> {
        let Who::Machine(with) = &asked.caller.who else {
            return Err(Fault::new("denied/certificate", "there is no certificate to be renewed"));
        };
        let Subject::Agent(agent) = with.subject.clone() else {
            return Err(Fault::new("denied/certificate", "nodes renew theirs by themselves"));
        };
        let authority = self.node.authority()?;
        let issued = self.issue(&authority, &request.certificate_request, &with.subject, &[])?;
        let (with, serial, until) = (with.serial.clone(), issued.1.serial, issued.1.until);
        self.change_trust(Change::Renew { agent, with, serial, until }, &asked).await?;
        Ok(RenewResponse { certificate: issued.0 })
    }

    /// What the caller may do.
    pub fn who_am_i(&self, caller: &Caller) -> WhoAmIResponse {
        match &caller.who {
            Who::User { name, grant, .. } => WhoAmIResponse {
                name: name.clone(),
                role: grant.role.to_string(),
                namespaces: grant.namespaces.iter().cloned().collect(),
            },
            _ => WhoAmIResponse { role: Role::Admin.to_string(), ..WhoAmIResponse::default() },
        }
    }

    /// Makes an API token.
    pub async fn create_token(
        &self,
        request: CreateTokenRequest,
        asked: Asked,
    ) -> Result<CreateTokenResponse> {
        if request.name.trim().is_empty() || request.name.len() > 128 {
            let message = "a token needs a name of 128 bytes at most, to tell it from others";
            return Err(Fault::new("invalid/name", message).field("name"));
        }
        let role: Role = request.role.parse().map_err(|error: tenon_trust::NoSuchRole| {
            Fault::new("invalid/role", error.to_string()).field("role")
        })?;
        request.namespaces.iter().try_for_each(|it| fields::namespace(it).map(drop))?;
        let namespaces = request.namespaces.into_iter().collect();
        let token = Token::random(Kind::Api, self.node.authority()?.fingerprint()?)?;
        let created = now();
        let record = ApiToken {
            name: request.name,
            hash: SecretHash::of(&token.secret),
            grant: Grant { role, namespaces },
            created,
            expires: (request.seconds > 0).then(|| after(created, request.seconds)),
            created_by: asked.caller.name(),
        };
        asked.caller.says(format!("token {} for {} as {role}", token.id, record.name));
        let info = api_info(&token.id, &record);
        self.change_trust(Change::AddToken(token.id.clone(), record), &asked).await?;
        Ok(CreateTokenResponse { token: token.reveal(), info: Some(info) })
    }

    /// Makes a join token.
    pub async fn create_join_token(
        &self,
        request: CreateJoinTokenRequest,
        asked: Asked,
    ) -> Result<CreateJoinTokenResponse> {
        let node = match &*request.kind {
            "" | "agent" => false,
            "node" => true,
            other => {
                let message = format!("no {other:?} can join");
                return Err(Fault::new("invalid/kind", message)
                    .hint("agent or node")
                    .field("kind"));
            }
        };
        let agent = Some(request.agent).filter(|agent| !agent.is_empty());
        if let Some(agent) = &agent {
            Subject::check_agent(agent)?;
            if node {
                let message = "a join token for a node is for no agent";
                return Err(Fault::new("invalid/agent", message).field("agent"));
            }
        }
        let seconds = match request.seconds {
            0 => JOIN.as_secs(),
            seconds if seconds > LONGEST_JOIN.as_secs() => {
                let message = "a join token is good for 30 days at most";
                return Err(Fault::new("invalid/seconds", message).field("seconds"));
            }
            seconds => seconds,
        };
        let token = Token::random(Kind::Join, self.node.authority()?.fingerprint()?)?;
        let created = now();
        let record = JoinToken {
            node,
            agent,
            hash: SecretHash::of(&token.secret),
            created,
            expires: after(created, seconds),
            created_by: asked.caller.name(),
            used: None,
        };
        let info = join_info(&token.id, &record);
        asked.caller.says(format!("join token {} for: {}", token.id, info.kind));
        self.change_trust(Change::AddJoinToken(token.id.clone(), record), &asked).await?;
        Ok(CreateJoinTokenResponse { token: token.reveal(), info: Some(info) })
    }

    /// All tokens, without their secrets.
    pub fn list_tokens(&self) -> ListTokensResponse {
        let trust = self.node.trust().borrow().clone();
        let api = trust.tokens.iter().map(|(id, token)| api_info(id, token));
        let join = trust.join_tokens.iter().map(|(id, token)| join_info(id, token));
        ListTokensResponse { tokens: api.chain(join).collect() }
    }

    /// Makes a token good no more.
    pub async fn revoke_token(
        &self,
        request: RevokeTokenRequest,
        asked: Asked,
    ) -> Result<RevokeTokenResponse> {
        asked.caller.says(format!("token {}", request.id));
        let trust = self.node.trust().borrow().clone();
        if !trust.tokens.contains_key(&request.id) && !trust.join_tokens.contains_key(&request.id) {
            let message = format!("there is no token {:?}", request.id);
            return Err(
                Fault::new("not-found/token", message).hint("`tenon tokens list` shows all")
            );
        }
        self.change_trust(Change::RemoveToken(request.id), &asked).await?;
        Ok(RevokeTokenResponse {})
    }

    /// The agents that have certificates.
    pub fn list_certificates(&self) -> ListCertificatesResponse {
        let trust = self.node.trust().borrow().clone();
        let now = now();
        let agents = trust.agents.iter().map(|(name, record)| certificates(name, record, now));
        ListCertificatesResponse { agents: agents.collect() }
    }

    /// Shuts an agent out.
    pub async fn revoke_certificate(
        &self,
        request: RevokeCertificateRequest,
        asked: Asked,
    ) -> Result<RevokeCertificateResponse> {
        asked.caller.says(format!("agent {}", request.agent));
        self.change_trust(Change::Revoke { agent: request.agent }, &asked).await?;
        Ok(RevokeCertificateResponse {})
    }

    async fn change_trust(&self, change: Change, asked: &Asked) -> Result<Done> {
        self.until(asked, self.node.change_trust(change, asked.deadline)).await
    }

    fn issue(
        &self,
        authority: &Authority,
        request: &str,
        subject: &Subject,
        hosts: &[String],
    ) -> Result<(String, Certificate)> {
        let lifetime = match subject {
            Subject::Agent(_) => self.limits.agent_certificate,
            Subject::Node(_) => NODE_CERTIFICATE,
        };
        let now = now();
        let until = after(now, lifetime.as_secs());
        let issued = authority.issue(request, subject, hosts, now, until)?;
        let certificate = Certificate::of_pem(&issued)?;
        Ok((issued, certificate))
    }
}

/// The host of a node's URL, for its certificate.
pub fn hosts(url: &str) -> Result<Vec<String>> {
    let uri = url.parse::<axum::http::Uri>().ok();
    let host = uri.as_ref().and_then(|uri| uri.host()).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| {
        Fault::new("invalid/url", format!("{url:?} is not where a node can be reached"))
            .field("url")
    })?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(vec![host, "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])
}

/// So many seconds after a time.
pub fn after(time: Millis, seconds: u64) -> Millis {
    time.saturating_add(Millis::try_from(seconds.saturating_mul(1000)).unwrap_or(Millis::MAX))
}

fn text(time: Millis) -> String {
    Time(time).to_string()
}

fn api_info(id: &str, token: &ApiToken) -> TokenInfo {
    TokenInfo {
        id: id.to_owned(),
        kind: "api".to_owned(),
        name: token.name.clone(),
        role: token.grant.role.to_string(),
        namespaces: token.grant.namespaces.iter().cloned().collect(),
        created_at: text(token.created),
        expires_at: token.expires.map(text),
        created_by: token.created_by.clone(),
        used_at: None,
    }
}

fn join_info(id: &str, token: &JoinToken) -> TokenInfo {
    TokenInfo {
        id: id.to_owned(),
        kind: if token.node { "node" } else { "agent" }.to_owned(),
        name: token.agent.clone().unwrap_or_default(),
        created_at: text(token.created),
        expires_at: Some(text(token.expires)),
        created_by: token.created_by.clone(),
        used_at: token.used.as_ref().map(|used| text(used.at)),
        ..TokenInfo::default()
    }
}

fn certificates(name: &str, record: &AgentRecord, now: Millis) -> AgentCertificates {
    let good = record.serials.iter().filter(|(_, until)| **until > now);
    let until = good.clone().map(|(_, until)| *until).max();
    let state = match (record.shut_out, until) {
        (true, _) => "revoked",
        (false, Some(_)) => "good",
        (false, None) => "expired",
    };
    AgentCertificates {
        agent: name.to_owned(),
        state: state.to_owned(),
        serials: good.map(|(serial, _)| serial.clone()).collect(),
        until: until.map(text),
    }
}
