//! Snapshots: offering them to peers, and taking them in.
//!
//! Coming in: an offer is held back; the owner fetches the data; only then raft-rs sees the offer, and the owner installs the data;
//! then the log begins anew. As long as the data is not there, this node goes on as it is.
//! Going out: raft-rs stops feeding a peer that it has sent a snapshot, until it hears how that went. Nothing depends on
//! anybody telling: after `Options::snapshot_retry_ticks` without progress it is offered again.

use raft::eraftpb::Message;
use raft::{INVALID_ID, ProgressState, SnapshotStatus, StateRole};

use super::Core;
use crate::{NodeId, Ready, SnapshotMeta, SnapshotStep, Write};

/// A snapshot that was offered to this node.
pub(super) struct Incoming {
    message: Message,
    meta: SnapshotMeta,
    told: bool,
    fetched: bool,
}

/// A snapshot that takes the place of state and log.
pub(super) struct Installing {
    pub meta: SnapshotMeta,
    /// What is to be written once the state is installed; gone when it was given out.
    pub write: Option<Write>,
    /// The number of that write.
    pub number: u64,
    /// The state is installed.
    pub installed: bool,
}

impl Core {
    /// Offers a snapshot to peers that need one, in place of the one before. It must contain what was applied up to its
    /// position, which must be durable here. Returns whether it is of any use: not if the log begins later.
    pub fn offer_snapshot(&mut self, meta: SnapshotMeta) -> bool {
        let applied = self.raw.raft.raft_log.applied;
        let mut inner = self.view.lock();
        let position = meta.position;
        let fits = position.index <= applied
            && inner.term(position.index) == Some(position.term)
            && meta.data.len() <= self.options.max_entry_bytes
            && meta.conf_state.problem().is_none();
        if fits {
            inner.offered = Some(meta);
            inner.snapshot_wanted = false;
            self.asked_for_snapshot = None;
        }
        fits
    }

    /// The snapshot that is offered to peers now, if any: its data is still needed.
    pub fn offered_snapshot(&self) -> Option<SnapshotMeta> {
        self.view.lock().offered.clone()
    }

    /// A peer is still fetching its snapshot: do not offer it another one yet.
    pub fn snapshot_progress(&mut self, to: NodeId) {
        if let Some(idle) = self.snapshot_idle.get_mut(&to) {
            *idle = 0;
        }
    }

    /// How sending a snapshot to a peer ended. If it failed, it will be offered again.
    pub fn report_snapshot(&mut self, to: NodeId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to, status);
        self.snapshot_idle.remove(&to);
    }

    pub(super) fn tick_snapshots(&mut self) {
        let retry = self.options.snapshot_retry_ticks.max(1);
        if let Some(ticks) = &mut self.asked_for_snapshot {
            *ticks += 1;
            if *ticks >= retry {
                self.asked_for_snapshot = None;
            }
        }
        let raft = &self.raw.raft;
        let leads = raft.state == StateRole::Leader;
        let mut receiving: Vec<NodeId> = raft
            .prs()
            .iter()
            .filter(|(_, progress)| leads && progress.state == ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        receiving.sort_unstable();
        self.snapshot_idle.retain(|id, _| receiving.contains(id));
        for id in receiving {
            let idle = self.snapshot_idle.entry(id).or_insert(0);
            *idle += 1;
            if *idle >= retry {
                self.report_snapshot(id, false);
            }
        }
    }

    /// An offer has arrived. Its content was checked.
    pub(super) fn hold_snapshot(&mut self, message: Message) {
        let meta = SnapshotMeta::from_raft(message.get_snapshot());
        let log = &self.raw.raft.raft_log;
        let position = meta.position;
        if position.index <= log.committed || log.match_term(position.index, position.term) {
            // Nothing needs to be fetched; raft-rs tells the leader how far this node is.
            let _ = self.raw.step(message);
            self.settle();
            return;
        }
        match &mut self.incoming {
            // What is here already is as good as what would have to be fetched first.
            Some(incoming) if incoming.fetched => {}
            Some(incoming) if incoming.meta == meta => incoming.message = message,
            Some(incoming)
                if incoming.meta.position.index > position.index
                    && incoming.message.term >= message.term => {}
            _ => self.incoming = Some(Incoming { message, meta, told: false, fetched: false }),
        }
    }

    /// The data of the offered snapshot is here, durable or not.
    pub fn snapshot_fetched(&mut self, meta: &SnapshotMeta) {
        if let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.meta == *meta) {
            incoming.fetched = true;
        }
    }

    /// The data of the offered snapshot could not be fetched. The leader will offer one again.
    pub fn snapshot_failed(&mut self, meta: &SnapshotMeta) {
        self.incoming.take_if(|incoming| incoming.meta == *meta);
    }

    /// Moves an incoming snapshot on.
    pub(super) fn move_snapshot(&mut self, out: &mut Ready) {
        let raft = &self.raw.raft;
        let leads = raft.state == StateRole::Leader;
        let (leader, term, committed) = (raft.leader_id, raft.term, raft.raft_log.committed);
        let follows = raft.state == StateRole::Follower && leader != INVALID_ID;
        let Some(incoming) = &mut self.incoming else { return };
        let overtaken = leads || incoming.meta.position.index <= committed;
        if (overtaken || incoming.fetched) && follows {
            let Some(mut incoming) = self.incoming.take() else { return };
            // What is committed stays committed: the data is as good under another leader, who gets the answer.
            incoming.message.term = term;
            incoming.message.from = leader;
            let _ = self.raw.step(incoming.message);
            self.settle();
            if self.raw.snap().is_none() {
                out.snapshot = Some(SnapshotStep::Cancel);
            }
        } else if overtaken {
            self.incoming = None;
            out.snapshot = Some(SnapshotStep::Cancel);
        } else if !incoming.told {
            incoming.told = true;
            let meta = incoming.meta.clone();
            out.snapshot = Some(SnapshotStep::Fetch { from: incoming.message.from, meta });
        }
    }

    /// The installed snapshot is durable in the state machine.
    pub fn installed(&mut self, meta: &SnapshotMeta) {
        if let Some(installing) = self.installing.as_mut().filter(|now| now.meta == *meta) {
            installing.installed = true;
        }
    }

    /// The log has begun anew, if the write that does it is persisted.
    pub(super) fn finish_installation(&mut self, persisted: u64) {
        let over = self.installing.take_if(|now| now.write.is_none() && now.number <= persisted);
        if let Some(installed) = over {
            self.raw.advance_apply_to(installed.meta.position.index);
        }
    }

    pub(super) fn ask_for_snapshot(&mut self, out: &mut Ready) {
        let wanted = std::mem::take(&mut self.view.lock().snapshot_wanted);
        if wanted && self.asked_for_snapshot.is_none() {
            self.asked_for_snapshot = Some(0);
            out.wants_snapshot = true;
        }
    }
}
