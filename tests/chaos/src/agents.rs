//! The agents of a chaos run: each in a namespace of its own, with its guard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::network::{Host, Network, netns};
use crate::processes::{remark, send, spawn};
use crate::{Backend, Failure, placements};

/// How long an agent may take to end that is told to: it stops what it runs, with grace.
const GRACE: Duration = Duration::from_secs(60);

/// An agent.
pub struct Agent {
    /// Its name, and its directory's.
    pub name: String,
    child: Option<Child>,
    is_stopped: bool,
}

/// The agents, counted from 1.
pub struct Agents {
    binary: PathBuf,
    dir: PathBuf,
    backend: Backend,
    servers: String,
    agents: Vec<Agent>,
    /// Where those kept their data whose machines are gone.
    destroyed: Vec<PathBuf>,
    // After the processes that use it.
    /// What connects them.
    pub network: Rc<Network>,
}

impl Agents {
    /// Starts so many agents of the cluster at these URLs. Everything they write is below `dir`.
    pub fn start(
        binary: &Path,
        dir: &Path,
        count: usize,
        backend: Backend,
        urls: &[String],
        network: Rc<Network>,
    ) -> Result<Agents, Failure> {
        let named = |number| Agent { name: format!("a{number}"), child: None, is_stopped: false };
        let mut agents = Agents {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            backend,
            servers: urls.join(","),
            agents: (1..=count).map(named).collect(),
            destroyed: Vec::new(),
            network,
        };
        for number in 1..=count {
            agents.start_agent(number)?;
        }
        Ok(agents)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.agents.len()
    }

    /// The name of an agent.
    pub fn name(&self, number: usize) -> &str {
        &self.agents[number - 1].name
    }

    /// Starts an agent that does not run, in its directory.
    pub fn start_agent(&mut self, number: usize) -> Result<(), Failure> {
        let namespace = netns(&self.network.namespace(Host::Agent(number)));
        // Not `ip netns exec`, which makes a mount name space besides.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display())).arg(&self.binary);
        let name = self.name(number).to_owned();
        command.args(["agent", "--name", &name, "--slots", "4"]);
        // Where the suite looks at what steps have written.
        command.arg("--allow-host-path").arg(&self.dir);
        command.args(["--backend", self.backend.name(), "--server", &self.servers]);
        let child = spawn(command, &self.dir, &name)?;
        let agent = &mut self.agents[number - 1];
        (agent.child, agent.is_stopped) = (Some(child), false);
        Ok(())
    }

    /// Writes a remark into the log of an agent.
    pub fn remark(&self, number: usize, what: &str) {
        remark(&self.dir, self.name(number), what);
    }

    /// Kills an agent at once, and not what it runs.
    pub fn kill(&mut self, number: usize) {
        self.go_on(number);
        let agent = &mut self.agents[number - 1];
        let Some(mut child) = agent.child.take() else { return };
        send(&child, libc::SIGKILL);
        let _ = child.wait();
    }

