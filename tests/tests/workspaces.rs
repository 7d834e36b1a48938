//! Stories of workspaces that move from one agent to another, with three coordinators that keep them meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tenon_tests::fleet::Fleet;
use tenon_tests::{KillOnPanic, Said, Tenon, finish, wait_until};

/// Leases that a test can wait for.
const SHORT: [&str; 4] = ["--lease-ms", "2000", "--lease-margin-ms", "1000"];

/// `make` fills a workspace, `use` looks at it; more of `use` is to be put in.
const PIPELINE: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: moving}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {spec: {}}}]
  taskRunSpecs: SPECS
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: make
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps:
        - name: s
          image: x
          workingDir: $(workspaces.w.path)
          script: |
            #!/bin/sh
            set -e
            mkdir -p deep/er empty
            echo 'hello from make' > deep/er/file
            chmod 640 deep/er/file
            ln -s deep/er/file link
            ln deep/er/file hard
            printf x | dd of=sparse bs=1 seek=50000000 2>/dev/null
            touch -d @1234567890 old
    - name: use
      runAfter: [make]
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        volumes: [{name: v, hostPath: {path: SHARED}}]
        steps:
        - name: s
          image: x
          workingDir: $(workspaces.w.path)
          volumeMounts: [{name: v, mountPath: /shared}]
          script: |
            #!/bin/sh
            set -e
            cat link
            stat -c %a,%h deep/er/file
            stat -c %Y,%F old
            stat -c %s sparse
            [ "$(du -k sparse | cut -f1)" -lt 1000 ] && echo sparse
            ls -A | sort | tr '\n' ' '
            echo
            MORE
"#;

/// What `use` prints.
const SEEN: [&str; 6] = [
    "hello from make",
    "640,2",
    "1234567890,regular empty file",
    "50000001",
    "sparse",
    "deep empty hard link old sparse ",
];

fn pipeline(fleet: &Fleet, specs: &str, more: &str) -> String {
    let shared = fleet.tenon.dir().join("shared");
    fs::create_dir_all(&shared).unwrap();
    let yaml = PIPELINE.replace("SPECS", specs).replace("MORE", more);
    yaml.replace("SHARED", &shared.display().to_string())
}

fn on(agent: &str) -> String {
    format!("podTemplate: {{nodeSelector: {{kubernetes.io/hostname: {agent}}}}}")
}

fn lines(events: &[Value], task: &str) -> Vec<String> {
    let of_task =
        events.iter().filter(|event| event["kind"] == "step-log" && event["task"] == task);
    of_task.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
}

fn ends<'a>(events: &'a [Value], task: &str) -> Vec<&'a Value> {
    events.iter().filter(|it| it["kind"] == "task-end" && it["task"] == task).collect()
}

fn saw(out: &Path, text: &str) -> bool {
    fs::read_to_string(out).unwrap().contains(text)
}

fn ended(out: &Path, task: &str) -> bool {
    let text = fs::read_to_string(out).unwrap();
    text.lines().any(|line| line.contains("\"task-end\"") && line.contains(&format!("\"{task}\"")))
}

/// Waits for the end of a run that was started in the background.
fn end(child: std::process::Child, out: &Path, code: i32) -> Vec<Value> {
    let said = finish(child).expect(code);
    Said { stdout: fs::read_to_string(out).unwrap(), ..said }.events()
}

#[test]
fn what_an_agent_has_made_that_is_gone_for_good_is_there_on_another() {
    let mut fleet = Fleet::start_on(Tenon::host().allowing_its_directory(), 3, &SHORT);
    let specs = format!(
        "[{{pipelineTaskName: make, {}}}, {{pipelineTaskName: use, {}}}]",
        on("a1"),
        on("a2")
    );
    let yaml = pipeline(&fleet, &specs, ":");
    let (child, out) = fleet.start_run(&yaml, &[]);
    let _guard = KillOnPanic(child.id());
    wait_until("make to end", || ended(&out, "make"));
    // The agent and its disk are gone, and one of those who keep what it saved.
    fleet.agent = None;
    fs::remove_dir_all(fleet.tenon.dir().join("state/agents/a1")).unwrap_or_default();
    let leader = fleet.leader();
    fleet.coordinators[(leader + 1) % 3].kill();
    let mut other = fleet.agent("a2");
    let events = end(child, &out, 0);
    assert_eq!(lines(&events, "use"), SEEN);
    let make = ends(&events, "make")[0];
    let used = ends(&events, "use")[0];
    let saved = &make["workspaces"][0]["saved"];
    assert_eq!((&make["agent"], &used["agent"]), (&"a1".into(), &"a2".into()));
    assert_eq!(saved["snapshot"], used["workspaces"][0]["restored"]["snapshot"]);
    assert!(saved["newBytes"].as_u64() > Some(0), "{make}");
    other.kill();
}

