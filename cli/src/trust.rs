//! `tenon tokens` and `tenon certificates`.

use tenon_proto::control::v1::{
    CreateJoinTokenRequest, CreateTokenRequest, ListCertificatesRequest, ListTokensRequest,
    RevokeCertificateRequest, RevokeTokenRequest, TokenInfo,
};

use crate::args::{CertificatesCommand, TokensCommand};
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::remote::{needs_cluster, with};
use crate::terminal;

/// `tenon tokens`.
pub fn tokens(command: &TokensCommand, server: Option<&str>) -> Result<Exit, Failure> {
    let server = server.ok_or_else(|| needs_cluster("tokens"))?;
    with(server, async |remote| {
        let client = &remote.client;
        match command {
            TokensCommand::Create(args) => {
                let request = CreateTokenRequest {
                    name: args.name.clone(),
                    role: args.role.clone(),
                    namespaces: args.namespace.clone(),
                    seconds: args.hours.unwrap_or(0) * 3600,
                };
                let made = client.create_token(request).await?;
                answer(args.output, &made, || format!("{}\n", made.token))?;
                terminal::note("the token is shown only now");
            }
            TokensCommand::Join(args) => {
                let request = CreateJoinTokenRequest {
                    kind: if args.node { "node" } else { "agent" }.to_owned(),
                    agent: args.agent.clone().unwrap_or_default(),
                    seconds: args.minutes * 60,
                };
                let made = client.create_join_token(request).await?;
                answer(args.output, &made, || format!("{}\n", made.token))?;
                let what = if args.node { "coordinator" } else { "agent" };
                terminal::note(&format!(
                    "good once, for {} minutes: tenon {what} --server {server} --join TOKEN",
                    args.minutes
                ));
            }
            TokensCommand::List { output } => {
                let list = client.list_tokens(ListTokensRequest {}).await?;
                answer(*output, &list, || described(&list.tokens))?;
            }
            TokensCommand::Revoke { id } => {
                client.revoke_token(RevokeTokenRequest { id: id.clone() }).await?;
                terminal::note(&format!("token {id} is good no more"));
            }
        }
        Ok(Exit::Success)
    })
}

fn described(tokens: &[TokenInfo]) -> String {
    let rows: Vec<[String; 6]> = tokens
        .iter()
        .map(|token| {
            let until = match (&token.used_at, &token.expires_at) {
                (Some(at), _) => format!("used {at}"),
                (None, Some(at)) => at.clone(),
                (None, None) => "-".to_owned(),
            };
            let namespaces = match token.namespaces.is_empty() {
                true => "-".to_owned(),
                false => token.namespaces.join(","),
            };
            let (kind, name) = (token.kind.clone(), token.name.clone());
            [token.id.clone(), kind, name, token.role.clone(), namespaces, until]
        })
        .collect();
    match rows.is_empty() {
        true => "no tokens\n".to_owned(),
        false => table(&["ID", "KIND", "NAME", "ROLE", "NAMESPACES", "UNTIL"], &rows),
    }
}

/// `tenon certificates`.
pub fn certificates(command: &CertificatesCommand, server: Option<&str>) -> Result<Exit, Failure> {
    let server = server.ok_or_else(|| needs_cluster("certificates"))?;
    with(server, async |remote| {
        let client = &remote.client;
        match command {
            CertificatesCommand::List { output } => {
                let list = client.list_certificates(ListCertificatesRequest {}).await?;
                answer(*output, &list, || {
                    let rows: Vec<[String; 3]> = list
                        .agents
                        .iter()
                        .map(|it| {
                            let until = it.until.clone().unwrap_or_else(|| "-".to_owned());
                            [it.agent.clone(), it.state.clone(), until]
                        })
                        .collect();
                    match rows.is_empty() {
                        true => "no agent has a certificate\n".to_owned(),
                        false => table(&["AGENT", "STATE", "UNTIL"], &rows),
                    }
                })?;
            }
            CertificatesCommand::Revoke { agent } => {
                let request = RevokeCertificateRequest { agent: agent.clone() };
                client.revoke_certificate(request).await?;
                terminal::note(&format!("agent {agent} is shut out until it joins again"));
            }
        }
        Ok(Exit::Success)
    })
}
