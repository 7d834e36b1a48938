//! Applying: a committed command goes into the state, and what it leads to comes out.

use std::collections::BTreeMap;

use tenon_engine::event::Status;
use tenon_engine::work::Work;
use tenon_engine::{AttemptId, Claim, Event, Kind, Report, RunId, RunOutcome, Submission, Time};
use tenon_journal::bugs;

use super::index::Recent;
use super::lives::Life;
use super::ranges::Ranges;
use super::record::{KeyRecord, keys};
use super::{Configuration, Effects, Member, Replica, Reply, Retired, RunRecord};
use crate::command::{Command, IdempotencyKey};
use crate::error::{Error, Result};
use crate::{entry, history, masking};

impl Replica {
    /// Applies an entry. An error means that this member must not go on.
    pub fn apply(
        &mut self,
        index: u64,
        term: u64,
        data: &[u8],
        effects: &mut Effects,
    ) -> Result<()> {
        if index <= self.meta.applied && !bugs::is_on(bugs::Bug::ApplyTwice) {
            return Ok(());
        }
        if !data.is_empty() {
            let mut commands =
                entry::decode(data).map_err(|reason| Error::Undecodable { index, reason })?;
            if bugs::is_on(bugs::Bug::ApplyTwice) && std::mem::take(&mut self.restarted) {
                commands.extend(commands.clone());
            }
            for (id, command) in commands {
                let reply = self.command(index, term, command, effects)?;
                effects.replies.push((id, reply));
            }
        }
        self.applied(index, term, data.len());
        Ok(())
    }

    /// Applies a change of membership. A member that was added is known before it is in the
    /// configuration; one that was removed is forgotten.
    pub fn apply_membership(
        &mut self,
        index: u64,
        term: u64,
        configuration: Configuration,
        members: BTreeMap<u64, Member>,
    ) {
        if index <= self.meta.applied {
            return;
        }
        self.meta.members.extend(members);
        let known = |node: &u64| {
            let configuration = &configuration;
            [
                &configuration.voters,
                &configuration.learners,
                &configuration.voters_outgoing,
                &configuration.learners_next,
            ]
            .into_iter()
            .any(|ids| ids.contains(node))
        };
        self.meta.members.retain(|node, _| known(node));
        let newest = self.meta.members.keys().next_back().map_or(0, |node| *node);
        self.meta.next_node = self.meta.next_node.max(newest + 1);
        self.meta.configuration = configuration;
        self.note_members();
        self.applied(index, term, 64);
    }

    fn applied(&mut self, index: u64, term: u64, bytes: usize) {
        self.meta.applied = index;
        self.meta.term = term;
        self.unpersisted += bytes as u64 + 32;
    }

