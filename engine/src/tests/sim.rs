//! A fake agent and a clock that only moves when asked: enough to drive a run to its end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tenon_tekton::Object;
use tenon_tekton::v1::{PipelineRun, PipelineRunStatus, TaskRun};

use crate::command::{CancelMode, RunObject, Submission};
use crate::event::{Event, Kind, Status};
use crate::report::{Ending, Outcome, Report, StepEnd};
use crate::{AttemptId, Command, Engine, RunId, RunOutcome, Time, Work};

/// What the agent does with an attempt.
#[derive(Clone, Debug)]
pub(super) enum Does {
    /// All steps succeed; these task results are written by the first.
    Succeeds(BTreeMap<String, String>),
    /// The first step exits with this code, the others are skipped; these results were written.
    Fails(i32, BTreeMap<String, String>),
    /// It runs until it is stopped.
    Hangs,
    /// It is lost.
    IsLost,
    /// The agent refuses it.
    IsRefused(&'static str),
}

pub(super) fn succeeds() -> Does {
    Does::Succeeds(BTreeMap::new())
}

pub(super) fn fails() -> Does {
    Does::Fails(1, BTreeMap::new())
}

pub(super) fn writes(results: &[(&str, &str)]) -> BTreeMap<String, String> {
    results.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One engine with one run.
pub(super) struct Sim {
    pub(super) engine: Engine,
    pub(super) run: RunId,
    pub(super) now: Time,
    pub(super) events: Vec<Event>,
    /// Whether the run is exported and imported after every command.
    moves: bool,
    name: String,
    does: BTreeMap<String, Vec<Does>>,
}

pub(super) const RUN: RunId = RunId(ulid::Ulid(7));

/// A submission of a PipelineRun called `pr`.
pub(super) fn pipeline_run(spec: Value) -> Submission {
    let object = json!({"metadata": {"name": "pr"}, "spec": spec});
    let object: PipelineRun = serde_json::from_value(object).expect("a PipelineRun");
    submission(RunObject::PipelineRun(Box::new(object)))
}

/// A submission of a PipelineRun with this embedded Pipeline.
pub(super) fn pipeline(spec: Value) -> Submission {
    pipeline_run(json!({"pipelineSpec": spec}))
}

/// A submission of a TaskRun called `tr`.
pub(super) fn task_run(spec: Value) -> Submission {
    let object = json!({"metadata": {"name": "tr"}, "spec": spec});
    let object: TaskRun = serde_json::from_value(object).expect("a TaskRun");
    submission(RunObject::TaskRun(Box::new(object)))
}

pub(super) fn submission(run: RunObject) -> Submission {
    Submission {
        run_id: RUN,
        run,
        tasks: BTreeMap::new(),
        pipelines: BTreeMap::new(),
        step_actions: BTreeMap::new(),
        service_accounts: BTreeMap::new(),
        flags: Default::default(),
        parallel: None,
        rerun: None,
        can_be_released: false,
    }
}

/// A PipelineTask with one step and these string results, and whatever else is given.
pub(super) fn task(name: &str, results: &[&str], more: Value) -> Value {
    let results: Vec<Value> =
        results.iter().map(|name| json!({"name": name, "type": "string"})).collect();
    let params: Vec<Value> = more["params"]
        .as_array()
        .into_iter()
        .chain(more["matrix"]["params"].as_array())
        .flatten()
        .map(|param| json!({"name": param["name"], "type": "string"}))
        .collect();
    let mut task = json!({
        "name": name,
        "taskSpec": {
            "params": params,
            "results": results,
            "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
        },
    });
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), more) {
        task.extend(more);
    }
    task
}

impl Sim {
    pub(super) fn new(submission: Submission) -> Sim {
        Sim::begin(submission, false)
    }

    /// A run that is exported and imported after every command.
    pub(super) fn moving(submission: Submission) -> Sim {
        Sim::begin(submission, true)
    }

    fn begin(submission: Submission, moves: bool) -> Sim {
        let name = match &submission.run {
            RunObject::PipelineRun(run) => run.metadata.name.clone(),
            RunObject::TaskRun(run) => run.metadata.name.clone(),
        };
        let mut sim = Sim {
            engine: Engine::new(),
            run: submission.run_id,
            now: Time(1_700_000_000_000),
            events: Vec::new(),
            moves,
            name,
            does: BTreeMap::new(),
        };
        sim.apply(Command::Submit { time: sim.now, submission: Box::new(submission) });
        sim
    }

