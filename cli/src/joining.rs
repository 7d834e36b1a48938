//! Machines that join a cluster with a token, and keep their certificates new.

use std::path::Path;
use std::time::Duration;

use tenon_client::{Access, Client, Options};
use tenon_proto::control::v1::{AddMemberRequest, JoinRequest, JoinResponse, RenewRequest};
use tenon_trust::{Identity, Kind, Request, SharedIdentity, Subject, Token, files};

use crate::exit::{Exit, Failure};
use crate::terminal;

/// Between attempts to do what did not come about.
const AGAIN: Duration = Duration::from_secs(2);
/// A certificate is looked at so often.
const LOOK: Duration = Duration::from_secs(3600);

impl From<tenon_trust::Error> for Failure {
    fn from(error: tenon_trust::Error) -> Failure {
        let exit = match error.code() {
            "state/io" => Exit::Environment,
            _ => Exit::Usage,
        };
        Failure::new(exit, format!("{error} [{}]", error.code()))
    }
}

/// The certificate of an agent: the one that it has, or one that it joins with; none where it has
/// neither.
pub async fn agent(
    dir: &Path,
    name: &str,
    servers: &[String],
    token: Option<&str>,
) -> Result<Option<SharedIdentity>, Failure> {
    if let Some(identity) = files::read(dir)? {
        let subject = &identity.certificate().subject;
        if *subject != Subject::Agent(name.to_owned()) {
            let message = format!("{} has the certificate of {subject}", dir.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint("use the name with which it has joined, or another --state-dir"));
        }
        return Ok(Some(SharedIdentity::new(identity)));
    }
    let Some(token) = token else { return Ok(None) };
    Subject::check_agent(name)?;
    let asked = JoinRequest { agent: name.to_owned(), ..JoinRequest::default() };
    let (identity, _) = join(servers, token, asked).await?;
    files::write(dir, &identity)?;
    terminal::note(&format!("joined the cluster as agent {name}"));
    Ok(Some(SharedIdentity::new(identity)))
}

/// Lets a node join; what it got besides its certificate.
pub async fn node(
    dir: &Path,
    url: &str,
    servers: &[String],
    token: &str,
) -> Result<JoinResponse, Failure> {
    let asked = JoinRequest { url: url.to_owned(), ..JoinRequest::default() };
    let (identity, joined) = join(servers, token, asked).await?;
    files::write(dir, &identity)?;
    terminal::note(&format!("joined the cluster as node {}", joined.node));
    Ok(joined)
}

async fn join(
    servers: &[String],
    token: &str,
    asked: JoinRequest,
) -> Result<(Identity, JoinResponse), Failure> {
    let token = Token::parse(Kind::Join, token)?;
    let own = Request::new()?;
    let options = Options { access: Access::of_newcomer(&token), ..Options::default() };
    let client = Client::new(servers, options)?;
    let (token, certificate_request) = (token.reveal(), own.request);
    let joined = client.join(JoinRequest { token, certificate_request, ..asked }).await?;
    let identity = Identity::new(&joined.authority, &joined.certificate, &own.key)?;
    Ok((identity, joined))
}

/// Keeps an agent's certificate new, for ever: gets the next one after two thirds of its life.
pub async fn renew(dir: &Path, servers: &[String], identity: &SharedIdentity) {
    loop {
        let left = identity.current().certificate().renew_at() - terminal::now().0;
        if left > 0 {
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            tokio::time::sleep(left.min(LOOK)).await;
            continue;
        }
        if let Err(failure) = renew_once(dir, servers, identity).await {
            terminal::note(&format!("cannot renew the certificate: {}", failure.message));
            tokio::time::sleep(AGAIN * 30).await;
        }
    }
}

async fn renew_once(
    dir: &Path,
    servers: &[String],
    identity: &SharedIdentity,
) -> Result<(), Failure> {
    let options = Options { access: Access::of_machine(identity.clone()), ..Options::default() };
    let client = Client::new(servers, options)?;
    let own = Request::new()?;
    let certificate_request = own.request;
    let renewed = client.renew(RenewRequest { certificate_request }).await?;
    let authority = identity.current().authority_pem().to_owned();
    let renewed = Identity::new(&authority, &renewed.certificate, &own.key)?;
    files::write(dir, &renewed)?;
    identity.replace(renewed);
    Ok(())
}

/// Asks the cluster to make this node, which has joined, a member, until it does.
pub async fn become_member(servers: &[String], identity: &SharedIdentity, url: &str, name: &str) {
    let mut told = false;
    loop {
        let options =
            Options { access: Access::of_machine(identity.clone()), ..Options::default() };
        let request =
            AddMemberRequest { url: url.to_owned(), name: name.to_owned(), learner: false };
        let added = async { Client::new(servers, options)?.add(request).await };
        match added.await {
            Ok(_) => return,
            Err(error) if !std::mem::replace(&mut told, true) => {
                terminal::note(&format!("not a member yet: {error}; trying again"));
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}
