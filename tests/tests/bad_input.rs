//! Bad input and bad surroundings: each gives one clear, located message and the right exit code, in
//! bounded time and memory, and loses nothing that was already reported.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tenon_tests::{KillOnPanic, Said, Tenon, processes_with, signal, wait_until};

fn task_run(steps: &str) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: bad}}\nspec:\n  taskSpec:\n    steps:\n{steps}"
    )
}

fn step(script: &str) -> String {
    task_run(&format!("    - name: s\n      image: busybox\n      script: |\n        {script}\n"))
}

/// Refused before anything ran: nothing on stdout, the message once, nothing stored.
#[track_caller]
fn refused(tenon: &Tenon, said: Said, code: i32, message: &str) {
    let said = said.expect(code);
    assert_eq!(said.stdout, "");
    assert_eq!(said.stderr.matches(message).count(), 1, "{message:?} in {}", said.stderr);
    let runs = tenon.state_dir().join("runs");
    assert!(!runs.exists() || fs::read_dir(runs).unwrap().next().is_none());
}

#[test]
fn a_file_that_cannot_be_read() {
    let tenon = Tenon::host();
    let said = tenon.tenon(&["run", "-f", "missing.yaml"]);
    refused(&tenon, said, 2, "missing.yaml");
    fs::write(tenon.dir().join("latin1.yaml"), b"kind: T\xe4sk\n").unwrap();
    let said = tenon.tenon(&["run", "-f", "latin1.yaml"]);
    refused(&tenon, said, 4, "latin1.yaml:1:");
}

#[test]
fn text_that_is_not_yaml() {
    let tenon = Tenon::host();
    tenon.file("bad.yaml", "apiVersion: tekton.dev/v1\nkind: [TaskRun\nmetadata: }\n");
    let said = tenon.tenon(&["run", "-f", "bad.yaml"]);
    refused(&tenon, said, 4, "bad.yaml:");
}

#[test]
fn a_kind_that_tekton_does_not_know() {
    let tenon = Tenon::host();
    let said = tenon.run("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n", &[]);
    refused(&tenon, said, 4, "<stdin>:2:7");
}

#[test]
fn an_unknown_field_is_located_and_a_near_one_proposed() {
    let tenon = Tenon::host();
    let yaml = task_run("    - name: s\n      image: busybox\n      skript: echo\n");
    let said = tenon.run(&yaml, &[]);
    assert!(said.stderr.contains("<stdin>:9:7"), "{}", said.stderr);
    assert!(said.stderr.contains("script"), "{}", said.stderr);
    refused(&tenon, said, 4, "unknown field \"skript\"");
}

#[test]
fn a_cycle() {
    let tenon = Tenon::host();
    let task = |name: &str, after: &str| {
        format!(
            "    - {{name: {name}, runAfter: [{after}], taskSpec: {{steps: [{{image: busybox, script: echo}}]}}}}\n"
        )
    };
    let yaml = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: c}}\nspec:\n  pipelineSpec:\n    tasks:\n{}{}",
        task("a", "b"),
        task("b", "a")
    );
    let said = tenon.run(&yaml, &[]);
    refused(&tenon, said, 4, "cycle detected");
}

#[test]
fn a_missing_param_is_told_in_tektons_words_and_the_run_says_why() {
    let tenon = Tenon::host();
    let yaml = "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: p}\nspec:\n  pipelineSpec:\n    params: [{name: need}]\n    tasks: [{name: t, params: [{name: x, value: $(params.need)}], taskSpec: {params: [{name: x}], steps: [{image: busybox, script: echo}]}}]\n";
    let said = tenon.run(yaml, &["-o", "yaml"]).expect(4);
    assert!(said.stderr.contains("[need]"), "{}", said.stderr);
    assert!(said.stdout.contains("reason: ParameterMissing"), "{}", said.stdout);
}

#[test]
fn an_image_that_does_not_exist() {
    let tenon = Tenon::docker();
    let yaml = step("echo").replace("busybox", "127.0.0.1:9/no/such:image");
    let said = tenon.run(&yaml, &["-o", "json"]).expect(5);
    let end = said.events().pop().unwrap();
    assert_eq!(end["kind"], "run-end");
    assert_eq!(end["reason"], "TaskRunImagePullFailed");
    assert!(end["message"].as_str().unwrap().contains("no/such:image"), "{end}");
}

#[test]
fn no_docker_where_docker_is_asked_for() {
    let tenon = Tenon::docker();
    tenon.file("t.yaml", &step("echo"));
    let socket = format!("unix://{}/none.sock", tenon.dir().display());
    let mut command = tenon.command(&["run", "-f", "t.yaml"]);
    let said = tenon_tests::finish(command.env("DOCKER_HOST", socket).spawn().unwrap());
    assert!(said.stderr.contains("none.sock"), "{}", said.stderr);
    refused(&tenon, said, 3, "no Docker daemon answers");
}

