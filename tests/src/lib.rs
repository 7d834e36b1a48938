//! What the black-box suites share: running the built `tenon` in a directory of its own and reading
//! what it said.
//!
//! Nothing here knows a crate of the product from the inside, except the loader, which reads the
//! YAML that `-o yaml` prints.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

pub mod docker;
pub mod fleet;
pub mod mount;

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest that any single command of a suite may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// One test's `tenon`: a working directory and a state directory that nobody else uses.
pub struct Tenon {
    dir: TempDir,
    backend: &'static str,
    env: Vec<(String, String)>,
    /// The process in whose network all commands run.
    network_of: Option<u32>,
}

/// What a finished `tenon` said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Tenon {
    /// Runs steps in Docker.
    pub fn docker() -> Tenon {
        Tenon::with_backend("docker")
    }

    /// Runs steps as processes of this machine.
    pub fn host() -> Tenon {
        Tenon::with_backend("host")
    }

    fn with_backend(backend: &'static str) -> Tenon {
        Tenon { dir: TempDir::new().unwrap(), backend, env: Vec::new(), network_of: None }
    }

    /// Runs steps in that daemon's Docker over TCP, in its network, with directories below `base`.
    pub fn far(base: &Path, daemon: &docker::Daemon) -> Tenon {
        let mut tenon = Tenon::docker();
        tenon.dir = TempDir::new_in(base).unwrap();
        tenon.network_of = Some(daemon.pid());
        tenon.with_env("DOCKER_HOST", "tcp://127.0.0.1:2375")
    }

    /// With a variable in the environment of every command.
    pub fn with_env(mut self, name: &str, value: &str) -> Tenon {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets tasks, here and on agents, mount what is in the working directory.
    pub fn allowing_its_directory(self) -> Tenon {
        let dir = self.dir().display().to_string();
        self.with_env("TENON_ALLOW_HOST_PATH", &dir).with_env("TENON_AGENT_ALLOW_HOST_PATH", &dir)
    }

    /// Whether steps run in Docker.
    pub fn is_docker(&self) -> bool {
        self.backend == "docker"
    }

    /// The working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes a file into the working directory.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command with this test's directories and backend, and nothing of the caller's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.network_of {
            None => Command::new(binary()),
            Some(pid) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(binary());
                enter
            }
        };
        command
            .args(args)
            .current_dir(self.dir())
            .env("TENON_STATE_DIR", self.state_dir())
            .env("TENON_BACKEND", self.backend)
            .env("XDG_CONFIG_HOME", self.dir().join("config"))
            .env_remove("FORCE_COLOR")
            .env("NO_COLOR", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Directories of a run's attempts and claims, on the disk and in memory.
    pub fn directories_of(&self, run: &str) -> Vec<PathBuf> {
        let run = run.to_lowercase();
        let mut found = Vec::new();
        let mut bases = vec![PathBuf::from("/dev/shm")];
        bases.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        for base in bases {
            below(&base, 2, &run, &mut found);
        }
        below(&self.state_dir().join("agent"), 3, &run, &mut found);
        below(&self.state_dir().join("agents"), 4, &run, &mut found);
        found
    }

    /// Runs `tenon` with these arguments to its end.
    pub fn tenon(&self, args: &[&str]) -> Said {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs `tenon run -f -` with `yaml` on standard input, and more arguments.
    pub fn run(&self, yaml: &str, args: &[&str]) -> Said {
        let mut all = vec!["run", "-f", "-"];
        all.extend(args);
        let mut child = self.command(&all).stdin(Stdio::piped()).spawn().unwrap();
        // The child may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(yaml.as_bytes());
        finish(child)
    }
}

fn below(dir: &Path, depth: u32, run: &str, found: &mut Vec<PathBuf>) {
    // What is not a directory, or has just gone, has nothing below it.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().to_lowercase().contains(run) {
            found.push(entry.path());
        } else if depth > 1 {
            below(&entry.path(), depth - 1, run, found);
        }
    }
}

/// Kills a process if the test fails before this is dropped: it waits for what nobody will do.
pub struct KillOnPanic(pub u32);

impl Drop for KillOnPanic {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0).unwrap_or_default();
        // SAFETY: no status is asked for. 0 means that it is a child and runs; one that was waited
        // for is none any more, whoever has its number now.
        if std::thread::panicking()
            && unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } == 0
        {
            signal(self.0, libc::SIGKILL);
        }
    }
}

/// Waits for a child within [`LIMIT`], reading both of its streams.
pub fn finish(child: Child) -> Said {
    let pid = child.id();
    let (done, over) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(LIMIT).is_err() {
            signal(pid, libc::SIGKILL);
        }
    });
    let output: Output = child.wait_with_output().unwrap();
    // The watch has ended by itself if it had to act.
    let _ = done.send(());
    watch.join().unwrap();
    let code = output.status.code().unwrap_or_else(|| {
        use std::os::unix::process::ExitStatusExt;
        128 + output.status.signal().unwrap_or(0)
    });
    Said {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: kill has no memory effects; the pid is a child of this test that was not yet waited for.
    unsafe { libc::kill(pid, signal) };
}

/// The processes of this machine whose command line, its arguments separated by spaces, contains
/// `text`; those of containers too.
pub fn processes_with(text: &str) -> Vec<u32> {
    let of_process = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        // One that has just ended has none.
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| of_process(entry.unwrap())).collect()
}

/// The processes that a process has started, from any of its threads.
pub fn children_of(process: u32) -> Vec<u32> {
    // One that has ended has none.
    let threads =
        std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children =
        threads.filter_map(|it| std::fs::read_to_string(it.path().join("children")).ok());
    let numbers = |text: String| -> Vec<u32> {
        text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
    };
    children.flat_map(numbers).collect()
}

/// The body of a good answer to a request by HTTP.
pub fn http_get(address: &str, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|code| code == "200").then(|| body.to_owned())
}

/// Asks `condition` again and again until it holds, within [`LIMIT`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

impl Said {
    /// The events of `-o json`, line by line.
    pub fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
            })
            .collect()
    }

    /// The texts of all step and sidecar lines of `-o json`.
    pub fn log(&self) -> Vec<String> {
        self.events()
            .iter()
            .filter(|event| event["kind"] == "step-log" || event["kind"] == "sidecar-log")
            .map(|event| event["line"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Asserts the exit code, showing everything that was said if it is another one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// The `tenon` to test: `$TENON_BIN`, else the one that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TENON_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("tenon");
    assert!(
        binary.exists(),
        "{} is not built: run `cargo build -p tenon` first, or use `cargo xtask test`",
        binary.display()
    );
    binary
}
