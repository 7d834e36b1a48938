//! The command from outside: exit codes, places of faults, config layers, formats. Nothing here runs
//! a pipeline.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs `tenon` in `dir` with a clean environment.
fn tenon(dir: &Path, args: &[&str], vars: &[(&str, &str)]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_tenon"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .envs(vars.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Answer {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

const TASK: &str = "\
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: hello}
spec:
  params: [{name: who, default: world}]
  steps: [{name: say, image: busybox, script: echo hi}]
";

const PIPELINE: &str = "\
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: release}
spec:
  tasks:
    - {name: fetch, taskRef: {name: hello}}
    - {name: build, taskRef: {name: hello}, runAfter: [fetch]}
";

const RUN: &str = "\
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: hello}
spec:
  taskSpec:
    params: [{name: who, default: world}]
    steps: [{name: say, image: busybox, script: echo hi}]
";

#[test]
fn valid_and_invalid_files() {
    let dir = dir_with(&[
        ("good.yaml", TASK),
        ("typo.yaml", &TASK.replace("steps:", "stepz:")),
        ("text.yaml", "a: [1"),
        (".tekton/pipeline.yaml", PIPELINE),
        ("empty.yaml", "---\n# nothing\n"),
        ("run.yaml", RUN),
    ]);
    let cases = [
        (&["validate", "-f", "good.yaml"][..], 0, ""),
        (&["validate"], 0, ""),
        (&["validate", "-f", "typo.yaml"], 4, "typo.yaml:6"),
        (&["validate", "-f", "text.yaml"], 4, "text.yaml:1"),
        (&["validate", "-f", "missing.yaml"], 2, "missing.yaml"),
        (&["validate", "--fil", "good.yaml"], 2, "--file"),
        (&["run", "-f", "typo.yaml"], 4, "typo.yaml:6"),
        (&["run", "-f", "good.yaml", "--task", "helo"], 2, "did you mean \"hello\"?"),
        (&["run", "-f", "good.yaml", "--pipeline", "x"], 2, "no Pipeline \"x\""),
        (&["run", "-f", "good.yaml", "--timeout", "soon"], 2, "--timeout soon"),
        (&["run", "-f", "good.yaml", "-p", "novalue"], 2, "KEY=VALUE"),
        (&["run", "-f", "good.yaml", "-w", "src=/no/such"], 2, "/no/such"),
        (&["run", "-f", "https://x.org/p.yaml"], 2, "URLs are not read"),
        (&["coordinator", "--listen", "foo"], 2, "HOST:PORT"),
        (&["coordinator", "--listen", "0.0.0.0:99999"], 2, "65535"),
        (&["runs", "list", "--limit", "0"], 2, "at least 1"),
        (&["validate", "-f", "empty.yaml"], 2, "nothing to validate"),
        (&["run", "-f", "run.yaml", "-p", "whoo=x", "--server", "x"], 2, "did you mean \"who\"?"),
        (&["run", "-f", "run.yaml", "-w", "x=emptyDir", "--server", "x"], 2, "no such workspace"),
    ];
    for (args, code, says) in cases {
        let answer = tenon(dir.path(), args, &[]);
        assert_eq!(answer.code, code, "{args:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(says), "{args:?}: {}", answer.stderr);
    }
}

#[test]
fn a_wrong_value_of_a_variable_names_the_variable() {
    let dir = dir_with(&[]);
    let many = [("TENON_PARALLEL", "x")];
    let answer = tenon(dir.path(), &["run"], &many);
    assert_eq!(answer.code, 2, "{}", answer.stderr);
    assert!(answer.stderr.contains("TENON_PARALLEL"), "{}", answer.stderr);
    let answer = tenon(dir.path(), &["run", "--parallel", "x"], &many);
    assert!(!answer.stderr.contains("TENON_PARALLEL"), "{}", answer.stderr);
}

#[test]
fn faults_as_json() {
    let dir = dir_with(&[("typo.yaml", &TASK.replace("steps:", "stepz:"))]);
    let answer = tenon(dir.path(), &["validate", "-f", "typo.yaml", "-o", "json"], &[]);
    let value: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, &value["valid"]), (4, &serde_json::json!(false)));
    assert_eq!(value["errors"][0]["file"], "typo.yaml");
    assert_eq!(value["errors"][0]["line"], 6);
    assert!(value["errors"][0]["message"].as_str().unwrap().contains("stepz"));
}

