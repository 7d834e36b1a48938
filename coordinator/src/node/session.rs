//! Sessions of agents, between the node's thread and the server's streams.

use tenon_proto::agent::v1::{AgentMessage, Hello};
use tokio::sync::mpsc;

use super::Handle;
use super::apply_thread::SessionMessage;
use super::membership::stopping;
use crate::coordinator::CloseReason;
use crate::server::{Fault, Result, Session};

/// Messages that may wait on their way to an agent's stream.
const SESSION: usize = 256;

impl Handle {
    pub(super) async fn begin_session(&self, hello: Hello) -> Result<Session> {
        let member = self.joined()?;
        let attached = self.attach(hello).await;
        let (session, mut messages) = attached.ok_or_else(stopping)?;
        // The first message tells whether there is a session at all.
        let first = match messages.recv().await.ok_or_else(stopping)? {
            SessionMessage::Close(reason) => return Err(self.closed(reason)),
            SessionMessage::Message(message) => message,
        };
        let (to_node, mut said) = mpsc::channel::<Box<AgentMessage>>(SESSION);
        let (to_agent, from_node) = mpsc::channel(SESSION);
        let handle = self.clone();
        let mut ended = member.ended.clone();
        self.shared.runtime.spawn(async move {
            // Neither direction waits for the other: an agent that is told much while it says much
            // would otherwise wait for us as we wait for it.
            let tell = async {
                let mut next = Ok(first);
                while to_agent.send(next).await.is_ok() {
                    next = match messages.recv().await {
                        Some(SessionMessage::Message(message)) => Ok(message),
                        Some(SessionMessage::Close(reason)) => Err(handle.closed(reason)),
                        None => Err(stopping()),
                    };
                    if next.is_err() {
                        // Nobody may be listening any more.
                        let _ = to_agent.send(next).await;
                        break;
                    }
                }
            };
            let listen = async {
                while let Some(message) = said.recv().await {
                    if !handle.said(session, *message).await {
                        break;
                    }
                }
            };
            tokio::select! {
                () = tell => {}
                () = listen => {}
                _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => {
                    let _ = to_agent.send(Err(stopping())).await;
                }
            }
            handle.detach(session).await;
        });
        Ok(Session { to_node, from_node })
    }

    fn closed(&self, reason: CloseReason) -> Fault {
        match reason {
            CloseReason::NotLeader => self.not_leader(),
            CloseReason::Superseded => Fault::new(
                "conflict/agent-superseded",
                "another process has begun a session under the name of this agent",
            )
            .hint("agents need different names: --name"),
            CloseReason::Again => Fault::new(
                "unavailable/again",
                "some reports could not be taken; begin a new session and send them again",
            ),
        }
    }
}
