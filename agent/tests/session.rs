//! An agent and a cluster that loses its leader again and again, with a backend that only reports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod coordinators;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinators::{Cluster, Node, RUN, cluster, serve};
use tenon_agent::backend::{Backend, BackendError, BoxFuture, Cancel, Left, Sink};
use tenon_agent::record::Mark;
use tenon_agent::spool::{DiskSpool, SpoolOptions};
use tenon_agent::{Agent, AgentOptions, Change, ServeOptions};
use tenon_proto::agent::v1::{
    AttemptId, Output, Ran, RunSpec, StepStarted, Stop, Stopped, TaskInvocation, ended, report,
};
use tenon_proto::control::v1::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(60);

/// Reports what the pod says, and counts.
#[derive(Default)]
struct Reporter {
    /// What an earlier process has left.
    left: Vec<AttemptId>,
    adopted: Mutex<Vec<(String, bool)>>,
    started: Mutex<BTreeMap<String, u32>>,
    reported: AtomicU64,
    killed: Notify,
    /// Attempts that were to be killed already when they were told to stop.
    killed_at_once: AtomicU64,
    cleaned: Mutex<Vec<String>>,
}

impl Backend for Reporter {
    fn name(&self) -> &'static str {
        "reporter"
    }

    fn prepare<'a>(&'a self, _run: &'a RunSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn run_task<'a>(
        &'a self,
        task: &'a TaskInvocation,
        sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(async move {
            let name = task.attempt.clone().unwrap().task_run;
            *self.started.lock().unwrap().entry(name).or_default() += 1;
            let words: Vec<&str> = task.pod_json.split(' ').collect();
            match words[..] {
                ["steps", count] => {
                    for step in 0..count.parse().unwrap() {
                        let step: u32 = step;
                        let what =
                            report::What::StepStarted(StepStarted { step: step.to_string() });
                        sink.report(i64::from(step), what, None).await;
                    }
                    ended::Outcome::Ran(Ran {})
                }
                ["output", count] => {
                    for _ in 0..count.parse().unwrap() {
                        let _: u32 = 0;
                        let output = Output { chunk: vec![7; 1 << 20], ..Output::default() };
                        sink.report(0, report::What::Output(output), None).await;
                        self.reported.fetch_add(1, Ordering::SeqCst);
                    }
                    ended::Outcome::Ran(Ran {})
                }
                _ => {
                    cancel.stop.cancelled().await;
                    let at_once = u64::from(cancel.kill.is_cancelled());
                    self.killed_at_once.fetch_add(at_once, Ordering::SeqCst);
                    cancel.kill.cancelled().await;
                    self.killed.notify_one();
                    ended::Outcome::Stopped(Stopped {})
                }
            }
        })
    }

    fn left(&self) -> BoxFuture<'_, Result<Left, BackendError>> {
        Box::pin(async { Ok(Left { attempts: self.left.clone(), runs: Vec::new() }) })
    }

    fn adopt<'a>(
        &'a self,
        attempt: &'a AttemptId,
        _marks: &'a BTreeMap<u32, Mark>,
        _sink: &'a dyn Sink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, ended::Outcome> {
        Box::pin(async move {
            let is_killed = cancel.kill.is_cancelled();
            self.adopted.lock().unwrap().push((attempt.task_run.clone(), is_killed));
            ended::Outcome::Ran(Ran {})
        })
    }

    fn cleanup<'a>(
        &'a self,
        run_id: &'a str,
        _keep_claims: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        self.cleaned.lock().unwrap().push(run_id.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize, BackendError>> {
        Box::pin(async { Ok(0) })
    }
}

fn agent(backend: &Arc<Reporter>) -> Agent {
    let options = AgentOptions {
        name: "a1".into(),
        slots: 4,
        incarnation: "01JD1111111111111111111111".into(),
        labels: [("zone".to_owned(), "b".to_owned())].into(),
        ..AgentOptions::default()
    };
    Agent::new(options, backend.clone())
}

fn task(name: &str, pod: &str) -> TaskInvocation {
    TaskInvocation {
        attempt: Some(attempt(name)),
        pod_json: pod.to_owned(),
        ..TaskInvocation::default()
    }
}

