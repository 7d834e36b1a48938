//! Who belongs to the group, and changes of that.

use protobuf::Message as _;
use raft::eraftpb;

use crate::{Error, NodeId};

/// The members. Every list is sorted, so that equal memberships have equal bytes on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who receives everything and does not vote.
    pub learners: Vec<NodeId>,
    /// While a change of several voters is under way: who voted before it. A majority of these must agree, too.
    pub voters_outgoing: Vec<NodeId>,
    /// Who of the outgoing voters will be a learner when the change is over.
    pub learners_next: Vec<NodeId>,
    /// The leader ends the change by itself. Always so for changes made here.
    pub auto_leave: bool,
}

impl ConfState {
    /// A group in which these vote.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> ConfState {
        ConfState { voters: sorted(voters), ..ConfState::default() }
    }

    /// Nobody at all: a node that has not joined yet.
    pub fn is_empty(&self) -> bool {
        *self == ConfState::default()
    }

    /// Whether a change of several voters is under way.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether a node has any part in the group.
    pub fn contains(&self, id: NodeId) -> bool {
        self.everyone().any(|member| member == id)
    }

    /// Whether a node votes (in a change of voters: before or after it).
    pub fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// All members, sorted.
    pub fn members(&self) -> Vec<NodeId> {
        let mut members = sorted(self.everyone());
        members.dedup();
        members
    }

    fn everyone(&self) -> impl Iterator<Item = NodeId> + '_ {
        let voters = self.voters.iter().chain(&self.voters_outgoing);
        voters.chain(&self.learners).chain(&self.learners_next).copied()
    }

    /// Its bytes, for storing. Equal memberships have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising to memory cannot fail: the message has no required fields.
        self.to_raft().write_to_bytes().unwrap_or_default()
    }

    /// Reads what [`ConfState::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<ConfState, Error> {
        crate::wire::check(bytes, crate::wire::Kind::ConfState)
            .map_err(|problem| Error::Invalid(format!("the stored membership is {problem}")))?;
        let mut state = eraftpb::ConfState::default();
        state
            .merge_from_bytes(bytes)
            .map_err(|error| Error::Invalid(format!("the stored membership: {error}")))?;
        Ok(ConfState::from_raft(&state))
    }

    pub(crate) fn from_raft(state: &eraftpb::ConfState) -> ConfState {
        ConfState {
            voters: sorted(state.voters.iter().copied()),
            learners: sorted(state.learners.iter().copied()),
            voters_outgoing: sorted(state.voters_outgoing.iter().copied()),
            learners_next: sorted(state.learners_next.iter().copied()),
            auto_leave: state.auto_leave,
        }
    }

    pub(crate) fn to_raft(&self) -> eraftpb::ConfState {
        eraftpb::ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
            ..eraftpb::ConfState::default()
        }
    }

    /// What is wrong with it, if anything: raft-rs panics on a configuration that contradicts itself.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let any = |of: &[NodeId], other: &[NodeId]| of.iter().any(|id| other.contains(id));
        let twice = |of: &[NodeId]| of.windows(2).any(|pair| pair[0] == pair[1]);
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        if lists.iter().any(|list| list.contains(&0)) {
            Some("node id 0")
        } else if lists.iter().any(|list| twice(list)) {
            Some("a node is in it twice")
        } else if self.voters.is_empty() {
            Some("nobody votes")
        } else if any(&self.learners, &self.voters) || any(&self.learners, &self.voters_outgoing) {
            Some("a learner votes")
        } else if any(&self.learners_next, &self.voters) || any(&self.learners_next, &self.learners)
        {
            Some("a coming learner has another part")
        } else if !self.learners_next.iter().all(|id| self.voters_outgoing.contains(id)) {
            Some("a coming learner did not vote")
        } else if self.auto_leave && !self.is_joint() {
            Some("a change ends that never began")
        } else {
            None
        }
    }
}

fn sorted(ids: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It receives everything, and does not vote. Also demotes a voter.
    AddLearner,
    /// It votes. Also promotes a learner.
    AddVoter,
    /// It is no member any more. Its id must never be used again.
    Remove,
}

/// A change of the membership. More than one node at once is done by joint consensus, which ends by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// The request's id, by which the proposer recognises it.
    pub id: Vec<u8>,
    /// What is to be changed. Empty only in a committed change: the end of joint consensus.
    pub changes: Vec<(ChangeKind, NodeId)>,
    /// Whatever the owner wants to apply together with it (such as a new node's address).
    pub context: Vec<u8>,
}

impl MembershipChange {
    pub(crate) fn to_raft(&self) -> eraftpb::ConfChangeV2 {
        let single = |(kind, node): &(ChangeKind, NodeId)| eraftpb::ConfChangeSingle {
            change_type: match kind {
                ChangeKind::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
                ChangeKind::AddVoter => eraftpb::ConfChangeType::AddNode,
                ChangeKind::Remove => eraftpb::ConfChangeType::RemoveNode,
            },
            node_id: *node,
            ..eraftpb::ConfChangeSingle::default()
        };
        eraftpb::ConfChangeV2 {
            changes: self.changes.iter().map(single).collect::<Vec<_>>().into(),
            context: self.context.clone().into(),
            ..eraftpb::ConfChangeV2::default()
        }
    }

    pub(crate) fn from_raft(id: &[u8], change: &eraftpb::ConfChangeV2) -> MembershipChange {
        let single = |single: &eraftpb::ConfChangeSingle| {
            let kind = match single.change_type {
                eraftpb::ConfChangeType::AddLearnerNode => ChangeKind::AddLearner,
                eraftpb::ConfChangeType::AddNode => ChangeKind::AddVoter,
                eraftpb::ConfChangeType::RemoveNode => ChangeKind::Remove,
            };
            (kind, single.node_id)
        };
        MembershipChange {
            id: id.to_vec(),
            changes: change.changes.iter().map(single).collect(),
            context: change.context.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_survives_its_bytes() {
        let state = ConfState {
            voters: vec![1, 2, 3],
            learners: vec![7],
            voters_outgoing: vec![1, 4],
            learners_next: vec![4],
            auto_leave: true,
        };
        assert_eq!(state.problem(), None);
        assert_eq!(ConfState::from_bytes(&state.to_bytes()).unwrap(), state);
        assert_eq!(state.members(), [1, 2, 3, 4, 7]);
        assert!(ConfState::from_bytes(&[0xff, 0xff]).is_err());
    }

    #[test]
    fn a_contradiction_is_seen() {
        let good = ConfState::of_voters([3, 1, 2]);
        assert_eq!(good.problem(), None);
        for (learners, outgoing, next) in
            [(vec![1], vec![], vec![]), (vec![0], vec![], vec![]), (vec![], vec![], vec![4])]
        {
            let bad = ConfState {
                learners,
                voters_outgoing: outgoing,
                learners_next: next,
                ..good.clone()
            };
            assert!(bad.problem().is_some(), "{bad:?}");
        }
        assert!(ConfState::of_voters([1, 1]).problem().is_some());
        assert!(ConfState::of_voters([]).problem().is_some());
    }
}
