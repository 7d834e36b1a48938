//! Tekton's behaviour, case by case: each file of `tests/conformance/` is a Tekton document with what
//! must come of it in `#:` lines at its top (JSON; see `tests/conformance/README.md`).
//!
//! Every case runs on every backend that it names, through `tenon run -o yaml`, and again through
//! `-o json` when it says something about the log.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use regex_lite::Regex;
use serde_json::{Value, json};
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Node, Source, Value as Yaml, load};
use tenon_tests::docker::Daemon;
use tenon_tests::{Said, Tenon};

#[test]
fn on_docker() {
    run_all("docker", Tenon::docker);
}

#[test]
fn on_the_host() {
    run_all("host", Tenon::host);
}

/// One file.
struct Case {
    name: String,
    yaml: String,
    expect: Value,
}

#[test]
fn on_a_docker_daemon_that_sees_no_file_of_ours() {
    let base = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(
        &["--host=tcp://127.0.0.1:2375", "--tls=false"],
        &[base.path(), Path::new("/dev/shm")],
    );
    for image in ["busybox", "alpine"] {
        daemon.copy_image(image);
    }
    // Those that have to do with files, and that leave time for the way.
    let words =
        ["claim", "secret", "sidecar", "volume", "emptydir", "working", "directories", "step-"];
    let is_meant =
        |name: &str| words.iter().any(|word| name.contains(word)) && !name.contains("timeout");
    run_some("docker", is_meant, || Tenon::far(base.path(), &daemon));
    assert_eq!(daemon.says(&["ps", "-aq"]), "", "containers are left");
    assert_eq!(daemon.says(&["volume", "ls", "-q"]), "", "volumes are left");
}

fn run_all(backend: &str, tenon: fn() -> Tenon) {
    run_some(backend, |_| true, tenon);
}

