//! `tenon.agent.v1.Agents`: carries a session between the connection and the node.

use std::time::Duration;

use futures_util::stream;
use tenon_proto::agent::v1::agents_server::Agents;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, agent_message};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Service, caller};
use crate::server::control_plane::Session;
use crate::server::fault::{Fault, Result};

/// How long an agent has for its first message.
const HELLO: Duration = Duration::from_secs(10);

#[tonic::async_trait]
impl Agents for Service {
    type SessionStream = Answers<CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request);
        let mut inbound = request.into_inner();
        let open = async {
            let hello = hello(&mut inbound).await?;
            caller.says(format!("as agent {}", hello.name));
            caller.may_be_agent(&hello.name)?;
            self.api.node.session(hello).await
        };
        let session = self.api.counted("grpc", "agent_session", open).await?;
        let Session { to_node, from_node } = session;
        let shutdown = self.api.shutdown.clone();
        self.tasks.spawn(listen(inbound, to_node, shutdown.clone()));
        let state = Some((from_node, shutdown));
        let messages = stream::unfold(state, |state| async {
            let (mut from_node, shutdown) = state?;
            let said = tokio::select! {
                biased;
                said = from_node.recv() => said,
                () = shutdown.cancelled() => None,
            };
            Some(match said.unwrap_or_else(|| Err(ended())) {
                Ok(message) => (Ok(message), Some((from_node, shutdown))),
                Err(fault) => (Err(fault.into()), None),
            })
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// Every session ends with a reason, so that an agent never takes an end for a good one.
fn ended() -> Fault {
    Fault::new("unavailable/stopping", "this node keeps no sessions any more")
        .hint("the leader is another node now, or will be soon")
}

async fn hello(inbound: &mut Streaming<AgentMessage>) -> Result<Hello> {
    let first = tokio::time::timeout(HELLO, inbound.message()).await;
    let wrong = |message: &str| Fault::new("invalid/hello", message);
    match first {
        Ok(Ok(Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }))) => {
            match hello.name.is_empty() {
                true => Err(wrong("an agent needs a name").field("name")),
                false => Ok(hello),
            }
        }
        Ok(Ok(_)) => Err(wrong("a session begins with a hello")),
        Ok(Err(status)) => Err(wrong(status.message())),
        Err(_) => Err(wrong("a session begins with a hello, and none came in time")),
    }
}

/// Hands on what the agent says, until one of the three is gone.
async fn listen(
    mut inbound: Streaming<AgentMessage>,
    to_node: mpsc::Sender<AgentMessage>,
    shutdown: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            () = to_node.closed() => break,
            () = shutdown.cancelled() => break,
        };
        let Ok(Some(message)) = message else { break };
        if to_node.send(message).await.is_err() {
            break;
        }
    }
}
