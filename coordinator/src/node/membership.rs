//! Becoming a member of a cluster, and changing who is one.
//!
//! A node joins in three steps, each of which may be repeated: the leader reserves a Raft id (never
//! used again), tells the empty node who it is ([`Handle::adopt`]), and adds it as a learner; when it
//! has caught up it gets a vote. Only the leader changes members, one change after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use tenon_consensus::{ChangeKind, Dropped, MembershipChange, PeerState, Role, Status};
use tenon_proto::raft::v1::{AdoptReply, AdoptRequest, Peer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::apply_thread::now;
use super::identity::Identity;
use super::raft_thread::RaftInput;
use super::{Handle, MemberNode, transport};
use crate::coordinator::Request;
use crate::entry;
use crate::replica::{Member, Reply};
use crate::server::{Fault, Result};

/// Between looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(20);
/// A learner this close to the leader gets its vote.
const CAUGHT_UP: u64 = 256;

impl Handle {
    /// Makes a cluster of this node, and members of the empty nodes at `peers`.
    pub async fn init(&self, peers: &[String], deadline: Instant) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        if self.member().is_some() {
            return Err(already_member(self));
        }
        let entropy = || u128::from(self.shared.disk.entropy());
        let millis = u64::try_from(now().0).unwrap_or_default();
        let cluster = ulid::Ulid::from_parts(millis, entropy() << 64 | entropy());
        let identity = Identity {
            cluster: cluster.to_string(),
            node: 1,
            name: self.options().name.clone(),
            first: true,
            peers: BTreeMap::new(),
        };
        self.become_member(identity).await?;
        self.until(deadline, "this node to lead its cluster", |status| status.leads_fully).await?;
        for url in peers {
            self.add_locked(url, "", false, None, deadline).await?;
        }
        Ok(())
    }

    /// Makes this empty node the member that a cluster's leader says it is.
    pub async fn adopt(&self, request: AdoptRequest) -> Result<AdoptReply> {
        let _changing = self.shared.changing.lock().await;
        if request.protocol != u32::from(entry::VERSION) {
            return Err(Fault::new(
                "conflict/protocol",
                format!(
                    "this node speaks protocol {}, the cluster {}",
                    entry::VERSION,
                    request.protocol
                ),
            ));
        }
        if request.key_fingerprint != self.key_fingerprint() {
            return Err(Fault::new(
                "conflict/secrets-key",
                "this node does not have the secrets key of the cluster",
            )
            .hint("give it the same file with --secrets-key, then add it again"));
        }
        if self.joined_as().is_some_and(|joined_as| joined_as != request.id) {
            return Err(Fault::new(
                "conflict/certificate",
                "this node has joined under another id",
            ));
        }
        let peer =
            |peer: &Peer| (peer.id, Member { name: peer.name.clone(), url: peer.url.clone() });
        let identity = Identity {
            cluster: request.cluster_id,
            node: request.id,
            name: match request.name {
                name if name.is_empty() => self.options().name.clone(),
                name => name,
            },
            first: false,
            peers: request.peers.iter().map(peer).collect(),
        };
        let name = identity.name.clone();
        match self.member() {
            // The leader repeats itself: it did not hear the first answer.
            Some(member) if member.identity == identity => {}
            Some(_) => return Err(already_member(self)),
            None => self.become_member(identity).await?,
        }
        Ok(AdoptReply {
            protocol: u32::from(entry::VERSION),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            name,
        })
    }

    async fn become_member(&self, identity: Identity) -> Result<()> {
        let shared = self.shared.clone();
        let run = move || {
            identity.write(&*shared.disk, &shared.options.data_dir)?;
            shared.run(identity)
        };
        let done = tokio::task::spawn_blocking(run).await.map_err(Fault::internal)?;
        done.map_err(Fault::internal)
    }

    /// Adds the empty node at `url`.
    ///
    /// With `only`, only if it is the node that has joined under this id.
    pub async fn add(
        &self,
        url: &str,
        name: &str,
        learner: bool,
        only: Option<u64>,
        deadline: Instant,
    ) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        self.add_locked(url, name, learner, only, deadline).await
    }

    async fn add_locked(
        &self,
        url: &str,
        name: &str,
        learner: bool,
        only: Option<u64>,
        deadline: Instant,
    ) -> Result<()> {
        let member = self.leading_member()?;
        let known = member.members.borrow().clone();
        let known = known.into_iter().find(|(_, known)| known.url == url);
        let id = match known {
            Some((id, _)) => id,
            None => self.invite(&member, url, name, only, deadline).await?,
        };
        if only.is_some_and(|only| only != id) {
            return Err(not_itself());
        }
        let caught_up = |status: &Status| {
            status.peers.iter().any(|peer| {
                peer.id == id
                    && peer.state != PeerState::Snapshot
                    && peer.matched > 0
                    && peer.matched + CAUGHT_UP >= status.last
            })
        };
        self.until(deadline, "the new node to catch up", caught_up).await?;
        if !learner {
            let votes = move |status: &Status| status.conf_state.voters.contains(&id);
            let change = vec![(ChangeKind::AddVoter, id)];
            self.change_members(change, BTreeMap::new(), deadline, votes).await?;
        }
        Ok(())
    }

    /// Tells an empty node who it is, and adds it as a learner.
    async fn invite(
        &self,
        member: &MemberNode,
        url: &str,
        name: &str,
        only: Option<u64>,
        deadline: Instant,
    ) -> Result<u64> {
        let unreachable = |why: String| {
            Fault::new("unavailable/new-node", format!("cannot reach the new node at {url}: {why}"))
                .hint("is `tenon coordinator` running there, and is the URL right?")
        };
        let own = self.identity();
        let id = match &own {
            Some(own) => {
                let id = transport::id_of(url, own).await.map_err(&unreachable)?;
                if only.is_some_and(|only| only != id) {
                    return Err(not_itself());
                }
                if !member.trust.newest().joining.contains_key(&id) {
                    let message = format!("the node at {url} has not joined this cluster");
                    return Err(Fault::new("denied/not-joined", message)
                        .hint("start it with --join and a token of `tenon tokens join --node`"));
                }
                id
            }
            None => match self.request(Request::NewNode, as_time(deadline)).await? {
                Reply::NewNode(id) => id,
                _ => return Err(Fault::internal("reserving an id gave something else")),
            },
        };
        let client = transport::connect(url, id, own.as_ref()).await;
        let mut client = client.map_err(&unreachable)?;
        let mut members = member.members.borrow().clone();
        let mut new = Member { name: name.to_owned(), url: url.to_owned() };
        members.insert(id, new.clone());
        let peers = members.into_iter();
        let request = AdoptRequest {
            cluster_id: member.identity.cluster.clone(),
            id,
            name: name.to_owned(),
            peers: peers.map(|(id, peer)| Peer { id, name: peer.name, url: peer.url }).collect(),
            protocol: u32::from(entry::VERSION),
            key_fingerprint: self.key_fingerprint(),
        };
        let adopted = tokio::time::timeout_at(deadline, client.adopt(request)).await;
        let adopted = adopted.map_err(|_| unreachable("it did not answer in time".to_owned()))?;
        let adopted =
            adopted.map_err(|status| Fault(Box::new(tenon_proto::status::from_status(&status))))?;
        new.name = adopted.into_inner().name;
        let is_member = move |status: &Status| status.conf_state.contains(id);
        let change = vec![(ChangeKind::AddLearner, id)];
        self.change_members(change, BTreeMap::from([(id, new)]), deadline, is_member).await?;
        Ok(id)
    }

    /// Removes a member, by id, name or URL.
    pub async fn remove(&self, which: &str, force: bool, deadline: Instant) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        let member = self.leading_member()?;
        let id = find(&member, which)?;
        let Some(status) = self.raft_status().await else { return Err(stopping()) };
        let voters = &status.conf_state.voters;
        if voters == &[id] {
            return Err(Fault::new(
                "conflict/last-member",
                "this is the only member with a vote: without it there would be no cluster",
            ));
        }
        let up = |voter: &u64| {
            *voter == status.id
                || status.peers.iter().any(|peer| peer.id == *voter && peer.recent_active)
        };
        let rest: Vec<u64> = voters.iter().copied().filter(|voter| *voter != id).collect();
        if !force
            && voters.contains(&id)
            && rest.iter().filter(|it| up(it)).count() * 2 <= rest.len()
        {
            return Err(Fault::new(
                "conflict/quorum",
                "too few of the other members answer: without this one there would be no majority",
            )
            .hint("bring them back first, or say that you mean it with --force"));
        }
        if id == status.id {
            self.transfer_locked("", deadline).await?;
            return Err(self.not_leader());
        }
        let is_gone = move |status: &Status| !status.conf_state.contains(id);
        let change = vec![(ChangeKind::Remove, id)];
        self.change_members(change, BTreeMap::new(), deadline, is_gone).await
    }

    /// Hands the leadership to a member, by id, name or URL; to the one that is furthest if empty.
    pub async fn transfer(&self, to: &str, deadline: Instant) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        self.transfer_locked(to, deadline).await
    }

    async fn transfer_locked(&self, to: &str, deadline: Instant) -> Result<()> {
        let member = self.leading_member()?;
        let Some(status) = self.raft_status().await else { return Err(stopping()) };
        let to = match to {
            "" => {
                let voters = &status.conf_state.voters;
                let others = status.peers.iter().filter(|peer| peer.id != status.id);
                let active = others.filter(|peer| peer.recent_active && voters.contains(&peer.id));
                let best = active.max_by_key(|peer| peer.matched).map(|peer| peer.id);
                best.ok_or_else(|| {
                    Fault::new("conflict/no-other-voter", "no other member with a vote answers")
                })?
            }
            which => find(&member, which)?,
        };
        if to == status.id {
            return Ok(());
        }
        if !status.conf_state.voters.contains(&to) {
            return Err(Fault::new("conflict/not-a-voter", "that member has no vote"));
        }
        while Instant::now() < deadline {
            let _ = member.raft.send(RaftInput::Transfer(to));
            for _ in 0..25 {
                tokio::time::sleep(LOOK).await;
                let status = self.raft_status().await.ok_or_else(stopping)?;
                if status.leader.is_some_and(|leader| leader != status.id) {
                    return Ok(());
                }
            }
        }
        Err(Fault::deadline())
    }

    /// Proposes a change and waits until it has happened.
    async fn change_members(
        &self,
        changes: Vec<(ChangeKind, u64)>,
        members: BTreeMap<u64, Member>,
        deadline: Instant,
        done: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        let context = serde_json::to_vec(&members).map_err(Fault::internal)?;
        let id = self.shared.disk.entropy().to_le_bytes().to_vec();
        let change = MembershipChange { id, changes, context };
        let mut proposed: Option<Instant> = None;
        loop {
            let status = self.raft_status().await.ok_or_else(stopping)?;
            if done(&status) && !status.conf_state.is_joint() {
                return Ok(());
            }
            if status.role != Role::Leader {
                return Err(self.not_leader());
            }
            if Instant::now() >= deadline {
                return Err(Fault::deadline());
            }
            let again = proposed.is_none_or(|at| at.elapsed() > Duration::from_secs(1));
            if again && !status.change_pending {
                self.propose_change(change.clone()).await?;
                proposed = Some(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn propose_change(&self, change: MembershipChange) -> Result<()> {
        let member = self.member().ok_or_else(stopping)?;
        let (reply, answer) = oneshot::channel();
        member.raft.send(RaftInput::Change(change, reply)).map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())? {
            Ok(()) => Ok(()),
            Err(Dropped::NoLeader | Dropped::NotLeader { .. }) => Err(self.not_leader()),
            // Another is under way, or the leader is new: it is looked at, and tried, again.
            Err(_) => Ok(()),
        }
    }

    /// Waits until Raft stands as wanted, while this node leads.
    async fn until(
        &self,
        deadline: Instant,
        what: &str,
        stands: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        loop {
            let status = self.raft_status().await.ok_or_else(stopping)?;
            if stands(&status) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Fault::new(
                    "deadline/exceeded",
                    format!("waited in vain for {what}; it may still come about"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn leading_member(&self) -> Result<std::sync::Arc<MemberNode>> {
        let member = self.member().ok_or_else(uninitialised)?;
        match member.standing.raft().role {
            Role::Leader => Ok(member),
            _ => Err(self.not_leader()),
        }
    }
}

fn not_itself() -> Fault {
    Fault::new("denied/not-itself", "a node adds itself to the cluster, and no other")
}

fn already_member(handle: &Handle) -> Fault {
    let cluster = handle.member().map(|member| member.identity.cluster.clone());
    Fault::new(
        "conflict/already-member",
        format!("this node is a member of cluster {} already", cluster.unwrap_or_default()),
    )
    .hint("only an empty node can join: one whose data directory was never used")
}

/// The member with this id, name or URL.
fn find(member: &MemberNode, which: &str) -> Result<u64> {
    let members = member.members.borrow();
    let found = members.iter().find(|(id, member)| {
        id.to_string() == which || member.name == which || member.url == which
    });
    found.map(|(id, _)| *id).ok_or_else(|| {
        let names: Vec<&str> = members.values().map(|member| member.name.as_str()).collect();
        Fault::new("not-found/member", format!("no member is called {which}"))
            .hint(format!("members: {}", names.join(", ")))
    })
}

pub(super) fn uninitialised() -> Fault {
    Fault::new("unavailable/uninitialised", "this node belongs to no cluster yet")
        .hint("`tenon cluster init` makes a cluster, `tenon cluster add` adds a node to one")
}

pub(super) fn stopping() -> Fault {
    Fault::new("unavailable/stopping", "the node is stopping")
}

/// A deadline by the wall clock.
pub(super) fn as_time(deadline: Instant) -> tenon_engine::Time {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    now().plus_millis(i64::try_from(left).unwrap_or(i64::MAX / 2))
}