fn run_some(backend: &str, is_meant: impl Fn(&str) -> bool, tenon: impl Fn() -> Tenon + Sync) {
    let mut cases: Vec<Case> = files().iter().map(|path| read(path)).collect();
    cases.retain(|case| match &case.expect["backends"] {
        Value::Array(backends) => backends.contains(&json!(backend)),
        _ => true,
    });
    cases.retain(|case| is_meant(&case.name));
    assert!(cases.len() > 15, "only {} cases found", cases.len());
    let queue = Mutex::new(cases.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let faults = check(case, &tenon());
                    println!("{} {}", if faults.is_empty() { "ok  " } else { "FAIL" }, case.name);
                    failures
                        .lock()
                        .unwrap()
                        .extend(faults.into_iter().map(|fault| format!("{}: {fault}", case.name)));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Case {
    let yaml = std::fs::read_to_string(path).unwrap();
    let header: String = yaml.lines().filter_map(|line| line.strip_prefix("#:")).collect();
    let expect = serde_json::from_str(&header)
        .unwrap_or_else(|error| panic!("{}: the #: lines: {error}", path.display()));
    Case { name: path.file_stem().unwrap().to_string_lossy().into_owned(), yaml, expect }
}

/// Runs a case and says what is not as expected.
fn check(case: &Case, tenon: &Tenon) -> Vec<String> {
    let expect = &case.expect;
    let args: Vec<&str> =
        expect["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = run(tenon, case, &args, "yaml");
    let mut faults = Faults(Vec::new());
    let default_exit = if expect["status"] == "False" { 5 } else { 0 };
    let exit = expect["exit"].as_i64().unwrap_or(default_exit);
    faults.same("exit", &json!(exit), &json!(said.code));
    faults.matches("stderr", &expect["stderr"], &said.stderr);
    let objects = objects(&said.stdout);
    if let Some(run) = objects.first() {
        faults.run(expect, run, &objects);
    } else if expect.get("status").is_some() {
        faults.0.push("no object on stdout".to_owned());
    }
    if expect.get("log").is_some() || expect.get("nolog").is_some() {
        let log = run(tenon, case, &args, "json").log().join("\n");
        for wanted in expect["log"].as_array().into_iter().flatten() {
            faults.matches("log", wanted, &log);
        }
        for unwanted in expect["nolog"].as_array().into_iter().flatten() {
            if regex(unwanted).is_match(&log) {
                faults.0.push(format!("log has {unwanted}"));
            }
        }
    }
    if !faults.0.is_empty() {
        faults.0.push(format!("stderr: {}", said.stderr.trim()));
    }
    faults.0
}

fn run(tenon: &Tenon, case: &Case, args: &[&str], format: &str) -> Said {
    let mut all = vec!["-o", format];
    all.extend(args);
    tenon.run(&case.yaml, &all)
}

/// The objects of `-o yaml`, as JSON.
fn objects(yaml: &str) -> Vec<Value> {
    let source = Source { name: "stdout".to_owned(), text: yaml.into() };
    let loaded = load(&[source], &FeatureFlags::default());
    assert!(loaded.diagnostics.is_empty(), "{:?} in {yaml}", loaded.diagnostics);
    loaded.bundle.documents.iter().map(|document| to_json(&document.root)).collect()
}

fn to_json(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => json!(value),
        Yaml::Int(value) => json!(value),
        Yaml::Uint(value) => json!(value),
        Yaml::Float(value) => json!(value),
        Yaml::String(value) => json!(value),
        Yaml::Seq(items) => items.iter().map(to_json).collect(),
        Yaml::Map(entries) => {
            entries.iter().map(|entry| (entry.key.to_string(), to_json(&entry.value))).collect()
        }
    }
}

struct Faults(Vec<String>);

impl Faults {
    fn same(&mut self, what: &str, want: &Value, got: &Value) {
        if want != got {
            self.0.push(format!("{what}: want {want}, got {got}"));
        }
    }

    fn matches(&mut self, what: &str, want: &Value, got: &str) {
        if !want.is_null() && !regex(want).is_match(got) {
            self.0.push(format!("{what}: want /{want}/, got {got:?}"));
        }
    }

    /// The keys that the run itself and each of its TaskRuns can have.
    fn object(&mut self, what: &str, expect: &Value, object: &Value) {
        let condition = &object["status"]["conditions"][0];
        for key in ["status", "reason"] {
            if let Some(want) = expect.get(key) {
                self.same(&format!("{what} {key}"), want, &condition[key]);
            }
        }
        let message = condition["message"].as_str().unwrap_or_default();
        self.matches(&format!("{what} message"), &expect["message"], message);
        if let Some(want) = expect.get("results") {
            self.same(&format!("{what} results"), want, &by_name(&object["status"]["results"]));
        }
        if let Some(want) = expect.get("retries") {
            let retries = object["status"]["retriesStatus"].as_array().map_or(0, Vec::len);
            self.same(&format!("{what} retries"), want, &json!(retries));
        }
        for (name, want) in expect["steps"].as_object().into_iter().flatten() {
            let step = object["status"]["steps"]
                .as_array()
                .and_then(|steps| steps.iter().find(|step| step["name"] == name.as_str()))
                .unwrap_or(&Value::Null);
            let terminated = &step["terminated"];
            let got = json!({
                "exit": terminated["exitCode"],
                "reason": terminated["reason"],
                "terminationReason": step["terminationReason"],
            });
            for (key, value) in want.as_object().unwrap() {
                self.same(&format!("{what} step {name} {key}"), value, &got[key]);
            }
        }
        for (pointer, want) in expect["fields"].as_object().into_iter().flatten() {
            let got = object.pointer(pointer).unwrap_or(&Value::Null);
            self.same(&format!("{what} {pointer}"), want, got);
        }
    }

    fn run(&mut self, expect: &Value, run: &Value, objects: &[Value]) {
        self.object("run", expect, run);
        if let Some(want) = expect.get("skipped") {
            let skipped: BTreeMap<_, _> = run["status"]["skippedTasks"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|task| (task["name"].as_str().unwrap(), task["reason"].clone()))
                .collect();
            self.same("skipped", want, &json!(skipped));
        }
        let name = run["metadata"]["name"].as_str().unwrap();
        let task_runs: Vec<&Value> = if run["kind"] == "PipelineRun" {
            objects.iter().filter(|object| object["kind"] == "TaskRun").collect()
        } else {
            vec![run]
        };
        if let Some(want) = expect.get("taskNames") {
            let mut names: Vec<&str> = task_runs
                .iter()
                .map(|task_run| task_run["metadata"]["name"].as_str().unwrap())
                .map(|task| task.strip_prefix(&format!("{name}-")).unwrap_or(task))
                .collect();
            names.sort_unstable();
            self.same("taskNames", want, &json!(names));
        }
        for (key, want) in expect["tasks"].as_object().into_iter().flatten() {
            let (task, index) = key.split_once('#').unwrap_or((key, ""));
            let found = task_runs.iter().find(|task_run| {
                let metadata = &task_run["metadata"];
                let of_task = run["kind"] == "TaskRun"
                    || metadata["labels"]["tekton.dev/pipelineTask"] == task;
                let suffix = format!("-{index}");
                let name = metadata["name"].as_str().unwrap();
                of_task && (index.is_empty() || name.ends_with(&suffix))
            });
            match found {
                Some(task_run) => self.object(&format!("task {key}"), want, task_run),
                None => self.0.push(format!("task {key}: no TaskRun")),
            }
        }
    }
}

fn by_name(results: &Value) -> Value {
    let entries = results.as_array().into_iter().flatten();
    entries.map(|result| (result["name"].as_str().unwrap(), result["value"].clone())).collect()
}

fn regex(pattern: &Value) -> Regex {
    let pattern = pattern.as_str().unwrap();
    Regex::new(&format!("(?m){pattern}")).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}
