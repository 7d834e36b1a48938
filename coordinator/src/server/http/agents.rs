//! `/v1/agents`.

use axum::response::Response;
use tenon_proto::control::v1::{
    CordonAgentRequest, DrainAgentRequest, GetAgentRequest, ListAgentsRequest, RemoveAgentRequest,
    UncordonAgentRequest,
};

use super::{Call, json};
use crate::server::fault::Result;

fn name(call: &mut Call) -> String {
    call.path.remove("name").unwrap_or_default()
}

pub async fn list(call: Call) -> Result<Response> {
    Ok(json(&call.api.list_agents(ListAgentsRequest {}, call.asked).await?))
}

pub async fn get(mut call: Call) -> Result<Response> {
    let request = GetAgentRequest { name: name(&mut call) };
    Ok(json(&call.api.get_agent(request, call.asked).await?))
}

pub async fn cordon(mut call: Call) -> Result<Response> {
    let request = CordonAgentRequest { name: name(&mut call) };
    Ok(json(&call.api.cordon_agent(request, call.asked).await?))
}

pub async fn uncordon(mut call: Call) -> Result<Response> {
    let request = UncordonAgentRequest { name: name(&mut call) };
    Ok(json(&call.api.uncordon_agent(request, call.asked).await?))
}

pub async fn drain(mut call: Call) -> Result<Response> {
    let deadline = call.query.text("deadline")?;
    let request = DrainAgentRequest { name: name(&mut call), deadline };
    Ok(json(&call.api.drain_agent(request, call.asked).await?))
}

pub async fn remove(mut call: Call) -> Result<Response> {
    let request = RemoveAgentRequest { name: name(&mut call) };
    Ok(json(&call.api.remove_agent(request, call.asked).await?))
}
