//! `tenon run` on this machine, against `docker run`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use super::measure::{Goal, Measure, median};

/// How often each thing is measured.
const ROUNDS: usize = 10;
/// What the talkative step prints.
const LINES: usize = 1_000_000;

type Result<T> = std::result::Result<T, String>;

/// Builds the release binary and measures everything.
pub fn run(catalog: Option<&str>) -> Result<Vec<Measure>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    succeed(
        Command::new("cargo")
            .args([
                "build",
                "--release",
                "-p",
                "tenon",
                "-p",
                "tenon-engine",
                "--examples",
                "--bins",
            ])
            .current_dir(&root),
    )?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let bench = Bench::new(target.join("release"))?;
    let mut measures = Vec::new();
    for measure in
        [Bench::one_step_on_docker, Bench::ten_steps_on_docker, Bench::one_step_on_the_host]
    {
        measures.push(measure(&bench)?);
        eprintln!("measured: {}", measures.last().map_or("", |measure| measure.name.as_str()));
    }
    measures.extend(bench.talkative_step()?);
    measures.push(bench.validate(catalog)?);
    measures.push(bench.thousand_tasks()?);
    fs::remove_dir_all(&bench.dir).map_err(|error| format!("remove {:?}: {error}", bench.dir))?;
    Ok(measures)
}

struct Bench {
    release: PathBuf,
    dir: PathBuf,
}

impl Bench {
    fn new(release: PathBuf) -> Result<Bench> {
        let dir = std::env::temp_dir().join(format!("tenon-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("create {dir:?}: {error}"))?;
        Ok(Bench { release, dir })
    }

    fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, content).map_err(|error| format!("write {path:?}: {error}"))?;
        Ok(path)
    }

    fn tenon(&self, backend: &str) -> Command {
        let mut command = Command::new(self.release.join("tenon"));
        command
            .env("TENON_STATE_DIR", self.dir.join("state"))
            .env("TENON_BACKEND", backend)
            .stdin(Stdio::null());
        command
    }

    fn run_tenon(&self, backend: &str, file: &Path) -> Command {
        let mut command = self.tenon(backend);
        command.args(["run", "-o", "json", "-f"]).arg(file);
        command
    }

    fn one_step_on_docker(&self) -> Result<Measure> {
        let file = self.file("one.yaml", &task_run(1, "true"))?;
        let (ours, theirs) = in_turn(
            || millis(&mut self.run_tenon("docker", &file)),
            || millis(&mut docker_run(&["true"])),
        )?;
        Ok(Measure {
            name: "one-step TaskRun on Docker, added to `docker run --rm busybox true`".to_owned(),
            value: ours - theirs,
            unit: "ms".into(),
            rival: Some(("docker run".to_owned(), theirs)),
            goal: Goal::AtMost(100.0),
        })
    }

    fn ten_steps_on_docker(&self) -> Result<Measure> {
        let file = self.file("ten.yaml", &task_run(10, "true"))?;
        let (ours, theirs) = in_turn(
            || millis(&mut self.run_tenon("docker", &file)),
            || (0..10).map(|_| millis(&mut docker_run(&["true"]))).sum::<Result<f64>>(),
        )?;
        eprintln!("ten steps: {ours:.0} ms; ten `docker run`: {theirs:.0} ms");
        Ok(Measure {
            name: "ten-step TaskRun on Docker, relative to ten `docker run` in sequence".to_owned(),
            value: ours / theirs,
            unit: "×".into(),
            rival: Some(("ten docker run".to_owned(), 1.0)),
            goal: Goal::AtMost(0.5),
        })
    }

    fn one_step_on_the_host(&self) -> Result<Measure> {
        let file = self.file("host.yaml", &task_run(1, "true"))?;
        let (ours, theirs) = in_turn(
            || millis(&mut self.run_tenon("host", &file)),
            || millis(Command::new("/bin/sh").args(["-c", "true"])),
        )?;
        Ok(Measure {
            name: "one-step TaskRun on the host, whole process".to_owned(),
            value: ours,
            unit: "ms".into(),
            rival: Some(("sh -c true".to_owned(), theirs)),
            goal: Goal::AtMost(30.0),
        })
    }

    /// Lines a second, whether every line arrived, and memory.
    fn talkative_step(&self) -> Result<Vec<Measure>> {
        let line = "x".repeat(93);
        let script = format!(
            r#"awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf "%06d {line}\n", i % 1000000 }}'"#
        );
        let file = self.file("talk.yaml", &task_run(1, &script))?;
        let mut rates = Vec::new();
        let mut peaks = Vec::new();
        let mut rivals = Vec::new();
        for _ in 0..ROUNDS {
            let output = self.dir.join("talk.json");
            let start = Instant::now();
            let child = self
                .run_tenon("docker", &file)
                .stdout(File::create(&output).map_err(|error| error.to_string())?)
                .spawn()
                .map_err(|error| format!("start tenon: {error}"))?;
            let (status, peak) = wait_with_peak(&child)?;
            let seconds = start.elapsed().as_secs_f64();
            if !status.success() {
                return Err(format!("the talkative step ended with {status}"));
            }
            check_lines(&output)?;
            rates.push(LINES as f64 / seconds);
            peaks.push(peak);
            let plain =
                File::create(self.dir.join("talk.txt")).map_err(|error| error.to_string())?;
            let start = Instant::now();
            succeed(docker_run(&["sh", "-c", &script]).stdout(plain))?;
            rivals.push(LINES as f64 / start.elapsed().as_secs_f64());
        }
        Ok(vec![
            Measure {
                name: "1,000,000 lines of 100 bytes to `-o json`, every line there".to_owned(),
                value: median(rates),
                unit: "lines/s".into(),
                rival: Some(("docker run > file".to_owned(), median(rivals))),
                goal: Goal::AtLeast(150_000.0),
            },
            Measure {
                name: "peak memory of `tenon` meanwhile".to_owned(),
                value: median(peaks),
                unit: "MB".into(),
                rival: None,
                goal: Goal::AtMost(150.0),
            },
        ])
    }