#[test]
fn a_rerun_from_the_failed_tasks_has_its_files_on_another_agent() {
    let mut fleet = Fleet::start_on(Tenon::host().allowing_its_directory(), 3, &SHORT);
    let yaml = pipeline(&fleet, "[]", "if [ ! -e /shared/again ]; then touch tried; exit 1; fi");
    let (child, out) = fleet.start_run(&yaml, &[]);
    let _guard = KillOnPanic(child.id());
    end(child, &out, 5);
    fs::write(fleet.tenon.dir().join("shared/again"), "").unwrap();
    fleet.agent = None;
    let mut other = fleet.agent("a2");
    let again = fleet.json(&["runs", "rerun", "latest", "--from-failed"]);
    let again = again["id"].as_str().unwrap();
    let events = fleet.ask(&["events", again, "--follow"]).expect(0).events();
    let mut expected = SEEN.map(str::to_owned);
    // What the task that failed has left is there too, as on its own agent.
    expected[5] = "deep empty hard link old sparse tried ".to_owned();
    assert_eq!(lines(&events, "use"), expected);
    assert_eq!(ends(&events, "use")[0]["agent"], "a2");
    assert_eq!(ends(&events, "make").len(), 0, "it is kept");
    other.kill();
}

#[test]
fn a_task_that_a_drain_moves_finds_its_files_elsewhere() {
    let fleet = Fleet::start_on(Tenon::host().allowing_its_directory(), 1, &SHORT);
    let yaml = pipeline(&fleet, "[]", "[ -e /shared/second ] || { echo hangs; sleep 3000; }");
    let (child, out) = fleet.start_run(&yaml, &[]);
    let _guard = KillOnPanic(child.id());
    wait_until("the task that hangs", || saw(&out, "hangs\""));
    fs::write(fleet.tenon.dir().join("shared/second"), "").unwrap();
    let mut other = fleet.agent("a2");
    fleet.until_up("a2");
    fleet.ask(&["agents", "drain", "a1", "--deadline", "1s"]).expect(0);
    let events = end(child, &out, 0);
    assert_eq!(ends(&events, "use")[0]["agent"], "a2");
    let placed_again: Vec<&Value> =
        events.iter().filter(|it| it["kind"] == "step-log" && it["placement"] == 2).collect();
    let again: Vec<&str> = placed_again.iter().map(|it| it["line"].as_str().unwrap()).collect();
    assert_eq!(again, SEEN);
    let lost = events.iter().find(|event| event["kind"] == "task-lost").unwrap();
    assert_eq!(lost["reason"], "infra/drained");
    other.kill();
}

/// `make` fills a workspace with so much that it takes a moment, and `use` looks whether all of it is there.
const LARGE: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: large}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {spec: {}}}]
  taskRunSpecs: [{pipelineTaskName: make, MAKE}, {pipelineTaskName: use, USE}]
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: make
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps:
        - name: s
          image: x
          workingDir: $(workspaces.w.path)
          script: |
            for i in 1 2 3; do head -c 60000000 /dev/urandom > $i; done
            for i in $(seq 200); do echo $i > small$i; done
            sha256sum * > ../sums && mv ../sums .
    - name: use
      runAfter: [make]
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps:
        - name: s
          image: x
          workingDir: $(workspaces.w.path)
          script: |
            #!/bin/sh
            set -e
            sha256sum --quiet -c sums
            ls -A | wc -l
"#;

/// Bytes of chunks that a coordinator has on its disk, as far as they are written.
fn stored(fleet: &Fleet, name: &str) -> u64 {
    let dir = fleet.tenon.dir().join(name).join("blobs");
    fs::read_dir(dir).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum()
}

/// The directories of an agent into which a restore is under way.
fn unfinished(fleet: &Fleet, agent: &str) -> Vec<PathBuf> {
    let runs = fleet.tenon.state_dir().join("agents").join(agent).join("runs");
    let below = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let claims = below(&runs).into_iter().flat_map(|run| below(&run.join("claims")));
    claims.filter(|claim| claim.join(".tenon-restore-unfinished").exists()).collect()
}

