//! What clients may ask about agents.

use tenon_proto::control::v1::{
    Agent, CordonAgentRequest, DrainAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListAgentsResponse, RemoveAgentRequest, RemoveAgentResponse, UncordonAgentRequest,
};
use tenon_tekton::duration::GoDuration;

use super::api::{Api, Asked};
use super::control_plane::AgentDecision;
use super::fault::{Fault, Result};
use super::subscription::blocking;

impl Api {
    /// All agents.
    pub async fn list_agents(
        &self,
        _: ListAgentsRequest,
        asked: Asked,
    ) -> Result<ListAgentsResponse> {
        self.barrier(&asked).await?;
        let node = self.node.clone();
        let agents = self.until(&asked, blocking(move || node.agents())).await?;
        Ok(ListAgentsResponse { agents })
    }

    /// One agent, with what it runs.
    pub async fn get_agent(&self, request: GetAgentRequest, asked: Asked) -> Result<Agent> {
        self.barrier(&asked).await?;
        self.show_agent(request.name, &asked).await
    }

    /// No new work for an agent.
    pub async fn cordon_agent(&self, request: CordonAgentRequest, asked: Asked) -> Result<Agent> {
        self.decide(request.name, AgentDecision::Cordon, asked).await
    }

    /// Work again.
    pub async fn uncordon_agent(
        &self,
        request: UncordonAgentRequest,
        asked: Asked,
    ) -> Result<Agent> {
        self.decide(request.name, AgentDecision::Uncordon, asked).await
    }

    /// Has an agent emptied.
    pub async fn drain_agent(&self, request: DrainAgentRequest, asked: Asked) -> Result<Agent> {
        let within_ms = match request.deadline.as_str() {
            "" => None,
            text => Some(milliseconds(text)?),
        };
        self.decide(request.name, AgentDecision::Drain { within_ms }, asked).await
    }

    /// Removes an agent.
    pub async fn remove_agent(
        &self,
        request: RemoveAgentRequest,
        asked: Asked,
    ) -> Result<RemoveAgentResponse> {
        let name = named(request.name)?;
        asked.caller.says(format!("agent {name}"));
        let decided = self.node.decide_agent(name, AgentDecision::Remove, asked.deadline);
        self.until(&asked, decided).await?;
        Ok(RemoveAgentResponse {})
    }

    async fn decide(&self, name: String, change: AgentDecision, asked: Asked) -> Result<Agent> {
        asked.caller.says(format!("agent {name}"));
        let name = named(name)?;
        let decided = self.node.decide_agent(name.clone(), change, asked.deadline);
        self.until(&asked, decided).await?;
        self.show_agent(name, &asked).await
    }

    async fn show_agent(&self, name: String, asked: &Asked) -> Result<Agent> {
        let name = named(name)?;
        let node = self.node.clone();
        let wanted = name.clone();
        let found = self.until(asked, blocking(move || node.agent(&wanted))).await?;
        found.ok_or_else(|| no_such_agent(&name))
    }
}

/// The answer for an agent that nobody knows.
pub fn no_such_agent(name: &str) -> Fault {
    Fault::new("not-found/agent", format!("there is no agent {name:?}"))
        .hint("`tenon agents list` says which there are")
        .field("name")
}

fn named(name: String) -> Result<String> {
    match name.is_empty() {
        true => Err(Fault::new("invalid/agent", "no agent is named").field("name")),
        false => Ok(name),
    }
}

fn milliseconds(text: &str) -> Result<i64> {
    let duration = GoDuration::parse(text).ok().filter(|duration| duration.0 >= 0);
    duration.map(GoDuration::as_millis).ok_or_else(|| {
        Fault::new("invalid/deadline", format!("{text:?} is no duration"))
            .hint("for example 10m, or 0s for at once")
            .field("deadline")
    })
}
