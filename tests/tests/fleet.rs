//! Stories of agents that die, lose contact, and come back, on real Docker and on this machine itself.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::Value;
use tenon_tests::fleet::Fleet;
use tenon_tests::{KillOnPanic, Said, Tenon, finish, wait_until};

/// A lease that a test can wait for, and one that ends no test.
const SHORT: [&str; 4] = ["--lease-ms", "2000", "--lease-margin-ms", "100000"];

/// Tells the story on each backend, at the same time: most of it is waiting.
fn on_both(story: impl Fn(Tenon) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| story(Tenon::host()));
        scope.spawn(|| story(Tenon::docker()));
    });
}

fn kinds<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

fn lines_of(out: &Path) -> usize {
    fs::read_to_string(out).unwrap().matches("\"kind\":\"step-log\"").count()
}

fn saw(out: &Path, text: &str) -> bool {
    fs::read_to_string(out).unwrap().contains(text)
}

/// Waits for the end of a run that was started in the background.
fn end(child: Child, out: &Path, code: i32) -> Vec<Value> {
    let said = finish(child).expect(code);
    Said { stdout: fs::read_to_string(out).unwrap(), ..said }.events()
}

/// Lines of a step, as they came.
fn log(events: &[Value], step: &str) -> Vec<String> {
    let of_step =
        events.iter().filter(|event| event["kind"] == "step-log" && event["step"] == step);
    of_step.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
}

const COUNTING: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: counting}
spec:
  taskSpec:
    results: [{name: kept}]
    sidecars:
    - name: side
      image: busybox
      script: "trap 'echo side ends; exit 0' TERM; echo side begins; while :; do sleep 0.1; done"
    steps:
    - name: count
      image: busybox
      script: |
        #!/bin/sh
        i=0
        while [ $i -lt 4000 ]; do
          printf 'line '
          echo "$i"
          i=$((i+1))
          [ $((i % 40)) = 0 ] && sleep 0.05
        done
        printf 'of the first' > $(results.kept.path)
    - name: after
      image: busybox
      script: "echo begins; sleep 2; printf 'no newline'"
"#;

fn assert_counted(events: &[Value]) {
    let counted: Vec<String> = (0..4000).map(|number| format!("line {number}")).collect();
    assert_eq!(log(events, "count"), counted);
    assert_eq!(log(events, "after"), ["begins", "no newline"]);
    assert_eq!(kinds(events, "step-start").len(), 2);
    assert_eq!(kinds(events, "step-end").len(), 2);
    assert_eq!(kinds(events, "task-end").len(), 1);
    let end = kinds(events, "run-end")[0].to_string();
    assert!(events.iter().any(|event| event.to_string().contains("of the first")), "{end}");
}

/// A run of [`COUNTING`] that is in the middle of its lines.
fn start_counting(fleet: &Fleet) -> (Child, PathBuf, KillOnPanic) {
    let (child, out) = fleet.start_run(COUNTING, &[]);
    let guard = KillOnPanic(child.id());
    wait_until("lines", || lines_of(&out) > 200);
    (child, out, guard)
}

fn wait_until_frozen(fleet: &Fleet) {
    wait_until("frozen containers", || !fleet.containers(Some("paused")).is_empty());
    wait_until("all to be frozen", || fleet.containers(Some("running")).is_empty());
}

#[test]
fn an_agent_that_is_killed_goes_on_with_its_containers_and_no_line_is_lost_or_doubled() {
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon, 1, &[]);
        let (child, out) = fleet.start_run(COUNTING, &[]);
        let _guard = KillOnPanic(child.id());
        // While the first step prints, between steps, and while all of it ends.
        for lines in [300, 1500, 3000] {
            wait_until("more lines", || lines_of(&out) > lines);
            fleet.restart_agent();
        }
        wait_until("the second step", || saw(&out, "begins\""));
        fleet.restart_agent();
        wait_until("the sidecar's end, or the task's", || saw(&out, "-end\""));
        fleet.restart_agent();
        let events = end(child, &out, 0);
        assert_counted(&events);
        assert_eq!(kinds(&events, "task-lost").len(), 0);
        wait_until("nothing to be left", || fleet.containers(None).is_empty());
    });
}