    fn command(
        &mut self,
        index: u64,
        term: u64,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply> {
        self.meta.last_time = self.meta.last_time.max(command.time());
        let mut time = self.meta.last_time;
        if bugs::is_on(bugs::Bug::NondeterministicApply) {
            // How much a member has persisted is its own affair.
            time = time.plus_millis(i64::try_from(self.persisted % 2).unwrap_or(0));
        }
        let run = match command {
            Command::Submit { submission, materials, key, .. } => {
                return self.submit(index, time, submission, &materials, key, effects);
            }
            Command::Place { attempt, agent, .. } => {
                let run = attempt.run;
                // It may have been on its way while the agent was given up, or while a claim that it needs
                // was used elsewhere.
                if self.is_up(&agent) {
                    let id = attempt.clone();
                    let place = tenon_engine::Command::Place { time, attempt, agent };
                    self.engine_command(index, place, effects)?;
                    if self.engine.agent_of(&id).is_none() {
                        effects.unplaced.push(id);
                    }
                } else {
                    effects.unplaced.push(attempt);
                }
                run
            }
            Command::Defer { attempt, reason, message, .. } => {
                let run = attempt.run;
                self.engine_command(
                    index,
                    tenon_engine::Command::Defer { time, attempt, reason, message },
                    effects,
                )?;
                run
            }
            Command::Agent { agent, incarnation, running, offer, lease_ms, term: led, .. } => {
                if led == term {
                    let life = Life { agent, incarnation, offer: *offer, lease_ms };
                    self.agent_is_up(index, time, life, &running, effects)?;
                }
                return Ok(Reply::Done { index });
            }
            Command::ChangeAgent { agent, change, .. } => {
                return Ok(self.change_agent(index, time, agent, change, effects));
            }
            Command::Report { agent, incarnation, number, attempt, report, .. } => {
                return self.report(
                    index,
                    time,
                    (agent, incarnation, number),
                    attempt,
                    report,
                    effects,
                );
            }
            Command::Skip { agent, incarnation, number, .. } => {
                self.take_number(agent, incarnation, number, effects);
                return Ok(Reply::Done { index });
            }
            Command::Lost { agent, incarnation, silent_ms, term: led, .. } => {
                if led == term {
                    let life = (agent, incarnation.as_str());
                    self.agent_is_lost(index, time, life, silent_ms, effects)?;
                }
                return Ok(Reply::Done { index });
            }
            Command::Cancel { run, mode, message, now, .. } => {
                if now {
                    effects.hurried.push(run);
                }
                self.engine_command(
                    index,
                    tenon_engine::Command::Cancel { time, run, mode, message },
                    effects,
                )?;
                run
            }
            Command::Release { run, .. } => {
                self.engine_command(index, tenon_engine::Command::Release { time, run }, effects)?;
                run
            }
            Command::Tick { .. } => {
                self.engine_command(index, tenon_engine::Command::Tick { time }, effects)?;
                return Ok(Reply::Done { index });
            }
            Command::Abandon { run, message, .. } => {
                self.engine_command(
                    index,
                    tenon_engine::Command::Abandon { time, run, message },
                    effects,
                )?;
                run
            }
            Command::Lead { node, name, term, .. } => {
                let event = self.engine.note(Kind::LeaderChange, time, |event| {
                    event.node = Some(name);
                    event.term = Some(term);
                });
                self.record(index, vec![event], effects)?;
                effects.leader = Some((node, term));
                return Ok(Reply::Done { index });
            }
            Command::Trust { change, .. } => {
                return Ok(Reply::Trust(self.change_trust(change, time)));
            }
            Command::Probe { .. } => return Ok(Reply::Done { index }),
            Command::Traced { next, .. } => {
                self.meta.traced = self.meta.traced.max(next);
                return Ok(Reply::Done { index });
            }
            Command::Move { node, url, .. } => {
                if let Some(member) = self.meta.members.get_mut(&node) {
                    member.url = url;
                    effects.members_changed = true;
                }
                return Ok(Reply::Done { index });
            }
            Command::NewNode { .. } => {
                let id = self.meta.next_node;
                self.meta.next_node += 1;
                return Ok(Reply::NewNode(id));
            }
        };
        Ok(if self.engine.contains(run) || effects.changed.contains(&run) {
            Reply::Done { index }
        } else if self.index.get(run)?.is_some() {
            Reply::Over(run)
        } else {
            Reply::NoSuchRun(run)
        })
    }

    fn submit(
        &mut self,
        index: u64,
        time: Time,
        submission: Box<Submission>,
        materials: &[u8],
        key: Option<IdempotencyKey>,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let run = submission.run_id;
        let summary = history::summary_of(&submission, time);
        if let Some(key) = key {
            let id = keys::idempotency(&summary.namespace, &key.key);
            if let Some(known) = self.key(&id)? {
                return Ok(if known.request == key.request {
                    Reply::Submitted { run: known.run, existing: true }
                } else {
                    Reply::KeyConflict { run: known.run }
                });
            }
            self.keys.insert(id, KeyRecord { run, request: key.request });
        }
        if self.index.get(run)?.is_some() {
            return Ok(Reply::Submitted { run, existing: true });
        }
        if bugs::is_on(bugs::Bug::DropAcknowledged) && index.is_multiple_of(4) {
            return Ok(Reply::Submitted { run, existing: false });
        }
        let record = RunRecord {
            submission: self.recorder.begin(&submission, time, materials)?,
            changed: index,
            objects: None,
            rerun_of: submission.rerun.as_ref().map(|rerun| rerun.of),
            labels: history::labels_of(&submission),
            homes: BTreeMap::new(),
            last_seq: 0,
            summary,
        };
        let materials = materials.into();
        let recent = Recent { record, ranges: Ranges::default(), materials, over: false };
        self.index.recent().insert(run, recent);
        self.engine_command(index, tenon_engine::Command::Submit { time, submission }, effects)?;
        Ok(Reply::Submitted { run, existing: false })
    }

    fn report(
        &mut self,
        index: u64,
        time: Time,
        (agent, incarnation, number): (String, String, u64),
        attempt: AttemptId,
        mut report: Report,
        effects: &mut Effects,
    ) -> Result<Reply> {
        // Its number is used up, whatever it says.
        if bugs::is_on(bugs::Bug::OldSnapshot) {
            self.keep_old_snapshots(attempt.run, &mut report);
        }
        let forged = self.engine.agent_of(&attempt).is_some_and(|placed_on| placed_on != agent);
        self.see_drained(&agent, time, &mut report);
        let teller = forged.then(|| agent.clone());
        let next = self.take_number(agent, incarnation, number, effects);
        if forged {
            effects.forged.extend(teller.filter(|_| next).map(|teller| (teller, attempt)));
            return Ok(Reply::Done { index });
        }
        if next || bugs::is_on(bugs::Bug::ApplyTwice) {
            self.engine_command(
                index,
                tenon_engine::Command::Report { time, attempt, report },
                effects,
            )?;
        }
        Ok(Reply::Done { index })
    }

    /// Whether a report is the next one of its agent; acknowledges what is applied. One that was
    /// applied before is a repetition; one that leaves a gap has overtaken another, and comes again
    /// after it; one of a former life is nobody's any more.
    fn take_number(
        &mut self,
        agent: String,
        incarnation: String,
        number: u64,
        effects: &mut Effects,
    ) -> bool {
        let numbers = self.meta.agents.get_mut(&agent);
        let Some(numbers) = numbers.filter(|numbers| numbers.incarnation == incarnation) else {
            return false;
        };
        let next = number == numbers.last + 1;
        if next {
            numbers.last = number;
            numbers.seen = self.meta.last_time;
        }
        effects.reports.push((agent, incarnation, numbers.last));
        next
    }

    /// A deliberate bug: the first snapshot of a claim stays the newest.
    fn keep_old_snapshots(&self, run: RunId, report: &mut Report) {
        let Report::Ended { workspaces, .. } = report else { return };
        for used in workspaces {
            let is_it = |name: &str| name.rsplit('/').next() == Some(used.claim.as_str());
            let claim = self.engine.claims(run).find(|(name, _)| is_it(name));
            let old = claim.and_then(|(_, claim)| claim.snapshot());
            if let (Some(old), Some(saved)) = (old, &mut used.saved) {
                old.clone_into(&mut saved.snapshot);
            }
        }
    }

    fn key(&self, id: &[u8]) -> Result<Option<KeyRecord>> {
        if let Some(known) = self.keys.get(id) {
            return Ok(Some(known.clone()));
        }
        let Some(bytes) = self.store.get(id)? else { return Ok(None) };
        let record: KeyRecord =
            serde_json::from_slice(&bytes).map_err(|error| Error::Record(error.to_string()))?;
        Ok(Some(record))
    }

    pub(super) fn engine_command(
        &mut self,
        index: u64,
        command: tenon_engine::Command,
        effects: &mut Effects,
    ) -> Result<()> {
        let events = self.engine.apply(command);
        self.record(index, events, effects)?;
        effects.moved.append(&mut self.engine.take_moved());
        let changed = self.engine.take_changed();
        for run in &changed {
            self.dirty.insert(*run);
            if let Some(outcome) = self.engine.outcome(*run) {
                self.retire(*run, outcome, effects)?;
            }
        }
        effects.changed.extend(changed);
        Ok(())
    }

    /// Takes events into the history and into the summaries of their runs.
    pub(super) fn record(
        &mut self,
        index: u64,
        events: Vec<Event>,
        effects: &mut Effects,
    ) -> Result<()> {
        for mut event in events {
            masking::show_event(&mut event);
            let at = self.recorder.event(&event)?;
            effects.events += 1;
            let Some(run) = event.run_id else { continue };
            if let Some(recent) = self.index.recent().get_mut(&run) {
                recent.record.summary.observe(&event);
                recent.record.changed = index;
                recent.record.last_seq = last_seq(&event);
                recent.ranges.push(at);
            }
        }
        self.meta.next_seq = self.engine.next_seq();
        Ok(())
    }

    /// A run is over: it leaves the engine, and its objects go into the history.
    fn retire(&mut self, run: RunId, outcome: RunOutcome, effects: &mut Effects) -> Result<()> {
        let objects = self.engine.objects(run);
        let homes: BTreeMap<String, Claim> =
            self.engine.claims(run).map(|(name, claim)| (name.to_owned(), claim.clone())).collect();
        let agents = self.engine.pending_work_of(run).into_iter().find_map(|work| match work {
            Work::EndRun { agents, .. } => Some(agents),
            _ => None,
        });
        let keep_claims = outcome.status != Status::Succeeded && !homes.is_empty();
        let at = self.recorder.finish(run, &outcome, &objects)?;
        if let Some(recent) = self.index.recent().get_mut(&run) {
            recent.record.objects = Some(at);
            recent.record.homes = homes;
            if outcome.rejected {
                recent.record.summary.exit_code = Some(4);
            }
            recent.over = true;
        }
        self.engine.remove(run);
        let agents = agents.unwrap_or_default();
        effects.retired.push(Retired { run, outcome, objects, agents, keep_claims });
        Ok(())
    }
}

/// `seq` of the last line of an event.
fn last_seq(event: &Event) -> u64 {
    event.seq + event.output.as_ref().map_or(0, |output| u64::from(output.lines.max(1)) - 1)
}