fn attempt(name: &str) -> AttemptId {
    AttemptId { run_id: RUN.into(), task_run: name.into(), attempt: 1, placement: 1 }
}

/// Waits for something of the cluster, which tells of its changes.
async fn until(cluster: &Arc<Mutex<Cluster>>, what: &str, holds: impl Fn(&Cluster) -> bool) {
    let changed = cluster.lock().unwrap().changed.clone();
    let wait = async {
        while !holds(&cluster.lock().unwrap()) {
            // Also changes that nobody tells of are seen soon.
            let _ = tokio::time::timeout(Duration::from_millis(20), changed.notified()).await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

fn options(cluster: &Arc<Mutex<Cluster>>) -> ServeOptions {
    ServeOptions { servers: cluster.lock().unwrap().urls.clone(), ..Default::default() }
}

#[tokio::test]
async fn every_report_arrives_once_and_in_order_whatever_happens_to_sessions() {
    for seed in [1, 0xfeed, 0x5eed_5eed] {
        let mut servers = JoinSet::new();
        let cluster = cluster(3, seed, &mut servers).await;
        {
            let mut cluster = cluster.lock().unwrap();
            cluster.lasts = Some(3);
            cluster.tasks = (0..12).map(|n| task(&format!("t{n}"), "steps 300")).collect();
            cluster.stops = vec![Stop { attempt: Some(attempt("never-came")), ..Stop::default() }];
        }
        let backend = Arc::new(Reporter::default());
        let shutdown = CancellationToken::new();
        let agent = agent(&backend).serve(options(&cluster), shutdown.clone(), |_| {});
        let story = async {
            until(&cluster, "all ends", |cluster| {
                let tasks = cluster.tasks.iter().map(|task| task.attempt.as_ref().unwrap());
                tasks.chain([&attempt("never-came")]).all(|attempt| cluster.has_ended(attempt))
            })
            .await;
            // What is not durable yet may be lost once more; then no session ends any more.
            cluster.lock().unwrap().lasts = None;
            shutdown.cancel();
        };
        let (ended, ()) = tokio::join!(agent, story);
        ended.unwrap();

        let cluster = cluster.lock().unwrap();
        assert!(cluster.sessions > 10, "{} sessions are no test", cluster.sessions);
        assert_eq!(cluster.hellos[0].labels["zone"], "b");
        assert_eq!(cluster.hellos[0].incarnation, "01JD1111111111111111111111");
        let starts = backend.started.lock().unwrap();
        assert!(starts.len() == 12 && starts.values().all(|count| *count == 1), "{starts:?}");
        for task in &cluster.tasks {
            let of_task = cluster.reports.iter().filter(|report| report.attempt == task.attempt);
            let said: Vec<String> = of_task
                .map(|report| match report.what.as_ref().unwrap() {
                    report::What::Started(_) => "started".to_owned(),
                    report::What::StepStarted(step) => step.step.clone(),
                    report::What::Ended(_) => "ended".to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let mut wanted = vec!["started".to_owned()];
            wanted.extend((0..300).map(|step| step.to_string()));
            wanted.push("ended".to_owned());
            assert_eq!(said, wanted);
        }
        let stopped =
            cluster.reports.iter().find(|report| report.attempt == Some(attempt("never-came")));
        let Some(report::What::Ended(end)) = stopped.unwrap().what.clone() else { panic!() };
        assert_eq!(end.outcome, Some(ended::Outcome::Stopped(Stopped {})));
    }
}

#[tokio::test]
async fn what_an_agent_holds_is_said_to_the_next_leader_and_dropped_when_it_says_so() {
    let mut servers = JoinSet::new();
    let cluster = cluster(2, 11, &mut servers).await;
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.tasks = vec![task("long", "wait"), task("short", "steps 1")];
        // The first session ends once both have begun.
        cluster.lasts = Some(6);
    }
    let backend = Arc::new(Reporter::default());
    let shutdown = CancellationToken::new();
    let agent = agent(&backend).serve(options(&cluster), shutdown.clone(), |_| {});
    let story = async {
        until(&cluster, "the end of the short one", |cluster| cluster.has_ended(&attempt("short")))
            .await;
        let before = cluster.lock().unwrap().hellos.len();
        until(&cluster, "another session", |cluster| cluster.hellos.len() > before + 1).await;
        {
            let mut cluster = cluster.lock().unwrap();
            let hello = cluster.hellos.last().unwrap();
            assert_eq!(hello.running, [attempt("long")]);
            assert_eq!(hello.runs, [RUN]);
            cluster.stops.push(Stop { attempt: Some(attempt("long")), ..Stop::default() });
        }
        until(&cluster, "the end of the long one", |cluster| cluster.has_ended(&attempt("long")))
            .await;
        assert_eq!(backend.killed_at_once.load(Ordering::SeqCst), 1, "without grace");
        cluster.lock().unwrap().ended_runs.push(RUN.to_owned());
        until(&cluster, "the run to be cleaned up", |_| {
            !backend.cleaned.lock().unwrap().is_empty()
        })
        .await;
        let before = cluster.lock().unwrap().hellos.len();
        until(&cluster, "another session", |cluster| cluster.hellos.len() > before + 1).await;
        {
            let mut cluster = cluster.lock().unwrap();
            let hello = cluster.hellos.last().unwrap();
            assert!(hello.running.is_empty());
            cluster.lasts = None;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(agent, story);
    ended.unwrap();
}

#[tokio::test]
async fn output_waits_while_there_is_no_coordinator() {
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 5, &mut servers).await;
    let url = cluster.lock().unwrap().urls[0].clone();
    cluster.lock().unwrap().tasks = vec![task("loud", "output 150")];
    cluster.lock().unwrap().lasts = Some(8);
    let backend = Arc::new(Reporter::default());
    let shutdown = CancellationToken::new();
    let (changes, mut changed) = tokio::sync::mpsc::unbounded_channel();
    let agent = agent(&backend).serve(
        ServeOptions { servers: vec![url.clone()], ..Default::default() },
        shutdown.clone(),
        move |change| {
            changes.send(change).unwrap();
        },
    );
    let story = async {
        assert!(matches!(changed.recv().await.unwrap(), Change::Connected { .. }));
        // The only coordinator goes, with its listener.
        servers.shutdown().await;
        loop {
            if let Change::Alone { why } = changed.recv().await.unwrap() {
                println!("{why}");
                break;
            }
        }
        let full = async {
            // 32 MiB, what a channel of 64 holds, and what is in hands.
            while backend.reported.load(Ordering::SeqCst) < 32 + 64 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, full).await.unwrap();
        let known = cluster.lock().unwrap().durable as u64;
        let ahead = backend.reported.load(Ordering::SeqCst) - known.min(1);
        assert!(ahead <= 32 + 64 + 40, "{ahead} MiB are in memory");
        let address = url.strip_prefix("http://").unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        cluster.lock().unwrap().lasts = None;
        serve(listener, Node { me: 0, cluster: cluster.clone() }, &mut servers);
        until(&cluster, "all output", |cluster| cluster.has_ended(&attempt("loud"))).await;
        assert_eq!(cluster.lock().unwrap().reports.len(), 152);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(agent, story);
    ended.unwrap();
}

#[tokio::test]
async fn an_agent_that_was_superseded_kills_what_it_runs_and_gives_up() {
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 3, &mut servers).await;
    cluster.lock().unwrap().tasks = vec![task("long", "wait")];
    cluster.lock().unwrap().lasts = Some(20);
    let backend = Arc::new(Reporter::default());
    let agent = agent(&backend).serve(options(&cluster), CancellationToken::new(), |_| {});
    let story = async {
        until(&cluster, "the start", |cluster| !cluster.reports.is_empty()).await;
        cluster.lock().unwrap().refuse = Some(Error {
            code: "conflict/agent-superseded".into(),
            message: "another agent is called a1".into(),
            hint: "give it another --name".into(),
            ..Error::default()
        });
        backend.killed.notified().await;
    };
    let (ended, ()) = tokio::join!(agent, tokio::time::timeout(BOUND, story).map_ok());
    let error = ended.unwrap_err();
    assert_eq!(error.code, "conflict/agent-superseded");
    assert_eq!(error.hint, "give it another --name");
}

#[tokio::test]
async fn nothing_begins_before_a_heartbeat_is_answered_and_what_was_left_is_gone_on_with_then() {
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 8, &mut servers).await;
    {
        let mut cluster = cluster.lock().unwrap();
        (cluster.lease_ms, cluster.answers) = (600_000, false);
        cluster.tasks = vec![task("new", "steps 1")];
        let attempt = Some(attempt("elsewhere"));
        cluster.stops = vec![Stop { attempt, reason: "superseded".into(), grace_ms: 0 }];
    }
    let backend = Arc::new(Reporter {
        left: vec![attempt("mine"), attempt("elsewhere")],
        ..Reporter::default()
    });
    let shutdown = CancellationToken::new();
    let agent = agent(&backend).serve(options(&cluster), shutdown.clone(), |_| {});
    let story = async {
        // What is elsewhere now is killed without further ado.
        until(&cluster, "its end", |cluster| cluster.has_ended(&attempt("elsewhere"))).await;
        assert_eq!(*backend.adopted.lock().unwrap(), [("elsewhere".to_owned(), true)]);
        assert!(backend.started.lock().unwrap().is_empty());
        let mut running = cluster.lock().unwrap().hellos[0].running.clone();
        running.sort_by(|one, next| one.task_run.cmp(&next.task_run));
        assert_eq!(running, [attempt("elsewhere"), attempt("mine")]);
        cluster.lock().unwrap().answers = true;
        until(&cluster, "the others' ends", |cluster| {
            cluster.has_ended(&attempt("new")) && cluster.has_ended(&attempt("mine"))
        })
        .await;
        assert_eq!(backend.adopted.lock().unwrap()[1..], [("mine".to_owned(), false)]);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(agent, story);
    ended.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_hangs_is_left_for_another_session() {
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 9, &mut servers).await;
    (cluster.lock().unwrap().lease_ms, cluster.lock().unwrap().answers) = (600_000, false);
    let changes = Mutex::new(Vec::new());
    let shutdown = CancellationToken::new();
    let agent = agent(&Arc::new(Reporter::default()));
    let note = |change| changes.lock().unwrap().push(change);
    let agent = agent.serve(options(&cluster), shutdown.clone(), note);
    let story = async {
        until(&cluster, "another session", |cluster| cluster.sessions == 2).await;
        let said = format!("{:?}", changes.lock().unwrap());
        assert!(said.contains("it does not answer"), "{said}");
        // This one answers, and lasts for longer than silence is borne.
        cluster.lock().unwrap().answers = true;
        let beats = cluster.lock().unwrap().heartbeats;
        until(&cluster, "heartbeats", |cluster| cluster.heartbeats > beats + 1000).await;
        assert_eq!(cluster.lock().unwrap().sessions, 2);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(agent, story);
    ended.unwrap();
}

#[tokio::test]
async fn another_process_sends_what_the_first_one_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let spool = || {
        let options = SpoolOptions { data_dir: dir.path().to_owned(), limit: 64 << 20 };
        DiskSpool::open(&options, || "01JD1111111111111111111111".to_owned()).unwrap()
    };
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 21, &mut servers).await;
    cluster.lock().unwrap().tasks = vec![task("loud", "output 20")];
    let backend = Arc::new(Reporter::default());
    {
        let (spool, found) = spool();
        let agent = agent(&backend).with_spool(spool, found);
        let serving = agent.serve(options(&cluster), CancellationToken::new(), |_| {});
        let spooled = until(&cluster, "some output", |cluster| cluster.reports.len() > 3);
        // Dropped in the middle, as if it was killed.
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            () = spooled => {}
        }
    }
    let known = cluster.lock().unwrap().reports.len();
    let (spool, found) = spool();
    let shutdown = CancellationToken::new();
    let serving =
        agent(&backend).with_spool(spool, found).serve(options(&cluster), shutdown.clone(), |_| {});
    let story = async {
        // Nothing of it is there to be adopted, so its end is told; the cluster looks at the numbers.
        until(&cluster, "the end", |cluster| cluster.has_ended(&attempt("loud"))).await;
        assert!(cluster.lock().unwrap().reports.len() > known);
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(serving, story);
    ended.unwrap();
}

/// A bound that is over fails the test.
trait MapOk {
    async fn map_ok(self);
}

impl<F: Future<Output = Result<(), tokio::time::error::Elapsed>>> MapOk for F {
    async fn map_ok(self) {
        self.await.unwrap();
    }
}