#[test]
fn what_is_meant_for_a_daemon_that_is_away_does_not_run_here() {
    let tenon = Tenon::host();
    let trace = tenon.dir().join("trace");
    tenon.file("t.yaml", &step(&format!("touch {}", trace.display())));
    let away = |args: &[&str]| {
        let mut command = tenon.command(args);
        command.env("DOCKER_HOST", "tcp://127.0.0.1:1");
        tenon_tests::finish(command.spawn().unwrap())
    };
    let said = away(&["run", "-f", "t.yaml", "--backend", "auto"]);
    assert!(said.stderr.contains("DOCKER_HOST names that daemon"), "{}", said.stderr);
    refused(&tenon, said, 3, "--backend host");
    assert!(!trace.exists());
    assert!(away(&["doctor"]).stdout.contains("This machine cannot run pipelines yet."));
}

#[test]
fn docker_goes_away_while_a_step_runs() {
    let daemon = tenon_tests::docker::Daemon::start();
    daemon.copy_image("busybox");
    let tenon = Tenon::docker();
    tenon.file("t.yaml", &step("echo before; sleep 600"));
    let mut command = tenon.command(&["run", "-o", "json", "-f", "t.yaml"]);
    command.env("DOCKER_HOST", daemon.host());
    let out = tenon.dir().join("out");
    let child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let _guard = KillOnPanic(child.id());
    wait_until("the step's line", || fs::read_to_string(&out).unwrap().contains("before"));
    daemon.kill();
    let said = tenon_tests::finish(child).expect(3);
    assert!(said.stderr.contains("Docker"), "{}", said.stderr);
    let events = fs::read_to_string(&out).unwrap();
    assert!(events.contains(r#""line":"before""#));
    let end: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&end["kind"], &end["status"]), (&"run-end".into(), &"infrafailed".into()));
}

#[test]
fn the_disk_is_full() {
    for (tenon, number) in [(Tenon::host(), "86398.25"), (Tenon::docker(), "86398.5")] {
        let state = tenon.state_dir();
        fs::create_dir_all(&state).unwrap();
        let mount = tenon_tests::mount::Tmpfs::on(&state, "2m");
        let script = format!("sleep {number} & head -c 50000000 /dev/urandom | od -x; wait");
        let said = tenon.run(&step(&script), &["-o", "json"]).expect(3);
        // The journal of the run or the log of commands, whichever is first.
        assert!(said.stderr.contains("No space left on device"), "{}", said.stderr);
        assert!(said.stderr.contains(&state.display().to_string()), "{}", said.stderr);
        let events = said.events();
        assert_eq!(events[0]["kind"], "run-start");
        let run = events[0]["runId"].as_str().unwrap().to_owned();
        assert_eq!(processes_with(number), [0u32; 0], "processes are left behind");
        if tenon.is_docker() {
            let filter = format!("label=tenon.run={run}");
            let left = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
            assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "");
        }
        // What was printed stays: with room again, it is what is replayed.
        fs::create_dir_all(tenon.dir().join("copy")).unwrap();
        let roomy = tenon.dir().join("copy");
        let copied = Command::new("cp").arg("-a").arg(state.join(".")).arg(&roomy).status();
        assert!(copied.unwrap().success());
        let mut again = tenon.command(&["run", "-f", "t.yaml"]);
        tenon.file("t.yaml", &step("echo next"));
        tenon_tests::finish(again.env("TENON_STATE_DIR", &roomy).spawn().unwrap()).expect(0);
        let mut replay = tenon.command(&["logs", &run, "-o", "json"]);
        let replay = tenon_tests::finish(replay.env("TENON_STATE_DIR", &roomy).spawn().unwrap());
        assert!(replay.stdout.starts_with(&said.stdout), "what was printed is not what is stored");
        assert!(replay.stdout.trim_end().ends_with('}') && replay.stdout.contains("run-end"));
        drop(mount);
    }
}

/// Only where the steps' output waits to be read is the disk full, or small.
fn with_little_room(tenon: &Tenon, size: &str) -> tenon_tests::mount::Tmpfs {
    let agent = tenon.state_dir().join("agent");
    fs::create_dir_all(&agent).unwrap();
    tenon_tests::mount::Tmpfs::on(&agent, size)
}

#[test]
fn a_step_that_finds_no_room_for_its_output_is_given_up() {
    for tenon in [Tenon::host(), Tenon::docker()] {
        let mount = with_little_room(&tenon, "16m");
        tenon.file("t.yaml", &step("echo before; while :; do seq 1000; done"));
        let out = tenon.dir().join("out");
        let mut command = tenon.command(&["run", "-o", "json", "-f", "t.yaml"]);
        let child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
        let _guard = KillOnPanic(child.id());
        wait_until("the step's line", || fs::read_to_string(&out).unwrap().contains("before"));
        // Whatever room there is, another takes it.
        let ballast = fs::File::create(tenon.state_dir().join("agent/ballast")).unwrap();
        let over = AtomicBool::new(false);
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Full, which is what is wanted.
                    let _ = (&ballast).write(&[1; 4096]);
                }
            });
            let said = tenon_tests::finish(child);
            over.store(true, Ordering::Relaxed);
            said
        });
        let said = said.expect(3);
        let directory = tenon.state_dir().join("agent").display().to_string();
        assert!(said.stderr.contains(&directory), "{}", said.stderr);
        let events = fs::read_to_string(&out).unwrap();
        let end: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!((&end["kind"], &end["status"]), (&"run-end".into(), &"infrafailed".into()));
        let run = end["runId"].as_str().unwrap();
        assert_eq!(tenon.directories_of(run), Vec::<PathBuf>::new());
        drop(ballast);
        drop(mount);
    }
}

