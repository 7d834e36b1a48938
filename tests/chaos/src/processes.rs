//! The coordinators of a chaos run, each in its own namespace, and how processes are started.
//!
//! A process dies with the thread that started it, so all are started by the one that lasts.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use crate::Failure;
use crate::network::{Host, Network, PORT};

/// A coordinator.
pub struct Node {
    /// Counted from 1.
    pub number: usize,
    /// Where it is reached.
    pub url: String,
    child: Option<Child>,
    is_stopped: bool,
}

/// The coordinators.
pub struct Processes {
    binary: PathBuf,
    dir: PathBuf,
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<Node>,
    options: Vec<String>,
    // After the processes that use it.
    /// What connects them.
    pub network: Rc<Network>,
}

impl Processes {
    /// Starts so many nodes with these further options, which are no cluster yet. Everything they write
    /// is below `dir`.
    pub fn start(
        binary: &Path,
        dir: &Path,
        nodes: usize,
        options: &[&str],
        network: Rc<Network>,
    ) -> Result<Processes, Failure> {
        let nodes = (1..=nodes).map(|number| {
            let url = format!("http://{}:{PORT}", network.address(Host::Node(number)));
            Node { number, url, child: None, is_stopped: false }
        });
        let mut processes = Processes {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            nodes: nodes.collect(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            network,
        };
        let key = "5a".repeat(32);
        std::fs::write(processes.key(), key).map_err(|error| format!("the key: {error}"))?;
        for number in 1..=processes.nodes.len() {
            processes.start_node(number)?;
        }
        Ok(processes)
    }

    fn key(&self) -> PathBuf {
        self.dir.join("secrets.key")
    }

    /// Where the nodes are reached.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, number: usize) -> Result<(), Failure> {
        let name = format!("c{number}");
        let mut command = Command::new("ip");
        let host = Host::Node(number);
        command.args(["netns", "exec", &self.network.namespace(host)]).arg(&self.binary);
        command.args(["coordinator", "--name", &name, "--insecure"]);
        command.args(["--listen", &format!("{}:{PORT}", self.network.address(host))]);
        command.arg("--data-dir").arg(self.dir.join(&name));
        command.arg("--secrets-key").arg(self.key());
        // So that the log is compacted, and snapshots are sent, all the time.
        command.args(["--persist-ms", "700", "--log-segment-kib", "32"]);
        command.args(&self.options);
        let child = spawn(command, &self.dir, &name)?;
        let node = &mut self.nodes[number - 1];
        (node.child, node.is_stopped) = (Some(child), false);
        Ok(())
    }

    /// Writes a remark into the log of a node, so that what it says can be understood.
    pub fn remark(&self, number: usize, what: &str) {
        remark(&self.dir, &format!("c{number}"), what);
    }

    /// Kills a node at once, and waits until it is gone. Says whether it ran.
    pub fn kill(&mut self, number: usize) -> bool {
        self.end(number, libc::SIGKILL)
    }

    /// Asks a node to end, and waits until it has.
    pub fn terminate(&mut self, number: usize) -> bool {
        self.end(number, libc::SIGTERM)
    }

    fn end(&mut self, number: usize, signal: i32) -> bool {
        self.go_on(number);
        let node = &mut self.nodes[number - 1];
        let Some(mut child) = node.child.take() else { return false };
        let ran = matches!(child.try_wait(), Ok(None));
        send(&child, signal);
        let _ = child.wait();
        ran
    }

    /// Stops a node as a machine that hangs would.
    pub fn stop(&mut self, number: usize) {
        let node = &mut self.nodes[number - 1];
        if let Some(child) = &node.child {
            send(child, libc::SIGSTOP);
            node.is_stopped = true;
        }
    }

    /// Lets a stopped node go on.
    pub fn go_on(&mut self, number: usize) {
        let node = &mut self.nodes[number - 1];
        if let (Some(child), true) = (&node.child, node.is_stopped) {
            send(child, libc::SIGCONT);
        }
        node.is_stopped = false;
    }

    /// Whether a node was started and not ended by us.
    pub fn is_started(&self, number: usize) -> bool {
        self.nodes[number - 1].child.is_some()
    }

    /// Processes that ended although nobody told them to: `c2 (exit status: 3)`.
    pub fn ended_by_themselves(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if let Some(Ok(Some(status))) = node.child.as_mut().map(Child::try_wait) {
                ended.push(format!("c{} ({status})", node.number));
                node.child = None;
            }
        }
        ended
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for number in 1..=self.nodes.len() {
            self.kill(number);
        }
    }
}

/// The file with what a process said.
pub fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// Writes a remark into a log, so that what stands there can be understood.
pub fn remark(dir: &Path, name: &str, what: &str) {
    use std::io::Write;
    let log = OpenOptions::new().append(true).open(log(dir, name));
    // A log is for people: a run does not fail for want of a line.
    let _ = log.and_then(|mut log: File| writeln!(log, "==== chaos: {what}"));
}

/// Starts a `tenon` that lives below `dir`, speaks into its log, and dies with us.
pub fn spawn(mut command: Command, dir: &Path, name: &str) -> Result<Child, Failure> {
    let failed = |error| format!("cannot start {name}: {error}");
    let out = OpenOptions::new().create(true).append(true).open(log(dir, name)).map_err(failed)?;
    let again = out.try_clone().map_err(failed)?;
    command
        .current_dir(dir)
        .env("TENON_STATE_DIR", dir.join("state").join(name))
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(again);
    dies_with_us(&mut command);
    command.spawn().map_err(failed)
}

/// The process dies when the thread that starts it ends, however it ends.
pub fn dies_with_us(command: &mut Command) {
    // SAFETY: prctl has no effect on memory, and may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Sends a signal to a child that was not waited for.
pub fn send(child: &Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: kill has no effect on memory; the child was not waited for, so the number is its.
        unsafe { libc::kill(pid, signal) };
    }
}