#[test]
fn flag_over_variable_over_file() {
    let config = "[list]\noutput = \"json\"\n";
    let dir = dir_with(&[("a.yaml", TASK), ("tenon.toml", config)]);
    let list = ["list", "-f", "a.yaml"];
    let is = |answer: &Answer, begins: &str| {
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        assert!(answer.stdout.starts_with(begins), "{}", answer.stdout);
    };
    is(&tenon(dir.path(), &list, &[]), "[");
    let yaml = [("TENON_LIST_OUTPUT", "yaml")];
    is(&tenon(dir.path(), &list, &yaml), "- ");
    is(&tenon(dir.path(), &["list", "-f", "a.yaml", "-o", "pretty"], &yaml), "KIND");
}

#[test]
fn files_can_be_named_by_variable_and_by_config() {
    let dir = dir_with(&[
        ("a.yaml", TASK),
        ("b.yaml", PIPELINE),
        ("tenon.toml", "[list]\nfile = [\"b.yaml\"]\n"),
    ]);
    let by_file = tenon(dir.path(), &["list"], &[]);
    assert!(
        by_file.stdout.contains("release") && !by_file.stdout.contains("hello"),
        "{}",
        by_file.stdout
    );
    let both = tenon(dir.path(), &["list"], &[("TENON_LIST_FILE", "a.yaml\nb.yaml")]);
    assert!(both.stdout.contains("release") && both.stdout.contains("hello"), "{}", both.stdout);
}

