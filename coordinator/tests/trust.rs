//! A cluster that knows who asks: founded, joined, used, and attacked, over real connections.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use std::sync::Arc;

use support::agent::hello;
use support::{LATE, TASK_RUN, until};
use tempfile::TempDir;
use tenon_client::{Access, Client, Options};
use tenon_coordinator::node::TLS_DIR;
use tenon_coordinator::seal::SealKey;
use tenon_coordinator::server::{Change, ControlPlane, ServerOptions, serve};
use tenon_coordinator::{Node, NodeOptions};
use tenon_proto::agent::v1::agents_client::AgentsClient;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, agent_message};
use tenon_proto::control::v1::{
    AddMemberRequest, AuditEntry, AuditRequest, CreateJoinTokenRequest, CreateTokenRequest,
    GetRunRequest, JoinRequest, JoinResponse, ListRunsRequest, RenewRequest,
    RevokeCertificateRequest, RevokeTokenRequest, SubmitRequest,
};
use tenon_proto::status::from_status;
use tenon_trust::tls::Expect;
use tenon_trust::{Identity, Kind, Request, SharedIdentity, Token, files};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// A node that speaks TLS.
struct Secured {
    node: Option<Node>,
    dir: TempDir,
    url: String,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
}

impl Secured {
    /// The first node of a cluster, and the first token.
    async fn found() -> (Secured, String) {
        let dir = TempDir::new().unwrap();
        let (listener, url) = listen().await;
        let node = start(dir.path(), &url, SealKey::new([7; 32])).await;
        let handle = node.handle();
        let deadline = Instant::now() + LATE;
        handle.change(Change::Init { peers: Vec::new() }, deadline).await.unwrap();
        let token = handle.found_trust(deadline).await.unwrap().reveal();
        (Secured::serve(node, dir, listener, url), token)
    }

    /// A further node, which joins with a token.
    async fn join(first: &str, token: &str) -> Secured {
        let dir = TempDir::new().unwrap();
        let (listener, url) = listen().await;
        let asked = JoinRequest { url: url.clone(), ..JoinRequest::default() };
        let (identity, joined) = join(first, token, asked).await.unwrap();
        files::write(&dir.path().join(TLS_DIR), &identity).unwrap();
        let key = SealKey::parse(&joined.secrets_key).unwrap();
        let node = start(dir.path(), &url, key).await;
        Secured::serve(node, dir, listener, url)
    }

    fn serve(node: Node, dir: TempDir, listener: TcpListener, url: String) -> Secured {
        let handle = node.handle();
        let identity = handle.ensure_identity().unwrap();
        assert!(identity.is_some());
        let audit = Some(handle.audit().unwrap());
        let options = ServerOptions { identity, audit, ..ServerOptions::default() };
        let metrics = handle.metrics().clone();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            serve(Arc::new(handle), metrics, listener, options, stop).await.unwrap();
        });
        Secured { node: Some(node), dir, url, shutdown, serving }
    }

    fn audit(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit/audit.ndjson")).unwrap()
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.serving.join_next().await.is_some() {}
        let node = self.node.take().unwrap();
        tokio::task::spawn_blocking(move || node.stop()).await.unwrap().unwrap();
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn start(dir: &std::path::Path, url: &str, key: SealKey) -> Node {
    let usual = NodeOptions::new(dir.to_owned(), "node", url);
    let options = NodeOptions { key: Some(key), ..usual };
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || Node::start(options, runtime).unwrap()).await.unwrap()
}

fn client(url: &str, access: Access) -> Client {
    Client::new(&[url], Options { access, ..Options::default() }).unwrap()
}

fn user(url: &str, token: &str) -> Client {
    client(url, Access::of_user(Some(token), None).unwrap())
}

async fn join(
    url: &str,
    token: &str,
    asked: JoinRequest,
) -> tenon_client::Result<(Identity, JoinResponse)> {
    let token = Token::parse(Kind::Join, token).unwrap();
    let own = Request::new().unwrap();
    let newcomer = client(url, Access::of_newcomer(&token));
    let (token, certificate_request) = (token.reveal(), own.request);
    let joined = newcomer.join(JoinRequest { token, certificate_request, ..asked }).await?;
    let identity = Identity::new(&joined.authority, &joined.certificate, &own.key).unwrap();
    Ok((identity, joined))
}

async fn join_as_agent(url: &str, token: &str, name: &str) -> tenon_client::Result<Identity> {
    let asked = JoinRequest { agent: name.to_owned(), ..JoinRequest::default() };
    Ok(join(url, token, asked).await?.0)
}

async fn token_for(admin: &Client, role: &str, namespace: &str) -> String {
    let namespaces = vec![namespace.to_owned()];
    let (name, role) = ("ci".to_owned(), role.to_owned());
    let request = CreateTokenRequest { name, role, namespaces, seconds: 0 };
    admin.create_token(request).await.unwrap().token
}

