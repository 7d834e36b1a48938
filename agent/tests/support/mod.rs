//! What the tests on a real Docker daemon share: an image made here, a sink that remembers, and a
//! way to run a pod and read what was reported.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::needless_pass_by_value, reason = "callers write the JSON in place")]

use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};
use tenon_agent::backend::{Backend, BackendOptions, BoxFuture, Cancel, Sink};
use tenon_agent::docker::DockerBackend;
use tenon_agent::policy::Policy;
use tenon_agent::record::Marked;
use tenon_journal::output;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{AttemptId, Ending, RunSpec, StepEnded, TaskInvocation, ended};
use tokio::sync::Notify;

/// The image of the tests: busybox, CMD `sh`, no ENTRYPOINT.
pub const IMAGE: &str = "tenon-agent-test:1";
/// The same with an ENTRYPOINT.
pub const WITH_ENTRYPOINT: &str = "tenon-agent-test:entrypoint";

/// Makes the images, once a process.
pub fn images() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = r#"
            docker image inspect tenon-agent-test:1 tenon-agent-test:entrypoint >/dev/null 2>&1 && exit 0
            set -e
            dir=$(mktemp -d)
            mkdir -p $dir/bin $dir/etc $dir/tmp $dir/root
            cp /bin/busybox $dir/bin/busybox
            for applet in $(/bin/busybox --list); do
              [ $applet = busybox ] || ln -s busybox $dir/bin/$applet
            done
            echo root:x:0:0:root:/root:/bin/sh > $dir/etc/passwd
            chmod 1777 $dir/tmp
            tar -C $dir -c . | docker import -c 'CMD ["sh"]' -c 'ENV FROM_IMAGE=yes' - tenon-agent-test:1
            tar -C $dir -c . | docker import -c 'ENTRYPOINT ["echo","entry"]' -c 'CMD ["cmd"]' -c 'USER 12345' - tenon-agent-test:entrypoint
            rm -rf $dir
        "#;
        let status = Command::new("sh").arg("-c").arg(script).status().unwrap();
        assert!(status.success(), "the test images need Docker and /bin/busybox");
    });
}

/// Remembers reports, and tells when something was printed.
#[derive(Default)]
pub struct Remember(pub Mutex<Vec<What>>, pub Arc<Notify>);

impl Sink for Remember {
    fn report(&self, _time_ms: i64, what: What, marked: Option<Marked>) -> BoxFuture<'_, ()> {
        marked.iter().for_each(Marked::keep);
        if matches!(what, What::Output(_)) {
            self.1.notify_one();
        }
        self.0.lock().unwrap().push(what);
        Box::pin(async {})
    }
    fn progress(&self, _what: &str, _done: u64, _total: u64) {}
    fn note<'a>(&'a self, _what: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// What came of a pod.
pub struct Ran {
    pub outcome: ended::Outcome,
    pub reports: Vec<What>,
    pub key: String,
}

