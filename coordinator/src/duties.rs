//! What the leader does for the runs: place attempts, tell agents to start and to stop, hand over
//! what a pod needs.
//!
//! Every duty is derived from the engine's pending work, for the runs in which something has changed;
//! a new leader looks at all of them. What was said to an agent is remembered per session only to say
//! it once: losing it would repeat messages, not work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenon_engine::plan::{self, Snapshot, Waiting};
use tenon_engine::work::Work;
use tenon_engine::{AttemptId, Engine, Report, RunId, Time};
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::{CoordinatorMessage, EndRun, Hello, RunSpec, Stop, TaskInvocation};

use crate::masking::Secrets;
use crate::materials::Materials;
use crate::wire;

/// An agent's session, as the driver knows it.
pub type SessionId = u64;

/// How many waiting attempts are looked at in the first round, for each free slot.
const LOOK_AHEAD: usize = 4;
/// An attempt has to wait so long before an event says why, in milliseconds.
const WORTH_SAYING_MS: i64 = 2_000;
/// So long until another event may say that the reason has changed, in milliseconds.
const SAY_AGAIN_MS: i64 = 10_000;
/// Between looks at what waits, in milliseconds.
const DEFERRALS_MS: i64 = 1_000;
/// At most so many attempts are spoken about at a time.
const DEFERRALS: usize = 100;

/// The leader's knowledge besides the engine's state.
#[derive(Default)]
pub(crate) struct Duties {
    grace_ms: u64,
    /// An agent of one process is all there is: labels are not asked for.
    any_agent: bool,
    sessions: BTreeMap<String, Session>,
    kept: BTreeMap<RunId, Kept>,
    hurried: BTreeSet<RunId>,
    /// Runs to look at.
    changed: BTreeSet<RunId>,
    waiting: BTreeMap<RunId, Vec<Waiting>>,
    /// Placements that were proposed and are not applied yet.
    placing: BTreeMap<AttemptId, String>,
    /// Capacity or demand has changed since the last plan.
    plan_due: bool,
    /// Attempts that wait, and what was said about it.
    deferred: BTreeMap<AttemptId, Deferred>,
    next_deferral: Time,
}

/// An attempt that waits for an agent.
struct Deferred {
    since: Time,
    /// When and why, if it was said.
    said: Option<(Time, String)>,
}

struct Session {
    id: SessionId,
    hello: Hello,
    /// Every member knows of this life of the agent, and has given up what an earlier one ran. Before
    /// that the agent is given nothing.
    admitted: bool,
    prepared: BTreeSet<RunId>,
    started: BTreeSet<AttemptId>,
    stopped: BTreeSet<AttemptId>,
}

struct Kept {
    materials: Materials,
    secrets: Secrets,
}

impl Duties {
    pub(crate) fn new(grace_ms: u64, any_agent: bool) -> Duties {
        Duties { grace_ms, any_agent, ..Duties::default() }
    }

    /// Leadership begins: everything that goes on is looked at.
    pub(crate) fn begin(&mut self, engine: &Engine) {
        self.changed.extend(engine.runs());
        self.plan_due = true;
    }

    /// Leadership is over; returns the sessions that have to end.
    pub(crate) fn end(&mut self) -> Vec<SessionId> {
        let sessions = std::mem::take(&mut self.sessions);
        *self = Duties::new(self.grace_ms, self.any_agent);
        sessions.into_values().map(|session| session.id).collect()
    }

    /// A session begins. Returns the one that it takes the place of.
    pub(crate) fn attach(
        &mut self,
        id: SessionId,
        hello: Hello,
        admitted: bool,
        engine: &Engine,
    ) -> Option<SessionId> {
        if admitted {
            self.look_at_runs_on(&hello.name, engine);
        }
        let session = Session {
            id,
            admitted,
            prepared: BTreeSet::new(),
            started: BTreeSet::new(),
            stopped: BTreeSet::new(),
            hello,
        };
        let before = self.sessions.insert(session.hello.name.clone(), session);
        before.map(|session| session.id)
    }

