//! What machines ask of one node: is it alive, can it serve, its figures, and what can be asked.

use axum::response::Response;

use super::{Call, content, json, openapi};
use crate::server::control_plane::Readiness;
use crate::server::fault::{Fault, Result};

pub async fn healthz(_: Call) -> Result<Response> {
    Ok(content("text/plain; charset=utf-8", "ok\n"))
}

pub async fn readyz(call: Call) -> Result<Response> {
    match call.api.readiness() {
        Readiness::Ready => Ok(content("text/plain; charset=utf-8", "ok\n")),
        Readiness::NotReady(why) => Err(Fault::new("unavailable/not-ready", why)),
    }
}

pub async fn metrics(call: Call) -> Result<Response> {
    let text = call.api.metrics.text(&call.api.node.gauges());
    Ok(content("application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}

pub async fn openapi(_: Call) -> Result<Response> {
    Ok(json(&openapi::document()))
}
