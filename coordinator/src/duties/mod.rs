//! What the leader does for the runs: place attempts, tell agents to start and to stop, hand over
//! what a pod needs.
//!
//! Every duty is derived from the engine's pending work, for the runs in which something has changed;
//! a new leader looks at all of them. What was said to an agent is remembered per session only to say
//! it once: losing it would repeat messages, not work.

mod draining;
mod placing;
mod queued;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenon_engine::claims::{ClaimUse, Files};
use tenon_engine::plan::{Board, Packing, Waiting};
use tenon_engine::work::Work;
use tenon_engine::{AttemptId, Engine, Report, RunId};
use tenon_journal::bugs;
use tenon_proto::agent::v1::claim_use::From;
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::{CoordinatorMessage, EndRun, RunSpec, Stop, TaskInvocation};

use crate::coordinator::Options;
use crate::masking::Secrets;
use crate::materials::Materials;
use crate::replica::AgentRecord;
use crate::wire;
use queued::Queued;
use sessions::Session;

/// An agent's session, as the driver knows it.
pub type SessionId = u64;
/// The agents that the replicas know, by name.
type Agents = BTreeMap<String, AgentRecord>;
/// What is to be told, and in which session.
type Messages = Vec<(SessionId, CoordinatorMessage)>;

/// The leader's knowledge besides the engine's state.
#[derive(Default)]
pub(crate) struct Duties {
    grace_ms: u64,
    /// An agent of one process is all there is: labels and sizes are not asked for.
    any_agent: bool,
    packing: Packing,
    /// Claims are saved when an attempt has ended, where the run says nothing else.
    saves_claims: bool,
    /// By the agent's name.
    sessions: BTreeMap<String, Session>,
    /// The agents of the sessions.
    names: BTreeMap<SessionId, String>,
    /// The agents that were told something of a run.
    told: BTreeMap<RunId, BTreeSet<String>>,
    kept: BTreeMap<RunId, Kept>,
    hurried: BTreeSet<RunId>,
    /// Runs to look at.
    changed: BTreeSet<RunId>,
    /// All agents, and what waits for one.
    board: Board,
    /// The attempts of each run that wait.
    waiting: BTreeMap<RunId, BTreeSet<AttemptId>>,
    /// Capacity or demand has changed since the last plan.
    plan_due: bool,
    queued: Queued,
    /// Agents that may be past the deadline of their drain.
    draining: BTreeSet<String>,
}

struct Kept {
    materials: Materials,
    secrets: Secrets,
}

impl Duties {
    pub(crate) fn new(options: &Options) -> Duties {
        let &Options { grace_ms, any_agent, packing, saves_claims, .. } = options;
        let board = Board::new(packing);
        Duties { grace_ms, any_agent, packing, saves_claims, board, ..Duties::default() }
    }

    /// Leadership begins: everything that goes on is looked at.
    pub(crate) fn begin(&mut self, engine: &Engine, agents: &Agents) {
        self.changed.extend(engine.runs());
        for name in agents.keys() {
            self.know(name, engine, agents);
        }
        self.plan_due = true;
    }

    /// Leadership is over; returns the sessions that have to end.
    pub(crate) fn end(&mut self) -> Vec<SessionId> {
        let sessions = std::mem::take(&mut self.sessions);
        let Duties { grace_ms, any_agent, packing, saves_claims, .. } = *self;
        let board = Board::new(packing);
        *self = Duties { grace_ms, any_agent, packing, saves_claims, board, ..Duties::default() };
        sessions.into_values().map(|session| session.id).collect()
    }

    /// From now on attempts of the run that are to stop get no grace; those that were told to stop
    /// are told again.
    pub(crate) fn hurry(&mut self, run: RunId) {
        self.hurried.insert(run);
        self.changed.insert(run);
        for agent in self.told.get(&run).into_iter().flatten() {
            let told = self.sessions.get_mut(agent).and_then(|session| session.told.get_mut(&run));
            told.into_iter().for_each(|told| told.stopped.clear());
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
        out: &mut Messages,
    ) {
        self.kept.remove(&run);
        self.hurried.remove(&run);
        self.set_waiting(run, Vec::new());
        self.plan_due = true;
        for agent in self.told.remove(&run).into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&agent) {
                session.told.remove(&run);
            }
        }
        for session in agents.iter().filter_map(|agent| self.sessions.get(agent)) {
            let end = EndRun { run_id: run.to_string(), keep_claims };
            out.push((session.id, message(Message::EndRun(end))));
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
    pub(crate) fn hide_secrets(&self, run: RunId, report: &mut Report, engine: &Engine) {
        if let Some(kept) = self.kept.get(&run) {
            kept.secrets.hide(report, |value| engine.compares_with(run, value));
        }
    }

    /// The runs that were changed and not looked at yet.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.changed)
    }

