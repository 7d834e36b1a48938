//! Taking work out of raft-rs and giving it to the owner.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{INVALID_ID, StateRole};
use tenon_journal::bugs::{self, Bug};

use super::snapshots::Installing;
use super::{Core, Outstanding, is_change};
use crate::wire::{self, Kind};
use crate::{
    Committed, ConfState, Error, MembershipChange, Outgoing, Position, Ready, SnapshotMeta,
    SnapshotStep, Write,
};

/// As much is read at once for giving out what is committed.
const PIECE: u64 = 1 << 20;

impl Core {
    /// Work to be done now; `None` when there is none. Call it after every other call, until there is none. Dropping what it
    /// returns is allowed only for messages.
    ///
    /// # Errors
    /// [`Error::Unreadable`]: the log's old entries cannot be read. Stop this node.
    pub fn ready(&mut self) -> Result<Option<Ready>, Error> {
        let mut out = Ready::default();
        self.move_snapshot(&mut out);
        loop {
            // raft-rs reads what is committed; as long as it cannot be given out, a little at a time is enough.
            let most = if self.may_give() { 4 * self.options.max_message_bytes as u64 } else { 0 };
            self.raw.raft.set_max_committed_size_per_ready(most);
            if self.raw.has_ready() {
                self.take(&mut out);
            }
            self.give_committed(&mut out);
            if !self.raw.has_ready() || !out.is_empty() || !self.may_give() {
                break;
            }
        }
        self.give_installation(&mut out);
        self.ask_for_snapshot(&mut out);
        out.messages.append(&mut self.outbox);
        let leadership = self.leadership();
        if leadership != self.told {
            self.told = leadership;
            out.leadership = Some(leadership);
        }
        if let Some(problem) = &self.view.lock().failure {
            return Err(Error::Unreadable(problem.clone()));
        }
        Ok(Some(out).filter(|out| !out.is_empty()))
    }

