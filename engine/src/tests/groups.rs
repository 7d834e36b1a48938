//! Runs of one concurrency group, and what a run says about its place among others.

use serde_json::json;

use super::sim::{pipeline_run, task, task_run};
use crate::command::{CancelMode, RunObject};
use crate::event::{Event, Kind, Status};
use crate::explain::RunState;
use crate::report::{Outcome, Report};
use crate::{Command, Engine, RunId, Submission, Time, Work};

/// An engine, a clock, and all events.
struct Story {
    engine: Engine,
    now: Time,
    events: Vec<Event>,
}

fn id(number: u128) -> RunId {
    RunId(ulid::Ulid(number))
}

impl Story {
    fn new() -> Story {
        Story { engine: Engine::new(), now: Time(1_700_000_000_000), events: Vec::new() }
    }

    fn apply(&mut self, command: Command) {
        self.events.extend(self.engine.apply(command));
        // Whatever happens, a copy of the runs makes the same groups.
        let mut moved = Engine::starting_at(self.engine.next_seq());
        for run in self.engine.runs() {
            moved.import(&self.engine.export(run).expect("a run")).expect("its state");
        }
        assert!(moved == self.engine, "a moved engine is the same");
    }

    /// Submits a run that is called by its number.
    fn submit(&mut self, number: u128, annotations: &[(&str, &str)]) {
        self.submit_as(
            number,
            annotations,
            pipeline_run(json!({"pipelineSpec": {
                "tasks": [task("t", &[], json!({}))],
            }})),
        );
    }

    fn submit_as(&mut self, number: u128, annotations: &[(&str, &str)], mut it: Submission) {
        it.run_id = id(number);
        let metadata = match &mut it.run {
            RunObject::PipelineRun(run) => &mut run.metadata,
            RunObject::TaskRun(run) => &mut run.metadata,
        };
        metadata.name = format!("run-{number}");
        for (key, value) in annotations {
            metadata.annotations.insert(format!("tenon.dev/{key}"), (*value).to_owned());
        }
        self.now = self.now.plus_millis(1000);
        self.apply(Command::Submit { time: self.now, submission: Box::new(it) });
    }

    /// Whoever runs ends now.
    fn end(&mut self, number: u128) {
        for work in self.engine.pending_work_of(id(number)) {
            let Work::Place { attempt, .. } = work else { continue };
            let (time, agent) = (self.now, "a".to_owned());
            self.apply(Command::Place { time, attempt: attempt.clone(), agent });
            let reason = "TaskRunValidationFailed".to_owned();
            let outcome = Outcome::Refused { reason, message: String::new() };
            let report = Report::Ended { time, outcome, workspaces: Vec::new() };
            self.apply(Command::Report { time, attempt, report });
        }
        assert!(self.engine.outcome(id(number)).is_some(), "run {number} has ended");
    }

    /// The runs that have begun and not ended.
    fn running(&self) -> Vec<u128> {
        let runs = self.engine.runs().filter(|run| self.engine.outcome(*run).is_none());
        let running =
            runs.filter(|run| self.engine.explain(*run).expect("a run").state != RunState::Pending);
        running.map(|run| run.0.0).collect()
    }

    fn message(&self, number: u128) -> String {
        self.engine.explain(id(number)).expect("a run").message
    }
}

const DEPLOY: (&str, &str) = ("concurrency-key", "deploy");

#[test]
fn runs_of_a_group_run_one_after_the_other() {
    let mut story = Story::new();
    for number in 1..=4 {
        story.submit(number, &[DEPLOY]);
    }
    story.submit(5, &[]);
    story.submit(6, &[("concurrency-key", "other")]);
    assert_eq!(story.running(), [1, 5, 6]);
    let queued: Vec<&Event> = story.events.iter().filter(|e| e.kind == Kind::RunQueued).collect();
    assert_eq!(queued.len(), 3);
    assert_eq!(queued[0].reason.as_deref(), Some("ConcurrencyLimit"));
    assert_eq!(
        story.message(4),
        "concurrency group \"deploy\" is full: 1 runs (run-1), 2 wait before it"
    );
    // One that waits is cancelled; nobody else is held up by that.
    let (time, message) = (story.now, String::new());
    story.apply(Command::Cancel { time, run: id(2), mode: CancelMode::Cancelled, message });
    assert_eq!(story.running(), [1, 5, 6]);
    story.end(1);
    assert_eq!(story.running(), [3, 5, 6]);
    assert_eq!(story.message(4), "concurrency group \"deploy\" is full: 1 runs (run-3)");
    story.end(3);
    assert_eq!(story.running(), [4, 5, 6]);
    let told: Vec<Kind> = story
        .events
        .iter()
        .filter(|event| event.run_id == Some(id(4)))
        .map(|event| event.kind)
        .collect();
    assert_eq!(told[..2], [Kind::RunQueued, Kind::RunStart]);
}

