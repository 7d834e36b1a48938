//! `tenon.agent.v1.Agents`: carries a session between the connection and the node.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use prost::Message as _;
use tenon_proto::agent::v1::agents_server::Agents;
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, agent_message};
use tenon_trust::Subject;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Service, caller};
use crate::server::control_plane::{Session, ToNode};
use crate::server::fault::{Fault, Result};

/// Largest hello, in bytes: every member keeps what it says.
const HELLO: usize = 1 << 20;
/// Longest name of a life; they are ULIDs.
const LIFE: usize = 64;

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
            let hello = hello(&mut inbound, self.api.limits.hello).await?;
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
                said = from_node.next() => said,
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

async fn hello(inbound: &mut Streaming<AgentMessage>, limit: Duration) -> Result<Hello> {
    let first = tokio::time::timeout(limit, inbound.message()).await;
    let wrong = |message: &str| Fault::new("invalid/hello", message);
    match first {
        Ok(Ok(Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }))) => {
            check(hello)
        }
        Ok(Ok(_)) => Err(wrong("a session begins with a hello")),
        Ok(Err(status)) => Err(wrong(status.message())),
        Err(_) => Err(wrong("a session begins with a hello, and none came in time")),
    }
}

/// Whether a hello can be one: every member keeps what it says, and people see it.
fn check(hello: Hello) -> Result<Hello> {
    let wrong = |message: String| Err(Fault::new("invalid/hello", message));
    let size = hello.encoded_len();
    if size > HELLO {
        let message = format!("the hello takes {size} bytes; {HELLO} are allowed");
        return Err(Fault::new("too-large/hello", message));
    }
    if let Err(error) = Subject::check_agent(&hello.name) {
        return Err(Fault::new(error.code(), error.to_string()).field("name"));
    }
    if hello.incarnation.len() > LIFE || hello.incarnation.chars().any(char::is_control) {
        return wrong("the name of the agent's life is none".to_owned());
    }
    let said = hello.labels.iter().flat_map(|(key, value)| [key, value]);
    let said = said.chain(&hello.backends).chain([&hello.software]);
    let shows_nothing = said.flat_map(|text| text.chars()).any(char::is_control);
    match shows_nothing {
        true => {
            wrong("labels, backends and the software's name have no control characters".to_owned())
        }
        false => Ok(hello),
    }
}

/// Hands on what the agent says, until one of the three is gone.
async fn listen(
    mut inbound: Streaming<AgentMessage>,
    mut to_node: Box<dyn ToNode>,
    shutdown: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            () = to_node.over().cancelled() => break,
            () = shutdown.cancelled() => break,
        };
        let Ok(Some(message)) = message else { break };
        if !to_node.said(message).await {
            break;
        }
    }
}
