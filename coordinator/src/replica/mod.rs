//! One member's copy of the replicated state: committed entries go in, in order; events, answers and
//! finished runs come out.
//!
//! Applying is a pure function of the state and the entry (invariant 2), and touches no disk but to
//! append to the event log. At a *persist point* the event log is synced, then one atomic batch
//! brings the store from one applied index to the next, then the store is synced; only then may the
//! log be compacted up to there. After a crash the log is applied again from the stored index.

mod index;
mod meta;
pub(crate) mod ranges;
mod record;
pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use tenon_engine::event::Status;
use tenon_engine::report::Outcome;
use tenon_engine::work::Work;
use tenon_engine::{AttemptId, Engine, Event, Kind, Report, RunId, RunOutcome, Submission, Time};
use tenon_journal::bugs;
use tenon_store::{Batch, Store};
use tenon_tekton::Object;

pub use index::RunIndex;
pub use meta::{AgentNumbers, ClusterId, Configuration, Member, Meta};
pub use record::RunRecord;

use crate::command::{Command, IdempotencyKey};
use crate::entry::{self, RequestId};
use crate::error::{Error, Result};
use crate::recorder::Recorder;
use crate::{history, masking};
use index::Recent;
use ranges::Ranges;
use record::{KeyRecord, keys};

/// What somebody asked for led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A submission: its run.
    Submitted {
        /// The run.
        run: RunId,
        /// It was there already, started by an earlier submission with the same key.
        existing: bool,
    },
    /// Another request has used the idempotency key.
    KeyConflict {
        /// The run that it started.
        run: RunId,
    },
    /// It is done, or there was nothing to do.
    Done {
        /// Log index of the command.
        index: u64,
    },
    /// There is no such run.
    NoSuchRun(RunId),
    /// The run is over: there was nothing to do.
    Over(RunId),
    /// The id of a new node.
    NewNode(u64),
}

/// A run that is over and has left the engine.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Which run.
    pub run: RunId,
    /// How it ended.
    pub outcome: RunOutcome,
    /// The run object, then its TaskRuns and CustomRuns, with placeholders of secret values: not yet
    /// as people may see them ([`crate::history`]).
    pub objects: Vec<Object>,
    /// The agents that still hold something of it.
    pub agents: BTreeSet<String>,
    /// Whether its claims are worth keeping: another run may go on with them.
    pub keep_claims: bool,
}

/// What applying led to, besides the state.
#[derive(Debug, Default)]
pub struct Effects {
    /// Answers to proposals of any member.
    pub replies: Vec<(RequestId, Reply)>,
    /// Runs in which something has changed.
    pub changed: BTreeSet<RunId>,
    /// Runs that are to be killed, not asked to end.
    pub hurried: Vec<RunId>,
    /// Runs that are over.
    pub retired: Vec<Retired>,
    /// Reports that are applied: agent, its life, and the number.
    pub reports: Vec<(String, String, u64)>,
    /// Lives of agents that are known from here on: agent and life.
    pub agents: Vec<(String, String)>,
    /// The member that leads from here on, and its term.
    pub leader: Option<(u64, u64)>,
    /// Events that were recorded.
    pub events: u64,
    /// The members, or where they are reached, have changed.
    pub members_changed: bool,
}

/// One member's copy of the state.
pub struct Replica {
    meta: Meta,
    engine: Engine,
    index: RunIndex,
    store: Arc<dyn Store>,
    recorder: Recorder,
    /// Idempotency keys that the store does not have yet.
    keys: BTreeMap<Vec<u8>, KeyRecord>,
    /// Runs that differ from what the store has.
    dirty: BTreeSet<RunId>,
    unpersisted: u64,
    persisted: u64,
    /// Nothing was applied since the start.
    restarted: bool,
}

impl Replica {
    /// The state that is in the store; of a new node, nothing. `record` makes the recorder for a
    /// state whose next record has this index.
    pub fn open(
        store: Arc<dyn Store>,
        record: impl FnOnce(u64) -> Result<Recorder>,
    ) -> Result<Replica> {
        let mut meta = Meta { next_seq: 1, next_record: 1, next_node: 1, ..Meta::default() };
        if let Some(bytes) = store.get(keys::META)? {
            meta =
                serde_json::from_slice(&bytes).map_err(|error| Error::Record(error.to_string()))?;
        }
        let recorder = record(meta.next_record)?;
        let mut replica = Replica {
            engine: Engine::new(),
            index: RunIndex::new(store.clone()),
            store,
            recorder,
            keys: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unpersisted: 0,
            persisted: meta.applied,
            restarted: true,
            meta,
        };
        replica.load_runs()?;
        Ok(replica)
    }

