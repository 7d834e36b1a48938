//! `/v1/tokens`, `/v1/join-tokens`, `/v1/certificates` and `/v1/whoami`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tenon_proto::control::v1::{
    CreateJoinTokenRequest, CreateTokenRequest, RevokeCertificateRequest, RevokeTokenRequest,
};

use super::{Call, json};
use crate::server::fault::Result;

pub async fn who_am_i(call: Call) -> Result<Response> {
    Ok(json(&call.api.who_am_i(&call.asked.caller)))
}

pub async fn create_token(mut call: Call) -> Result<Response> {
    let request = call.json::<CreateTokenRequest>().await?;
    let made = call.api.create_token(request, call.asked).await?;
    Ok((StatusCode::CREATED, json(&made)).into_response())
}

pub async fn list_tokens(call: Call) -> Result<Response> {
    Ok(json(&call.api.list_tokens()))
}

pub async fn revoke_token(mut call: Call) -> Result<Response> {
    let id = call.path.remove("token").unwrap_or_default();
    Ok(json(&call.api.revoke_token(RevokeTokenRequest { id }, call.asked).await?))
}

pub async fn create_join_token(mut call: Call) -> Result<Response> {
    let request = call.json::<CreateJoinTokenRequest>().await?;
    let made = call.api.create_join_token(request, call.asked).await?;
    Ok((StatusCode::CREATED, json(&made)).into_response())
}

pub async fn list_certificates(call: Call) -> Result<Response> {
    Ok(json(&call.api.list_certificates()))
}

pub async fn revoke_certificate(mut call: Call) -> Result<Response> {
    let agent = call.path.remove("agent").unwrap_or_default();
    let request = RevokeCertificateRequest { agent };
    Ok(json(&call.api.revoke_certificate(request, call.asked).await?))
}