#[test]
fn an_agent_says_what_holds_and_from_where() {
    let config =
        "server = \"http://c1:7070\"\n[agent]\nslots = 3\nlabel = { zone = \"b\" }\nname = \"a\"\n";
    let dir = dir_with(&[("a.toml", config), ("tenon.toml", "[agent]\nslots = 9\nkeep = true\n")]);
    let ask = ["agent", "--config", "a.toml", "--print-config", "--spool-mib", "7"];
    let answer = tenon(dir.path(), &ask, &[("TENON_AGENT_NAME", "b")]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    for line in [
        "server = \"http://c1:7070\"  # a.toml:1",
        "slots = 3  # a.toml:3",
        "label = [\"zone=b\"]  # a.toml:4",
        "name = \"b\"  # TENON_AGENT_NAME",
        "spool-mib = 7  # --spool-mib",
        "keep = false  # default",
        "on-lease-expiry = \"freeze\"  # default",
        "# data-dir  # default",
    ] {
        assert!(answer.stdout.lines().any(|said| said == line), "{line} not in {}", answer.stdout);
    }
    let answer = tenon(dir.path(), &["version", "--config", "none.toml"], &[]);
    assert_eq!(answer.code, 2);
    assert!(answer.stderr.contains("none.toml"), "{}", answer.stderr);
}

#[test]
fn faults_of_the_config_file_have_a_place() {
    for (config, says) in [
        (
            "[run]\nparalel = 4\n",
            &["tenon.toml:2:1", "unknown key", "did you mean \"parallel\"?"][..],
        ),
        ("[rum]\n", &["tenon.toml:1:2", "did you mean \"run\"?"]),
        ("[run]\nbackend = \"podman\"\n", &["tenon.toml:2:11", "podman", "auto, docker, host"]),
        ("[run]\nkeep = \"yes\"\n", &["tenon.toml:2:8", "true or false"]),
        ("[run]\nparallel = 0\n", &["tenon.toml:2:12", "parallel"]),
        ("run = [\n", &["tenon.toml:"]),
    ] {
        let dir = dir_with(&[("tenon.toml", config)]);
        let answer = tenon(dir.path(), &["version"], &[]);
        assert_eq!(answer.code, 2, "{config}: {}", answer.stderr);
        for says in says {
            assert!(answer.stderr.contains(says), "{config}: {says} not in {}", answer.stderr);
        }
    }
}

#[test]
fn graphs_of_every_kind() {
    let dir = dir_with(&[("p.yaml", PIPELINE)]);
    for (format, says) in [
        ("ascii", "build  ← fetch"),
        ("dot", "\"fetch\" -> \"build\""),
        ("mermaid", "t0 --> t1"),
        ("json", "\"after\""),
    ] {
        let answer = tenon(dir.path(), &["graph", "-f", "p.yaml", "-o", format], &[]);
        assert!(answer.stdout.contains(says), "{format}: {}{}", answer.stdout, answer.stderr);
    }
}

#[test]
fn runs_that_are_not_there() {
    let dir = dir_with(&[]);
    for (args, code) in [
        (&["runs", "list"][..], 0),
        (&["runs", "show"], 2),
        (&["logs", "nothing"], 2),
        (&["runs", "prune"], 2),
        (&["runs", "prune", "-o", "json"], 2),
        (&["runs", "prune", "--keep", "1"], 0),
        (&["runs", "prune", "--older-than", "old"], 2),
    ] {
        let answer = tenon(dir.path(), args, &[]);
        assert_eq!(answer.code, code, "{args:?}: {}{}", answer.stdout, answer.stderr);
    }
}

#[test]
fn what_needs_a_cluster_says_so_and_bad_addresses_are_refused() {
    let dir = dir_with(&[("a.yaml", TASK)]);
    for (args, code, says) in [
        (&["runs", "cancel", "x"][..], 2, "--server"),
        (&["runs", "rerun", "x"], 2, "--server"),
        (&["runs", "release", "x"], 2, "--server"),
        (&["runs", "explain"], 2, "--server"),
        (&["cluster", "status"], 2, "--server"),
        (&["agent"], 2, "--server"),
        (&["agent", "--server", "a:1", "--label", "x"], 2, "--label x"),
        (&["agent", "--server", "https://a:1"], 2, "--join TOKEN"),
        (&["run", "-f", "a.yaml", "--detach"], 2, "--server"),
        (&["runs", "list", "--server", "https://a:1"], 2, "TENON_TOKEN"),
        (&["runs", "list", "--server", "host"], 2, "no port"),
        (&["runs", "prune", "--keep", "1", "--server", "a:1"], 2, "this machine"),
        (&["events", "--kind", "run-strt", "--server", "a:1"], 2, "did you mean \"run-start\"?"),
        (&["runs", "list", "--server", ""], 0, ""),
    ] {
        let answer = tenon(dir.path(), args, &[]);
        assert_eq!(answer.code, code, "{args:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(says), "{args:?}: {}", answer.stderr);
    }
    let by_variable = tenon(dir.path(), &["runs", "list"], &[("TENON_SERVER", "https://a:1")]);
    assert!(by_variable.stderr.contains("TENON_TOKEN"), "{}", by_variable.stderr);
    assert!(!by_variable.stderr.contains("trying again"), "{}", by_variable.stderr);
}

#[test]
fn an_unwritable_state_directory_is_an_environment_fault() {
    let dir = dir_with(&[("file", "")]);
    let answer = tenon(dir.path(), &["doctor", "--state-dir", "file/below"], &[]);
    assert_eq!(answer.code, 3, "{}", answer.stdout);
    assert!(answer.stdout.contains("file/below"), "{}", answer.stdout);
}

#[test]
fn pages_and_scripts() {
    let dir = dir_with(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let answer = tenon(dir.path(), &["completions", shell], &[]);
        assert!(answer.code == 0 && answer.stdout.contains("tenon"), "{shell}");
        assert!(!answer.stdout.contains("guard"), "{shell}");
    }
    let page = tenon(dir.path(), &["man"], &[]);
    assert!(page.stdout.contains(".TH"), "{}", page.stdout);
    assert_eq!(tenon(dir.path(), &["man", "--dir", "pages"], &[]).code, 0);
    let run = fs::read_to_string(dir.path().join("pages/tenon-run.1")).unwrap();
    assert!(run.contains("TENON_BACKEND") && run.contains("Examples"), "{run}");
    assert!(dir.path().join("pages/tenon-runs-prune.1").exists());
    for missing in ["pages/tenon-guard.1", "pages/tenon-help.1"] {
        assert!(!dir.path().join(missing).exists(), "{missing}");
    }
    let help = tenon(dir.path(), &["help", "run"], &[]);
    assert!(help.code == 0 && help.stdout.contains("--pipeline"), "{}", help.stderr);
}

#[test]
fn every_command_has_help_with_an_example() {
    let dir = dir_with(&[]);
    for command in [
        "run",
        "validate",
        "list",
        "graph",
        "runs list",
        "runs show",
        "runs prune",
        "runs cancel",
        "runs rerun",
        "runs release",
        "tokens list",
        "tokens revoke",
        "certificates list",
        "certificates revoke",
        "help-config",
        "runs explain",
        "logs",
        "events",
        "coordinator",
        "agent",
        "cluster init",
        "cluster status",
        "cluster add",
        "cluster remove",
        "cluster transfer",
        "cluster backup",
        "cluster restore",
        "cluster recover",
        "doctor",
        "version",
        "completions",
        "man",
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.push("--help");
        let answer = tenon(dir.path(), &args, &[]);
        assert!(answer.stdout.contains("Example"), "{command}: {}", answer.stdout);
    }
}

#[test]
fn a_cluster_that_is_not_there_is_given_up_soon() {
    let dir = dir_with(&[]);
    let began = std::time::Instant::now();
    let servers = "http://127.0.0.1:1,http://127.0.0.1:2";
    let answer = tenon(dir.path(), &["runs", "list", "--server", servers], &[]);
    assert_eq!(answer.code, 3, "{}", answer.stderr);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    for node in ["http://127.0.0.1:1: ", "http://127.0.0.1:2: "] {
        assert_eq!(answer.stderr.matches(node).count(), 1, "{}", answer.stderr);
    }
}