#[test]
fn a_limit_and_priorities() {
    let mut story = Story::new();
    let two = ("concurrency-limit", "2");
    story.submit(1, &[DEPLOY, two]);
    story.submit(2, &[DEPLOY, two]);
    story.submit(3, &[DEPLOY, two, ("priority", "10")]);
    story.submit(4, &[DEPLOY, two, ("priority", "90")]);
    assert_eq!(story.running(), [1, 2]);
    story.end(2);
    assert_eq!(story.running(), [1, 4], "who has more priority has a head start");
    story.end(1);
    assert_eq!(story.running(), [3, 4]);
    let works = story.engine.pending_work_of(id(4));
    let [Work::Place { requirements, .. }] = &works[..] else { panic!("{works:?}") };
    assert_eq!(requirements.priority, 90);
}

#[test]
fn a_run_takes_the_place_of_the_others() {
    let mut story = Story::new();
    let cancel = ("concurrency-policy", "cancel-running");
    story.submit(1, &[DEPLOY]);
    story.submit(2, &[DEPLOY]);
    // Nothing of run 1 is on an agent, so that it ends at once.
    story.submit(3, &[DEPLOY, cancel]);
    assert_eq!(story.running(), [3]);
    let ended = |number| story.engine.outcome(id(number)).map(|outcome| outcome.status);
    assert_eq!([ended(1), ended(2)], [Some(Status::Cancelled), Some(Status::Cancelled)]);

    // One that is on an agent has to be stopped first.
    let works = story.engine.pending_work_of(id(3));
    let [Work::Place { attempt, .. }] = &works[..] else { panic!("{works:?}") };
    let (time, attempt, agent) = (story.now, attempt.clone(), "a".to_owned());
    story.apply(Command::Place { time, attempt: attempt.clone(), agent });
    story.submit(4, &[DEPLOY, cancel]);
    assert_eq!(story.running(), [3]);
    assert!(matches!(story.engine.pending_work_of(id(3))[..], [Work::Stop { .. }]));
    let report = Report::Ended { time, outcome: Outcome::Stopped, workspaces: Vec::new() };
    story.apply(Command::Report { time, attempt, report });
    assert_eq!(story.running(), [4]);
}

#[test]
fn a_run_is_refused_while_the_group_is_full() {
    let mut story = Story::new();
    let reject = ("concurrency-policy", "reject");
    let single = || {
        let steps = json!([{"name": "s", "image": "busybox", "script": "echo"}]);
        task_run(json!({"taskSpec": {"steps": steps}}))
    };
    story.submit_as(1, &[DEPLOY, reject], single());
    story.submit_as(2, &[DEPLOY, reject], single());
    let outcome = story.engine.outcome(id(2)).expect("it has ended");
    assert!(outcome.rejected);
    assert_eq!(outcome.reason, "ConcurrencyLimit");
    assert_eq!(outcome.message, "concurrency group \"deploy\" is full: 1 runs (run-1)");
    story.end(1);
    story.submit(3, &[DEPLOY, reject]);
    assert_eq!(story.running(), [3]);
}

#[test]
fn a_pending_run_joins_its_group_when_it_is_released() {
    let mut story = Story::new();
    let mut pending = pipeline_run(json!({
        "status": "PipelineRunPending",
        "pipelineSpec": {"tasks": [task("t", &[], json!({}))]},
    }));
    pending.can_be_released = true;
    story.submit_as(1, &[DEPLOY], pending);
    story.submit(2, &[DEPLOY]);
    assert_eq!(story.running(), [2]);
    for _ in 0..2 {
        story.apply(Command::Release { time: story.now, run: id(1) });
    }
    assert_eq!(story.running(), [2]);
    story.end(2);
    assert_eq!(story.running(), [1]);
    let told: Vec<&str> = story
        .events
        .iter()
        .filter(|event| event.run_id == Some(id(1)) && event.kind == Kind::RunQueued)
        .filter_map(|event| event.reason.as_deref())
        .collect();
    assert_eq!(told, ["PipelineRunPending", "ConcurrencyLimit"]);
}

#[test]
fn what_a_run_says_wrongly_about_its_place_is_refused() {
    let mut story = Story::new();
    story.submit(1, &[DEPLOY, ("concurrency-limit", "none")]);
    let outcome = story.engine.outcome(id(1)).expect("it has ended");
    assert!(outcome.rejected);
    assert_eq!(outcome.reason, "InvalidTenonAnnotation");
}
