//! A fleet of processes: coordinators, an agent, and `tenon` with `--server`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::{Said, Tenon, wait_until};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// A process of the fleet; it does not outlive the test.
pub struct Process {
    /// The process itself.
    pub child: Child,
    /// Where it listens; empty for an agent.
    pub url: String,
    /// Its name.
    pub name: String,
}

impl Process {
    /// Kills it, if it still runs.
    pub fn kill(&mut self) {
        // One that has ended needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Coordinators and an agent, all of one test. The agent is dropped first, so that it leaves nothing.
pub struct Fleet {
    /// The agent.
    pub agent: Option<Process>,
    /// What every coordinator is started with besides.
    coordinator_args: Vec<String>,
    /// The coordinators, in the order in which they were started.
    pub coordinators: Vec<Process>,
    /// Directories, and the command.
    pub tenon: Tenon,
}

impl Fleet {
    /// A cluster of so many coordinators with one agent.
    pub fn start(nodes: usize) -> Fleet {
        Fleet::start_on(Tenon::host(), nodes, &[])
    }

    /// The same on that backend, where every coordinator gets these arguments too.
    pub fn start_on(tenon: Tenon, nodes: usize, coordinator_args: &[&str]) -> Fleet {
        tenon.file("secrets.key", KEY);
        let coordinator_args = coordinator_args.iter().map(|&arg| arg.to_owned()).collect();
        let mut fleet = Fleet { agent: None, coordinator_args, coordinators: Vec::new(), tenon };
        for number in 1..=nodes {
            let node = fleet.coordinator(&format!("c{number}"), "127.0.0.1:0");
            fleet.coordinators.push(node);
        }
        let first = fleet.coordinators[0].url.clone();
        let mut init = vec!["cluster", "init", "--server", &first];
        for peer in &fleet.coordinators[1..] {
            init.extend(["--peer", &peer.url]);
        }
        fleet.tenon.tenon(&init).expect(0);
        wait_until("all nodes to be voters and ready", || {
            fleet.coordinators.iter().all(|node| {
                let status = fleet.status(&node.url);
                let members = status["members"].as_array().cloned().unwrap_or_default();
                let voters = members.iter().filter(|member| member["role"] == "voter").count();
                voters == nodes && status["ready"] == true
            })
        });
        fleet.agent = Some(fleet.agent("a1"));
        fleet.until_up("a1");
        fleet
    }

    /// Waits until that agent is in contact.
    pub fn until_up(&self, name: &str) {
        wait_until(&format!("agent {name}"), || {
            let status = self.status(&self.servers());
            let agents = status["agents"].as_array().cloned().unwrap_or_default();
            agents.iter().any(|agent| agent["name"] == name && agent["state"] == "up")
        });
    }

    /// Kills the agent at once and starts it again in the same directory.
    pub fn restart_agent(&mut self) {
        let name = self.agent.as_ref().unwrap().name.clone();
        self.agent = None;
        self.agent = Some(self.agent(&name));
    }

    /// Kills the guard of an agent.
    pub fn kill_guard(&self, name: &str) {
        let dir = self.tenon.state_dir().join("agents").join(name);
        let dir = fs::canonicalize(dir).unwrap();
        let is_guard = |line: &[u8]| {
            let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
            let of_it = words.contains(&dir.as_os_str().as_encoded_bytes());
            of_it && words.get(1) == Some(&&b"guard"[..])
        };
        let mut killed = 0;
        for process in fs::read_dir("/proc").unwrap().flatten() {
            // One that has just gone says nothing.
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if is_guard(&line) {
                let pid = process.file_name().to_str().unwrap().parse().unwrap();
                crate::signal(pid, libc::SIGKILL);
                killed += 1;
            }
        }
        assert_eq!(killed, 1, "an agent has one guard");
    }

    /// What an agent has said so far.
    pub fn said_by(&self, name: &str) -> String {
        fs::read_to_string(self.tenon.dir().join(format!("{name}.log"))).unwrap()
    }

    /// Starts a coordinator that belongs to no cluster yet, or to the one that its directory says.
    pub fn coordinator(&self, name: &str, listen: &str) -> Process {
        let dir = self.tenon.dir().join(name);
        let mut command = self.tenon.command(&[
            "coordinator",
            "--name",
            name,
            "--listen",
            listen,
            "--data-dir",
            dir.to_str().unwrap(),
            "--secrets-key",
            self.tenon.dir().join("secrets.key").to_str().unwrap(),
        ]);
        command.args(&self.coordinator_args);
        let mut child = command.stderr(self.log(name)).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let log = fs::read_to_string(self.tenon.dir().join(format!("{name}.log")));
            panic!("{name} says {line:?} and {log:?}");
        };
        Process { url: url.to_owned(), name: name.to_owned(), child }
    }

    /// Starts an agent.
    pub fn agent(&self, name: &str) -> Process {
        self.agent_with(name, &[])
    }

    /// Starts an agent with further arguments.
    pub fn agent_with(&self, name: &str, more: &[&str]) -> Process {
        let args = [
            "agent",
            "--name",
            name,
            "--backend",
            if self.tenon.is_docker() { "docker" } else { "host" },
            "--server",
            &self.servers(),
            "--label",
            "zone=b",
        ];
        let mut command = self.tenon.command(&[&args[..], more].concat());
        let child = command.stdout(Stdio::null()).stderr(self.log(name)).spawn().unwrap();
        Process { child, url: String::new(), name: name.to_owned() }
    }

    /// The containers of this fleet's agents that are in such a state (`paused`, `running`), or in any; on
    /// the host the processes in them.
    pub fn containers(&self, status: Option<&str>) -> Vec<String> {
        if !self.tenon.is_docker() {
            return self.processes(status);
        }
        let mut command = std::process::Command::new("docker");
        command.args(["ps", "-a", "--no-trunc", "--filter", "label=tenon.key"]);
        command.args(["--format", "{{.ID}} {{.Label \"tenon.owner\"}}"]);
        command.args(status.map(|status| format!("--filter=status={status}")));
        let listed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let dir = self.tenon.dir().display().to_string();
        let own = listed.lines().filter(|line| line.contains(&dir));
        own.filter_map(|line| line.split_once(' ')).map(|(id, _)| id.to_owned()).collect()
    }

    fn processes(&self, status: Option<&str>) -> Vec<String> {
        let space = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let launchers = self.launchers();
        let inside = |pid: &u32| space(&pid.to_string(), "pid_for_children");
        let spaces: Vec<PathBuf> = launchers.iter().filter_map(inside).collect();
        let names = fs::read_dir("/proc").unwrap().flatten().map(|process| process.file_name());
        let pids = names.filter_map(|name| name.into_string().ok());
        let of_them = |pid: &String| space(pid, "pid").is_some_and(|of| spaces.contains(&of));
        let is_so = |pid: &String| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
            match (state, status) {
                (None | Some('Z' | 'X'), _) => false,
                (Some('T'), Some(status)) => status == "paused",
                // A shell in vfork stops when its stopped child lets it.
                (Some('D'), Some(status)) if is_about_to_stop(pid) => status == "paused",
                (Some(_), Some(status)) => status == "running",
                (Some(_), None) => true,
            }
        };
        pids.filter(of_them).filter(is_so).collect()
    }

