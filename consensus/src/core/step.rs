//! Messages from the wire: what is refused before raft-rs sees it.
//!
//! raft-rs trusts its peers and panics when they contradict what it knows. Here is every way known to make it do so by a
//! message, and each is refused: term 0 (taken for a local message), terms where there must be none, an append that begins
//! nowhere or has gaps, a commit index beyond the log, empty proposals and reads, memberships that contradict themselves,
//! votes for a candidate that has not asked yet, snapshots on request, priorities.

use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::Core;
use crate::wire::{self, Kind};
use crate::{ConfState, NodeId, Refused};

/// Terms, indices and ids are below this: nothing that is computed from them overflows.
pub const MAX_INDEX: u64 = 1 << 62;

impl Core {
    /// Takes a message from the wire. `sender` is who the transport has found to be at the other end.
    ///
    /// # Errors
    /// The message was refused, and nothing was changed. Log it and go on; only [`Refused::Forgotten`] means that this node
    /// must not go on.
    pub fn step(&mut self, sender: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        let message = self.parse(bytes)?;
        self.check(sender, &message)?;
        match message.msg_type {
            MessageType::MsgSnapshot if message.term < self.raw.raft.term => return Ok(()),
            MessageType::MsgSnapshot => {
                self.hold_snapshot(message);
                return Ok(());
            }
            _ => {}
        }
        let stepped = self.raw.step(message);
        self.settle();
        match stepped {
            // A proposal for which there is no room or no leader any more: its proposer finds out by itself.
            Ok(()) | Err(raft::Error::ProposalDropped) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(Refused::Stranger { sender }),
            Err(_) => Err(Refused::Impossible("raft refuses it")),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Message, Refused> {
        let limit = self.options.max_wire_bytes();
        if bytes.len() > limit {
            return Err(Refused::TooLarge { length: bytes.len(), limit });
        }
        wire::check(bytes, Kind::Message).map_err(Refused::Malformed)?;
        let mut message = Message::default();
        message.merge_from_bytes(bytes).map_err(|_| Refused::Malformed("no message"))?;
        Ok(message)
    }

    fn check(&self, sender: NodeId, message: &Message) -> Result<(), Refused> {
        if message.to != self.options.id {
            return Err(Refused::Misdirected { to: message.to });
        }
        if message.from != sender || sender == self.options.id || sender == 0 {
            return Err(Refused::Forged { sender, claimed: message.from });
        }
        if !self.conf_state.contains(sender) && !self.vouched.contains(&sender) {
            return Err(Refused::Stranger { sender });
        }
        check_form(message)?;
        self.check_against_state(message)
    }

    /// What depends on what this node knows.
    fn check_against_state(&self, message: &Message) -> Result<(), Refused> {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let current = message.term >= raft.term;
        match message.msg_type {
            MessageType::MsgPropose => {
                let limit = self.options.max_entry_bytes;
                match message.entries.iter().map(|entry| entry.data.len()).max() {
                    Some(length) if length > limit => Err(Refused::TooLarge { length, limit }),
                    _ => Ok(()),
                }
            }
            MessageType::MsgHeartbeat if current && message.commit > last => {
                Err(Refused::Forgotten { acknowledged: message.commit, last })
            }
            MessageType::MsgAppendResponse
                if !message.reject
                    && message.term == raft.term
                    && raft.state == StateRole::Leader
                    && message.index > last =>
            {
                Err(Refused::Impossible("it acknowledges what was never sent"))
            }
            MessageType::MsgRequestVoteResponse
                if raft.state == StateRole::Candidate && !self.writes.is_empty() =>
            {
                Err(Refused::Impossible("it answers what was not asked yet"))
            }
            MessageType::MsgTimeoutNow if !self.may_campaign() => Err(Refused::Installing),
            MessageType::MsgSnapshot => {
                if self.installing.is_some() {
                    return Err(Refused::Installing);
                }
                let snapshot = message.get_snapshot();
                let members = ConfState::from_raft(snapshot.get_metadata().get_conf_state());
                if members.problem().is_some() || !members.contains(self.options.id) {
                    return Err(Refused::Impossible("a snapshot of a group without this node"));
                }
                if snapshot.data.len() > self.options.max_entry_bytes {
                    let limit = self.options.max_entry_bytes;
                    return Err(Refused::TooLarge { length: snapshot.data.len(), limit });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What a message of its kind must look like, whatever this node knows.
fn check_form(message: &Message) -> Result<(), Refused> {
    use MessageType::{
        MsgAppend, MsgAppendResponse, MsgHeartbeat, MsgHeartbeatResponse, MsgPropose, MsgReadIndex,
        MsgReadIndexResp, MsgRequestPreVote, MsgRequestPreVoteResponse, MsgRequestVote,
        MsgRequestVoteResponse, MsgSnapshot, MsgTimeoutNow,
    };
    let malformed = |what| Err(Refused::Malformed(what));
    let kind = message.msg_type;
    let (termless, entries) = match kind {
        MsgPropose => (true, 1..=usize::MAX),
        MsgReadIndex => (true, 1..=1),
        MsgReadIndexResp => (false, 1..=1),
        MsgAppend => (false, 0..=usize::MAX),
        MsgAppendResponse
        | MsgRequestVote
        | MsgRequestVoteResponse
        | MsgSnapshot
        | MsgHeartbeat
        | MsgHeartbeatResponse
        | MsgTimeoutNow
        | MsgRequestPreVote
        | MsgRequestPreVoteResponse => (false, 0..=0),
        _ => return malformed("a kind that is never sent"),
    };
    if (message.term == 0) != termless {
        return malformed("a term where none belongs, or none where one does");
    }
    if !entries.contains(&message.entries.len()) {
        return malformed("entries that do not belong there");
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.from,
    ];
    if numbers.iter().any(|number| *number > MAX_INDEX) {
        return malformed("a number beyond all limits");
    }
    if message.request_snapshot != 0 || message.priority != 0 || message.deprecated_priority != 0 {
        return malformed("a field that is never used");
    }
    if message.has_snapshot() != (kind == MsgSnapshot) {
        return malformed("a snapshot where none belongs, or none where one does");
    }
    match kind {
        MsgPropose if message.entries.iter().any(super::is_change) => {
            malformed("a change of the membership from somebody who does not lead")
        }
        MsgAppend => check_append(message),
        MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            let (index, term) = (metadata.index, metadata.term);
            let fits = (1..=MAX_INDEX).contains(&index) && (1..=message.term).contains(&term);
            if fits { Ok(()) } else { malformed("a snapshot of no place in the log") }
        }
        _ => Ok(()),
    }
}

fn check_append(message: &Message) -> Result<(), Refused> {
    let malformed = |what| Err(Refused::Malformed(what));
    // raft-rs takes term 0 for that of every entry it does not have.
    if (message.log_term == 0) != (message.index == 0) || message.log_term > message.term {
        return malformed("an append that begins nowhere");
    }
    let mut term = message.log_term.max(1);
    for (entry, index) in message.entries.iter().zip(message.index + 1..) {
        if entry.index != index || entry.term < term || entry.term > message.term {
            return malformed("entries out of order");
        }
        term = entry.term;
    }
    Ok(())
}
