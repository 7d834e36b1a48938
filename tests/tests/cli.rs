//! The commands as a person uses them.

use std::fs;
use std::time::{Duration, Instant};

use tenon_tests::{KillOnPanic, Tenon, finish, signal, wait_until};

const TASK: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: greet}
spec:
  params: [{name: who, default: world}, {name: list, type: array, default: []}]
  workspaces: [{name: source, optional: true}]
  results: [{name: said}]
  steps:
  - name: say
    image: busybox
    args: ["$(params.list[*])"]
    script: |
      echo "hello $(params.who) $# $*"
      printf "$(params.who)" > $(results.said.path)
      if [ "$(workspaces.source.bound)" = true ]; then ls "$(workspaces.source.path)"; touch "$(workspaces.source.path)/made"; fi
"#;

#[test]
fn a_task_without_a_run_object_takes_params_and_workspaces_from_flags() {
    let tenon = Tenon::host();
    tenon.file("task.yaml", TASK);
    tenon.file("src/a-file", "");
    let said = tenon
        .tenon(&[
            "run",
            "-f",
            "task.yaml",
            "--task",
            "greet",
            "-p",
            "who=Ada",
            "-p",
            r#"list=["x","y z"]"#,
            "-w",
            "source=src",
            "-o",
            "json",
        ])
        .expect(0);
    assert_eq!(said.log(), ["hello Ada 2 x y z", "a-file"]);
    assert!(tenon.dir().join("src/made").exists());
}

