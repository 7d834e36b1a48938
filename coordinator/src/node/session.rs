//! Sessions of agents, between the node's thread and the server's streams.

use futures_util::stream;
use tenon_proto::agent::v1::{AgentMessage, Hello};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Handle;
use super::apply_thread::SessionMessage;
use super::membership::stopping;
use crate::coordinator::CloseReason;
use crate::duties::SessionId;
use crate::server::{Fault, Result, Session, ToNode};

impl Handle {
    pub(super) async fn begin_session(&self, hello: Hello) -> Result<Session> {
        self.joined()?;
        let (id, mut messages) = self.attach(hello).await.ok_or_else(stopping)?;
        let over = CancellationToken::new();
        let ear = Ear { handle: self.clone(), id, over: over.clone() };
        // The first message tells whether there is a session at all.
        let first = match messages.recv().await.ok_or_else(stopping)? {
            SessionMessage::Close(reason) => return Err(self.closed(reason)),
            message @ SessionMessage::Message(_) => message,
        };
        let told =
            Told { first: Some(first), messages, handle: self.clone(), _over: over.drop_guard() };
        let from_node = stream::unfold(Some(told), |told| async {
            let mut told = told?;
            let message = match told.first.take() {
                Some(first) => Some(first),
                None => told.messages.recv().await,
            };
            Some(match message {
                Some(SessionMessage::Message(message)) => (Ok(*message), Some(told)),
                Some(SessionMessage::Close(reason)) => (Err(told.handle.closed(reason)), None),
                // The node's thread has ended.
                None => (Err(stopping()), None),
            })
        });
        Ok(Session { to_node: Box::new(ear), from_node: Box::pin(from_node) })
    }

    fn closed(&self, reason: CloseReason) -> Fault {
        match reason {
            CloseReason::NotLeader => self.not_leader(),
            CloseReason::Superseded => Fault::new(
                "conflict/agent-superseded",
                "another process has begun a session under the name of this agent",
            )
            .hint("agents need different names: --name"),
            CloseReason::LifeOver => Fault::new(
                "conflict/agent-life-over",
                "another process has had the name of this agent since, and is gone",
            )
            .hint("it has to begin a new life: move `spool` in its directory away, and start it again"),
            CloseReason::Again => Fault::new(
                "unavailable/again",
                "some reports could not be taken; begin a new session and send them again",
            ),
        }
    }
}

/// What an agent is told.
struct Told {
    first: Option<SessionMessage>,
    messages: mpsc::UnboundedReceiver<SessionMessage>,
    handle: Handle,
    _over: DropGuard,
}

/// Hears what an agent says. The session is over when this is gone.
struct Ear {
    handle: Handle,
    id: SessionId,
    over: CancellationToken,
}

#[tonic::async_trait]
impl ToNode for Ear {
    async fn said(&mut self, message: AgentMessage) -> bool {
        self.handle.said(self.id, message).await
    }

    fn over(&self) -> &CancellationToken {
        &self.over
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let (handle, id) = (self.handle.clone(), self.id);
        let runtime = self.handle.shared.runtime.clone();
        runtime.spawn(async move { handle.detach(id).await });
    }
}