    /// Asks an agent to end, and waits until it has.
    pub async fn terminate(&mut self, number: usize) -> Result<(), Failure> {
        self.go_on(number);
        let agent = &mut self.agents[number - 1];
        let Some(mut child) = agent.child.take() else { return Ok(()) };
        send(&child, libc::SIGTERM);
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if began.elapsed() > GRACE {
                let _ = child.kill();
                let _ = child.wait();
                let name = &agent.name;
                return Err(format!("{name} does not end within {} s", GRACE.as_secs()));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops an agent as one that hangs would; its guard and what it runs go on.
    pub fn stop(&mut self, number: usize) {
        let agent = &mut self.agents[number - 1];
        if let Some(child) = &agent.child {
            send(child, libc::SIGSTOP);
            agent.is_stopped = true;
        }
    }

    /// Lets a stopped agent go on.
    pub fn go_on(&mut self, number: usize) {
        let agent = &mut self.agents[number - 1];
        if let (Some(child), true) = (&agent.child, agent.is_stopped) {
            send(child, libc::SIGCONT);
        }
        agent.is_stopped = false;
    }

    /// Whether an agent was started and not ended by us.
    pub fn is_started(&self, number: usize) -> bool {
        self.agents[number - 1].child.is_some()
    }

    /// Kills an agent's guard; says whether there was one.
    pub fn kill_guard(&self, number: usize) -> bool {
        let guards = guards(&self.data_dir(number));
        guards.iter().copied().for_each(kill_process);
        !guards.is_empty()
    }

    /// Removes what an agent ran that is dead, and its containers with it.
    fn kill_containers(&self, number: usize) {
        let dir = self.data_dir(number);
        match self.backend {
            Backend::Docker => placements::clean_up(&dir),
            // What they keep dies with them.
            Backend::Host => launchers(&dir).into_iter().for_each(kill_process),
        }
    }

    /// The machine is gone with everything on it. A new one, with another name, takes its place.
    pub fn destroy(&mut self, number: usize) -> Result<(), Failure> {
        self.kill(number);
        self.kill_guard(number);
        let gone = self.data_dir(number);
        self.kill_containers(number);
        // What is still being written to it goes with the suite's directory.
        let _ = fs::remove_dir_all(&gone);
        self.destroyed.push(gone);
        self.agents[number - 1].name = format!("a{number}-{}", self.destroyed.len());
        self.start_agent(number)
    }

    /// Removes what Docker was still making for machines when they went: theirs would be gone with them.
    pub fn clean_up_destroyed(&self) {
        if self.backend == Backend::Docker {
            self.destroyed.iter().for_each(|gone| placements::clean_up(gone));
        }
    }

    /// Processes that ended although nobody told them to.
    pub fn ended_by_themselves(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for agent in &mut self.agents {
            if let Some(Ok(Some(status))) = agent.child.as_mut().map(Child::try_wait) {
                ended.push(format!("{} ({status})", agent.name));
                agent.child = None;
            }
        }
        ended
    }

    fn data_dir(&self, number: usize) -> PathBuf {
        let name = self.name(number);
        self.dir.join("state").join(name).join("agents").join(name)
    }

    /// What the agents hold on their disks of runs that they worked for.
    pub fn held(&self) -> Vec<PathBuf> {
        let mut held = Vec::new();
        for number in 1..=self.agents.len() {
            for what in ["runs", "pods"] {
                // What was never made holds nothing.
                let entries = fs::read_dir(self.data_dir(number).join(what));
                held.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        }
        held
    }

    /// Asks all to end, and waits until they have.
    pub async fn terminate_all(&mut self) -> Result<(), Failure> {
        for number in 1..=self.agents.len() {
            self.terminate(number).await?;
        }
        Ok(())
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for number in 1..=self.agents.len() {
            self.kill(number);
            self.kill_guard(number);
            if self.backend == Backend::Host {
                self.kill_containers(number);
            }
        }
    }
}

/// Kills one of the processes that are found here.
fn kill_process(pid: i32) {
    // SAFETY: kill has no effect on memory; the process is a guard or a launcher of ours.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// The guards of the agent with this directory.
fn guards(data_dir: &Path) -> Vec<i32> {
    let dir = data_dir.as_os_str().as_encoded_bytes();
    processes(|words| words.get(1) == Some(&&b"guard"[..]) && words.contains(&dir))
}

/// What keeps the containers on the host of the agent with this directory.
fn launchers(data_dir: &Path) -> Vec<i32> {
    let dir = data_dir.join("bin");
    let dir = dir.as_os_str().as_encoded_bytes();
    processes(|words| words.get(1) == Some(&&b"launch"[..]) && words[0].starts_with(dir))
}

/// The processes with such arguments.
fn processes(which: impl Fn(&[&[u8]]) -> bool) -> Vec<i32> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid else { continue };
        // One that has just gone says nothing.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        if which(&words) {
            found.push(pid);
        }
    }
    found
}