#[test]
fn several_runs_in_one_file_run_in_order_and_the_first_failure_decides() {
    let tenon = Tenon::host();
    let run = |name: &str, script: &str| {
        format!(
            "---\napiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: {name}}}\nspec: {{taskSpec: {{steps: [{{name: s, image: x, script: '{script}'}}]}}}}\n"
        )
    };
    let yaml = run("one", "echo 1") + &run("two", "exit 9") + &run("three", "echo 3");
    let said = tenon.run(&yaml, &["-o", "json"]).expect(5);
    assert_eq!(said.log(), ["1", "3"]);
    let ends: Vec<_> = said
        .events()
        .into_iter()
        .filter(|event| event["kind"] == "run-end")
        .map(|event| event["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ends, ["succeeded", "failed", "succeeded"]);
}

#[test]
fn the_pipeline_of_a_directory_is_found() {
    let tenon = Tenon::host();
    tenon.file(".tekton/run.yaml", "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: r}\nspec: {taskRef: {name: greet}}\n");
    tenon.file(".tekton/task.yaml", TASK);
    assert_eq!(tenon.tenon(&["run", "-o", "json"]).expect(0).log(), ["hello world 0 "]);
}

#[test]
fn interrupting_once_cancels_and_runs_finally() {
    let tenon = Tenon::host();
    tenon.file("p.yaml", "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: p}\nspec:\n  pipelineSpec:\n    tasks: [{name: slow, taskSpec: {steps: [{name: s, image: x, script: 'echo started; sleep 600'}]}}]\n    finally: [{name: f, taskSpec: {steps: [{name: s, image: x, script: 'echo cleaned'}]}}]\n");
    let out = tenon.dir().join("out");
    let mut command = tenon.command(&["run", "-o", "json", "-f", "p.yaml"]);
    let child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let _guard = KillOnPanic(child.id());
    wait_until("the slow step", || fs::read_to_string(&out).unwrap().contains(r#""started""#));
    signal(child.id(), libc::SIGINT);
    finish(child).expect(130);
    let events = fs::read_to_string(&out).unwrap();
    assert!(events.contains(r#""line":"cleaned""#), "{events}");
    let end = events.lines().last().unwrap();
    assert!(end.contains(r#""status":"cancelled""#), "{end}");
}

#[test]
fn interrupting_twice_stops_now() {
    let tenon = Tenon::host();
    tenon.file("p.yaml", "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: p}\nspec:\n  pipelineSpec:\n    tasks: [{name: slow, taskSpec: {steps: [{name: s, image: x, script: 'trap \"\" TERM INT; echo started; while :; do sleep 1; done'}]}}]\n    finally: [{name: f, taskSpec: {steps: [{name: s, image: x, script: 'echo cleaned'}]}}]\n");
    let (out, notes) = (tenon.dir().join("out"), tenon.dir().join("notes"));
    let mut command = tenon.command(&["run", "-o", "json", "-f", "p.yaml"]);
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&notes).unwrap());
    let child = command.spawn().unwrap();
    let _guard = KillOnPanic(child.id());
    wait_until("the slow step", || fs::read_to_string(&out).unwrap().contains(r#""started""#));
    signal(child.id(), libc::SIGINT);
    let notice = || fs::read_to_string(&notes).unwrap();
    wait_until("what a second one does", || notice().contains("again stops everything now"));
    let second = Instant::now();
    signal(child.id(), libc::SIGINT);
    finish(child).expect(130);
    assert!(second.elapsed() < Duration::from_secs(10), "it waited for the step to end");
    let events = fs::read_to_string(&out).unwrap();
    assert!(!events.contains("cleaned"), "{events}");
    assert!(events.lines().last().unwrap().contains(r#""kind":"run-end""#), "{events}");
}

#[test]
fn pretty_output_has_prefixes_and_a_summary() {
    let tenon = Tenon::host();
    tenon.file("task.yaml", TASK);
    let said = tenon.tenon(&["run", "-f", "task.yaml", "--task", "greet"]).expect(0);
    assert!(said.stdout.contains("[greet : say] hello world"), "{}", said.stdout);
    assert!(said.stdout.to_lowercase().contains("succeeded"), "{}", said.stdout);
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 80), "{}", said.stdout);
    assert!(!said.stdout.contains('\u{1b}'), "colours without a terminal");
}

#[test]
fn history_can_be_listed_shown_read_and_pruned() {
    let tenon = Tenon::host();
    tenon.file("task.yaml", TASK);
    tenon.tenon(&["run", "-f", "task.yaml", "--task", "greet"]).expect(0);
    tenon.tenon(&["run", "-f", "task.yaml", "--task", "greet", "-p", "who=two"]).expect(0);
    let list = tenon.tenon(&["runs", "list", "-o", "json"]).expect(0);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let runs = list.as_array().or_else(|| list["runs"].as_array()).unwrap();
    assert_eq!(runs.len(), 2);
    let logs = tenon.tenon(&["logs", "latest", "--step", "say"]).expect(0);
    assert!(logs.stdout.contains("hello two"), "{}", logs.stdout);
    let show = tenon.tenon(&["runs", "show", "latest"]).expect(0);
    assert!(show.stdout.contains("greet"), "{}", show.stdout);
    tenon.tenon(&["runs", "prune", "--keep", "1"]).expect(0);
    let list = tenon.tenon(&["runs", "list", "-o", "json"]).expect(0);
    assert_eq!(list.stdout.matches(r#""status": "succeeded""#).count(), 1, "{}", list.stdout);
}

#[test]
fn graphs_in_three_languages() {
    let tenon = Tenon::host();
    tenon.file("p.yaml", "apiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {name: p}\nspec:\n  tasks:\n  - {name: a, taskRef: {name: x}}\n  - {name: b, runAfter: [a], taskRef: {name: x}}\n");
    let ascii = tenon.tenon(&["graph", "-f", "p.yaml"]).expect(0).stdout;
    assert!(ascii.contains('a') && ascii.contains('b'));
    let dot = tenon.tenon(&["graph", "-f", "p.yaml", "-o", "dot"]).expect(0).stdout;
    assert!(dot.contains("digraph") && dot.contains("->"), "{dot}");
    let mermaid = tenon.tenon(&["graph", "-f", "p.yaml", "-o", "mermaid"]).expect(0).stdout;
    assert!(mermaid.contains("-->"), "{mermaid}");
}

#[test]
fn logs_of_a_task_that_is_not_there_are_refused() {
    let tenon = Tenon::host();
    tenon.file("task.yaml", TASK);
    tenon.tenon(&["run", "-f", "task.yaml"]).expect(0);
    tenon.tenon(&["logs", "--task", "greet", "--step", "say"]).expect(0);
    for (args, says) in
        [(["--task", "nosuch"], "its tasks: greet"), (["--step", "x"], "its steps: say")]
    {
        let said = tenon.tenon(&[&["logs"][..], &args].concat()).expect(2);
        assert!(said.stderr.contains(says), "{}", said.stderr);
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let tenon = Tenon::host();
    tenon.file("t.yaml", "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: t}\nspec: {taskSpec: {steps: [{name: s, image: x, script: 'seq 200000'}]}}\n");
    let mut child = tenon.command(&["run", "-o", "json", "-f", "t.yaml"]).spawn().unwrap();
    drop(child.stdout.take());
    let said = finish(child);
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
}

#[test]
fn a_run_whose_output_nobody_reads_any_more_still_cleans_up() {
    let tenon = Tenon::host();
    tenon.file("p.yaml", "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: p}\nspec:\n  pipelineSpec:\n    tasks: [{name: slow, taskSpec: {steps: [{name: s, image: x, script: 'while :; do echo on; sleep 1; done'}]}}]\n    finally: [{name: f, taskSpec: {steps: [{name: s, image: x, script: 'echo cleaned'}]}}]\n");
    let mut child = tenon.command(&["run", "-f", "p.yaml"]).spawn().unwrap();
    drop(child.stdout.take());
    let said = finish(child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert_eq!(said.stderr.matches("nobody reads the output").count(), 1, "{}", said.stderr);
    let printed = tenon.tenon(&["logs", "latest"]).expect(0).stdout;
    assert!(printed.contains("cleaned"), "{printed}");
}
