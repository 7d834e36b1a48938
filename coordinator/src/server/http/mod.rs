//! HTTP with JSON. One table says which routes there are; the router and the OpenAPI document are
//! both made of it, so neither can have one that the other lacks.

mod agents;
mod body;
mod cluster;
mod events;
mod openapi;
mod parameters;
mod probes;
mod queries;
mod runs;
mod table;
mod trust;

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use futures_util::future::BoxFuture;

use super::access::{Caller, Outcome};
use super::api::{Api, Asked};
use super::audit::Called;
use super::deadline;
use super::fault::{Fault, Result};
use parameters::Parameters;

/// A request, taken apart as far as all routes need it.
struct Call {
    api: Api,
    asked: Asked,
    /// The parts of the path that are no fixed text.
    path: HashMap<String, String>,
    query: Parameters,
    parts: Parts,
    body: Body,
}

/// Method, path, and the gRPC method whose rights it has, of every route.
#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    table::ROUTES.iter().map(|route| (route.method, route.path, route.rights))
}

/// What does a request.
type Handler = fn(Call) -> BoxFuture<'static, Result<Response>>;

/// All routes; everything else is not found.
pub fn router(api: &Api) -> Router {
    let mut router = Router::new();
    for route in table::ROUTES {
        let filter = match route.method {
            "POST" => MethodFilter::POST,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let handle =
            move |state: State<Api>, path: Path<HashMap<String, String>>, request: Request| {
                answer(route, state.0, path.0, request)
            };
        router = router.route(route.path, on(filter, handle));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(|request: Request| async move {
            let message = format!("{} is not done at {}", request.method(), request.uri().path());
            fault_response(&Fault::new("invalid/method", message))
        })
        .with_state(api.clone())
}

async fn answer(
    route: &'static table::Route,
    api: Api,
    path: HashMap<String, String>,
    request: Request,
) -> Response {
    let counted = api.clone();
    let done = async move {
        let (parts, body) = request.into_parts();
        let mut query = Parameters::parse(&parts.uri)?;
        query.refuse_unknown(route.parameters)?;
        let stale = query.flag("stale")?.unwrap_or(false);
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::everybody);
        caller.may(route.rights)?;
        let asked = Asked { deadline: deadline::of(&parts.headers)?, stale, caller };
        (route.handler)(Call { api, asked, path, query, parts, body }).await
    };
    let mut response = match counted.counted("http", route.id, done).await {
        Ok(response) => response,
        Err(fault) => {
            let mut response = fault_response(&fault);
            response.extensions_mut().insert(Outcome(fault.code().to_owned()));
            response
        }
    };
    response.extensions_mut().insert(Called(route.rights));
    response
}

async fn not_found(request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let status = tonic::Status::unimplemented("there is no such service");
        return status.into_http();
    }
    let message = format!("there is nothing at {}", request.uri().path());
    fault_response(
        &Fault::new("not-found/path", message).hint("GET /openapi.json says what there is"),
    )
}

fn fault_response(fault: &Fault) -> Response {
    let status = fault.http_status();
    let mut response = (status, Json(&*fault.0)).into_response();
    if status.as_u16() == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status.as_u16() == 503 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An answer as JSON.
fn json(answer: &impl serde::Serialize) -> Response {
    Json(answer).into_response()
}

/// An answer of another kind.
fn content(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body.into())
        .into_response()
}