    /// Removes the containers of this fleet's agents, whatever becomes of their tasks.
    pub fn remove_containers(&self) {
        for launcher in self.launchers() {
            crate::signal(launcher, libc::SIGKILL);
        }
        if self.tenon.is_docker() {
            for id in self.containers(None) {
                let mut remove = std::process::Command::new("docker");
                let _ = remove.args(["rm", "-f", &id]).stdout(Stdio::null()).status();
            }
        }
    }

    /// What keeps containers on the host, of this fleet's agents.
    pub fn launchers(&self) -> Vec<u32> {
        let program = self.tenon.state_dir().join("agents").display().to_string();
        let all = crate::processes_with("/entrypoint launch");
        let own = crate::processes_with(&program);
        all.into_iter().filter(|pid| own.contains(pid)).collect()
    }

    fn log(&self, name: &str) -> File {
        let path = self.tenon.dir().join(format!("{name}.log"));
        File::options().create(true).append(true).open(path).unwrap()
    }

    /// What `--server` names.
    pub fn servers(&self) -> String {
        let urls: Vec<&str> = self.coordinators.iter().map(|node| node.url.as_str()).collect();
        urls.join(",")
    }

    /// Runs `tenon` against the cluster.
    pub fn ask(&self, args: &[&str]) -> Said {
        let mut all = args.to_vec();
        let servers = self.servers();
        all.extend(["--server", &servers]);
        self.tenon.tenon(&all)
    }

    /// What the cluster answers as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let said = self.ask(&[args, &["-o", "json"]].concat()).expect(0);
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// Runs what the YAML holds on the cluster.
    pub fn run(&self, yaml: &str, args: &[&str]) -> Said {
        self.tenon.run(yaml, &[args, &["--server", &self.servers()]].concat())
    }

    /// Null while a node does not answer.
    pub fn status(&self, url: &str) -> Value {
        let said = self.tenon.tenon(&["cluster", "status", "-o", "json", "--server", url]);
        serde_json::from_str(&said.stdout).unwrap_or_default()
    }

    /// Position of the leader among the coordinators.
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_until("a leader", || {
            let url = self.status(&self.servers())["leaderUrl"].as_str().map(str::to_owned);
            found = self.coordinators.iter().position(|node| Some(&node.url) == url.as_ref());
            found.is_some()
        });
        found.unwrap()
    }

    /// Starts the process again that was at this position, at the same address.
    pub fn restart(&mut self, position: usize) {
        let node = &mut self.coordinators[position];
        node.kill();
        let (name, url) = (node.name.clone(), node.url.clone());
        let address = url.strip_prefix("http://").unwrap();
        self.coordinators[position] = self.coordinator(&name, address);
    }

    /// `tenon run` in the background, writing to a file.
    pub fn start_run(&self, yaml: &str, args: &[&str]) -> (Child, PathBuf) {
        let out = self.tenon.dir().join("run.out");
        let servers = self.servers();
        let all = [&["run", "-f", "-", "-o", "json", "--server", &servers], args].concat();
        let mut command = self.tenon.command(&all);
        command.stdin(Stdio::piped()).stdout(File::create(&out).unwrap());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        (child, out)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.agent = None;
        // What a killed agent has left waits for it, for ever.
        self.remove_containers();
    }
}

/// Whether a process has been told to stop, and will before it does anything else.
fn is_about_to_stop(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    pending.is_some_and(|pending| pending >> (libc::SIGSTOP - 1) & 1 == 1)
}
