//! The processes of a chaos run: coordinators, each in its own namespace, and agents.
//!
//! A process dies with the thread that started it, so all are started by the one that lasts.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::network::{Network, PORT};
use crate::{Backend, Failure};

/// A coordinator.
pub struct Node {
    /// Counted from 1.
    pub number: usize,
    /// Where it is reached.
    pub url: String,
    child: Option<Child>,
    is_stopped: bool,
}

/// The coordinators and agents.
pub struct Processes {
    binary: PathBuf,
    dir: PathBuf,
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<Node>,
    agents: Vec<Child>,
    // After the processes that use it.
    /// What connects them.
    pub network: Network,
}

impl Processes {
    /// Starts so many nodes, which are no cluster yet. Everything they write is below `dir`.
    pub fn start(binary: &Path, dir: &Path, nodes: usize) -> Result<Processes, Failure> {
        let network = Network::new(nodes)?;
        let nodes = (1..=nodes).map(|number| {
            let url = format!("http://{}:{PORT}", network.address(number));
            Node { number, url, child: None, is_stopped: false }
        });
        let mut processes = Processes {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            nodes: nodes.collect(),
            agents: Vec::new(),
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
        command.args(["netns", "exec", &self.network.namespace(number)]).arg(&self.binary);
        command.args(["coordinator", "--name", &name, "--insecure"]);
        command.args(["--listen", &format!("{}:{PORT}", self.network.address(number))]);
        command.arg("--data-dir").arg(self.dir.join(&name));
        command.arg("--secrets-key").arg(self.key());
        // So that the log is compacted, and snapshots are sent, all the time.
        command.args(["--persist-ms", "700", "--log-segment-kib", "32"]);
        let child = self.spawn(command, &name)?;
        let node = &mut self.nodes[number - 1];
        (node.child, node.is_stopped) = (Some(child), false);
        Ok(())
    }

    /// Starts agents.
    pub fn start_agents(&mut self, agents: usize, backend: Backend) -> Result<(), Failure> {
        for number in 1..=agents {
            let name = format!("a{number}");
            let mut command = Command::new(&self.binary);
            command.args(["agent", "--name", &name, "--slots", "4"]);
            command.args(["--backend", backend.name(), "--server", &self.urls().join(",")]);
            let agent = self.spawn(command, &name)?;
            self.agents.push(agent);
        }
        Ok(())
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Child, Failure> {
        let failed = |error| format!("cannot start {name}: {error}");
        let log = OpenOptions::new().create(true).append(true).open(self.log(name));
        let log = log.map_err(failed)?;
        let again = log.try_clone().map_err(failed)?;
        command
            .current_dir(&self.dir)
            .env("TENON_STATE_DIR", self.dir.join("state").join(name))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again);
        dies_with_us(&mut command);
        command.spawn().map_err(failed)
    }

    /// The file with what a process said.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Writes a remark into the log of a node, so that what it says can be understood.
    pub fn remark(&self, number: usize, what: &str) {
        use std::io::Write;
        let log = OpenOptions::new().append(true).open(self.log(&format!("c{number}")));
        // A log is for people: a run does not fail for want of a line.
        let _ = log.and_then(|mut log: File| writeln!(log, "==== chaos: {what}"));
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
        for (index, agent) in self.agents.iter_mut().enumerate() {
            if let Ok(Some(status)) = agent.try_wait() {
                ended.push(format!("a{} ({status})", index + 1));
            }
        }
        ended
    }

    /// The process ids of the agents.
    pub fn agents(&self) -> Vec<u32> {
        self.agents.iter().map(Child::id).collect()
    }

    /// What the agents hold on their disks of runs that they worked for.
    pub fn held(&self) -> Vec<PathBuf> {
        let mut held = Vec::new();
        for number in 1..=self.agents.len() {
            let name = format!("a{number}");
            let agent = self.dir.join("state").join(&name).join("agents").join(&name);
            for what in ["runs", "pods"] {
                // What was never made holds nothing.
                let entries = std::fs::read_dir(agent.join(what)).into_iter().flatten().flatten();
                held.extend(entries.map(|entry| entry.path()));
            }
        }
        held
    }

    /// Asks the agents to end, and waits until they have.
    pub fn terminate_agents(&mut self) {
        self.agents.iter().for_each(|agent| send(agent, libc::SIGTERM));
        for mut agent in self.agents.drain(..) {
            let _ = agent.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for number in 1..=self.nodes.len() {
            self.kill(number);
        }
        // Whoever is left was not asked to end, because something failed: what runs on its behalf
        // is removed by the next agent on this machine.
        for mut agent in self.agents.drain(..) {
            send(&agent, libc::SIGKILL);
            let _ = agent.wait();
        }
    }
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

fn send(child: &Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: kill has no effect on memory; the child was not waited for, so the number is its.
        unsafe { libc::kill(pid, signal) };
    }
}
