//! Other members: whether they may speak to this node, and what they fetch from it.

use tenon_consensus::Role;
use tenon_proto::raft::v1::{Chunk, FetchRequest, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::apply_thread::now;
use super::membership::{stopping, uninitialised};
use super::raft_thread::RaftInput;
use super::{Handle, MemberNode};
use crate::coordinator::Request;
use crate::entry;
use crate::replica::Member;
use crate::server::{Fault, Items, Result};

/// How long telling where a member is reached may take, in milliseconds.
const MOVE_MS: i64 = 5_000;
/// So many members may have been added without this node having heard of it.
const UNHEARD_OF: u64 = 16;

impl Handle {
    pub(super) fn answer_greeting(&self, header: &Header) -> Result<Header> {
        let member = self.joined()?;
        let me = &member.identity;
        let refuse = |code: &'static str, why: String| Err(Fault::new(code, why));
        if header.cluster_id != me.cluster {
            return refuse("peer/cluster", format!("this node belongs to cluster {}", me.cluster));
        }
        if header.to != me.node {
            return refuse(
                "peer/not-me",
                format!("this node has id {}, not {}", me.node, header.to),
            );
        }
        // A release reads what the one before it writes.
        let known = [u32::from(entry::VERSION), u32::from(entry::VERSION) - 1];
        if !known.contains(&header.protocol) {
            let why =
                format!("this node speaks protocol {}, not {}", entry::VERSION, header.protocol);
            return refuse("peer/protocol", why);
        }
        if header.key_fingerprint != self.key_fingerprint() {
            return refuse("peer/key", "the two nodes have different secrets keys".to_owned());
        }
        self.know(&member, header)?;
        self.header(header.from).ok_or_else(uninitialised)
    }

    pub(super) fn send_part(&self, request: FetchRequest) -> Result<Items<Chunk>> {
        let header = request.header.clone().unwrap_or_default();
        self.answer_greeting(&header)?;
        let member = self.joined()?;
        let (sender, receiver) = mpsc::channel(2);
        self.shared.runtime.spawn_blocking(move || {
            let _ = member.raft.send(RaftInput::SnapshotProgress(header.from));
            // One chunk for a request: the receiver asks for the next when this one is stored.
            let chunk = member.snapshots.read(&request).map_err(Fault::from);
            let _ = sender.blocking_send(chunk);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Whether another node may speak to this one as a member. Ids are given in ascending order: one
    /// that was given already, as far as this node knows, and is not a member was removed or never was
    /// one; a higher one belongs to a member that this node has yet to hear of, and needs to hear from.
    fn know(&self, member: &MemberNode, header: &Header) -> Result<()> {
        let known = member.members.borrow().get(&header.from).cloned();
        if let Some(known) = known {
            self.follow_move(member, header, &known);
            return Ok(());
        }
        let next = member.standing.state().next_node;
        if header.from < next || header.from > next + UNHEARD_OF {
            let why = format!("node {} is no member of this cluster", header.from);
            return Err(Fault::new("peer/stranger", why));
        }
        let new = Member { name: String::new(), url: header.from_url.clone() };
        self.shared.members.send_modify(|members| {
            members.insert(header.from, new);
        });
        member.raft.send(RaftInput::Vouch(header.from)).map_err(|_| stopping())
    }

    /// The leader tells all members when one of them is reached elsewhere than before.
    fn follow_move(&self, member: &MemberNode, header: &Header, known: &Member) {
        let moved = !header.from_url.is_empty() && header.from_url != known.url;
        if moved && member.standing.raft().role == Role::Leader {
            let (handle, node, url) = (self.clone(), header.from, header.from_url.clone());
            self.shared.runtime.spawn(async move {
                let deadline = now().plus_millis(MOVE_MS);
                // One that is not done is tried again when the member greets again.
                let _ = handle.request(Request::Move { node, url }, deadline).await;
            });
        }
    }
}