    /// Brings the runs that go on back into the engine.
    fn load_runs(&mut self) -> Result<()> {
        self.engine = Engine::starting_at(self.meta.next_seq);
        self.index.recent().clear();
        let mut packed = Vec::new();
        let prefix = keys::ENGINE.as_bytes().to_vec();
        let range = (Bound::Included(prefix), Bound::Excluded(b"engine0".to_vec()));
        self.store.scan(range, false, &mut |key, value| {
            packed.extend(keys::parse(key, keys::ENGINE).map(|run| (run, value.to_vec())));
            ControlFlow::Continue(())
        })?;
        for (run, packed) in packed {
            let damaged = |what: &str| Error::Record(format!("{what} of run {run} is damaged"));
            let state = zstd::decode_all(packed.as_slice()).map_err(|_| damaged("the state"))?;
            self.engine.import(&state).map_err(|error| Error::Record(error.to_string()))?;
            let record = self.index.get(run)?.ok_or_else(|| damaged("the record"))?;
            let ranges = self.store.get(&keys::ranges(run))?;
            let ranges = ranges.as_deref().and_then(Ranges::decode);
            let materials = self.store.get(&keys::materials(run))?.unwrap_or_default();
            let recent = Recent {
                record,
                ranges: ranges.ok_or_else(|| damaged("the ranges"))?,
                materials: materials.into(),
                over: false,
            };
            self.index.recent().insert(run, recent);
        }
        // What was loaded is what the store has.
        self.engine.take_changed();
        Ok(())
    }

    /// Makes a new node the first member of a new cluster: what every member begins with.
    pub fn bootstrap(&mut self, cluster: &str, node: u64, member: Member) -> Result<()> {
        self.meta.cluster = cluster.to_owned();
        self.meta.applied = 1;
        self.meta.term = 1;
        self.meta.configuration = Configuration { voters: vec![node], ..Configuration::default() };
        self.meta.members = BTreeMap::from([(node, member)]);
        self.meta.next_node = node + 1;
        self.persist()
    }

    /// Makes the state that of a new cluster with one member: after a restore or a rescue.
    pub fn found_anew(
        &mut self,
        cluster: &str,
        node: u64,
        member: Member,
        configuration: Configuration,
    ) -> Result<()> {
        self.meta.cluster = cluster.to_owned();
        self.meta.configuration = configuration;
        self.meta.members = BTreeMap::from([(node, member)]);
        self.meta.next_node = node + 1;
        self.persisted = 0;
        self.persist()
    }

    /// The state besides the runs.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The runs that go on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// All runs, for readers.
    pub fn index(&self) -> &RunIndex {
        &self.index
    }

    /// Where events go.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// The sealed materials of a run that goes on.
    pub fn materials(&self, run: RunId) -> Option<Arc<[u8]>> {
        self.index.recent().get(&run).map(|recent| recent.materials.clone())
    }

    /// The index that the store has; the log may be compacted up to here.
    pub fn persisted(&self) -> u64 {
        self.persisted
    }

