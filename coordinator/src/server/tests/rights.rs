//! Who may call what: every method of the API, whoever calls it.
//!
//! The methods come from the descriptors that reflection serves and from the routes of HTTP, so a new
//! one fails here until somebody has said who may call it, in the table and once more below.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use prost::Message;
use prost_types::FileDescriptorSet;
use tenon_client::Access;
use tenon_proto::status::CODE_KEY;
use tenon_trust::tls::Expect;
use tenon_trust::{
    ApiToken, Authority, Change, Grant, Identity, JoinToken, Kind, METHODS, Millis, Role,
    SecretHash, SharedIdentity, Subject, Token,
};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt;

use super::{Limits, Server};
use crate::server::access::now;
use crate::server::http::routes;

const HOUR: Millis = 3_600_000;

/// Who may, by method: `V`iewer, `S`ubmitter, `O`perator and `A`dmin everywhere; `s`ubmitter and
/// a`d`min in one namespace; an `a`gent; a `n`ode. Nobody may who shows nothing (`0`), or something
/// that was revoked (`1` a token, `2` an agent) or has expired (`3`).
const WHO_MAY: &[(&str, &str)] = &[
    ("tenon.control.v1.Control/Submit", "SOAsd"),
    ("tenon.control.v1.Control/GetRun", "VSOAsd"),
    ("tenon.control.v1.Control/ListRuns", "VSOAsd"),
    ("tenon.control.v1.Control/CancelRun", "SOAsd"),
    ("tenon.control.v1.Control/RerunRun", "SOAsd"),
    ("tenon.control.v1.Control/ReleaseRun", "SOAsd"),
    ("tenon.control.v1.Control/ExplainRun", "VSOAsd"),
    ("tenon.control.v1.Control/GetRunObjects", "VSOAsd"),
    ("tenon.control.v1.Events/Subscribe", "VSOAsd"),
    ("tenon.control.v1.Cluster/Init", "A"),
    ("tenon.control.v1.Cluster/Status", "VSOAsdn"),
    ("tenon.control.v1.Cluster/Add", "An"),
    ("tenon.control.v1.Cluster/Remove", "A"),
    ("tenon.control.v1.Cluster/Transfer", "OA"),
    ("tenon.control.v1.Cluster/Backup", "A"),
    ("tenon.control.v1.Cluster/Audit", "An"),
    ("tenon.control.v1.Cluster/Probe", "OA"),
    ("tenon.control.v1.Fleet/ListAgents", "VSOAsd"),
    ("tenon.control.v1.Fleet/GetAgent", "VSOA"),
    ("tenon.control.v1.Fleet/CordonAgent", "OA"),
    ("tenon.control.v1.Fleet/UncordonAgent", "OA"),
    ("tenon.control.v1.Fleet/DrainAgent", "OA"),
    ("tenon.control.v1.Fleet/RemoveAgent", "OA"),
    ("tenon.control.v1.Trust/Join", EVERYBODY),
    ("tenon.control.v1.Trust/Renew", "a"),
    ("tenon.control.v1.Trust/WhoAmI", "VSOAsd"),
    ("tenon.control.v1.Trust/CreateToken", "A"),
    ("tenon.control.v1.Trust/ListTokens", "A"),
    ("tenon.control.v1.Trust/RevokeToken", "A"),
    ("tenon.control.v1.Trust/CreateJoinToken", "A"),
    ("tenon.control.v1.Trust/ListCertificates", "OA"),
    ("tenon.control.v1.Trust/RevokeCertificate", "A"),
    ("tenon.agent.v1.Agents/Session", "a"),
    ("tenon.agent.v1.Blobs/Missing", "a"),
    ("tenon.agent.v1.Blobs/Put", "a"),
    ("tenon.agent.v1.Blobs/Get", "a"),
    ("tenon.raft.v1.Peers/Chunks", "n"),
    ("tenon.raft.v1.Peers/Exchange", "n"),
    ("tenon.raft.v1.Peers/Fetch", "n"),
    ("tenon.raft.v1.Peers/Adopt", "n"),
    ("grpc.health.v1.Health/Check", EVERYBODY),
    ("grpc.health.v1.Health/Watch", EVERYBODY),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "VSOAsd"),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "VSOAsd"),
    ("http/healthz", EVERYBODY),
    ("http/readyz", EVERYBODY),
    ("http/metrics", "VSOA"),
    ("http/openapi", "VSOAsd"),
];

const EVERYBODY: &str = "VSOAsdan0123";

/// A secured server, and everybody who may come to it.
pub struct Secured {
    pub server: Server,
    pub authority: Authority,
    pub callers: BTreeMap<char, Access>,
}