#[test]
fn an_agent_that_is_killed_while_it_saves_or_restores_does_it_again_and_all_of_it() {
    let mut fleet = Fleet::start_on(Tenon::host(), 3, &SHORT);
    let yaml = LARGE.replace("MAKE", &on("a1")).replace("USE", &on("a2"));
    let (child, out) = fleet.start_run(&yaml, &[]);
    let _guard = KillOnPanic(child.id());
    wait_until("the save", || stored(&fleet, "c1") > 5_000_000);
    fleet.restart_agent();
    assert!(!ended(&out, "make"), "it was saved before it could be killed");
    wait_until("make to end", || ended(&out, "make"));

    let mut other = fleet.agent("a2");
    wait_until("the restore", || !unfinished(&fleet, "a2").is_empty());
    other.kill();
    assert_eq!(unfinished(&fleet, "a2").len(), 1, "it was restored before it could be killed");
    let mut other = fleet.agent("a2");
    let events = end(child, &out, 0);
    assert_eq!(lines(&events, "use").last().unwrap(), "204");
    other.kill();
}

#[test]
fn workspaces_move_through_a_store_that_all_coordinators_share() {
    let store = tempfile::TempDir::new().unwrap();
    let url = format!("file://{}/workspaces", store.path().display());
    move_through(Tenon::host(), &url);
    assert!(store.path().join("workspaces/chunks").is_dir());
}

#[test]
#[ignore = "needs a server: `cargo xtask blobs-backend` starts one"]
fn workspaces_move_through_a_bucket() {
    let variable = |name| std::env::var(name).expect("`cargo xtask blobs-backend` sets it");
    let (bucket, server) = (variable("TENON_BUCKET"), variable("TENON_S3"));
    let tenon = Tenon::host()
        .with_env("AWS_ENDPOINT_URL", &format!("http://{server}"))
        .with_env("AWS_ALLOW_HTTP", "true")
        .with_env("AWS_ACCESS_KEY_ID", "somebody")
        .with_env("AWS_SECRET_ACCESS_KEY", "secret");
    move_through(tenon, &format!("s3://{bucket}/workspaces"));
    let list = format!("/{bucket}?list-type=2&prefix=workspaces/chunks/");
    let there = tenon_tests::http_get(&server, &list).unwrap();
    assert!(there.contains("<Key>workspaces/chunks/"), "{there}");
}

/// A workspace made on one agent and used on another, while the leader is killed, by coordinators that keep chunks at
/// `url` and nowhere else.
fn move_through(tenon: Tenon, url: &str) {
    let args = [&SHORT[..], &["--blobs", url]].concat();
    let mut fleet = Fleet::start_on(tenon.allowing_its_directory(), 3, &args);
    let specs = format!(
        "[{{pipelineTaskName: make, {}}}, {{pipelineTaskName: use, {}}}]",
        on("a1"),
        on("a2")
    );
    let (child, out) = fleet.start_run(&pipeline(&fleet, &specs, ":"), &[]);
    let _guard = KillOnPanic(child.id());
    wait_until("make to end", || ended(&out, "make"));
    fleet.agent = None;
    let leader = fleet.leader();
    fleet.coordinators[leader].kill();
    let mut other = fleet.agent("a2");
    let events = end(child, &out, 0);
    assert_eq!(lines(&events, "use"), SEEN);
    for node in ["c1", "c2", "c3"] {
        assert!(!fleet.tenon.dir().join(node).join("blobs").exists(), "{node} keeps chunks, too");
    }
    other.kill();
}

/// A file system of its own at a directory, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(dir: PathBuf, size: &str) -> Mounted {
        fs::create_dir_all(&dir).unwrap();
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir);
        assert!(mount.status().unwrap().success(), "only root may mount");
        Mounted(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: who has it open may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn coordinators_without_room_for_workspaces_leave_them_where_they_are() {
    let tenon = Tenon::host().allowing_its_directory();
    // Less than they leave free in any case.
    let _full =
        ["c1", "c2", "c3"].map(|node| Mounted::tmpfs(tenon.dir().join(node).join("blobs"), "64m"));
    let fleet = Fleet::start_on(tenon, 3, &SHORT);
    let said = fleet.run(&pipeline(&fleet, "[]", ":"), &["-o", "json"]).expect(0);
    let events = said.events();
    assert_eq!(lines(&events, "use"), SEEN);
    let make = ends(&events, "make")[0];
    let told = make["workspaces"][0]["message"].as_str().unwrap();
    assert!(told.contains("[overloaded/blobs-full]"), "{told}");
    // Who may run elsewhere only waits, and is told for what.
    let specs = format!("[{{pipelineTaskName: use, {}}}]", on("a2"));
    let (mut child, out) = fleet.start_run(&pipeline(&fleet, &specs, ":"), &[]);
    let _guard = KillOnPanic(child.id());
    let mut other = fleet.agent("a2");
    wait_until("the reason", || saw(&out, "not have the run's volume"));
    assert_eq!(
        ends(&fleet.ask(&["events", "--kind", "task-end"]).expect(0).events(), "use").len(),
        1
    );
    child.kill().unwrap();
    child.wait().unwrap();
    other.kill();
}