#[test]
fn a_step_may_print_more_than_the_disk_holds() {
    for tenon in [Tenon::host(), Tenon::docker()] {
        let mount = with_little_room(&tenon, "12m");
        let script = "yes 0123456789012345678901234567890 | head -n 600000";
        let said = tenon.run(&step(script), &["-o", "json"]).expect(0);
        assert_eq!(said.log().len(), 600_000);
        drop(mount);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let tenon = Tenon::host();
    tenon.file("state", "a file stands where the directory should be");
    let said = tenon.run(&step("echo"), &[]).expect(3);
    assert!(said.stderr.contains("state"), "{}", said.stderr);
    assert_eq!(said.stdout, "");
}

#[test]
fn a_result_over_the_limit() {
    let tenon = Tenon::host();
    let yaml = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: big}\nspec:\n  taskSpec:\n    results: [{name: r}]\n    steps: [{name: s, image: busybox, script: 'head -c 5000 /dev/zero | tr \"\\0\" x > $(results.r.path)'}]\n";
    let said = tenon.run(yaml, &["-o", "json"]).expect(5);
    assert!(said.log().iter().any(|line| line.contains("above max allowed size 4096")));
}

#[test]
fn a_step_that_prints_binary() {
    let tenon = Tenon::host();
    let said = tenon.run(&step(r"printf 'a\377\000b\n'"), &["-o", "json"]).expect(0);
    assert_eq!(said.log(), ["a\u{fffd}\0b"]);
}

#[test]
fn a_line_of_ten_megabytes() {
    let tenon = Tenon::host();
    let script = "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo short";
    let said = tenon.run(&step(script), &["-o", "json"]).expect(0);
    let lines: Vec<_> =
        said.events().into_iter().filter(|event| event["kind"] == "step-log").collect();
    let (last, long) = lines.split_last().unwrap();
    assert_eq!(last["line"], "short");
    let length: usize = long.iter().map(|event| event["line"].as_str().unwrap().len()).sum();
    assert_eq!(length, 10_000_000);
    let (end, parts) = long.split_last().unwrap();
    assert!(parts.iter().all(|event| event["partial"] == true));
    assert!(end.get("partial").is_none());
}

#[test]
fn a_billion_laughs() {
    let tenon = Tenon::host();
    let mut yaml = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let references = vec![format!("*a{}", level - 1); 10].join(", ");
        yaml += &format!("a{level}: &a{level} [{references}]\n");
    }
    let said = tenon.run(&yaml, &[]);
    refused(&tenon, said, 4, "<stdin>:");
}

#[test]
fn ten_thousand_levels() {
    let tenon = Tenon::host();
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let yaml = format!("{}x{}\n", open.repeat(10_000), close.repeat(10_000));
        let said = tenon.run(&yaml, &[]);
        refused(&tenon, said, 4, "<stdin>:");
    }
    let block: String = (0..10_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let said = tenon.run(&block, &[]);
    refused(&tenon, said, 4, "<stdin>:");
}

#[test]
fn a_killed_run_leaves_a_history_that_says_so() {
    for tenon in [Tenon::host(), Tenon::docker()] {
        // No other process says this.
        let script = "echo started; sleep 86399.25";
        tenon.file("t.yaml", &step(script));
        let out = tenon.dir().join("out");
        let mut command = tenon.command(&["run", "-o", "json", "-f", "t.yaml"]);
        let child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
        let _guard = KillOnPanic(child.id());
        wait_until("the step's line", || fs::read_to_string(&out).unwrap().contains("started\""));
        signal(child.id(), libc::SIGKILL);
        tenon_tests::finish(child);

        let said = tenon.tenon(&["runs", "list", "-o", "json"]).expect(0);
        assert!(said.stdout.contains("interrupted"), "{}", said.stdout);

        tenon.run(&step("echo next"), &[]).expect(0);
        let said = tenon.tenon(&["logs", "bad", "-o", "json"]);
        assert!(said.stdout.contains("next"), "{}", said.stdout);
        let said = tenon.tenon(&["runs", "list", "-o", "json"]).expect(0);
        assert!(said.stdout.contains("infrafailed"), "{}", said.stdout);
        let left = Command::new("docker")
            .args(["ps", "-aq", "--filter", "label=tenon.taskrun=bad"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "containers are left behind");
        assert_eq!(processes_with("86399.25"), [0u32; 0], "processes are left behind");
    }
}