impl Secured {
    pub async fn start(limits: Limits) -> Secured {
        let node = super::node::MadeUp::new();
        let (certificate, key) = &node.authority;
        let authority = Authority::open(certificate, key).unwrap();
        let own = identity(&authority, &Subject::Node(1));
        let server = Server::start_as(node, limits, Some(SharedIdentity::new(own))).await;
        let mut secured = Secured { server, authority, callers: BTreeMap::new() };
        let pem = secured.authority.certificate().to_owned();
        secured.callers.insert('0', Access::of_user(None, Some(&pem)).unwrap());
        for (name, role, namespace, expires) in [
            ('V', Role::Viewer, None, None),
            ('S', Role::Submitter, None, None),
            ('O', Role::Operator, None, Some(now() + HOUR)),
            ('A', Role::Admin, None, None),
            ('s', Role::Submitter, Some("team"), None),
            ('d', Role::Admin, Some("team"), None),
            ('1', Role::Admin, None, None),
            ('3', Role::Admin, None, Some(now() - 1)),
        ] {
            let token = Token::random(Kind::Api, secured.authority.fingerprint().unwrap()).unwrap();
            let namespaces = namespace.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
            let record = ApiToken {
                name: name.to_string(),
                hash: SecretHash::of(&token.secret),
                grant: Grant { role, namespaces },
                created: now(),
                expires,
                created_by: "the test".to_owned(),
            };
            secured.change(Change::AddToken(token.id.clone(), record));
            if name == '1' {
                secured.change(Change::RemoveToken(token.id.clone()));
            }
            let access = Access::of_user(Some(&token.reveal()), None).unwrap();
            secured.callers.insert(name, access);
        }
        for (name, agent) in [('a', "a1"), ('2', "a2")] {
            let own = secured.join(agent);
            secured.callers.insert(name, Access::of_machine(SharedIdentity::new(own)));
        }
        secured.change(Change::Revoke { agent: "a2".to_owned() });
        let own = identity(&secured.authority, &Subject::Node(2));
        secured.callers.insert('n', Access::of_machine(SharedIdentity::new(own)));
        secured
    }

    /// An agent joins.
    pub fn join(&self, agent: &str) -> Identity {
        let own = identity(&self.authority, &Subject::Agent(agent.to_owned()));
        let token = Token::random(Kind::Join, self.authority.fingerprint().unwrap()).unwrap();
        let hash = SecretHash::of(&token.secret);
        let (created, created_by) = (now(), "the test".to_owned());
        let expires = created + HOUR;
        let record =
            JoinToken { node: false, agent: None, hash, created, expires, created_by, used: None };
        self.change(Change::AddJoinToken(token.id.clone(), record));
        self.change(Change::JoinAgent {
            token: token.id.clone(),
            hash: token.secret.hash(),
            agent: agent.to_owned(),
            serial: own.certificate().serial.clone(),
            until: own.certificate().until,
        });
        own
    }

    pub fn change(&self, change: Change) {
        self.server.node.trust.send_modify(|trust| {
            std::sync::Arc::make_mut(trust).apply(change, now(), &mut 7).unwrap();
        });
    }

    pub async fn dial(&self, access: &Access) -> tenon_client::Result<Channel> {
        let url = format!("https://{}", self.server.address);
        access.dial(&url, Expect::AnyNode, |endpoint| endpoint).await
    }

    /// The code with which a request is refused because of who asks; `None` if it is not.
    pub async fn refusal(
        &self,
        channel: &Channel,
        access: &Access,
        method: &str,
        path: &str,
        is_grpc: bool,
    ) -> Option<String> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(header) = access.header() {
            request = request.header("authorization", header.to_str().unwrap());
        }
        let body = match is_grpc {
            true => {
                request =
                    request.header("content-type", "application/grpc").header("te", "trailers");
                Body::new(axum::body::Body::from(vec![0; 5]))
            }
            false => Body::empty(),
        };
        let asked = channel.clone().oneshot(request.body(body).unwrap());
        let answer = tokio::time::timeout(super::LATE, asked).await.unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let code = answer.headers().get(CODE_KEY).map(|code| code.to_str().unwrap().to_owned());
        match answer.status() {
            StatusCode::UNAUTHORIZED => Some("unauthenticated/".to_owned()),
            StatusCode::FORBIDDEN => Some("denied/".to_owned()),
            _ => code.filter(|it| it.starts_with("denied/") || it.starts_with("unauthenticated/")),
        }
    }
}