    /// What the agent does with the attempts of a TaskRun (its name without the run's), the last of
    /// them for all later ones. Without this they succeed.
    pub(super) fn does(mut self, task_run: &str, attempts: &[Does]) -> Sim {
        self.does.insert(task_run.to_owned(), attempts.to_vec());
        self
    }

    pub(super) fn apply(&mut self, command: Command) {
        let events = self.engine.apply(command);
        self.events.extend(events);
        if self.moves {
            let bytes = self.engine.export(self.run).expect("a run");
            let mut moved = Engine::starting_at(self.engine.next_seq());
            assert_eq!(moved.import(&bytes), Ok(self.run));
            assert_eq!(moved, self.engine);
            self.engine = moved;
        }
    }

    pub(super) fn report(&mut self, attempt: &AttemptId, report: Report) {
        self.apply(Command::Report { time: self.now, attempt: attempt.clone(), report });
    }

    pub(super) fn cancel(&mut self, mode: CancelMode) {
        self.apply(Command::Cancel {
            time: self.now,
            run: self.run,
            mode,
            message: "by a test".to_owned(),
        });
    }

    /// Does all work there is; what hangs keeps hanging. Time passes by a second for each round.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let before = self.events.len();
            let mut acted = false;
            for work in self.engine.pending_work() {
                acted |= self.act(work);
            }
            if !acted && self.events.len() == before {
                return;
            }
        }
        panic!("the run does not settle");
    }

    /// Settles, and whenever nothing happens any more lets time pass to the next deadline.
    pub(super) fn finish(&mut self) -> RunOutcome {
        for _ in 0..1_000 {
            self.settle();
            if let Some(outcome) = self.engine.outcome(self.run) {
                return outcome;
            }
            self.pass_to_deadline();
        }
        panic!("the run does not end");
    }

    pub(super) fn pass_to_deadline(&mut self) {
        self.now = self.engine.next_deadline().expect("something to wait for").max(self.now);
        self.apply(Command::Tick { time: self.now });
    }

    pub(super) fn pass_seconds(&mut self, seconds: i64) {
        self.now = self.now.plus_millis(seconds * 1000);
        self.apply(Command::Tick { time: self.now });
    }

    fn act(&mut self, work: Work) -> bool {
        match work {
            Work::Place { attempt, .. } => {
                self.apply(Command::Place { time: self.now, attempt, agent: "local".to_owned() });
                true
            }
            Work::Start { attempt, .. } => {
                self.start(&attempt);
                true
            }
            Work::Stop { attempt, .. } => {
                self.end(&attempt, Outcome::Stopped);
                true
            }
            Work::EndRun { .. } => false,
        }
    }

    pub(super) fn end(&mut self, attempt: &AttemptId, outcome: Outcome) {
        let time = self.now;
        self.report(attempt, Report::Ended { time, outcome, workspaces: Vec::new() });
    }

    pub(super) fn step_ended(&mut self, attempt: &AttemptId, end: StepEnd) {
        let time = self.now;
        self.report(attempt, Report::StepEnded { time, end });
    }

    fn start(&mut self, attempt: &AttemptId) {
        let time = self.now;
        let steps: Vec<String> = self
            .engine
            .pod(attempt)
            .expect("a pod to start")
            .steps
            .iter()
            .map(|step| step.name.clone())
            .collect();
        let key =
            attempt.task_run.strip_prefix(&format!("{}-", self.name)).unwrap_or(&attempt.task_run);
        let number = usize::try_from(attempt.attempt - 1).expect("small");
        let does = self.does.get(key);
        let does = does.and_then(|all| all.get(number).or(all.last()));
        let does = does.cloned().unwrap_or_else(succeeds);
        self.report(attempt, Report::Started { time });
        match does {
            Does::Hangs => {
                let step = steps[0].clone();
                self.report(attempt, Report::StepStarted { time, step });
            }
            Does::IsLost => {
                let reason = "infra/test".to_owned();
                let message = "lost".to_owned();
                self.end(attempt, Outcome::Infra { reason, message });
            }
            Does::IsRefused(reason) => {
                let reason = reason.to_owned();
                let message = "refused".to_owned();
                self.end(attempt, Outcome::Refused { reason, message });
            }
            Does::Succeeds(results) => self.run_steps(attempt, &steps, 0, &results),
            Does::Fails(code, results) => self.run_steps(attempt, &steps, code, &results),
        }
    }

    fn run_steps(
        &mut self,
        attempt: &AttemptId,
        steps: &[String],
        code: i32,
        results: &BTreeMap<String, String>,
    ) {
        let time = self.now;
        for (index, step) in steps.iter().enumerate() {
            let skipped = code != 0 && index > 0;
            if !skipped {
                let step = step.clone();
                self.report(attempt, Report::StepStarted { time, step });
            }
            let (exit_code, ending) = match (code, skipped) {
                (0, _) => (0, Ending::Completed),
                (_, true) => (1, Ending::Skipped),
                (code, false) => (code, Ending::Error),
            };
            self.step_ended(
                attempt,
                StepEnd {
                    step: step.clone(),
                    exit_code,
                    ending,
                    task_results: results.clone(),
                    ..StepEnd::default()
                },
            );
        }
        self.end(attempt, Outcome::Ran);
    }

    pub(super) fn pipeline_run(&self) -> PipelineRun {
        match self.engine.objects(self.run).into_iter().next() {
            Some(Object::PipelineRun(run)) => *run,
            other => panic!("no PipelineRun but {other:?}"),
        }
    }

    pub(super) fn status(&self) -> PipelineRunStatus {
        self.pipeline_run().status.expect("a status")
    }

    /// Status, reason and message of the run's condition.
    pub(super) fn condition(&self) -> (String, String, String) {
        let conditions = match self.engine.objects(self.run).into_iter().next() {
            Some(Object::PipelineRun(run)) => run.status.expect("a status").conditions,
            Some(Object::TaskRun(run)) => run.status.expect("a status").conditions,
            other => panic!("no run but {other:?}"),
        };
        let condition = conditions.into_iter().next().expect("a condition");
        (condition.status, condition.reason, condition.message)
    }

    pub(super) fn task_runs(&self) -> BTreeMap<String, TaskRun> {
        let objects = self.engine.objects(self.run).into_iter();
        objects
            .filter_map(|object| match object {
                Object::TaskRun(run) => Some((run.metadata.name.clone(), *run)),
                _ => None,
            })
            .collect()
    }

    /// The TaskRun's condition: status, reason, message.
    pub(super) fn task_condition(&self, name: &str) -> (String, String, String) {
        let status = self.task_runs()[name].status.clone().expect("a status");
        let condition = status.conditions[0].clone();
        (condition.status, condition.reason, condition.message)
    }

    /// `status.skippedTasks` as name → reason.
    pub(super) fn skipped(&self) -> BTreeMap<String, String> {
        let skipped = self.status().skipped_tasks.into_iter();
        skipped.map(|task| (task.name, task.reason)).collect()
    }

    /// `kind task status` of all events but those of steps.
    pub(super) fn told(&self) -> Vec<String> {
        let of_tasks = |event: &&Event| !matches!(event.kind, Kind::StepStart | Kind::StepEnd);
        let events = self.events.iter().filter(of_tasks);
        events.map(short).collect()
    }

    /// The attempt that now runs of a TaskRun.
    pub(super) fn attempt(&self, task_run: &str) -> AttemptId {
        let name = format!("{}-{task_run}", self.name);
        let mut placed = self.engine.placed();
        let found = placed.find(|(id, _)| id.task_run == name || id.task_run == task_run);
        found.expect("a placed attempt").0
    }
}

pub(super) fn short(event: &Event) -> String {
    let kind = serde_json::to_value(event.kind).expect("a kind");
    let status = event.status.map(|status: Status| serde_json::to_value(status).expect("a status"));
    let mut words = vec![kind.as_str().unwrap_or_default().to_owned()];
    words.extend(event.task.clone());
    words.extend(event.step.clone());
    words.extend(status.and_then(|s| s.as_str().map(str::to_owned)));
    words.join(" ")
}

/// A skipped map, for comparison.
pub(super) fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    writes(entries)
}