impl Ran {
    pub fn step(&self, name: &str) -> &StepEnded {
        self.reports
            .iter()
            .find_map(|what| match what {
                What::StepEnded(ended) if ended.step == name => Some(ended),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no end of {name}: {:#?}", self.reports))
    }

    pub fn ending(&self, name: &str) -> (i32, Ending) {
        let step = self.step(name);
        (step.exit_code, step.ending())
    }

    /// All lines of a container, joined.
    pub fn log(&self, name: &str) -> String {
        let mut lines = Vec::new();
        for what in &self.reports {
            if let What::Output(chunk) = what
                && chunk.container == name
            {
                let chunk = output::unpack(&chunk.chunk).unwrap();
                lines.extend(chunk.lines().map(|line| line.text.to_owned()));
            }
        }
        lines.join("\n")
    }

    /// The reports in order, in short: `start a`, `log a`, `end a`.
    pub fn order(&self) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        for what in &self.reports {
            order.push(match what {
                What::StepStarted(step) => format!("start {}", step.step),
                What::StepEnded(step) => format!("end {}", step.step),
                What::SidecarStarted(sidecar) => format!("start {}", sidecar.sidecar),
                What::SidecarEnded(sidecar) => format!("end {}", sidecar.sidecar),
                What::Output(output) => format!("log {}", output.container),
                _ => "other".to_owned(),
            });
        }
        order.dedup();
        order
    }
}

/// A backend in a directory of its own.
pub struct Machine {
    pub backend: Arc<DockerBackend>,
    pub data: tempfile::TempDir,
    /// Something was printed.
    pub printed: Arc<Notify>,
}

impl Machine {
    pub async fn new() -> Machine {
        Machine::with(Policy::default()).await
    }

    pub async fn with(policy: Policy) -> Machine {
        images();
        let data = tempfile::tempdir().unwrap();
        let options = BackendOptions {
            data_dir: data.path().to_owned(),
            policy,
            ..BackendOptions::default()
        };
        let backend = Arc::new(DockerBackend::connect(options).await.unwrap());
        let printed = Arc::default();
        Machine { backend, data, printed }
    }

    /// Runs a pod given as JSON. Missing parts of the pod and of the steps are filled in.
    pub async fn run(&self, pod: Value) -> Ran {
        self.run_with(pod, Vec::new(), Vec::new(), &Cancel::default()).await
    }

    pub async fn run_with(
        &self,
        pod: Value,
        secrets: Vec<Value>,
        config_maps: Vec<Value>,
        cancel: &Cancel,
    ) -> Ran {
        let task = invocation(pod, secrets, config_maps);
        let key = tenon_agent::pod::attempt_key(task.attempt.as_ref().unwrap());
        let sink = Remember(Mutex::default(), self.printed.clone());
        let run =
            RunSpec { run_id: task.attempt.as_ref().unwrap().run_id.clone(), ..RunSpec::default() };
        self.backend.prepare(&run).await.unwrap();
        let limit = std::time::Duration::from_secs(60);
        let running = self.backend.run_task(&task, &sink, cancel);
        let outcome = tokio::time::timeout(limit, running)
            .await
            .unwrap_or_else(|_| panic!("not over after 60 s: {:#?}", sink.0.lock().unwrap()));
        self.backend.forget(task.attempt.as_ref().unwrap()).await;
        self.backend.cleanup(&run.run_id, false).await.unwrap();
        self.assert_nothing_left(&key);
        Ran { outcome, reports: sink.0.into_inner().unwrap(), key }
    }

    pub fn assert_nothing_left(&self, key: &str) {
        let listed = docker(&["ps", "-aq", "--filter", &format!("label=tenon.key={key}")]);
        assert_eq!(listed, "", "containers left");
        for dir in ["pods", "runs"] {
            let left: Vec<_> = std::fs::read_dir(self.data.path().join(dir))
                .map(|entries| entries.flatten().map(|e| e.path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
        let uid = std::process::Command::new("id").arg("-u").output().unwrap();
        let uid = String::from_utf8(uid.stdout).unwrap();
        let private = format!("/dev/shm/tenon-{}/{key}", uid.trim());
        assert!(!std::path::Path::new(&private).exists(), "{private}");
    }
}

pub fn invocation(mut pod: Value, secrets: Vec<Value>, config_maps: Vec<Value>) -> TaskInvocation {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut next = NEXT.lock().unwrap();
        *next += 1;
        *next
    };
    let run_id = format!("test{}x{number}", std::process::id());
    for (kind, prefix) in [("steps", "s"), ("sidecars", "sc")] {
        for (index, step) in
            pod.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            if step["image"].is_null() {
                step["image"] = json!(IMAGE);
            }
            if step["name"].is_null() {
                step["name"] = json!(format!("{prefix}{index}"));
            }
        }
    }
    if pod["name"].is_null() {
        pod["name"] = json!("tr-pod");
    }
    TaskInvocation {
        attempt: Some(AttemptId { run_id, task_run: "tr".to_owned(), attempt: 1, placement: 1 }),
        pod_json: pod.to_string(),
        secrets_json: secrets.iter().map(Value::to_string).collect(),
        config_maps_json: config_maps.iter().map(Value::to_string).collect(),
        ..TaskInvocation::default()
    }
}

pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