    /// Looks at what remains to be done for a run: messages that were not said yet, and attempts
    /// that wait for an agent.
    pub(crate) fn work(&mut self, engine: &Engine, run: RunId, out: &mut Messages) {
        let mut waiting = Vec::new();
        for work in engine.pending_work_of(run) {
            match work {
                Work::Place { attempt, since, mut requirements } => {
                    if self.any_agent {
                        // To wait for an agent that fits would be to wait for ever.
                        let requirements = Arc::make_mut(&mut requirements);
                        requirements.node_selector.clear();
                        requirements.demands.clear();
                        requirements.affinity.clear();
                        (requirements.home, requirements.apart, requirements.near) =
                            (None, None, None);
                        requirements.cpu_millis = 0;
                        requirements.memory_bytes = 0;
                    }
                    waiting.push(Waiting { attempt, since, requirements });
                }
                Work::Start { attempt, agent } => self.start(engine, attempt, &agent, out),
                Work::Stop { attempt, agent, reason } => {
                    self.stop(&attempt, &agent, reason.as_str(), out);
                }
                Work::EndRun { .. } => {}
            }
        }
        self.plan_due = true;
        self.set_waiting(run, waiting);
    }

    /// Has an attempt stopped, if its agent is in contact and was not told before.
    fn stop(&mut self, attempt: &AttemptId, agent: &str, reason: &str, out: &mut Messages) {
        let hurry = self.hurried.contains(&attempt.run);
        let session = self.sessions.get_mut(agent);
        let Some(session) = session.filter(|session| session.admitted) else { return };
        self.told.entry(attempt.run).or_default().insert(agent.to_owned());
        if session.told.entry(attempt.run).or_default().stopped.insert(attempt.clone()) {
            let stop = Stop {
                attempt: Some(wire::attempt_to_wire(attempt)),
                reason: reason.to_owned(),
                grace_ms: if hurry { 0 } else { self.grace_ms },
            };
            out.push((session.id, message(Message::Stop(stop))));
        }
    }

    fn start(&mut self, engine: &Engine, attempt: AttemptId, agent: &str, out: &mut Messages) {
        let Some(session) = self.sessions.get(agent) else { return };
        let told = session.told.get(&attempt.run);
        if !session.admitted || told.is_some_and(|told| told.started.contains(&attempt)) {
            return;
        }
        let Some(invocation) = self.invocation(engine, &attempt) else { return };
        let Some(session) = self.sessions.get_mut(agent) else { return };
        self.told.entry(attempt.run).or_default().insert(agent.to_owned());
        let told = session.told.entry(attempt.run).or_default();
        if !std::mem::replace(&mut told.prepared, true) {
            let spec = run_spec(engine, attempt.run);
            out.push((session.id, message(Message::Prepare(spec))));
        }
        out.push((session.id, message(Message::Start(invocation))));
        told.started.insert(attempt);
    }

    fn invocation(&self, engine: &Engine, attempt: &AttemptId) -> Option<TaskInvocation> {
        let pod = engine.pod(attempt)?;
        let kept = self.kept.get(&attempt.run)?;
        let selected = kept.materials.select(pod);
        let uses = engine.claim_uses(attempt);
        let of_others = uses.iter().filter(|used| used.owner != attempt.run);
        let pod_json = serde_json::to_string(pod)
            .expect("a Pod has only string keys, so it is always valid JSON");
        Some(TaskInvocation {
            attempt: Some(wire::attempt_to_wire(attempt)),
            pod_json: kept.secrets.reveal_in_json(pod_json),
            config_maps_json: selected.config_maps_json,
            secrets_json: selected.secrets_json,
            mask: kept.materials.values_to_mask(),
            claims_of: of_others.map(|used| (used.name.clone(), used.owner.to_string())).collect(),
            claim_uses: self.claim_uses(engine, attempt, &uses),
            traceparents: engine.traceparents(attempt).into_iter().collect(),
            ..TaskInvocation::default()
        })
    }
}

impl Duties {
    /// What the agent is told of the attempt's claims: nothing where there is no other agent.
    fn claim_uses(
        &self,
        engine: &Engine,
        attempt: &AttemptId,
        uses: &[ClaimUse],
    ) -> Vec<tenon_proto::agent::v1::ClaimUse> {
        let saves = engine.saves_claims(attempt.run).unwrap_or(self.saves_claims);
        let counted = uses.iter().filter(|used| !self.any_agent && used.moves > 0);
        let moves = |used: &ClaimUse| match bugs::is_on(bugs::Bug::StaleWorkspace) {
            true => 1,
            false => used.moves,
        };
        counted
            .map(|used| tenon_proto::agent::v1::ClaimUse {
                name: used.name.clone(),
                owner: used.owner.to_string(),
                moves: moves(used),
                from: Some(match &used.files {
                    Files::None => From::Empty(true),
                    Files::Saved(snapshot) => From::Snapshot(snapshot.clone()),
                    Files::AtHome => From::OnlyHere(true),
                }),
                save: saves && used.writes,
            })
            .collect()
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