    fn validate(&self, catalog: Option<&str>) -> Result<Measure> {
        let (dir, what) = match catalog {
            Some(dir) => (PathBuf::from(dir), "the given catalog"),
            None => (self.generated_catalog()?, "80 generated Tasks"),
        };
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            self.tenon("host")
                .args(["validate", "-o", "json", "-f"])
                .arg(&dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .map_err(|error| format!("start tenon validate: {error}"))?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(Measure {
            name: format!("`tenon validate` of {what}"),
            value: median(times),
            unit: "s".into(),
            rival: None,
            goal: Goal::AtMost(0.3),
        })
    }

    fn generated_catalog(&self) -> Result<PathBuf> {
        let dir = self.dir.join("catalog");
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        for number in 0..80 {
            let mut task = format!(
                "apiVersion: tekton.dev/v1beta1\nkind: Task\nmetadata: {{name: task-{number}}}\nspec:\n  params:\n"
            );
            for param in 0..15 {
                task += &format!("  - {{name: p{param}, type: string, default: \"d{param}\"}}\n");
            }
            task += "  workspaces: [{name: source}]\n  steps:\n";
            for step in 0..4 {
                task += &format!(
                    "  - name: s{step}\n    image: $(params.p0)\n    workingDir: $(workspaces.source.path)\n    script: |\n"
                );
                for param in 0..15 {
                    task +=
                        &format!("      echo \"$(params.p{param}) and ${{HOME}} and $(date)\"\n");
                }
            }
            let path = dir.join(format!("task-{number}.yaml"));
            fs::write(&path, task).map_err(|error| format!("write {path:?}: {error}"))?;
        }
        Ok(dir)
    }

    /// The example prints the median of its own rounds, in milliseconds.
    fn thousand_tasks(&self) -> Result<Measure> {
        let output = Command::new(self.release.join("examples/plan_thousand_tasks"))
            .output()
            .map_err(|error| format!("start the plan example: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value = text.trim().parse().map_err(|_| format!("not a number: {text}"))?;
        Ok(Measure {
            name: "load, validate and plan a 1,000-task Pipeline".to_owned(),
            value,
            unit: "ms".into(),
            rival: None,
            goal: Goal::AtMost(50.0),
        })
    }
}

fn task_run(steps: usize, script: &str) -> String {
    let mut yaml = String::from(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: bench}\nspec:\n  taskSpec:\n    steps:\n",
    );
    for _ in 0..steps {
        yaml += &format!("    - image: busybox\n      script: |\n        {script}\n");
    }
    yaml
}

fn docker_run(argv: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "busybox"]).args(argv);
    command
}

/// Measures two things in turn, so that both see the same machine; medians.
fn in_turn(
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let mut values = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        values.0.push(ours()?);
        values.1.push(theirs()?);
    }
    Ok((median(values.0), median(values.1)))
}

/// How long a command takes; what it says is shown only when it fails.
fn millis(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.output().map_err(|error| format!("start {command:?}: {error}"))?;
    let elapsed = start.elapsed().as_secs_f64() * 1000.0;
    if output.status.success() {
        return Ok(elapsed);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {said}", output.status))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("start {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

/// Waits for a child; its status and its peak resident memory in MB.
fn wait_with_peak(child: &Child) -> Result<(ExitStatus, f64)> {
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all-zero is valid; wait4 fills it and the status
    // of our own child, which nobody else waits for.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, 0, &mut usage), usage)
    };
    if waited != pid {
        return Err(format!("wait for {pid}: {}", std::io::Error::last_os_error()));
    }
    Ok((ExitStatus::from_raw(status), usage.ru_maxrss as f64 / 1024.0))
}

/// Every line must be there, in order.
fn check_lines(output: &Path) -> Result<()> {
    let file = File::open(output).map_err(|error| format!("open {output:?}: {error}"))?;
    let mut expected = 0;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let Some(at) = line.find(r#""line":""#) else { continue };
        expected += 1;
        let wanted = format!("{:06} ", expected % 1_000_000);
        if !line[at + 8..].starts_with(&wanted) {
            return Err(format!("line {expected} is {line}"));
        }
    }
    if expected == LINES { Ok(()) } else { Err(format!("{expected} of {LINES} lines arrived")) }
}
