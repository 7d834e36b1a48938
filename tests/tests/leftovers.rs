//! However a run ends, nothing of it is left: no container, network or volume, no process, no
//! directory on the disk or in memory. What `--keep` keeps, it names.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tenon_tests::{KillOnPanic, Said, Tenon, finish, processes_with, signal, wait_until};

/// A pipeline with what can be left behind: a claim, a sidecar, an emptyDir, steps that wait for
/// each other; `END` is how its last step ends. The odd number tells its processes from others.
const PIPELINE: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: leaves-nothing}
spec:
  timeouts: TIMEOUTS
  workspaces:
  - {name: w, volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Mi}}}}}
  - {name: e, emptyDir: {}}
  pipelineSpec:
    workspaces: [{name: w}, {name: e}]
    tasks:
    - name: t
      workspaces: [{name: w}, {name: e}]
      taskSpec:
        workspaces: [{name: w}, {name: e}]
        sidecars: [{name: side, image: busybox, script: "trap 'exit 0' TERM; while :; do sleep NUMBER & wait $!; done"}]
        steps:
        - {name: first, image: busybox, script: "echo one > $(workspaces.w.path)/f; (sleep NUMBER &)"}
        - {name: last, image: busybox, script: "echo running; END"}
    finally: [{name: f, taskSpec: {steps: [{image: busybox, script: echo over}]}}]
"#;

/// What a run may leave on the machine, seen from outside.
struct Case {
    tenon: Tenon,
    number: String,
}

impl Case {
    fn new(tenon: Tenon, number: u32) -> Case {
        let backend = u32::from(tenon.is_docker());
        Case { tenon, number: format!("8639{number}.{}{backend}", std::process::id()) }
    }

    fn yaml(&self, end: &str, timeouts: &str) -> String {
        PIPELINE.replace("END", end).replace("TIMEOUTS", timeouts).replace("NUMBER", &self.number)
    }

    fn run_to_its_end(self, end: &str, timeouts: &str, code: i32) {
        let said = self.tenon.run(&self.yaml(end, timeouts), &["-o", "json"]).expect(code);
        self.leaves_nothing(&said);
    }

    /// Interrupts the run while its last step waits; again after each of the notices.
    fn interrupt(self, notices: &[&str]) {
        self.tenon.file("p.yaml", &self.yaml("sleep NUMBER", "{}"));
        let (out, notes) = (self.tenon.dir().join("out"), self.tenon.dir().join("notes"));
        let mut command = self.tenon.command(&["run", "-o", "json", "-f", "p.yaml"]);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&notes).unwrap());
        let child = command.spawn().unwrap();
        let _guard = KillOnPanic(child.id());
        wait_until("the last step", || fs::read_to_string(&out).unwrap().contains("\"running\""));
        signal(child.id(), libc::SIGINT);
        for notice in notices {
            wait_until(notice, || fs::read_to_string(&notes).unwrap().contains(notice));
            signal(child.id(), libc::SIGINT);
        }
        let said = finish(child).expect(130);
        self.leaves_nothing(&Said { stdout: fs::read_to_string(&out).unwrap(), ..said });
    }

    fn leaves_nothing(&self, said: &Said) {
        let start = &said.events()[0];
        let run = start["runId"].as_str().unwrap();
        assert_eq!(self.tenon.directories_of(run), Vec::<PathBuf>::new());
        assert_eq!(processes_with(&self.number), [0u32; 0], "processes");
        let logs = fs::read_dir(self.tenon.state_dir().join("local")).unwrap();
        assert_eq!(logs.filter(|log| log.as_ref().unwrap().path().is_dir()).count(), 0, "logs");
        if self.tenon.is_docker() {
            let label = format!("label=tenon.run={run}");
            for list in [["ps", "-aq"], ["network", "ls"], ["volume", "ls"]] {
                let mut command = Command::new("docker");
                command.args(list).args(["--filter", &label]);
                if list[1] == "ls" {
                    command.arg("-q");
                }
                let left = command.output().unwrap();
                assert_eq!(String::from_utf8_lossy(&left.stdout), "", "docker {}", list.join(" "));
            }
        }
    }
}

