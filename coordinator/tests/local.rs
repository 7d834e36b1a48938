//! A local coordinator with an agent played by the test: what is stored when, what is acknowledged
//! when, and what a copy of the state directory recovers to, as after a power cut.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tenon_coordinator::{AgentLink, Local, LocalOptions, Materials, RunHandle};
use tenon_engine::command::RunObject;
use tenon_engine::event::Status;
use tenon_engine::{RunId, Submission};
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, CoordinatorMessage, Ended, Hello, Output, Ran, Report, StepEnded,
    StepStarted, Stopped, agent_message, ended,
};
use tenon_reporter::history::{Next, Store};
use tenon_tekton::Object;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Source, load};
use tokio::sync::mpsc;
use ulid::Ulid;

const TASK_RUN: &str = "
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: hello, namespace: default}
spec:
  taskSpec:
    results: [{name: token}]
    steps: [{name: say, image: busybox, script: echo}]
";

/// The agent's end of the session.
struct FakeAgent {
    inbox: mpsc::Receiver<CoordinatorMessage>,
    outbox: mpsc::Sender<AgentMessage>,
    number: u64,
}

impl FakeAgent {
    async fn hear(&mut self) -> Message {
        let message = tokio::time::timeout(Duration::from_secs(30), self.inbox.recv());
        message.await.unwrap().unwrap().message.unwrap()
    }

    async fn say(&self, message: agent_message::Message) {
        self.outbox.send(AgentMessage { message: Some(message) }).await.unwrap();
    }

    async fn report(&mut self, attempt: &AttemptId, what: What) {
        self.number += 1;
        let report = Report {
            number: self.number,
            attempt: Some(attempt.clone()),
            time_ms: 1_000,
            what: Some(what),
        };
        self.say(agent_message::Message::Report(report)).await;
    }

    /// Waits until it is told to start something.
    async fn started(&mut self) -> AttemptId {
        loop {
            if let Message::Start(invocation) = self.hear().await {
                return invocation.attempt.unwrap();
            }
        }
    }

    /// Waits until everything it said is acknowledged.
    async fn acknowledged(&mut self) {
        loop {
            if let Message::Acknowledge(acknowledge) = self.hear().await
                && acknowledge.number == self.number
            {
                return;
            }
        }
    }

    async fn begin(&mut self, attempt: &AttemptId) {
        self.report(attempt, What::Started(tenon_proto::agent::v1::Started {})).await;
        self.report(attempt, What::StepStarted(StepStarted { step: "say".to_owned() })).await;
        let mut chunk = ChunkBuilder::new();
        for line in ["one", "two"] {
            chunk.push(1_000, Stream::Stdout, false, line).unwrap();
        }
        let (lines, chunk) = chunk.finish();
        let output = Output { container: "say".to_owned(), sidecar: false, lines, chunk };
        self.report(attempt, What::Output(output)).await;
    }

    async fn finish(&mut self, attempt: &AttemptId, token: &str) {
        let end = StepEnded {
            step: "say".to_owned(),
            started_at_ms: Some(1_000),
            task_results: [("token".to_owned(), token.to_owned())].into(),
            ..StepEnded::default()
        };
        self.report(attempt, What::StepEnded(end)).await;
        let outcome = Some(ended::Outcome::Ran(Ran {}));
        self.report(attempt, What::Ended(Ended { outcome, ..Ended::default() })).await;
    }
}

async fn open(state_dir: &Path) -> (Local, FakeAgent) {
    let (to_agent, inbox) = mpsc::channel(16);
    let (outbox, from_agent) = mpsc::channel(16);
    let options = LocalOptions { state_dir: state_dir.to_owned(), grace_ms: 1_000 };
    let local = Local::open(&options, AgentLink { from_agent, to_agent }).unwrap();
    let agent = FakeAgent { inbox, outbox, number: 0 };
    let hello = Hello { name: "fake".to_owned(), slots: 1, ..Hello::default() };
    agent.say(agent_message::Message::Hello(hello)).await;
    (local, agent)
}

async fn submit(local: &Local, materials: Materials) -> RunHandle {
    let source = Source { name: "test".to_owned(), text: TASK_RUN.into() };
    let loaded = load(&[source], &FeatureFlags::default());
    let Object::TaskRun(run) = loaded.bundle.documents[0].object.clone() else {
        panic!("not a TaskRun")
    };
    let submission = Submission {
        run_id: RunId(Ulid::from_parts(1, 7)),
        run: RunObject::TaskRun(run),
        tasks: Default::default(),
        pipelines: Default::default(),
        step_actions: Default::default(),
        service_accounts: Default::default(),
        flags: FeatureFlags::default(),
        parallel: None,
        rerun: None,
        can_be_released: false,
    };
    local.submit(submission, materials).await.unwrap()
}