    /// Takes one of raft-rs' readies.
    fn take(&mut self, out: &mut Ready) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        self.number = number;
        let entries = ready.take_entries();
        let at_once = ready.take_messages();
        let when_durable = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        for read in ready.take_read_states() {
            if let Some((id, request)) = read.request_ctx.split_first_chunk()
                && u64::from_le_bytes(*id) == self.options.id
            {
                out.reads.push((request.to_vec(), read.index));
            }
        }
        let snapshot = Some(ready.snapshot())
            .filter(|snapshot| !snapshot.is_empty())
            .map(SnapshotMeta::from_raft);
        let must_sync = ready.must_sync();
        {
            let mut inner = self.view.lock();
            if let Some(meta) = &snapshot {
                inner.reset(meta.position);
                inner.reset_pending = true;
            }
            inner.append(&entries);
        }
        self.raw.advance_append_async(ready);
        if must_sync {
            self.make_write(out, number, snapshot, entries);
        }
        if self.writes.is_empty() {
            self.raw.on_persist_ready(number);
        }
        self.route(at_once, false);
        self.route(when_durable, true);
        if let Some(last) = committed.last() {
            self.available = last.index;
        }
        if bugs::is_on(Bug::ShowBeforeCommit) && self.raw.raft.state == StateRole::Leader {
            self.available = self.available.max(self.raw.raft.raft_log.persisted);
        }
        if committed.first().is_some_and(|entry| entry.index == self.given + 1) {
            self.give(committed, out);
        }
    }

    fn make_write(
        &mut self,
        out: &mut Ready,
        number: u64,
        snapshot: Option<SnapshotMeta>,
        entries: Vec<Entry>,
    ) {
        let now = self.raw.raft.hard_state();
        let before = std::mem::replace(&mut self.hard_state, now.clone());
        let term = (now.term, now.vote) != (before.term, before.vote);
        self.writes.push_back(Outstanding { number, term });
        let hard_state = Some(now).filter(|now| *now != before);
        let reset = snapshot.as_ref().map(|meta| meta.position);
        let write = Write { number, hard_state, reset, entries };
        if let Some(meta) = snapshot {
            self.conf_state = meta.conf_state.clone();
            self.given = meta.position.index;
            self.available = meta.position.index;
            self.unapplied.clear();
            self.unapplied_bytes = 0;
            out.snapshot = Some(SnapshotStep::Install(meta.clone()));
            let held = Installing { meta, write: Some(write), number, installed: false };
            self.installing = Some(held);
        } else if let Some(first) = self.installing.as_mut().and_then(|now| now.write.as_mut()) {
            // The log must not begin anew before the state is there, and later writes not before that.
            first.append(write);
        } else if let Some(first) = &mut out.write {
            first.append(write);
        } else {
            out.write = Some(write);
        }
    }

    /// Gives out the write of an installation, once the state is there.
    fn give_installation(&mut self, out: &mut Ready) {
        let Some(installing) = self.installing.as_mut().filter(|now| now.installed) else { return };
        if let Some(mut write) = installing.write.take() {
            installing.number = write.number;
            if let Some(later) = out.write.take() {
                write.append(later);
            }
            out.write = Some(write);
        }
    }

    /// Sends messages, or holds them back until all writes so far are durable.
    ///
    /// raft-rs lets a leader's messages go at once: its followers may be faster. That is right only when the term is durable,
    /// which raft-rs does not see to where one vote is enough (an only voter with learners). On the other side, an answer to a
    /// heartbeat speaks of nothing but the term, and a request that is passed on of nothing at all.
    fn route(&mut self, messages: Vec<Message>, when_durable: bool) {
        let term_is_durable = self.writes.iter().all(|write| !write.term);
        for mut message in messages {
            let id = self.options.id;
            if message.from != id {
                // Passed on for another node. The answer to a read would go astray, so let it be asked again.
                if message.msg_type != MessageType::MsgPropose {
                    continue;
                }
                message.from = id;
            }
            let at_once = match message.msg_type {
                MessageType::MsgPropose | MessageType::MsgReadIndex => true,
                MessageType::MsgHeartbeatResponse => term_is_durable,
                _ if when_durable => false,
                _ => term_is_durable,
            };
            // Serialising to memory cannot fail: the message has no required fields.
            let bytes = message.write_to_bytes().unwrap_or_default();
            let is_snapshot = message.msg_type == MessageType::MsgSnapshot;
            let outgoing = Outgoing { to: message.to, bytes, is_snapshot };
            match self.writes.back() {
                Some(write) if !at_once => self.held.push_back((write.number, outgoing)),
                _ => self.outbox.push(outgoing),
            }
        }
    }

    /// Gives out what is committed and was held back, as far as the owner keeps up with applying.
    fn give_committed(&mut self, out: &mut Ready) {
        while self.given < self.available && self.may_give() {
            let read = self.view.range(self.given + 1, self.available + 1, PIECE);
            match read {
                Ok(entries) if !entries.is_empty() => self.give(entries, out),
                // The failure is noted in the view.
                _ => return,
            }
        }
    }

    fn may_give(&self) -> bool {
        self.unapplied_bytes < self.options.max_unapplied_bytes
    }

    fn give(&mut self, entries: Vec<Entry>, out: &mut Ready) {
        for entry in entries {
            if !self.may_give() {
                return;
            }
            let bytes = entry.data.len() + entry.context.len() + 64;
            self.unapplied.push_back((entry.index, bytes));
            self.unapplied_bytes += bytes;
            self.given = entry.index;
            let committed = self.commit(entry);
            out.committed.push(committed);
        }
    }

    fn commit(&mut self, entry: Entry) -> Committed {
        let Position { index, term } = Position { index: entry.index, term: entry.term };
        if is_change(&entry) {
            let (change, taken) = self.change_membership(&entry);
            let conf_state = self.conf_state.clone();
            Committed::Membership { index, term, change, conf_state, taken }
        } else if entry.data.is_empty() {
            Committed::Empty { index, term }
        } else {
            Committed::Entry { index, term, data: entry.data }
        }
    }

    /// Lets a committed change take effect. Whether it can is the same on every node: it depends on the log alone.
    fn change_membership(&mut self, entry: &Entry) -> (MembershipChange, bool) {
        let Some(change) = decode_change(entry) else {
            return (MembershipChange { id: entry.context.to_vec(), ..Default::default() }, false);
        };
        let named = MembershipChange::from_raft(&entry.context, &change);
        let possible = change.changes.iter().all(|single| single.node_id != INVALID_ID);
        let changed = possible.then(|| self.raw.apply_conf_change(&change));
        let Some(Ok(after)) = changed else {
            return (named, false);
        };
        self.conf_state = ConfState::from_raft(&after);
        let raft = &mut self.raw.raft;
        if !self.conf_state.voters.contains(&raft.id) && raft.state != StateRole::Follower {
            // raft-rs goes on leading, and panics when the next entry is committed.
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
        self.settle();
        (named, true)
    }
}

impl Write {
    /// Makes one write of two that follow each other.
    fn append(&mut self, later: Write) {
        debug_assert!(later.reset.is_none() && later.number > self.number);
        self.number = later.number;
        self.hard_state = later.hard_state.or(self.hard_state.take());
        self.entries.extend(later.entries);
    }
}

fn decode_change(entry: &Entry) -> Option<ConfChangeV2> {
    // The older form is never proposed here.
    if entry.entry_type != EntryType::EntryConfChangeV2 {
        return None;
    }
    wire::check(&entry.data, Kind::ConfChange).ok()?;
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(&entry.data).ok()?;
    Some(change)
}
