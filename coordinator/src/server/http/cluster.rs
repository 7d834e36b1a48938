//! `/v1/cluster`.

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use tenon_proto::control::v1::{
    AddMemberRequest, AuditRequest, InitRequest, RemoveMemberRequest, TransferRequest,
};

use super::{Call, content, json};
use crate::server::fault::Result;

pub async fn status(call: Call) -> Result<Response> {
    Ok(json(&call.api.status().await))
}

pub async fn init(mut call: Call) -> Result<Response> {
    let request = call.json::<InitRequest>().await?;
    Ok(json(&call.api.init(request, call.asked).await?))
}

pub async fn add(mut call: Call) -> Result<Response> {
    let request = call.json::<AddMemberRequest>().await?;
    Ok(json(&call.api.add(request, call.asked).await?))
}

pub async fn remove(mut call: Call) -> Result<Response> {
    let member = call.path.remove("member").unwrap_or_default();
    let force = call.query.flag("force")?.unwrap_or(false);
    let request = RemoveMemberRequest { member, force };
    Ok(json(&call.api.remove(request, call.asked).await?))
}

pub async fn transfer(mut call: Call) -> Result<Response> {
    let request = call.json::<TransferRequest>().await?;
    Ok(json(&call.api.transfer(request, call.asked).await?))
}

pub async fn audit(mut call: Call) -> Result<Response> {
    let query = &mut call.query;
    let request = AuditRequest {
        since: query.text("since")?,
        until: query.text("until")?,
        who: query.text("who")?,
        what: query.text("what")?,
        refused: query.flag("refused")?.unwrap_or(false),
        limit: query.number("limit")?.unwrap_or(0),
        local: query.flag("local")?.unwrap_or(false),
    };
    Ok(json(&call.api.audit(request, call.asked).await?))
}

/// A fault in the middle breaks the connection off, so that a part is not taken for the whole.
pub async fn backup(call: Call) -> Result<Response> {
    let parts = call.api.backup(call.asked).await?;
    let parts = parts.map(|part| part.map_err(axum::Error::new));
    Ok(content("application/octet-stream", Body::from_stream(parts)))
}