    /// Bytes of entries that were applied since the last persist point.
    pub fn unpersisted(&self) -> u64 {
        self.unpersisted
    }

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
                self.engine_command(
                    index,
                    tenon_engine::Command::Place { time, attempt, agent },
                    effects,
                )?;
                run
            }
            Command::Defer { attempt, message, .. } => {
                let run = attempt.run;
                let reason = "infra/no-agent".to_owned();
                self.engine_command(
                    index,
                    tenon_engine::Command::Defer { time, attempt, reason, message },
                    effects,
                )?;
                run
            }
            Command::Agent { agent, incarnation, running, term: led, .. } => {
                if led == term {
                    self.agent(index, time, agent, incarnation, &running, effects)?;
                }
                return Ok(Reply::Done { index });
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
                self.take_number(&agent, &incarnation, number);
                effects.reports.push((agent, incarnation, number));
                return Ok(Reply::Done { index });
            }
            Command::Lost { attempt, report, .. } => {
                let run = attempt.run;
                self.engine_command(
                    index,
                    tenon_engine::Command::Report { time, attempt, report },
                    effects,
                )?;
                run
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
            Command::Probe { .. } => return Ok(Reply::Done { index }),
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

    /// A life of an agent is the current one from here on. In one step with that, what it does not
    /// run is lost: a placement that was told to it before would otherwise live beside the next one.
    fn agent(
        &mut self,
        index: u64,
        time: Time,
        agent: String,
        incarnation: String,
        running: &[AttemptId],
        effects: &mut Effects,
    ) -> Result<()> {
        let known = self.meta.agents.get(&agent);
        if known.is_none_or(|known| known.incarnation != incarnation) {
            let placed = self.engine.placed();
            let lost: Vec<AttemptId> = placed
                .filter(|(attempt, at)| *at == agent && !running.contains(attempt))
                .map(|(attempt, _)| attempt)
                .collect();
            for attempt in lost {
                let outcome = Outcome::Infra {
                    reason: "infra/agent-restarted".to_owned(),
                    message: format!("agent {agent} was restarted and lost what it ran"),
                };
                let report = Report::Ended { time, outcome };
                let lost = tenon_engine::Command::Report { time, attempt, report };
                self.engine_command(index, lost, effects)?;
            }
            let numbers = AgentNumbers { incarnation: incarnation.clone(), last: 0 };
            self.meta.agents.insert(agent.clone(), numbers);
        }
        effects.agents.push((agent, incarnation));
        Ok(())
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
        report: Report,
        effects: &mut Effects,
    ) -> Result<Reply> {
        if self.take_number(&agent, &incarnation, number) || bugs::is_on(bugs::Bug::ApplyTwice) {
            self.engine_command(
                index,
                tenon_engine::Command::Report { time, attempt, report },
                effects,
            )?;
        }
        let last = self.meta.agents.get(&agent).map_or(0, |numbers| numbers.last);
        effects.reports.push((agent, incarnation, last));
        Ok(Reply::Done { index })
    }

    /// Whether a report is the next one of its agent. One that was applied before is a repetition;
    /// one that leaves a gap has overtaken another, and comes again after it.
    fn take_number(&mut self, agent: &str, incarnation: &str, number: u64) -> bool {
        let Some(numbers) = self.meta.agents.get_mut(agent) else { return false };
        let next = numbers.incarnation == incarnation && number == numbers.last + 1;
        if next {
            numbers.last = number;
        }
        next
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

    fn engine_command(
        &mut self,
        index: u64,
        command: tenon_engine::Command,
        effects: &mut Effects,
    ) -> Result<()> {
        let events = self.engine.apply(command);
        self.record(index, events, effects)?;
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
    fn record(&mut self, index: u64, events: Vec<Event>, effects: &mut Effects) -> Result<()> {
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
        let homes: BTreeMap<String, String> = self
            .engine
            .claim_homes(run)
            .map(|(claim, agent)| (claim.to_owned(), agent.to_owned()))
            .collect();
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

    /// Shows what was applied to readers of the history.
    pub fn publish(&mut self) -> Result<()> {
        self.recorder.publish()
    }

    /// A persist point: what is applied becomes what a restart begins with.
    pub fn persist(&mut self) -> Result<()> {
        if self.persisted == self.meta.applied {
            return Ok(());
        }
        self.recorder.sync()?;
        self.meta.next_record = self.recorder.next();
        let mut batch = Batch::default();
        let mut over = Vec::new();
        let recent = self.index.recent();
        for run in &self.dirty {
            let Some(state) = recent.get(run) else { continue };
            batch.put(keys::run(*run), json(&state.record));
            batch.put(keys::ranges(*run), state.ranges.encode());
            match self.engine.export(*run) {
                Some(exported) => {
                    batch.put(keys::engine(*run), pack(&exported));
                    if !state.materials.is_empty() {
                        batch.put(keys::materials(*run), state.materials.to_vec());
                    }
                }
                None => {
                    batch.delete(keys::engine(*run));
                    batch.delete(keys::materials(*run));
                }
            }
            over.extend(state.over.then_some(*run));
        }
        drop(recent);
        for (id, record) in &self.keys {
            batch.put(id.clone(), json(record));
        }
        batch.put(keys::META.to_vec(), json(&self.meta));
        self.store.write(batch)?;
        if !bugs::is_on(bugs::Bug::SkipStateSync) {
            self.store.sync()?;
        }
        let mut recent = self.index.recent();
        for run in over {
            recent.remove(&run);
        }
        drop(recent);
        self.keys.clear();
        self.dirty.clear();
        self.unpersisted = 0;
        self.persisted = self.meta.applied;
        Ok(())
    }
}

/// `seq` of the last line of an event.
fn last_seq(event: &Event) -> u64 {
    event.seq + event.output.as_ref().map_or(0, |output| u64::from(output.lines.max(1)) - 1)
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a record has string keys only, so it is always valid JSON")
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1)
        .expect("zstd compresses any bytes into a buffer that it sizes itself")
}