fn on_both(number: u32, test: impl Fn(Case)) {
    for tenon in [Tenon::host(), Tenon::docker()] {
        test(Case::new(tenon, number));
    }
}

#[test]
fn after_success() {
    on_both(1, |case| case.run_to_its_end("true", "{}", 0));
}

#[test]
fn after_a_failure() {
    on_both(2, |case| case.run_to_its_end("exit 3", "{}", 5));
}

#[test]
fn after_a_timeout() {
    on_both(3, |case| {
        case.run_to_its_end("sleep NUMBER", "{pipeline: 3s, tasks: 2s, finally: 1s}", 6);
    });
}

#[test]
fn after_an_interrupt() {
    on_both(4, |case| case.interrupt(&[]));
}

#[test]
fn after_two_interrupts() {
    on_both(5, |case| case.interrupt(&["again stops everything now"]));
}

#[test]
fn what_runs_on_the_host_dies_with_a_run_that_is_killed() {
    let case = Case::new(Tenon::host(), 8);
    case.tenon.file("p.yaml", &case.yaml("sleep NUMBER", "{}"));
    let out = case.tenon.dir().join("out");
    let mut command = case.tenon.command(&["run", "-o", "json", "-f", "p.yaml"]);
    let child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let _guard = KillOnPanic(child.id());
    wait_until("the last step", || fs::read_to_string(&out).unwrap().contains("\"running\""));
    wait_until("its processes", || !processes_with(&case.number).is_empty());
    signal(child.id(), libc::SIGKILL);
    finish(child).expect(137);
    wait_until("no process to be left", || processes_with(&case.number).is_empty());
}

#[test]
fn what_is_kept_is_named_once() {
    on_both(6, |case| {
        let yaml = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: kept}\nspec: {taskSpec: {steps: [{name: s, image: busybox, script: 'echo x'}]}}\n";
        let said = case.tenon.run(yaml, &["--keep", "-o", "json"]).expect(0);
        let kept: Vec<&str> = said.stderr.lines().filter(|line| line.contains("kept")).collect();
        let [kept] = kept[..] else { panic!("{}", said.stderr) };
        let run = said.events()[0]["runId"].as_str().unwrap().to_owned();
        let directories = case.tenon.directories_of(&run);
        let named = |path: &PathBuf| kept.contains(path.to_str().unwrap());
        assert!(!directories.is_empty());
        assert!(directories.iter().all(named), "{kept}: {directories:?}");
        if case.tenon.is_docker() {
            let name = kept.split([' ', ';']).find(|word| word.ends_with("-step-s")).unwrap();
            let removed = Command::new("docker").args(["rm", name]).output().unwrap();
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
        }
        // The next run is not its heir.
        case.tenon.run(&yaml.replace("kept", "other"), &[]).expect(0);
        assert_eq!(case.tenon.directories_of(&run), directories);
        for directory in directories {
            fs::remove_dir_all(directory).unwrap();
        }
    });
}

#[test]
fn warnings_are_told_once_whatever_the_output() {
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {pin: '123'}\n---\n";
    let task = "{name: NAME, taskSpec: {steps: [{image: busybox, env: [{name: PIN, valueFrom: {secretKeyRef: {name: s, key: pin}}}], script: 'true'}]}}";
    let tasks = ["a", "b"].map(|name| task.replace("NAME", name)).join(", ");
    let yaml = format!(
        "{secret}apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: warned}}\nspec: {{pipelineSpec: {{tasks: [{tasks}]}}}}\n"
    );
    on_both(7, |case| {
        for output in ["json", "yaml", "pretty"] {
            let said = case.tenon.run(&yaml, &["-o", output]).expect(0);
            let told = |text: &str| said.stderr.matches(text).count();
            assert_eq!(told("not masked"), 1, "{}", said.stderr);
            let expected = usize::from(!case.tenon.is_docker());
            assert_eq!(told("images are ignored"), expected, "{}", said.stderr);
        }
    });
}
