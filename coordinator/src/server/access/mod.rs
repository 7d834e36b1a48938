//! Who speaks to this node, and whether they may: connections and their certificates ([`listen`]),
//! callers ([`caller`]), and the guard that every request passes.
//!
//! A server with a certificate is *secured*: it speaks TLS only, and does for each caller what the
//! table of methods ([`tenon_trust::METHODS`]) allows. One without does everything for everybody, and
//! is let listen where only its own machine can reach it.

mod caller;
pub mod listen;
mod turn;
mod watched;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::Response;
use tenon_trust::{Kind, Millis, Token, Trust, method};
use tonic::Status;

pub use caller::{Caller, Who};
pub use listen::Connection;

use super::audit::{Audit, Call};
use super::control_plane::ControlPlane;
use super::fault::Fault;
use watched::Watched;

/// What came of a request, for the audit log: beside an answer that does not say it otherwise.
#[derive(Clone)]
pub struct Outcome(pub String);

/// Lets requests pass, or not.
#[derive(Clone)]
pub struct Guard {
    /// Knows whom the cluster trusts.
    pub node: Arc<dyn ControlPlane>,
    /// Callers have to say who they are.
    pub secured: bool,
    /// Where calls that change something are written down.
    pub audit: Option<Audit>,
}

/// The middleware: finds out who asks, refuses calls of gRPC methods that are not theirs (those of
/// HTTP are refused by their route), and ends answers of those who cease to be trusted.
pub async fn pass(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let trust = guard.node.trust();
    let who = match guard.secured {
        true => who(&request, connection.as_ref(), &trust.borrow()),
        false => Who::Everybody,
    };
    let caller = Caller::new(who, connection.map(|connection| connection.from));
    let name = grpc_method(request.uri().path()).map(str::to_owned);
    let is_grpc = name.is_some() || is_grpc(&request);
    let refused = name.as_deref().and_then(|name| caller.may(name).err());
    request.extensions_mut().insert(caller.clone());
    let response = match refused {
        Some(fault) => Status::from(fault).into_http(),
        None => next.run(request).await,
    };
    if let Some(audit) = &guard.audit
        && let Some(call) = Call::of(&caller, name.as_deref(), &response)
    {
        audit.note(call).await;
    }
    match caller.who {
        Who::User { .. } | Who::Machine(_) => {
            response.map(|body| Body::new(Watched::new(body, caller, trust, is_grpc)))
        }
        Who::Everybody | Who::Nobody(_) => response,
    }
}

/// Whoever asks, as far as they prove it. A token goes before a certificate.
fn who(request: &Request, connection: Option<&Connection>, trust: &Trust) -> Who {
    let now = now();
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        let shown = header.to_str().ok().and_then(|text| text.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = shown.and_then(|(_, text)| Token::parse(Kind::Api, text).ok());
        let Some(token) = token else {
            let fault = Fault::new("unauthenticated/token", "the token is none of this cluster")
                .hint("the header is `Authorization: Bearer TOKEN`, with the whole token");
            return Who::Nobody(fault);
        };
        return match trust.api_token(&token, now) {
            Some(known) => {
                Who::User { id: token.id, name: known.name.clone(), grant: known.grant.clone() }
            }
            None => Who::Nobody(Fault::new(
                "unauthenticated/token",
                format!("token {} is not known: it has expired or was revoked", token.id),
            )),
        };
    }
    let Some(certificate) = connection.and_then(|connection| connection.certificate.as_ref())
    else {
        let fault = Fault::new("unauthenticated/missing", "this cluster has to know who asks")
            .hint("name a token: --token or TENON_TOKEN; `tenon tokens create` makes one");
        return Who::Nobody(fault);
    };
    let certificate = match certificate {
        Ok(certificate) => certificate,
        Err(why) => return Who::Nobody(Fault::new("denied/certificate", why.clone())),
    };
    if !trust.stands(&certificate.subject, &certificate.serial) {
        let message = format!("the certificate of {} was revoked", certificate.subject);
        return Who::Nobody(
            Fault::new("denied/revoked", message)
                .hint("join again, with a new token of `tenon tokens join`"),
        );
    }
    if certificate.until <= now {
        // On a new connection it would not have got this far: there may be a newer one.
        let message = format!("the certificate of {} has expired", certificate.subject);
        return Who::Nobody(Fault::new("unavailable/certificate-expired", message));
    }
    Who::Machine(Arc::clone(certificate))
}

/// `package.Service/Method` of a path; `None` for what is no gRPC method.
fn grpc_method(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    let (service, rest) = name.split_once('/')?;
    (service.contains('.') && !rest.is_empty()).then_some(name)
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether a call of this method belongs into the audit log.
pub fn changes_something(name: &str) -> bool {
    method(name).is_none_or(|method| method.mutates)
}

/// The wall clock.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
