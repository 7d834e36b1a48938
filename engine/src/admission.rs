//! Who may begin: runs of a concurrency group, as many at a time as the group's limit allows.
//!
//! What a run says about its group is its own: with its own limit and policy it is let in, held back,
//! or refused. Who waits is let in, by priority and age, as soon as there is room for it.

use crate::command::{CancelMode, Submission};
use crate::groups::{Group, GroupId};
use crate::log::Log;
use crate::policy::{Membership, OnConflict};
use crate::run::Run;
use crate::{Engine, RunId, Time};

/// At most so many runs are named.
const NAMED: usize = 3;

/// What becomes of a run that wants to begin.
pub(crate) enum Admission {
    /// It begins.
    Begins,
    /// It waits, because of this.
    Waits(String),
    /// It is refused, because of this.
    Refused(String),
}

impl Engine {
    /// Decides about a new run. One that takes the place of others has them cancelled here.
    pub(crate) fn admission(
        &mut self,
        now: Time,
        log: &mut Log,
        submission: &Submission,
    ) -> Admission {
        match Run::membership_of(submission) {
            Some((id, membership)) => {
                let name = submission.run.name();
                self.admit(now, log, &id, &membership, name)
            }
            None => Admission::Begins,
        }
    }

    fn admit(
        &mut self,
        now: Time,
        log: &mut Log,
        id: &GroupId,
        membership: &Membership,
        name: &str,
    ) -> Admission {
        let Some(group) = self.groups.get(id) else { return Admission::Begins };
        if group.waiting.is_empty() && has_room(group, membership.limit) {
            return Admission::Begins;
        }
        let message = self.waits_in_group(id, group, group.waiting.len());
        match membership.policy {
            OnConflict::Reject => return Admission::Refused(message),
            OnConflict::Queue => return Admission::Waits(message),
            OnConflict::CancelRunning => {}
        }
        let (running, waiting) = (group.running.len(), group.waiting.iter().map(|(_, run)| *run));
        let limit = usize::try_from(membership.limit).unwrap_or(usize::MAX);
        let too_many = (running + 1).saturating_sub(limit);
        let oldest = group.running.iter().take(too_many).copied();
        let superseded: Vec<RunId> = waiting.chain(oldest).collect();
        let why = format!("superseded by run {name} of the same concurrency group {:?}", id.1);
        for run in superseded {
            self.change(run, now, |run, now| {
                run.cancel(now, log, CancelMode::CancelledRunFinally, &why);
            });
        }
        match self.groups.get(id) {
            Some(group) if !has_room(group, membership.limit) => Admission::Waits(message),
            _ => Admission::Begins,
        }
    }

    /// A pending run wants to begin.
    pub(crate) fn release(&mut self, id: RunId, now: Time, log: &mut Log) {
        let Some(held) = self.runs.get(&id).and_then(Run::pending) else { return };
        let membership = Run::membership_when_released(held);
        let admission = match membership {
            Some((group, membership)) => {
                let name = held.run.name().to_owned();
                self.admit(now, log, &group, &membership, &name)
            }
            None => Admission::Begins,
        };
        self.change(id, now, |run, now| run.release(now, log, admission));
    }

    /// Lets in who waits, where there is room.
    pub(crate) fn admit_waiting(&mut self, now: Time, log: &mut Log) {
        while let Some(id) = self.loosened.pop_first() {
            while let Some(group) = self.groups.get(&id) {
                let Some((_, next)) = group.waiting.first().copied() else { break };
                let limit = self.runs.get(&next).map_or(1, Run::group_limit);
                if !has_room(group, limit) {
                    break;
                }
                self.change(next, now, |run, now| run.begin_held(now, log));
            }
        }
    }

    /// `concurrency group "deploy" is full: 1 runs at a time (deploy-7), 2 wait before it`.
    pub(crate) fn waits_in_group(&self, id: &GroupId, group: &Group, ahead: usize) -> String {
        let names = group.running.iter().filter_map(|run| self.runs.get(run));
        let mut names: Vec<&str> = names.map(|run| run.name.as_str()).take(NAMED + 1).collect();
        if names.len() > NAMED {
            names[NAMED] = "…";
        }
        let (running, names) = (group.running.len(), names.join(", "));
        let before = match ahead {
            0 => String::new(),
            1 => ", 1 waits before it".to_owned(),
            ahead => format!(", {ahead} wait before it"),
        };
        let run = if running == 1 { "runs" } else { "run" };
        format!("concurrency group {:?} is full: {running} {run} ({names}){before}", id.1)
    }
}

fn has_room(group: &Group, limit: u32) -> bool {
    group.running.len() < usize::try_from(limit).unwrap_or(usize::MAX)
}
