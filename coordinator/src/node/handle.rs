//! The ways into a node: requests, looks at its state, sessions of agents.

use std::sync::Arc;
use std::time::Duration;

use tenon_consensus::Status;
use tenon_engine::Time;
use tenon_proto::agent::v1::{AgentMessage, Hello};
use tenon_proto::raft::v1::Header;
use tokio::sync::{mpsc, oneshot, watch};

use super::apply_thread::{self, FromUser, SessionMessage};
use super::raft_thread::RaftInput;
use super::{Handle, MemberNode, NodeOptions};
use crate::coordinator::{Answer, Coordinator, Request, RequestError};
use crate::duties::SessionId;
use crate::server::Metrics;

impl Handle {
    /// How the node is run.
    pub fn options(&self) -> &NodeOptions {
        &self.shared.options
    }

    /// What it measures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// The member that the node is; `None` while it belongs to no cluster.
    pub fn member(&self) -> Option<Arc<MemberNode>> {
        self.shared.member()
    }

    /// Becomes true when the node becomes a member.
    pub fn became_member(&self) -> watch::Receiver<bool> {
        self.shared.became_member.subscribe()
    }

    /// What this node says of itself to another one.
    pub fn header(&self, to: u64) -> Option<Header> {
        self.member().map(|member| self.shared.header(&member.identity, to))
    }

    /// Tells whether nodes have the same key for Secrets; empty without a key.
    pub fn key_fingerprint(&self) -> String {
        self.shared.fingerprint()
    }

    /// Asks for something, and waits for the answer until `deadline` at most.
    pub async fn request(&self, request: Request, deadline: Time) -> Answer {
        let Some(member) = self.member() else { return Err(RequestError::NoQuorum) };
        let (answer, answered) = oneshot::channel();
        let send = member.users.send(FromUser::Request { request, deadline, answer });
        let left = u64::try_from(deadline.0 - apply_thread::now().0).unwrap_or(0);
        // The node answers by itself at the deadline; this is for one that is held up.
        let limit = Duration::from_millis(left + 500);
        let asked = async {
            send.await.map_err(|_| RequestError::Stopping)?;
            answered.await.map_err(|_| RequestError::Stopping)?
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(RequestError::Deadline))
    }

    /// Looks at the state of the node, on its own thread: short looks only.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Option<T> {
        let member = self.member()?;
        let (reply, seen) = oneshot::channel();
        let look = FromUser::Look(Box::new(move |coordinator| {
            // Whoever asked may have gone.
            let _ = reply.send(look(coordinator));
        }));
        member.users.send(look).await.ok()?;
        seen.await.ok()
    }

    /// Likewise, from a thread that may block.
    pub fn look_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Option<T> {
        let member = self.member()?;
        let (reply, seen) = oneshot::channel();
        let look = FromUser::Look(Box::new(move |coordinator| {
            let _ = reply.send(look(coordinator));
        }));
        member.users.blocking_send(look).ok()?;
        seen.blocking_recv().ok()
    }

    /// How Raft stands.
    pub async fn raft_status(&self) -> Option<Status> {
        let member = self.member()?;
        let (reply, status) = oneshot::channel();
        member.raft.send(RaftInput::Status(reply)).ok()?;
        status.await.ok()
    }

    /// An agent dials in. What the node has for it comes through the receiver.
    pub async fn attach(
        &self,
        hello: Hello,
    ) -> Option<(SessionId, mpsc::UnboundedReceiver<SessionMessage>)> {
        let member = self.member()?;
        let (to_agent, messages) = mpsc::unbounded_channel();
        let (reply, session) = oneshot::channel();
        member.users.send(FromUser::Attach { hello, to_agent, session: reply }).await.ok()?;
        Some((session.await.ok()?, messages))
    }

    /// An agent says something in its session. Waits while too much is under way. False when the node
    /// has stopped.
    pub async fn said(&self, session: SessionId, message: AgentMessage) -> bool {
        match self.member() {
            Some(member) => member.users.send(FromUser::Said(session, message)).await.is_ok(),
            None => false,
        }
    }

    /// A session is over.
    pub async fn detach(&self, session: SessionId) {
        if let Some(member) = self.member() {
            let _ = member.users.send(FromUser::Detached(session)).await;
        }
    }

    /// Waits until the node cannot go on, or has been stopped.
    pub async fn ended(&self) {
        let mut became_member = self.became_member();
        // The sender lives as long as this handle.
        let _ = became_member.wait_for(|became| *became).await;
        if let Some(member) = self.member() {
            let _ = member.ended.clone().wait_for(|ended| *ended).await;
        }
    }

    /// Hands the leadership to another node, if this one leads and there is another: so that stopping
    /// it costs no election. Takes three seconds at most.
    pub async fn leave(&self) {
        let Some(member) = self.member() else { return };
        let began = std::time::Instant::now();
        let mut asked = false;
        while began.elapsed() < Duration::from_secs(3) {
            let Some(status) = self.raft_status().await else { return };
            if status.role != tenon_consensus::Role::Leader {
                return;
            }
            let voters = &status.conf_state.voters;
            let best = status
                .peers
                .iter()
                .filter(|peer| peer.id != status.id && voters.contains(&peer.id))
                .filter(|peer| peer.recent_active)
                .max_by_key(|peer| peer.matched);
            let Some(best) = best else { return };
            if !std::mem::replace(&mut asked, true) {
                let _ = member.raft.send(RaftInput::Transfer(best.id));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