/// The stored lines of a run, as far as they go.
fn lines(state_dir: &Path, run: RunId) -> Vec<String> {
    let mut reader = Store::new(state_dir).reader(run).unwrap();
    let mut lines = Vec::new();
    while let Next::Event(stored) = reader.next(Duration::ZERO).unwrap() {
        lines.push(String::from_utf8(stored.header().to_vec()).unwrap());
    }
    lines
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_run_goes_from_submission_to_stored_history() {
    let state = TempDir::new().unwrap();
    let (local, mut agent) = open(state.path()).await;
    let handle = submit(&local, Materials::default()).await;
    let attempt = agent.started().await;
    agent.begin(&attempt).await;
    agent.finish(&attempt, "plain").await;
    agent.acknowledged().await;

    let finished = handle.finished.await.unwrap();
    assert_eq!(finished.outcome.status, Status::Succeeded);
    local.close().await.unwrap();

    let lines = lines(state.path(), handle.run_id);
    assert!(lines[0].contains(r#""kind":"run-start""#), "{lines:?}");
    assert!(lines.last().unwrap().contains(r#""kind":"run-end""#), "{lines:?}");
    let logs = fs::read_dir(state.path().join("local")).unwrap();
    let left: Vec<_> = logs.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "the command log of a finished process is removed");
}

#[tokio::test]
async fn what_was_acknowledged_is_in_any_later_copy_of_the_disk() {
    let state = TempDir::new().unwrap();
    let (local, mut agent) = open(state.path()).await;
    let handle = submit(&local, Materials::default()).await;
    let attempt = agent.started().await;
    agent.begin(&attempt).await;
    agent.acknowledged().await;

    // As after a power cut: what the disk holds now, the histories lost altogether.
    let after = TempDir::new().unwrap();
    copy(state.path(), after.path());
    let before_the_cut = lines(after.path(), handle.run_id);
    fs::remove_dir_all(after.path().join("runs")).unwrap();

    let (recovered, _agent) = open(after.path()).await;
    assert_eq!(recovered.recovered(), [handle.run_id]);
    let lines = lines(after.path(), handle.run_id);
    assert_eq!(lines[..before_the_cut.len()], before_the_cut, "the same events again");
    assert!(lines.iter().any(|line| line.contains(r#""kind":"step-log""#)), "{lines:?}");
    let end = lines.last().unwrap();
    assert!(end.contains(r#""kind":"run-end""#) && end.contains("infrafailed"), "{end}");
    assert!(end.contains("was killed"), "{end}");
    recovered.close().await.unwrap();

    // Recovered once, it is not recovered again.
    let (again, _agent) = open(after.path()).await;
    assert_eq!(again.recovered(), []);
    again.close().await.unwrap();

    agent.finish(&attempt, "plain").await;
    handle.finished.await.unwrap();
    local.close().await.unwrap();
}

#[tokio::test]
async fn a_secret_in_a_result_is_in_no_file_and_shown_as_stars() {
    let state = TempDir::new().unwrap();
    let (local, mut agent) = open(state.path()).await;
    let mut materials = Materials::default();
    let mut secret = tenon_tekton::k8s::Secret::default();
    secret.string_data.insert("key".to_owned(), "hunter2-and-more".to_owned());
    materials.secrets.insert("s".to_owned(), secret);
    let handle = submit(&local, materials).await;
    let attempt = agent.started().await;
    agent.begin(&attempt).await;
    agent.finish(&attempt, "Bearer hunter2-and-more").await;
    agent.acknowledged().await;
    let finished = handle.finished.await.unwrap();
    local.close().await.unwrap();

    assert!(format!("{:?}", finished.objects).contains("Bearer ***"));
    let everything = TempDir::new().unwrap();
    copy(state.path(), everything.path());
    assert_nowhere(everything.path(), "hunter2-and-more");
}

#[track_caller]
fn assert_nowhere(dir: &Path, text: &str) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, text);
        } else {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!content.contains(text), "{} has it", path.display());
        }
    }
}

#[tokio::test]
async fn cancelling_waits_for_the_agents_word() {
    let state = TempDir::new().unwrap();
    let (local, mut agent) = open(state.path()).await;
    let mut handle = submit(&local, Materials::default()).await;
    let attempt = agent.started().await;
    agent.begin(&attempt).await;
    let mode = tenon_engine::command::CancelMode::Cancelled;
    local.cancel(handle.run_id, mode, "enough").await.unwrap();
    loop {
        if let Message::Stop(stop) = agent.hear().await {
            assert_eq!(stop.attempt.as_ref(), Some(&attempt));
            break;
        }
    }
    assert!(handle.finished.try_recv().is_err(), "not cancelled before it is confirmed");
    let outcome = Some(ended::Outcome::Stopped(Stopped {}));
    agent.report(&attempt, What::Ended(Ended { outcome, ..Ended::default() })).await;
    assert_eq!(handle.finished.await.unwrap().outcome.status, Status::Cancelled);
    local.close().await.unwrap();
}