pub fn identity(authority: &Authority, subject: &Subject) -> Identity {
    let request = tenon_trust::Request::new().unwrap();
    let issued = authority.issue(&request.request, subject, &[], now(), now() + HOUR).unwrap();
    Identity::new(authority.certificate(), &issued, &request.key).unwrap()
}

/// Every gRPC method that there is.
fn grpc_methods() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for set in [
        tenon_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let methods = service.method.iter();
                names.extend(methods.map(|method| {
                    format!("{}.{}/{}", file.package(), service.name(), method.name())
                }));
            }
        }
    }
    names
}

fn who_may(name: &str) -> &'static str {
    let known = WHO_MAY.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("nobody has said who may call {name}")).1
}

#[test]
fn the_table_has_every_method_and_no_other() {
    let routes = routes().map(|(_, _, rights)| rights.to_owned());
    let all: BTreeSet<String> = grpc_methods().into_iter().chain(routes).collect();
    let table: BTreeSet<String> = METHODS.iter().map(|method| method.name.to_owned()).collect();
    assert_eq!(all, table);
}

#[tokio::test]
async fn everybody_may_do_what_is_theirs_and_nothing_else() {
    let secured = Secured::start(Limits::default()).await;
    let mut wrong = Vec::new();
    for (who, access) in &secured.callers {
        let channel = secured.dial(access).await.unwrap();
        let grpc = grpc_methods().into_iter().map(|name| ("POST", format!("/{name}"), name, true));
        let http = routes().map(|(method, path, rights)| {
            let path = path.replace("{id}", "01JD3ZQ2T9F8V6K4M1N7P5R3S0");
            (method, path.replace(['{', '}'], ""), rights.to_owned(), false)
        });
        for (method, path, name, is_grpc) in grpc.chain(http) {
            let refusal = secured.refusal(&channel, access, method, &path, is_grpc).await;
            if refusal.is_none() != who_may(&name).contains(*who) {
                wrong.push(format!("{who}: {method} {path}: {refusal:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    secured.server.stop().await;
}

#[tokio::test]
async fn what_is_revoked_ends_streams_that_are_open() {
    use tenon_proto::control::v1::SubscribeRequest;
    use tenon_proto::control::v1::events_client::EventsClient;

    let secured = Secured::start(Limits::default()).await;
    let viewer = &secured.callers[&'V'];
    let channel = secured.dial(viewer).await.unwrap();
    let request = SubscribeRequest { follow: true, ..SubscribeRequest::default() };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("authorization", viewer.header().unwrap().clone());
    let mut stream = EventsClient::new(channel).subscribe(request).await.unwrap().into_inner();
    let id = {
        let trust = secured.server.node.trust.borrow();
        trust.tokens.iter().find(|(_, token)| token.name == "V").unwrap().0.clone()
    };
    secured.change(Change::RemoveToken(id));
    let ended = tokio::time::timeout(super::LATE, stream.message()).await.unwrap().unwrap_err();
    assert_eq!(tenon_proto::status::from_status(&ended).code, "unavailable/distrusted");
    secured.server.stop().await;
}

#[tokio::test]
async fn strangers_get_no_connection() {
    let secured = Secured::start(Limits::default()).await;
    let (other, _) = Authority::random(now()).unwrap();
    let foreign = identity(&other, &Subject::Node(1));
    // It knows the cluster, but the cluster does not know it.
    let ours = secured.authority.certificate();
    let foreign = Access::of_machine(SharedIdentity::new(foreign)).trusting(ours).unwrap();
    let request = Request::builder().uri("/healthz").body(Body::empty()).unwrap();
    let refused = match secured.dial(&foreign).await {
        // With TLS 1.3 the refusal comes after the client's end of the handshake.
        Ok(channel) => channel.oneshot(request).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    secured.dial(&Access::of_user(None, Some(other.certificate())).unwrap()).await.unwrap_err();
    secured.server.stop().await;
}

#[tokio::test]
async fn whoever_is_slow_on_purpose_is_dropped() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    let secured = Secured::start(limits).await;
    // Nothing, the beginning of a handshake, and plain HTTP.
    for said in [&b""[..], b"\x16\x03\x01", b"GET /healthz HTTP/1.1\r\n\r\n"] {
        let told = secured.server.raw(said).await;
        assert_eq!(told.contains("speaks TLS"), said.starts_with(b"GET"), "{told}");
    }
    secured.server.stop().await;
    let open = Server::start(limits).await;
    for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM"] {
        assert_eq!(open.raw(said).await, "");
    }
    assert_eq!(open.get("/healthz").await.status, 200);
    open.stop().await;
}