async fn join_token(admin: &Client, kind: &str) -> String {
    let request = CreateJoinTokenRequest { kind: kind.to_owned(), ..Default::default() };
    admin.create_join_token(request).await.unwrap().token
}

fn run_in(namespace: &str) -> SubmitRequest {
    let (manifest, namespace) = (TASK_RUN.to_owned(), namespace.to_owned());
    SubmitRequest { manifest, namespace, ..SubmitRequest::default() }
}

/// Begins a session as an agent.
async fn session(
    url: &str,
    identity: &Identity,
    hello: Hello,
) -> Result<(mpsc::Sender<AgentMessage>, Streaming<CoordinatorMessage>), Status> {
    let access = Access::of_machine(SharedIdentity::new(identity.clone()));
    let channel = access.dial(url, Expect::AnyNode, |endpoint| endpoint).await.unwrap();
    let (outbox, messages) = mpsc::channel(8);
    let said = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
    outbox.send(said).await.unwrap();
    let answer = AgentsClient::new(channel).session(ReceiverStream::new(messages)).await?;
    Ok((outbox, answer.into_inner()))
}

fn code(error: &tenon_client::Error) -> String {
    error.code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_their_namespaces() {
    let (node, first) = Secured::found().await;
    let admin = user(&node.url, &first);
    let team = token_for(&admin, "submitter", "team").await;
    let submitter = user(&node.url, &team);
    let theirs = admin.submit(run_in("other")).await.unwrap().run.unwrap().id;
    let ours = submitter.submit(run_in("team")).await.unwrap().run.unwrap();
    assert_eq!(ours.namespace, "team");
    let refused = submitter.submit(run_in("other")).await.unwrap_err();
    assert_eq!(code(&refused), "denied/namespace");
    // A manifest that names another namespace than the request is no way around.
    let sneaky = SubmitRequest {
        manifest: TASK_RUN.replace("generateName: hello-", "generateName: x-, namespace: other"),
        ..run_in("team")
    };
    assert_eq!(code(&submitter.submit(sneaky).await.unwrap_err()), "denied/namespace");
    let hidden = submitter.get_run(GetRunRequest { id: theirs.clone() }).await.unwrap_err();
    assert_eq!(code(&hidden), "not-found/run");
    let cancel = tenon_proto::control::v1::CancelRunRequest { id: theirs, ..Default::default() };
    assert_eq!(code(&submitter.cancel_run(cancel).await.unwrap_err()), "not-found/run");
    let seen = submitter.list_runs(ListRunsRequest::default()).await.unwrap().runs;
    assert_eq!(seen.iter().map(|run| &run.id).collect::<Vec<_>>(), [&ours.id]);
    let all = admin.list_runs(ListRunsRequest::default()).await.unwrap().runs;
    assert_eq!(all.len(), 2);

    let id = team.split('_').nth(1).unwrap().to_owned();
    admin.revoke_token(RevokeTokenRequest { id }).await.unwrap();
    let refused = submitter.list_runs(ListRunsRequest::default()).await.unwrap_err();
    assert_eq!(code(&refused), "unauthenticated/token");

    let audit = node.audit();
    for (what, outcome) in
        [("Control/Submit", "ok"), ("Control/Submit", "denied/namespace"), ("CreateToken", "ok")]
    {
        let wanted = |line: &&str| line.contains(what) && line.contains(outcome);
        assert!(audit.lines().any(|line| wanted(&line)), "{what} {outcome} is not in {audit}");
    }
    for secret in [&first, &team] {
        assert!(!audit.contains(secret.split('_').nth(2).unwrap()));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_agents_join_once_and_are_who_they_are() {
    let (node, first) = Secured::found().await;
    let admin = user(&node.url, &first);
    let token = join_token(&admin, "node").await;
    let second = Secured::join(&node.url, &token).await;
    let own = second.node.as_ref().unwrap().handle().identity().unwrap();
    let itself = client(&node.url, Access::of_machine(own));
    let other = AddMemberRequest { url: node.url.clone(), ..AddMemberRequest::default() };
    assert_eq!(code(&itself.add(other).await.unwrap_err()), "denied/not-itself");
    let add = AddMemberRequest { url: second.url.clone(), ..AddMemberRequest::default() };
    let status = itself.add(add).await.unwrap();
    assert_eq!(status.members.len(), 2);
    assert!(status.members.iter().all(|member| member.role == "voter"), "{status:?}");

    // What the first node was told, the second knows; either can sign.
    let agents = join_token(&admin, "agent").await;
    until("the second node to know the token", async || {
        let tokens = user(&second.url, &first).list_tokens(Default::default()).await.ok()?.tokens;
        tokens.iter().any(|token| token.kind == "agent").then_some(())
    })
    .await;
    let a1 = join_as_agent(&second.url, &agents, "a1").await.unwrap();
    for (token, name, refused) in [
        (&agents, "a2", "denied/used"),
        (&token, "a2", "denied/used"),
        (&join_token(&admin, "node").await, "a2", "denied/token-purpose"),
        (&join_token(&admin, "agent").await, "a1", "conflict/agent-name"),
        (&join_token(&admin, "agent").await, "../a", "invalid/agent-name"),
    ] {
        let error = join_as_agent(&node.url, token, name).await.unwrap_err();
        assert_eq!(code(&error), refused, "{name}");
    }

    let leads = until("a leader", async || {
        let status = admin.status().await.ok()?;
        (!status.leader_url.is_empty()).then_some(status.leader_url)
    })
    .await;
    let forged = session(&leads, &a1, hello("a2", "x")).await.err().unwrap();
    assert_eq!(from_status(&forged).code, "denied/agent-name");
    let (_outbox, mut messages) = session(&leads, &a1, hello("a1", "x")).await.unwrap();
    assert!(messages.message().await.unwrap().is_some());

    let machine = client(&leads, Access::of_machine(SharedIdentity::new(a1.clone())));
    let own = Request::new().unwrap();
    let certificate_request = own.request;
    let renewed = machine.renew(RenewRequest { certificate_request }).await.unwrap();
    let renewed = Identity::new(a1.authority_pem(), &renewed.certificate, &own.key).unwrap();
    assert_eq!(renewed.certificate().subject, a1.certificate().subject);
    let submitted = machine.submit(run_in("team")).await.unwrap_err();
    assert_eq!(code(&submitted), "denied/role");

    let revoke = RevokeCertificateRequest { agent: "a1".to_owned() };
    admin.revoke_certificate(revoke).await.unwrap();
    let ended = loop {
        match tokio::time::timeout(LATE, messages.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => break from_status(&status).code,
        }
    };
    assert_eq!(ended, "unavailable/distrusted");
    for identity in [&a1, &renewed] {
        let refused = session(&leads, identity, hello("a1", "x")).await.err().unwrap();
        assert_eq!(from_status(&refused).code, "denied/revoked");
    }
    assert!(format!("{}{}", node.audit(), second.audit()).contains("denied/agent-name"));
    second.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_its_certificate_makes_another() {
    let (node, first) = Secured::found().await;
    let url = node.url.clone();
    let before = node.node.as_ref().unwrap().handle().identity().unwrap().current();
    let dir = node.dir.path().to_owned();
    std::fs::remove_dir_all(dir.join(TLS_DIR)).unwrap();
    let mut node = node;
    node.shutdown.cancel();
    while node.serving.join_next().await.is_some() {}
    let stopping = node.node.take().unwrap();
    tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap().unwrap();

    let again = start(&dir, &url, SealKey::new([7; 32])).await;
    let made = again.handle().ensure_identity().unwrap().unwrap().current();
    assert_ne!(made.certificate().serial, before.certificate().serial);
    assert_eq!(made.certificate().subject, before.certificate().subject);
    assert_eq!(made.authority_pem(), before.authority_pem());
    assert!(!first.is_empty());
    tokio::task::spawn_blocking(move || again.stop()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_logs_of_all_nodes_are_one() {
    let (node, first) = Secured::found().await;
    let admin = user(&node.url, &first);
    let second = Secured::join(&node.url, &join_token(&admin, "node").await).await;
    let own = second.node.as_ref().unwrap().handle().identity().unwrap();
    let add = AddMemberRequest { url: second.url.clone(), ..AddMemberRequest::default() };
    client(&node.url, Access::of_machine(own)).add(add).await.unwrap();
    let elsewhere = user(&second.url, &first);
    let viewer = token_for(&elsewhere, "viewer", "team").await;
    let refused = user(&second.url, &viewer).audit(AuditRequest::default()).await.unwrap_err();
    assert!(code(&refused).starts_with("denied/"), "{refused}");

    let what = "token".to_owned();
    let asked = AuditRequest { what, ..AuditRequest::default() };
    let log = admin.audit(asked.clone()).await.unwrap();
    assert!(log.missing.is_empty(), "{log:?}");
    let of = |entries: &[AuditEntry], method: &str| {
        entries.iter().filter(|entry| entry.what.ends_with(method)).count()
    };
    // One was made at each node; whichever is asked tells of both.
    assert_eq!(of(&log.entries, "/CreateJoinToken"), 1);
    assert_eq!(of(&log.entries, "/CreateToken"), 1);
    assert!(log.entries.is_sorted_by(|a, b| a.time <= b.time));
    let local = AuditRequest { local: true, ..asked.clone() };
    assert_eq!(of(&admin.audit(local).await.unwrap().entries, "/CreateToken"), 0);
    let only = AuditRequest { refused: true, ..AuditRequest::default() };
    let log = elsewhere.audit(only).await.unwrap();
    assert!(log.entries.iter().any(|entry| entry.what.ends_with("Cluster/Audit")), "{log:?}");

    second.stop().await;
    let log = admin.audit(asked).await.unwrap();
    assert_eq!((log.missing.len(), of(&log.entries, "/CreateToken")), (1, 0), "{log:?}");
    node.stop().await;
}
