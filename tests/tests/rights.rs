//! What tasks may have of a machine, and what a run says of what it has used: through the command line,
//! here and in a fleet.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use tenon_tests::fleet::Fleet;
use tenon_tests::{KillOnPanic, Tenon, finish, wait_until};

const MOUNTS: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: t}
spec:
  taskSpec:
    volumes: [{name: v, hostPath: {path: SHARED}}]
    steps:
    - name: s
      image: busybox
      volumeMounts: [{name: v, mountPath: /shared}]
      script: echo here > /shared/file
"#;

#[test]
fn what_is_beyond_the_baseline_is_refused_and_the_flag_is_named() {
    let tenon = Tenon::host();
    let shared = tenon.dir().join("shared");
    let yaml = MOUNTS.replace("SHARED", shared.to_str().unwrap());
    let said = tenon.run(&yaml, &["-o", "json"]).expect(5);
    let end = said.events().into_iter().find(|event| event["kind"] == "task-end").unwrap();
    assert_eq!(end["reason"], "PodAdmissionFailed");
    let message = end["message"].as_str().unwrap();
    let flag = format!("`tenon run --allow-host-path={}` does", shared.display());
    assert!(message.contains("hostPath.path") && message.ends_with(&flag), "{message}");
    assert!(!shared.exists(), "nothing was made");
    tenon.run(&yaml, &[&format!("--allow-host-path={}", shared.display())]).expect(0);
    assert!(shared.join("file").exists());
}

/// Why the first task of the newest run waits.
fn why(fleet: &Fleet) -> String {
    let explained = fleet.ask(&["runs", "explain", "latest", "-o", "json"]);
    let told: Value = serde_json::from_str(&explained.stdout).unwrap_or_default();
    told["tasks"][0]["why"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_task_goes_to_an_agent_that_allows_it() {
    let fleet = Fleet::start(1);
    let shared = fleet.tenon.dir().join("shared");
    let yaml = MOUNTS.replace("SHARED", shared.to_str().unwrap());
    let (child, out) = fleet.start_run(&yaml, &[]);
    let _guard = KillOnPanic(child.id());
    let lacks = format!("1 does not allow host-path={0} (--allow-host-path={0})", shared.display());
    wait_until("the reason", || why(&fleet).contains(&lacks));
    let _willing =
        fleet.agent_with("a2", &["--allow-host-path", fleet.tenon.dir().to_str().unwrap()]);
    finish(child).expect(0);
    let events = std::fs::read_to_string(out).unwrap();
    let start = events.lines().find(|line| line.contains("\"task-start\"")).unwrap();
    assert!(start.contains("\"agent\":\"a2\""), "{start}");
    let shown = fleet.ask(&["agents", "show", "a2"]).expect(0).stdout;
    assert!(shown.contains("allows   host-path="), "{shown}");
}

#[test]
fn an_agent_whose_disk_is_nearly_full_gets_no_new_work() {
    let fleet = Fleet::start(1);
    // More than any disk has.
    let _full = fleet.agent_with("a2", &["--disk-floor-mib", "1073741824", "--label", "disk=full"]);
    let yaml = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: t}
spec:
  podTemplate: {nodeSelector: {disk: full}}
  taskSpec:
    steps: [{name: s, image: busybox, script: "true"}]
"#;
    let (child, _) = fleet.start_run(yaml, &[]);
    let _guard = KillOnPanic(child.id());
    wait_until("the reason", || why(&fleet).contains("free on disk, under the floor of 1024 TiB"));
    fleet.ask(&["runs", "cancel", "latest"]).expect(0);
    finish(child).expect(130);
}

#[test]
fn a_run_says_what_it_has_used() {
    let tenon = Tenon::host();
    let yaml = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: t}
spec:
  taskSpec:
    steps:
    - name: a
      image: busybox
      script: i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done
    - {name: b, image: busybox, script: "true"}
"#;
    let said = tenon.run(yaml, &["-o", "json"]).expect(0);
    let events = said.events();
    let usage = |kind: &str| {
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| event["usage"].clone()).collect::<Vec<_>>()
    };
    let cpu = |usage: &Value| usage["cpuSeconds"].as_f64().unwrap();
    let (steps, tasks) = (usage("step-end"), usage("task-end"));
    assert!(cpu(&steps[0]) > 0.005, "{steps:?}");
    assert!((cpu(&tasks[0]) - cpu(&steps[0]) - cpu(&steps[1])).abs() < 1e-5, "{tasks:?}");
    let peak = |usage: &Value| usage["memoryPeakBytes"].as_u64().unwrap();
    assert_eq!(peak(&tasks[0]), peak(&steps[0]).max(peak(&steps[1])));
    let shown = tenon.tenon(&["runs", "show", "latest", "-o", "json"]).expect(0).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(cpu(&shown["usage"]), cpu(&tasks[0]));
    let shown = tenon.tenon(&["runs", "show", "latest"]).expect(0).stdout;
    assert!(shown.contains("used 0.") && shown.contains("of memory at most"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}