#[test]
fn an_agent_that_is_killed_before_a_step_has_begun_leaves_no_task_behind() {
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon, 1, &[]);
        for moment in ["run-start", "task-start", "sidecar-start"] {
            let (child, out) = fleet.start_run(COUNTING, &[]);
            let _guard = KillOnPanic(child.id());
            wait_until(moment, || saw(&out, &format!("\"kind\":\"{moment}\"")));
            fleet.restart_agent();
            let events = end(child, &out, 0);
            let last = kinds(&events, "step-end").last().unwrap()["placement"].clone();
            let last: Vec<Value> = events.into_iter().filter(|e| e["placement"] == last).collect();
            let counted: Vec<String> = (0..4000).map(|number| format!("line {number}")).collect();
            assert_eq!(log(&last, "count"), counted);
        }
        wait_until("nothing to be left", || fleet.containers(None).is_empty());
    });
}

#[test]
fn what_is_gone_when_the_agent_comes_back_is_done_again() {
    let yaml = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: t}
spec:
  taskSpec:
    volumes: [{name: v, hostPath: {path: SHARED}}]
    steps:
    - name: s
      image: busybox
      volumeMounts: [{name: v, mountPath: /shared}]
      script: "echo begins; [ -e /shared/second ] || sleep 3000"
"#;
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon.allowing_its_directory(), 1, &[]);
        let shared = fleet.tenon.dir().join("shared");
        fs::create_dir(&shared).unwrap();
        let yaml = yaml.replace("SHARED", &shared.display().to_string());
        let (child, out) = fleet.start_run(&yaml, &[]);
        let _guard = KillOnPanic(child.id());
        wait_until("the step", || saw(&out, "begins"));
        fs::write(shared.join("second"), "").unwrap();
        fleet.agent = None;
        fleet.remove_containers();
        wait_until("nothing to be left", || fleet.containers(None).is_empty());
        fleet.agent = Some(fleet.agent("a1"));
        let events = end(child, &out, 0);
        assert!(saw(&out, "infra/agent-restarted"));
        assert_eq!(kinds(&events, "run-end").len(), 1);
    });
}

#[test]
fn steps_are_frozen_while_nobody_answers_and_go_on_after() {
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon, 1, &SHORT);
        let (child, out, _guard) = start_counting(&fleet);
        // The only coordinator dies for longer than the lease.
        fleet.coordinators[0].kill();
        wait_until_frozen(&fleet);
        let said = fleet.said_by("a1");
        assert!(said.contains("WARN the lease is over"), "{said}");
        // The agent dies too, and comes back to frozen containers: they stay so.
        fleet.restart_agent();
        let said = fleet.said_by("a1");
        wait_until("the agent to try", || fleet.said_by("a1").len() > said.len());
        assert!(fleet.containers(Some("running")).is_empty(), "nothing acts without a lease");
        fleet.restart(0);
        let events = end(child, &out, 0);
        assert_counted(&events);
        assert_eq!(kinds(&events, "task-lost").len(), 0);
    });
}

#[test]
fn what_a_dead_agent_ran_is_frozen_by_its_guard() {
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon, 1, &SHORT);
        let (child, out, _guard) = start_counting(&fleet);
        fleet.agent = None;
        wait_until_frozen(&fleet);
        fleet.agent = Some(fleet.agent("a1"));
        let events = end(child, &out, 0);
        assert_counted(&events);
    });
}