    /// This life of an agent is the current one on every member.
    pub(crate) fn admit(&mut self, agent: &str, incarnation: &str, engine: &Engine) {
        let Some(session) = self.sessions.get_mut(agent) else { return };
        if session.hello.incarnation == incarnation && !session.admitted {
            session.admitted = true;
            self.look_at_runs_on(agent, engine);
        }
    }

    fn look_at_runs_on(&mut self, agent: &str, engine: &Engine) {
        let here = engine.placed().filter(|(_, at)| *at == agent);
        self.changed.extend(here.map(|(attempt, _)| attempt.run));
        self.plan_due = true;
    }

    /// A session is over.
    pub(crate) fn detach(&mut self, id: SessionId) {
        self.sessions.retain(|_, session| session.id != id);
    }

    /// The agent of a session.
    pub(crate) fn agent(&self, id: SessionId) -> Option<&Hello> {
        self.sessions.values().find(|session| session.id == id).map(|session| &session.hello)
    }

    /// The session of an agent, if it has one.
    pub(crate) fn session(&self, agent: &str) -> Option<SessionId> {
        self.sessions.get(agent).map(|session| session.id)
    }

    /// The agents in contact.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Hello> {
        self.sessions.values().map(|session| &session.hello)
    }

    /// From now on attempts of the run that are to stop get no grace; those that were told to stop
    /// are told again.
    pub(crate) fn hurry(&mut self, run: RunId) {
        self.hurried.insert(run);
        self.changed.insert(run);
        for session in self.sessions.values_mut() {
            session.stopped.retain(|attempt| attempt.run != run);
        }
    }

    /// Something has changed in these runs.
    pub(crate) fn look_at(&mut self, runs: impl IntoIterator<Item = RunId>) {
        self.changed.extend(runs);
    }

    /// A run is over: tells the agents that hold something of it, and drops what is known.
    pub(crate) fn retire(
        &mut self,
        run: RunId,
        agents: &BTreeSet<String>,
        keep_claims: bool,
        out: &mut Vec<(SessionId, CoordinatorMessage)>,
    ) {
        self.kept.remove(&run);
        self.hurried.remove(&run);
        self.waiting.remove(&run);
        self.placing.retain(|attempt, _| attempt.run != run);
        self.plan_due = true;
        for (name, session) in &mut self.sessions {
            session.prepared.remove(&run);
            session.started.retain(|attempt| attempt.run != run);
            session.stopped.retain(|attempt| attempt.run != run);
            if agents.contains(name) {
                let end = EndRun { run_id: run.to_string(), keep_claims };
                out.push((session.id, message(Message::EndRun(end))));
            }
        }
    }

    /// Keeps what a run needs besides its spec while this member leads.
    pub(crate) fn keep(&mut self, run: RunId, materials: Materials) {
        let secrets = Secrets::new(materials.values_to_mask());
        self.kept.insert(run, Kept { materials, secrets });
    }

    /// Whether the materials of the run are at hand.
    pub(crate) fn keeps(&self, run: RunId) -> bool {
        self.kept.contains_key(&run)
    }

    /// Hides the run's secret values in a report, before anything stores it.
    pub(crate) fn hide_secrets(&self, run: RunId, report: &mut Report) {
        if let Some(kept) = self.kept.get(&run) {
            kept.secrets.hide(report);
        }
    }

    /// The runs that were changed and not looked at yet.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.changed)
    }

    /// Looks at what remains to be done for a run: messages that were not said yet, and attempts
    /// that wait for an agent.
    pub(crate) fn work(
        &mut self,
        engine: &Engine,
        run: RunId,
        out: &mut Vec<(SessionId, CoordinatorMessage)>,
    ) {
        let mut waiting = Vec::new();
        for work in engine.pending_work_of(run) {
            match work {
                Work::Place { attempt, mut requirements } => {
                    if self.any_agent {
                        // To wait for an agent with the right labels would be to wait for ever.
                        let requirements = Arc::make_mut(&mut requirements);
                        requirements.node_selector.clear();
                        requirements.home = None;
                    }
                    waiting.push(Waiting { attempt, requirements });
                }
                Work::Start { attempt, agent } => {
                    self.placing.remove(&attempt);
                    self.start(engine, attempt, &agent, out);
                }
                Work::Stop { attempt, agent, reason } => {
                    self.placing.remove(&attempt);
                    let hurry = self.hurried.contains(&run);
                    let session = self.sessions.get_mut(&agent);
                    let Some(session) = session.filter(|session| session.admitted) else {
                        continue;
                    };
                    if session.stopped.insert(attempt.clone()) {
                        let stop = Stop {
                            attempt: Some(wire::attempt_to_wire(&attempt)),
                            reason: reason.as_str().to_owned(),
                            grace_ms: if hurry { 0 } else { self.grace_ms },
                        };
                        out.push((session.id, message(Message::Stop(stop))));
                    }
                }
                Work::EndRun { .. } => {}
            }
        }
        self.plan_due = true;
        if waiting.is_empty() {
            self.waiting.remove(&run);
        } else {
            self.waiting.insert(run, waiting);
        }
    }

    fn start(
        &mut self,
        engine: &Engine,
        attempt: AttemptId,
        agent: &str,
        out: &mut Vec<(SessionId, CoordinatorMessage)>,
    ) {
        let Some(session) = self.sessions.get(agent) else { return };
        if !session.admitted || session.started.contains(&attempt) {
            return;
        }
        let Some(invocation) = self.invocation(engine, &attempt) else { return };
        let Some(session) = self.sessions.get_mut(agent) else { return };
        if session.prepared.insert(attempt.run) {
            let spec = run_spec(engine, attempt.run);
            out.push((session.id, message(Message::Prepare(spec))));
        }
        out.push((session.id, message(Message::Start(invocation))));
        session.started.insert(attempt);
    }

    fn invocation(&self, engine: &Engine, attempt: &AttemptId) -> Option<TaskInvocation> {
        let pod = engine.pod(attempt)?;
        let kept = self.kept.get(&attempt.run)?;
        let selected = kept.materials.select(pod);
        let pod_json = serde_json::to_string(pod)
            .expect("a Pod has only string keys, so it is always valid JSON");
        Some(TaskInvocation {
            attempt: Some(wire::attempt_to_wire(attempt)),
            pod_json: kept.secrets.reveal_in_json(pod_json),
            config_maps_json: selected.config_maps_json,
            secrets_json: selected.secrets_json,
            mask: kept.materials.values_to_mask(),
            claims_of: engine
                .claims_of(attempt)
                .into_iter()
                .map(|(claim, run)| (claim, run.to_string()))
                .collect(),
            ..TaskInvocation::default()
        })
    }

    /// Placements that can be made now: attempts and their agents.
    pub(crate) fn placements(&mut self, engine: &Engine) -> Vec<(AttemptId, String)> {
        if !std::mem::take(&mut self.plan_due) || self.waiting.is_empty() {
            return Vec::new();
        }
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        for agent in self.placing.values() {
            *used.entry(agent).or_default() += 1;
        }
        let mut free = 0usize;
        let agents: Vec<plan::Agent> = self
            .sessions
            .values()
            .filter(|session| session.admitted)
            .map(|session| {
                let hello = &session.hello;
                let placing = used.get(hello.name.as_str()).copied().unwrap_or(0);
                let used = placing + engine.used().get(&hello.name).copied().unwrap_or(0);
                free += hello.slots.saturating_sub(used) as usize;
                plan::Agent {
                    name: hello.name.clone(),
                    labels: hello.labels.clone().into_iter().collect(),
                    slots: hello.slots,
                    used,
                    ..plan::Agent::default()
                }
            })
            .collect();
        if free == 0 {
            return Vec::new();
        }
        let placing = &self.placing;
        let all = || self.waiting.values().flatten().filter(|w| !placing.contains_key(&w.attempt));
        let limit = free * LOOK_AHEAD;
        let first: Vec<Waiting> = all().take(limit).cloned().collect();
        if first.is_empty() {
            return Vec::new();
        }
        let looked_at = first.len();
        let mut plan = plan::plan(&Snapshot { agents: agents.clone(), waiting: first });
        if plan.placements.is_empty() && looked_at == limit {
            // What waits in front fits nowhere: look at everything.
            plan = plan::plan(&Snapshot { agents, waiting: all().cloned().collect() });
        }
        let placements: Vec<(AttemptId, String)> =
            plan.placements.into_iter().map(|placed| (placed.attempt, placed.agent)).collect();
        self.placing.extend(placements.iter().cloned());
        placements
    }

    /// When [`Duties::deferrals`] is due, if anything waits.
    pub(crate) fn next_deferral(&self) -> Option<Time> {
        (!self.waiting.is_empty() && !self.any_agent).then_some(self.next_deferral)
    }

    /// The attempts whose waiting is to be explained by an event, and why they wait.
    pub(crate) fn deferrals(&mut self, engine: &Engine, now: Time) -> Vec<(AttemptId, String)> {
        if self.next_deferral().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.next_deferral = now.plus_millis(DEFERRALS_MS);
        let waiting: BTreeSet<&AttemptId> =
            self.waiting.values().flatten().map(|waiting| &waiting.attempt).collect();
        self.deferred.retain(|attempt, _| waiting.contains(attempt));
        for attempt in waiting {
            let deferred = || Deferred { since: now, said: None };
            self.deferred.entry(attempt.clone()).or_insert_with(deferred);
        }
        let is_due = |deferred: &Deferred| {
            deferred.since.plus_millis(WORTH_SAYING_MS) <= now
                && deferred.said.as_ref().is_none_or(|(at, _)| at.plus_millis(SAY_AGAIN_MS) <= now)
        };
        let due = self.deferred.iter().filter(|(_, deferred)| is_due(deferred));
        let runs: BTreeSet<RunId> = due.map(|(attempt, _)| attempt.run).take(DEFERRALS).collect();
        let mut deferrals = Vec::new();
        let plans: Vec<plan::Explanation> =
            runs.into_iter().flat_map(|run| self.explain(engine, run)).collect();
        for plan in plans {
            let Some(deferred) = self.deferred.get_mut(&plan.attempt) else { continue };
            let new = deferred.said.as_ref().is_none_or(|(_, said)| *said != plan.message);
            if is_due(deferred) && new {
                deferred.said = Some((now, plan.message.clone()));
                deferrals.push((plan.attempt, plan.message));
            }
        }
        deferrals
    }

    /// How many attempts wait for an agent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// A proposed placement was not taken.
    pub(crate) fn not_placed(&mut self, attempt: &AttemptId) {
        self.placing.remove(attempt);
        self.plan_due = true;
    }

    /// Why the attempts of a run wait for an agent, as of now.
    pub(crate) fn explain(&self, engine: &Engine, run: RunId) -> Vec<plan::Explanation> {
        let Some(waiting) = self.waiting.get(&run) else { return Vec::new() };
        let agent = |hello: &Hello| plan::Agent {
            name: hello.name.clone(),
            labels: hello.labels.clone().into_iter().collect(),
            slots: hello.slots,
            used: engine.used().get(&hello.name).copied().unwrap_or(0),
            ..plan::Agent::default()
        };
        let agents = self.agents().map(agent).collect();
        plan::plan(&Snapshot { agents, waiting: waiting.clone() }).explanations
    }
}

fn message(message: Message) -> CoordinatorMessage {
    CoordinatorMessage { message: Some(message) }
}

fn run_spec(engine: &Engine, run: RunId) -> RunSpec {
    let (namespace, name) = engine.name_of(run).unwrap_or_default();
    RunSpec {
        run_id: run.to_string(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RunSpec::default()
    }
}
