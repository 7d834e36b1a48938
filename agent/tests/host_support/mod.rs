//! What the tests of the host backend share: a backend in a directory of its own, and a sink that
//! remembers.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tenon_agent::backend::{Backend, BackendOptions, BoxFuture, Cancel, Sink};
use tenon_agent::host::{self, HostBackend};
use tenon_agent::owner::Owner;
use tenon_agent::record::{Mark, Marked};
use tenon_proto::agent::v1::{
    AttemptId, RunSpec, StepEnded, TaskInvocation, ended::Outcome, report::What,
};

/// How long anything may take.
pub const BOUND: Duration = Duration::from_secs(30);

/// Remembers reports and remarks, and tells when something was reported.
#[derive(Default)]
pub struct Reports {
    pub seen: Mutex<Vec<What>>,
    pub said: Mutex<Vec<String>>,
    pub printed: tokio::sync::Notify,
    /// Where another agent goes on that has been told all this.
    pub marks: Mutex<BTreeMap<u32, Mark>>,
}

impl Sink for Reports {
    fn report(&self, _time_ms: i64, what: What, marked: Option<Marked>) -> BoxFuture<'_, ()> {
        if let Some(marked) = marked {
            marked.keep();
            self.marks.lock().unwrap().insert(marked.mark.container, marked.mark);
        }
        self.seen.lock().unwrap().push(what);
        self.printed.notify_one();
        Box::pin(async {})
    }

    fn progress(&self, what: &str, _done: u64, _total: u64) {
        self.said.lock().unwrap().push(what.to_owned());
    }

    fn note<'a>(&'a self, what: &'a str) -> BoxFuture<'a, ()> {
        self.progress(what, 0, 0);
        Box::pin(async {})
    }
}

impl Reports {
    pub fn log(&self) -> String {
        self.log_of(|_| true)
    }

    /// The lines of those steps and sidecars.
    pub fn log_of(&self, which: impl Fn(&str) -> bool) -> String {
        let mut log = String::new();
        for what in self.seen.lock().unwrap().iter() {
            if let What::Output(output) = what
                && which(&output.container)
            {
                for line in tenon_journal::output::unpack(&output.chunk).unwrap().lines() {
                    log += &format!("{}\n", line.text);
                }
            }
        }
        log
    }

    pub fn steps(&self) -> BTreeMap<String, StepEnded> {
        let seen = self.seen.lock().unwrap();
        let ends = seen.iter().filter_map(|what| match what {
            What::StepEnded(end) => Some((end.step.clone(), end.clone())),
            _ => None,
        });
        ends.collect()
    }
}

/// A backend in a directory of its own.
pub struct Machine {
    pub data: tempfile::TempDir,
    pub backend: HostBackend,
}

impl Machine {
    pub fn new() -> Self {
        Machine::of(|_| Owner::Process)
    }

    /// With the backend of an agent of a fleet.
    pub fn of_agent() -> Self {
        Machine::of(|data| life(data, "life"))
    }

    fn of(owner: impl Fn(&Path) -> Owner) -> Self {
        let data = tempfile::tempdir().unwrap();
        let owner = owner(data.path());
        host::probe(data.path()).expect("the kernel lets this user make containers");
        Self { backend: backend(data.path(), owner), data }
    }

    pub fn attempt(&self) -> AttemptId {
        // Unique: what is private of an attempt is in one place for all agents of a user.
        let run_id = self.data.path().file_name().unwrap().to_string_lossy().into_owned();
        AttemptId { run_id, task_run: "t".into(), attempt: 1, placement: 1 }
    }

    pub async fn run(&self, pod: serde_json::Value, reports: &Reports, cancel: &Cancel) -> Outcome {
        let task = self.task(&pod).await;
        let outcome =
            tokio::time::timeout(BOUND, self.backend.run_task(&task, reports, cancel)).await;
        let outcome = outcome.expect("the attempt ends within the bound");
        self.clean_up().await;
        outcome
    }

    /// The only task of the only run, which is begun.
    pub async fn task(&self, pod: &serde_json::Value) -> TaskInvocation {
        let attempt = self.attempt();
        let run = RunSpec { run_id: attempt.run_id.clone(), ..RunSpec::default() };
        self.backend.prepare(&run).await.unwrap();
        TaskInvocation {
            attempt: Some(attempt),
            pod_json: pod.to_string(),
            ..TaskInvocation::default()
        }
    }

    /// The run is over.
    pub async fn clean_up(&self) {
        let attempt = self.attempt();
        self.backend.forget(&attempt).await;
        self.backend.cleanup(&attempt.run_id, false).await.unwrap();
        assert!(is_empty(&self.data.path().join("pods")), "nothing is left of the attempt");
        assert!(is_empty(&self.data.path().join("runs")), "nothing is left of the run");
    }

    /// The launchers that live.
    pub fn launchers(&self) -> Vec<i32> {
        let wanted = format!("{}/", self.data.path().display());
        let launches = |pid: &i32| {
            // One that has just ended has no arguments.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(wanted.as_bytes()) && line.ends_with(b"\0launch\0")
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).filter(launches).collect()
    }

    pub async fn steps(&self, steps: serde_json::Value) -> Reports {
        let reports = Reports::default();
        let outcome = self.run(pod(steps, json!([])), &reports, &Cancel::default()).await;
        assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
        reports
    }
}

/// A life of the agent in that directory.
pub fn life(data_dir: &Path, incarnation: &str) -> Owner {
    let data_dir = data_dir.display().to_string();
    Owner::Agent { incarnation: incarnation.to_owned(), data_dir }
}

/// The backend of an agent that lives, or of the next one in that directory.
pub fn backend(data_dir: &Path, owner: Owner) -> HostBackend {
    let options = BackendOptions { data_dir: data_dir.into(), owner, ..BackendOptions::default() };
    HostBackend::new(options).unwrap()
}

pub fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[expect(clippy::needless_pass_by_value, reason = "what json! makes is handed over")]
pub fn pod(steps: serde_json::Value, sidecars: serde_json::Value) -> serde_json::Value {
    json!({"name": "t-pod", "namespace": "default", "taskRun": "t", "steps": steps, "sidecars": sidecars,
           "results": ["r"], "maxResultSize": 4096})
}

pub fn step(name: &str, script: &str) -> serde_json::Value {
    json!({"name": name, "image": "ignored", "script": format!("#!/bin/sh\n{script}\n")})
}