#[test]
fn a_guard_that_is_killed_is_replaced_although_nobody_answers() {
    on_both(|tenon| {
        let mut fleet = Fleet::start_on(tenon, 1, &SHORT);
        let (child, out, _guard) = start_counting(&fleet);
        fleet.coordinators[0].kill();
        fleet.kill_guard("a1");
        wait_until_frozen(&fleet);
        fleet.restart(0);
        assert_counted(&end(child, &out, 0));
    });
}

#[test]
fn what_is_killed_while_it_is_frozen_does_not_move_once_more() {
    let yaml = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: t}
spec:
  taskSpec:
    volumes: [{name: v, hostPath: {path: SHARED}}]
    steps:
    - name: s
      image: busybox
      volumeMounts: [{name: v, mountPath: /shared}]
      script: |
        [ "$TENON_FENCING_TOKEN" != 1000001 ] || while :; do echo >> /shared/file; done
"#;
    on_both(|tenon| {
        let args = ["--lease-ms", "2000", "--lease-margin-ms", "1000"];
        let mut fleet = Fleet::start_on(tenon.allowing_its_directory(), 1, &args);
        let shared = fleet.tenon.dir().join("shared");
        fs::create_dir(&shared).unwrap();
        let file = shared.join("file");
        let yaml = yaml.replace("SHARED", &shared.display().to_string());
        let (child, out) = fleet.start_run(&yaml, &[]);
        let _guard = KillOnPanic(child.id());
        wait_until("the step to write", || file.exists());
        fleet.agent = None;
        wait_until_frozen(&fleet);
        let frozen = fs::metadata(&file).unwrap().len();
        let mut other = fleet.agent("a2");
        end(child, &out, 0);
        fleet.agent = Some(fleet.agent("a1"));
        wait_until("nothing to be left", || fleet.containers(None).is_empty());
        assert_eq!(fs::metadata(&file).unwrap().len(), frozen, "it wrote when it was killed");
        other.kill();
    });
}

#[test]
fn what_an_agent_ran_that_is_gone_for_good_is_done_by_another_and_killed_where_it_was() {
    on_both(|tenon| {
        let args = ["--lease-ms", "2000", "--lease-margin-ms", "1000"];
        let mut fleet = Fleet::start_on(tenon, 1, &args);
        let (child, out, _guard) = start_counting(&fleet);
        let before = fleet.containers(None);
        fleet.agent = None;
        let mut other = fleet.agent("a2");
        let events = end(child, &out, 0);
        let lost = kinds(&events, "task-lost");
        assert_eq!(lost.len(), 1);
        assert!(lost[0].to_string().contains("infra/agent-lost"), "{}", lost[0]);
        let left: Vec<String> = fleet.containers(Some("running"));
        assert!(before.iter().all(|id| !left.contains(id)), "what was lost does not act");
        // It comes back, and is told that nothing of it is its own any more.
        fleet.agent = Some(fleet.agent("a1"));
        wait_until("nothing to be left", || fleet.containers(None).is_empty());
        other.kill();
    });
}

#[test]
fn an_agent_whose_name_was_taken_begins_a_new_life_when_the_other_is_gone() {
    let args = ["--lease-ms", "2000", "--lease-margin-ms", "1000"];
    let mut fleet = Fleet::start_on(Tenon::host(), 1, &args);
    let mut first = fleet.agent.take().unwrap();
    let other = fleet.tenon.dir().join("other");
    let mut second = fleet.agent_with("a1", &["--data-dir", other.to_str().unwrap()]);
    wait_until("the first to end", || first.child.try_wait().unwrap().is_some());
    second.kill();
    wait_until("the second to be down", || {
        fleet.json(&["agents", "show", "a1"])["state"] == "down"
    });

    let mut again = fleet.agent("a1");
    wait_until("its old life to be over", || again.child.try_wait().unwrap().is_some());
    assert!(fleet.said_by("a1").contains("conflict/agent-life-over"), "{}", fleet.said_by("a1"));
    fleet.agent = Some(fleet.agent("a1"));
    wait_until("it to be up", || fleet.json(&["agents", "show", "a1"])["state"] == "up");
}
