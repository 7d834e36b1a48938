//! Runs the built program as a container would: in a directory that stands for `/tekton`, as any
//! user. Nothing here waits for a time to pass; what must happen is waited for, within a bound.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::{Ended, Ending, Frame, Reader, Stream};
use tenon_entrypoint::{CredentialFile, Mode, OnError, Spec, WaitFile, When, WhenOperator};

const BOUND: Duration = Duration::from_secs(20);

struct Container {
    directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
    started: bool,
    ended: Ended,
}

impl Container {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["run/0", "run/1", "results", "steps", "home"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Step 0, running a shell script.
    fn step(&self, script: &str) -> Spec {
        Spec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            record: self.text("record"),
            post_file: Some(self.text("run/0/out")),
            metadata_dir: Some(self.text("run/0/status")),
            results_dir: self.text("results"),
            steps_dir: self.text("steps"),
            credentials_dir: self.text("creds"),
            max_message_size: 4096,
            ..Spec::default()
        }
    }

    fn start(&self, spec: &Spec) -> Child {
        let file = self.path("spec");
        fs::write(&file, spec.encode()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_tenon-entrypoint"))
            .arg("run")
            .arg(&file)
            .env("HOME", self.path("home"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn run(&self, spec: &Spec) -> Outcome {
        let child = self.start(spec);
        self.finish(child)
    }

    fn finish(&self, mut child: Child) -> Outcome {
        let mut code = None;
        eventually("the entrypoint ends", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        let code = code.unwrap().code().expect("the entrypoint is not killed");
        assert!(!self.path("spec").exists(), "the spec file is unlinked");
        let bytes = fs::read(self.path("record")).unwrap();
        let mut outcome = Outcome {
            code,
            stdout: String::new(),
            stderr: String::new(),
            started: false,
            ended: Ended::default(),
        };
        let mut reader = Reader::new(&bytes);
        let mut last = false;
        while let Some(frame) = reader.next().unwrap() {
            assert!(!last, "nothing follows the end");
            match frame {
                Frame::Started { .. } => outcome.started = true,
                Frame::Output { stream, bytes, .. } => {
                    let text = String::from_utf8_lossy(bytes);
                    match stream {
                        Stream::Stdout => outcome.stdout += &text,
                        Stream::Stderr => outcome.stderr += &text,
                    }
                }
                Frame::Ended { ended, .. } => {
                    outcome.ended = ended;
                    last = true;
                }
            }
        }
        assert!(last, "there is an end");
        assert_eq!(reader.used(), bytes.len());
        outcome
    }

    fn exit_code_file(&self) -> Option<String> {
        fs::read_to_string(self.path("run/0/status/exitCode")).ok()
    }

    /// `out` and `out.err`.
    fn post_files(&self) -> (bool, bool) {
        (self.path("run/0/out").exists(), self.path("run/0/out.err").exists())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only way to wait for another process without an event"
)]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(status.success());
}

const GOES_ON: (bool, bool) = (true, false);
const STOPS: (bool, bool) = (false, true);

/// Script, onError, timeout in ms, then: code, ending, shown code, post files, exitCode file.
type Row = (&'static str, OnError, i64, i32, Ending, i32, (bool, bool), Option<&'static str>);

#[test]
fn the_outcome_table() {
    let table: &[Row] = &[
        ("exit 0", OnError::StopAndFail, 0, 0, Ending::Completed, 0, GOES_ON, Some("0")),
        ("exit 3", OnError::StopAndFail, 0, 3, Ending::Error, 3, STOPS, None),
        ("exit 3", OnError::Continue, 0, 0, Ending::Continued, 3, GOES_ON, Some("3")),
        ("kill -KILL $$", OnError::StopAndFail, 0, 255, Ending::Error, 255, STOPS, None),
        ("kill -TERM $$", OnError::Continue, 0, 0, Ending::Continued, -1, GOES_ON, Some("-1")),
        ("sleep 60", OnError::StopAndFail, 100, 1, Ending::TimeoutExceeded, 1, STOPS, None),
        ("sleep 60 & wait", OnError::Continue, 100, 1, Ending::TimeoutExceeded, 1, STOPS, None),
        ("exit 0", OnError::StopAndFail, 60_000, 0, Ending::Completed, 0, GOES_ON, Some("0")),
        ("exit 0", OnError::Continue, -1, 1, Ending::Error, 1, STOPS, None),
    ];
    for &(script, on_error, timeout_ms, code, ending, shown, post, exit_code_file) in table {
        let container = Container::new();
        let mut spec = container.step(script);
        spec.on_error = on_error;
        spec.timeout_nanos = timeout_ms * 1_000_000;
        let outcome = container.run(&spec);
        assert_eq!(outcome.code, code, "{script}: {outcome:?}");
        assert_eq!((outcome.ended.ending, outcome.ended.exit_code), (ending, shown), "{script}");
        assert_eq!(container.post_files(), post, "{script}");
        assert_eq!(container.exit_code_file().as_deref(), exit_code_file, "{script}");
        assert!(outcome.started && outcome.ended.started_ms > 1_600_000_000_000, "{script}");
    }
}

#[test]
fn a_command_that_cannot_be_run_fails_also_with_continue() {
    let container = Container::new();
    let file = |name: &str, contents: &str, mode: u32| {
        fs::write(container.path(name), contents).unwrap();
        fs::set_permissions(container.path(name), fs::Permissions::from_mode(mode)).unwrap();
        container.text(name)
    };
    let cases = [
        (
            "no-such-command".to_owned(),
            "exec: \"no-such-command\": executable file not found in $PATH",
        ),
        ("/no/such/file".to_owned(), "fork/exec /no/such/file: no such file or directory"),
        (file("plain", "echo", 0o644), "permission denied"),
        (file("text", "echo no shebang\n", 0o755), "exec format error"),
        (
            file("script", "#!/no/such/shell\n", 0o755),
            "its interpreter /no/such/shell is not in the image",
        ),
        (container.text("results"), "it is a directory"),
    ];
    for (command, message) in cases {
        let container = Container::new();
        let spec = Spec { argv: vec![command], on_error: OnError::Continue, ..container.step("") };
        let outcome = container.run(&spec);
        assert_eq!((outcome.code, outcome.ended.ending), (1, Ending::Error), "{message}");
        assert!(outcome.stderr.contains(message), "{message}: {}", outcome.stderr);
        assert!(outcome.stderr.starts_with("Error executing command: "), "{}", outcome.stderr);
        assert_eq!(outcome.ended.message, outcome.stderr.trim_end());
        assert_eq!(container.post_files(), STOPS);
    }
}

#[test]
fn a_step_waits_for_the_one_before() {
    for (suffix, content, ending, ran) in [
        ("", "", Ending::Completed, true),
        ("", "go", Ending::Completed, true),
        (".err", "", Ending::Skipped, false),
    ] {
        let container = Container::new();
        let mut spec = container.step("echo ran");
        spec.wait_files =
            vec![WaitFile { path: container.text("run/1/out"), with_content: !content.is_empty() }];
        let mut child = container.start(&spec);
        eventually("the spec is read", || !container.path("spec").exists());
        if !content.is_empty() {
            fs::write(container.path("run/1/out"), "").unwrap();
        }
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        fs::write(container.path("run/1/unrelated"), "").unwrap();
        fs::write(container.path(&format!("run/1/out{suffix}")), content).unwrap();
        let outcome = container.finish(child);
        assert_eq!(outcome.ended.ending, ending);
        assert_eq!(outcome.started, ran);
        assert_eq!(outcome.stdout, if ran { "ran\n" } else { "" });
        assert_eq!(outcome.code, i32::from(!ran));
        assert_eq!(container.post_files(), if ran { GOES_ON } else { STOPS });
    }
}

#[test]
fn a_gate_that_is_open_already_or_whose_directory_comes_later_is_passed() {
    let container = Container::new();
    let mut spec = container.step("true");
    spec.wait_files = vec![
        WaitFile { path: container.text("run/1/out"), with_content: false },
        WaitFile { path: container.text("later/ready"), with_content: true },
    ];
    fs::write(container.path("run/1/out"), "").unwrap();
    let child = container.start(&spec);
    eventually("the spec is read", || !container.path("spec").exists());
    fs::create_dir(container.path("later")).unwrap();
    fs::write(container.path("later/ready"), "READY").unwrap();
    assert_eq!(container.finish(child).ended.ending, Ending::Completed);
}

#[test]
fn a_waiting_step_can_be_stopped() {
    let container = Container::new();
    let mut spec = container.step("true");
    spec.wait_files = vec![WaitFile { path: container.text("run/1/out"), with_content: false }];
    let child = container.start(&spec);
    eventually("the spec is read", || !container.path("spec").exists());
    signal(&child, "TERM");
    let outcome = container.finish(child);
    assert_eq!((outcome.code, outcome.ended.ending), (143, Ending::Cancelled));
    assert!(!outcome.started);
    assert_eq!(container.post_files(), STOPS);
}

#[test]
fn when_decides_after_step_results_are_filled_in() {
    for (value, ran) in [("yes", true), ("no", false)] {
        let container = Container::new();
        fs::create_dir_all(container.path("steps/step-a/results")).unwrap();
        fs::write(container.path("steps/step-a/results/go"), value).unwrap();
        let mut spec = container.step("echo $0 $ENV");
        spec.argv.push("$(steps.a.results.go)".into());
        spec.env = vec![("ENV".into(), "<$(steps.a.results.go)>".into())];
        spec.when = vec![When {
            input: "$(steps.a.results.go)".into(),
            operator: WhenOperator::In,
            values: vec!["yes".into()],
            cel: String::new(),
        }];
        let outcome = container.run(&spec);
        assert_eq!(outcome.code, 0);
        assert_eq!(outcome.started, ran);
        assert_eq!(outcome.stdout, if ran { "yes <yes>\n" } else { "" });
        assert_eq!(outcome.ended.ending, if ran { Ending::Completed } else { Ending::Skipped });
        assert_eq!(container.post_files(), GOES_ON);
        assert_eq!(container.exit_code_file().as_deref(), Some("0"));
    }
}

#[test]
fn a_step_result_that_is_not_there_is_logged_and_left_as_it_is() {
    let container = Container::new();
    let mut spec = container.step("echo \"$0\"");
    spec.argv.push("$(steps.a.results.none)".into());
    let outcome = container.run(&spec);
    assert_eq!(outcome.stdout, "$(steps.a.results.none)\n");
    assert!(
        outcome.stderr.starts_with("Error while substituting step results: "),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.code, 0);
}

#[test]
fn results_are_kept_also_of_a_failed_step() {
    let container = Container::new();
    let mut spec = container.step(&format!(
        "echo hi > {r}/a; printf 5 > {m}/results/s; exit 2",
        r = container.text("results"),
        m = container.text("run/0/status")
    ));
    spec.results = vec!["a".into(), "never".into()];
    spec.step_results = vec!["s".into()];
    let outcome = container.run(&spec);
    assert_eq!(outcome.code, 2);
    assert_eq!(outcome.ended.task_results, [("a".to_owned(), "hi\n".to_owned())]);
    assert_eq!(outcome.ended.step_results, [("s".to_owned(), "5".to_owned())]);
}

#[test]
fn results_over_the_limit_fail_the_step() {
    let container = Container::new();
    let mut spec = container
        .step(&format!("head -c 4097 /dev/zero | tr '\\0' x > {}", container.text("results/a")));
    spec.results = vec!["a".into()];
    let outcome = container.run(&spec);
    assert_eq!((outcome.code, outcome.ended.ending), (1, Ending::Error));
    let message =
        "Termination message is above max allowed size 4096, caused by large task result.";
    assert_eq!(outcome.ended.message, message);
    assert_eq!(outcome.stderr, format!("{message}\n"));
    assert!(outcome.ended.task_results.is_empty());
}

#[test]
fn signals_reach_the_whole_process_group() {
    let container = Container::new();
    let ready = container.text("ready");
    let script = format!(
        "trap 'told=1' TERM; \
         sh -c 'trap \"echo child; exit 0\" TERM; touch {ready}; while :; do sleep 0.01; done' & \
         wait $!; wait $!; echo parent $told; exit 4"
    );
    let child = container.start(&container.step(&script));
    eventually("the command runs", || container.path("ready").exists());
    signal(&child, "TERM");
    let outcome = container.finish(child);
    assert_eq!(outcome.code, 4);
    assert_eq!(outcome.stdout, "child\nparent 1\n");
}

#[test]
fn a_cancel_file_kills_the_step() {
    let container = Container::new();
    let mut spec = container.step(&format!("touch {}; sleep 60", container.text("ready")));
    spec.cancel_file = Some(container.text("steps/cancel"));
    let child = container.start(&spec);
    eventually("the command runs", || container.path("ready").exists());
    fs::write(container.path("steps/cancel"), "CANCEL").unwrap();
    let outcome = container.finish(child);
    assert_eq!((outcome.code, outcome.ended.ending), (9, Ending::Cancelled));
    assert_eq!(container.exit_code_file().as_deref(), Some("killed"));
    assert_eq!(container.post_files(), STOPS);
}

#[test]
fn a_daemon_that_holds_the_pipes_open_does_not_hold_the_step() {
    let container = Container::new();
    let pid = container.text("pid");
    let outcome = container.run(&container.step(&format!("sleep 60 & echo $! > {pid}; echo done")));
    assert_eq!(outcome.stdout, "done\n");
    let pid = fs::read_to_string(container.path("pid")).unwrap();
    let _ = Command::new("kill").arg(pid.trim()).status();
}

#[test]
fn all_output_is_recorded_byte_for_byte() {
    let container = Container::new();
    // More than pipes and reads hold, both streams at a time, and not text.
    let script = "head -c 3000000 /dev/zero | tr '\\0' '\\377' & head -c 2000000 /dev/zero >&2; wait; printf end";
    let spec = container.step(script);
    let outcome = container.finish(container.start(&spec));
    assert_eq!(outcome.code, 0);
    let bytes = fs::read(container.path("record")).unwrap();
    let (mut out, mut err) = (0, 0);
    let mut reader = Reader::new(&bytes);
    while let Some(frame) = reader.next().unwrap() {
        if let Frame::Output { stream, bytes, .. } = frame {
            *(if stream == Stream::Stdout { &mut out } else { &mut err }) += bytes.len();
        }
    }
    assert_eq!((out, err), (3_000_003, 2_000_000));
}

#[test]
fn much_output_is_all_there_and_its_pipe_is_narrow_again_when_it_is_over() {
    let container = Container::new();
    let (pid, go) = (container.text("pid"), container.text("go"));
    let spec = container.step(&format!(
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; echo $$ > {pid}.new; mv {pid}.new {pid}; \
         while ! [ -e {go} ]; do sleep 0.01; done; \
         echo over"
    ));
    let child = container.start(&spec);
    eventually("all of it is printed", || container.path("pid").exists());
    let process = fs::read_to_string(&pid).unwrap();
    let pipe =
        fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", process.trim())).unwrap();
    // SAFETY: no memory is involved.
    let size = || unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
    eventually("the pipe is as it was", || size() < 1 << 20);
    fs::write(&go, "").unwrap();
    let lines: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(container.finish(child).stdout == lines + "over\n");
}

#[test]
fn output_is_copied_to_files_too() {
    let container = Container::new();
    let mut spec = container.step("echo out; echo err >&2");
    spec.stdout_path = Some(container.text("logs/deep/out"));
    spec.stderr_path = Some(container.text("logs/deep/out"));
    let outcome = container.run(&spec);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let both = fs::read_to_string(container.path("logs/deep/out")).unwrap();
    assert!(both == "out\nerr\n" || both == "err\nout\n", "{both}");
}

#[test]
fn a_copy_that_cannot_be_opened_fails_the_step() {
    let container = Container::new();
    let mut spec = container.step("echo out");
    spec.stdout_path = Some(container.text("results"));
    let outcome = container.run(&spec);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("error opening"), "{}", outcome.stderr);
}

#[test]
fn credentials_environment_and_directory_are_there_for_the_command() {
    let container = Container::new();
    let mut spec = container.step("pwd; cat ~/.gitconfig; echo $A-$B; [ -t 0 ] || wc -c");
    spec.credentials =
        vec![CredentialFile { path: ".gitconfig".into(), contents: b"git\n".to_vec() }];
    spec.env = vec![("A".into(), "1".into()), ("B".into(), "x y".into()), ("A".into(), "2".into())];
    spec.cwd = Some(container.text("a/path/too/far"));
    let outcome = container.run(&spec);
    assert_eq!(outcome.stdout, format!("{}\ngit\n2-x y\n0\n", container.text("a/path/too/far")));
    assert!(container.path("creds/.gitconfig").exists());
}

#[test]
fn the_path_of_the_spec_decides_where_a_command_is() {
    let container = Container::new();
    fs::create_dir(container.path("bin")).unwrap();
    fs::write(container.path("bin/tool"), "#!/bin/sh\necho mine $0\n").unwrap();
    fs::set_permissions(container.path("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = container.step("");
    spec.argv = vec!["tool".into()];
    spec.env = vec![("PATH".into(), format!("/nowhere:{}", container.text("bin")))];
    assert_eq!(container.run(&spec).stdout, format!("mine {}\n", container.text("bin/tool")));
}

#[test]
fn a_sidecar_is_only_recorded() {
    for (script, code, ending) in [
        ("echo up; exit 0", 0, Ending::Completed),
        ("echo up; exit 7", 7, Ending::Error),
        ("echo up; kill -TERM $$", 143, Ending::Error),
    ] {
        let container = Container::new();
        let spec = Spec {
            mode: Mode::Sidecar,
            wait_files: vec![WaitFile { path: container.text("never"), with_content: false }],
            ..container.step(script)
        };
        let outcome = container.run(&spec);
        assert_eq!(
            (outcome.code, outcome.ended.exit_code, outcome.ended.ending),
            (code, code, ending)
        );
        assert_eq!(outcome.stdout, "up\n");
        assert_eq!(container.post_files(), (false, false));
    }
}

#[test]
fn without_a_spec_it_says_what_is_wrong() {
    let container = Container::new();
    let run = |spec: &Path| {
        Command::new(env!("CARGO_BIN_EXE_tenon-entrypoint")).arg("run").arg(spec).output().unwrap()
    };
    let output = run(&container.path("spec"));
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read"));
    fs::write(container.path("spec"), "nonsense").unwrap();
    let output = run(&container.path("spec"));
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("malformed"));
}

#[test]
fn pause_ends_when_told() {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_tenon-entrypoint")).arg("pause").spawn().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    eventually("pause ends", || {
        signal(&child, "TERM");
        child.try_wait().unwrap().is_some()
    });
}

#[test]
fn pause_ends_when_nobody_needs_it() {
    let pause = |seconds: &str| {
        let mut pause = Command::new(env!("CARGO_BIN_EXE_tenon-entrypoint"));
        pause.args(["pause", seconds]).spawn().unwrap()
    };
    assert!(pause("1").wait().unwrap().success());
    assert_eq!(pause("soon").wait().unwrap().code(), Some(2));
}
