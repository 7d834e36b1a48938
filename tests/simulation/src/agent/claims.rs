//! Claims on agents: who has written to each directory, what snapshots were made of it, and that no attempt begins
//! with less than what ended before it.
//!
//! As in the real one, a directory is used as it is only if it is for the home that the coordinator means, and a
//! snapshot is made and told in one step with the end of an attempt.

use std::collections::BTreeSet;

use tenon_engine::AttemptId;
use tenon_engine::event::Status;
use tenon_engine::explain::TaskState;
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::claim_use::From;

use crate::oracle::Violation;
use crate::queue::{Micros, SECOND};
use crate::trace::hash_of;
use crate::world::{Phase, World};

/// The directory of a claim on an agent.
#[derive(Clone, Default)]
pub struct Directory {
    /// Which home of the claim it is.
    moves: u64,
    /// Who has written to it.
    written: BTreeSet<AttemptId>,
}

/// So long the store of snapshots is away, or not.
const WINDOW: Micros = 3 * SECOND / 2;

impl World {
    /// Whether the store of snapshots can be reached: a matter of the time and of nothing else, so that schedules
    /// without claims are as they would be without it.
    fn snapshots_are_there(&self) -> bool {
        let window = self.now() / WINDOW;
        self.phase != Phase::Chaos || !hash_of((window, self.settings.turn)).is_multiple_of(6)
    }

    /// Has the claims of an attempt as they are to be; otherwise it ends so.
    pub(super) fn make_claims(
        &mut self,
        agent: usize,
        attempt: &AttemptId,
        uses: &[proto::ClaimUse],
    ) -> Result<Option<proto::ended::Outcome>, Violation> {
        let infra = |reason: &str| {
            let (reason, message) = (format!("infra/{reason}"), "simulated".to_owned());
            Ok(Some(proto::ended::Outcome::Infra(proto::Infra { reason, message })))
        };
        for used in uses {
            let key = (used.owner.clone(), used.name.clone());
            let there = self.agents[agent].claims.get(&key);
            if there.is_none_or(|directory| directory.moves != used.moves) {
                let written = match &used.from {
                    Some(From::Empty(_)) => BTreeSet::new(),
                    Some(From::Snapshot(_)) if !self.snapshots_are_there() => {
                        return infra("workspace-restore");
                    }
                    Some(From::Snapshot(snapshot)) => match self.snapshots.get(snapshot) {
                        Some(written) => written.clone(),
                        None => {
                            let what = format!("{attempt} is to begin with unknown {snapshot}");
                            return Err(Violation::new("snapshots are kept", what));
                        }
                    },
                    Some(From::OnlyHere(_)) | None => return infra("workspace-lost"),
                };
                self.oracle.moved += u64::from(used.moves > 1);
                self.oracle.returned += u64::from(self.agents[agent].claims.contains_key(&key));
                let restored = matches!(used.from, Some(From::Snapshot(_)));
                self.oracle.restored += u64::from(restored);
                let directory = Directory { moves: used.moves, written };
                self.agents[agent].claims.insert(key.clone(), directory);
            }
            let written = self.agents[agent].claims[&key].written.clone();
            self.sees_what_ended(agent, attempt, &used.name, &written)?;
        }
        Ok(None)
    }

    /// What the coordinator knows to have run to its end, and has written, is there.
    fn sees_what_ended(
        &self,
        agent: usize,
        attempt: &AttemptId,
        claim: &str,
        written: &BTreeSet<AttemptId>,
    ) -> Result<(), Violation> {
        let remote = self.agents[agent].remote;
        let machine = remote.and_then(|(life, _)| self.machines.get(&life.0));
        let Some(running) = machine.and_then(|machine| machine.running.as_ref()) else {
            return Ok(());
        };
        let Some(explained) = running.coordinator.replica().engine().explain(attempt.run) else {
            return Ok(());
        };
        for it in explained.tasks.iter().flat_map(|task| &task.task_runs) {
            let ran = matches!(it.status, Some(Status::Succeeded | Status::Failed));
            let ended = AttemptId {
                run: attempt.run,
                task_run: it.task_run.clone(),
                attempt: it.attempt,
                placement: it.placement,
            };
            let wrote = self.oracle.wrote.contains(&(ended.clone(), claim.to_owned()));
            if it.state == TaskState::Ended && ran && wrote && !written.contains(&ended) {
                let what = format!(
                    "{attempt} begins on agent {agent} without what {ended} has written to {claim}"
                );
                return Err(Violation::new("a task sees what ended before it", what));
            }
        }
        Ok(())
    }

    /// A step of an attempt runs: it writes to its claims.
    pub(super) fn write_claims(&mut self, agent: usize, attempt: &AttemptId) {
        let Some(live) = self.agents[agent].live.get(attempt) else { return };
        for used in live.uses.clone() {
            let key = (used.owner, used.name.clone());
            if let Some(directory) = self.agents[agent].claims.get_mut(&key) {
                directory.written.insert(attempt.clone());
                self.oracle.wrote.insert((attempt.clone(), used.name));
            }
        }
    }

    /// An attempt has ended: its claims are saved.
    pub(super) fn save_claims(
        &mut self,
        agent: usize,
        attempt: &AttemptId,
        uses: &[proto::ClaimUse],
        outcome: &proto::ended::Outcome,
    ) -> Vec<proto::WorkspaceUse> {
        use proto::ended::Outcome;
        let mut told = Vec::new();
        let ran = matches!(outcome, Outcome::Ran(_) | Outcome::Stopped(_));
        for used in uses.iter().filter(|used| ran && used.save) {
            let key = (used.owner.clone(), used.name.clone());
            let mut it = proto::WorkspaceUse { claim: used.name.clone(), ..Default::default() };
            match self.agents[agent].claims.get(&key) {
                Some(directory) if self.snapshots_are_there() => {
                    let snapshot = format!("{:016x}", hash_of((attempt, &used.name)));
                    let written = directory.written.clone();
                    self.snapshots.insert(snapshot.clone(), written);
                    it.saved = Some(proto::Transfer { snapshot, ..Default::default() });
                }
                _ => it.message = "the store is away".to_owned(),
            }
            told.push(it);
        }
        told
    }

    /// After everything was put right, an operator cancels what waits for files that are lost for good.
    pub fn cancel_what_is_lost(&mut self) {
        use tenon_engine::command::CancelMode;
        use tenon_engine::work::Work;
        let leader = self.leader().and_then(|life| self.machines.get(&life.0)?.running.as_ref());
        let Some(leader) = leader else { return };
        let gone = |name: &str| self.agents.iter().any(|it| it.is_gone && it.name == name);
        let work = leader.coordinator.replica().engine().pending_work();
        let lost: BTreeSet<_> = work
            .into_iter()
            .filter_map(|work| match work {
                Work::Place { attempt, requirements, .. } if requirements.unsaved => {
                    let home = requirements.home.as_deref().unwrap_or_default();
                    let apart = requirements.apart.as_deref();
                    let is_lost = apart.is_some() || gone(home) || apart.is_some_and(gone);
                    is_lost.then_some(attempt.run)
                }
                _ => None,
            })
            .collect();
        for run in lost {
            if self.oracle.given_up.insert(run) {
                self.ask_for(crate::client::Ask::Cancel {
                    run,
                    mode: CancelMode::Cancelled,
                    now: true,
                });
            }
        }
    }
}
