//! What the leader does for the runs: place attempts, tell agents to start and to stop, hand over
//! what a pod needs.
//!
//! Every duty is derived from [`Engine::pending_work`]. The sets in [`Told`] hold what was said to
//! an agent in its present session; a new session starts with empty ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tenon_engine::plan::{self, Snapshot, Waiting};
use tenon_engine::work::Work;
use tenon_engine::{AttemptId, Command, Engine, Report, RunId, Time};
use tenon_proto::agent::v1::{
    CoordinatorMessage, EndRun, Hello, RunSpec, Stop, TaskInvocation, coordinator_message,
};
use tenon_tekton::Object;

use crate::masking::Secrets;
use crate::materials::Materials;
use crate::wire;

/// The leader's knowledge besides the engine's state.
pub(crate) struct Duties {
    grace_ms: u64,
    agents: BTreeMap<String, Hello>,
    kept: BTreeMap<RunId, Kept>,
    told: Told,
}

struct Kept {
    materials: Materials,
    secrets: Secrets,
    /// Attempts that are stopped get no grace.
    hurry: bool,
}

#[derive(Default)]
struct Told {
    prepared: BTreeSet<RunId>,
    started: BTreeSet<AttemptId>,
    stopped: BTreeSet<AttemptId>,
    ended: BTreeSet<RunId>,
}

impl Duties {
    pub(crate) fn new(grace_ms: u64) -> Duties {
        Duties { grace_ms, agents: BTreeMap::new(), kept: BTreeMap::new(), told: Told::default() }
    }

    /// A session begins.
    pub(crate) fn welcome(&mut self, hello: Hello) {
        self.told = Told::default();
        self.agents.insert(hello.name.clone(), hello);
    }

    /// Keeps what a run needs besides its spec, until [`Duties::forget`].
    pub(crate) fn keep(&mut self, run: RunId, materials: Materials) {
        let secrets = Secrets::new(materials.values_to_mask());
        self.kept.insert(run, Kept { materials, secrets, hurry: false });
    }

    /// From now on attempts of the run that are to stop get no grace; those that were told to stop
    /// are told again.
    pub(crate) fn hurry(&mut self, run: RunId) {
        if let Some(kept) = self.kept.get_mut(&run) {
            kept.hurry = true;
            self.told.stopped.retain(|attempt| attempt.run != run);
        }
    }

    /// Drops everything about a run that is over.
    pub(crate) fn forget(&mut self, run: RunId) {
        self.kept.remove(&run);
        self.told.prepared.remove(&run);
        self.told.ended.remove(&run);
        self.told.started.retain(|attempt| attempt.run != run);
        self.told.stopped.retain(|attempt| attempt.run != run);
    }

    /// Whether the agents know that the run is over.
    pub(crate) fn end_was_told(&self, run: RunId) -> bool {
        self.told.ended.contains(&run)
    }

    /// The commands that place what can be placed now.
    pub(crate) fn placements(&self, engine: &Engine, time: Time) -> Vec<Command> {
        let waiting: Vec<Waiting> = engine
            .pending_work()
            .into_iter()
            .filter_map(|work| match work {
                Work::Place { attempt, mut requirements } => {
                    // An agent of one process is all there is: to wait for one with the right
                    // labels would be to wait for ever.
                    requirements.node_selector.clear();
                    Some(Waiting { attempt, requirements })
                }
                _ => None,
            })
            .collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, agent) in engine.placed() {
            *used.entry(agent).or_default() += 1;
        }
        let agents = self
            .agents
            .values()
            .map(|hello| plan::Agent {
                name: hello.name.clone(),
                slots: hello.slots,
                used: used.get(hello.name.as_str()).copied().unwrap_or(0),
                ..plan::Agent::default()
            })
            .collect();
        plan::plan(&Snapshot { agents, waiting })
            .placements
            .into_iter()
            .map(|placement| Command::Place {
                time,
                attempt: placement.attempt,
                agent: placement.agent,
            })
            .collect()
    }

    /// Adds the messages that the pending work calls for and that were not yet sent.
    pub(crate) fn messages(&mut self, engine: &Engine, out: &mut VecDeque<CoordinatorMessage>) {
        use coordinator_message::Message;
        for work in engine.pending_work() {
            let message = match work {
                Work::Start { attempt, .. } if self.told.started.insert(attempt.clone()) => {
                    let Some(invocation) = self.invocation(engine, &attempt) else { continue };
                    if self.told.prepared.insert(attempt.run) {
                        out.push_back(message(Message::Prepare(run_spec(engine, attempt.run))));
                    }
                    Message::Start(invocation)
                }
                Work::Stop { attempt, reason, .. } if self.told.stopped.insert(attempt.clone()) => {
                    let hurry = self.kept.get(&attempt.run).is_some_and(|kept| kept.hurry);
                    Message::Stop(Stop {
                        attempt: Some(wire::attempt_to_wire(&attempt)),
                        reason: reason.as_str().to_owned(),
                        grace_ms: if hurry { 0 } else { self.grace_ms },
                    })
                }
                Work::EndRun { run, agents } if self.told.ended.insert(run) => {
                    if agents.is_empty() {
                        continue;
                    }
                    Message::EndRun(EndRun { run_id: run.to_string(), keep_claims: false })
                }
                _ => continue,
            };
            out.push_back(self::message(message));
        }
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
            ..TaskInvocation::default()
        })
    }

    /// Hides the run's secret values in a report, before anything stores it.
    pub(crate) fn hide_secrets(&self, run: RunId, report: &mut Report) {
        if let Some(kept) = self.kept.get(&run) {
            kept.secrets.hide(report);
        }
    }
}

fn message(message: coordinator_message::Message) -> CoordinatorMessage {
    CoordinatorMessage { message: Some(message) }
}

fn run_spec(engine: &Engine, run: RunId) -> RunSpec {
    let objects = engine.objects(run);
    let metadata = objects.first().and_then(Object::metadata);
    RunSpec {
        run_id: run.to_string(),
        namespace: metadata.map(|metadata| metadata.namespace.clone()).unwrap_or_default(),
        name: metadata.map(|metadata| metadata.name.clone()).unwrap_or_default(),
        ..RunSpec::default()
    }
}
