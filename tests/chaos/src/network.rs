//! The network of a chaos run: one namespace for each coordinator and each agent, a switch in a namespace
//! of its own, and one interface of this machine's, through which clients reach the coordinators.
//!
//! The packet filters that cut a host off are its namespace's own, so nothing else on the machine is
//! touched but a rule for that interface. Everything goes when the value is dropped; what a killed suite left behind
//! goes when the next one starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// What all names begin with; the process id follows.
const PREFIX: &str = "tenon-chaos-";
/// What the interface of this machine is called, with the process id behind it.
const INTERFACE: &str = "tnch";
/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// The port that every node listens on.
pub const PORT: u16 = 7070;
/// Agents have the addresses behind this one.
const FIRST_AGENT: usize = 100;

/// Where processes live; counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A coordinator's.
    Node(usize),
    /// An agent's.
    Agent(usize),
}

/// How a host can be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing goes in or out.
    Off,
    /// Nothing to or from these hosts.
    From(Vec<Host>),
    /// Nothing to or from the other nodes; agents and clients still reach it.
    FromPeers,
    /// It hears no other node, but is heard.
    Deaf,
    /// No other node hears it, but it hears.
    Mute,
    /// Agents and clients do not reach it; the other nodes do.
    FromClients,
    /// One packet in four is lost, both ways.
    Lossy,
    /// Every packet takes 150 ms more, give or take 50, and one in fifty is lost.
    Slow,
}

/// The namespaces and what connects them.
pub struct Network {
    prefix: String,
    interface: String,
    /// `198.18.7.`
    subnet: String,
    nodes: usize,
    agents: usize,
    can_delay: bool,
}

impl Network {
    /// Makes a network for so many nodes and agents. Needs root, `ip` and `iptables`.
    pub fn new(nodes: usize, agents: usize) -> Result<Network, Failure> {
        remove_leftovers();
        let pid = std::process::id();
        let mut network = Network {
            prefix: format!("{PREFIX}{pid}-"),
            interface: format!("{INTERFACE}{pid}"),
            subnet: free_subnet()?,
            nodes,
            agents,
            can_delay: false,
        };
        network.build()?;
        // Not every kernel has it.
        network.can_delay = network.delay(Host::Node(1)).is_ok();
        network.heal(Host::Node(1))?;
        Ok(network)
    }

    fn build(&self) -> Result<(), Failure> {
        let switch = self.switch();
        run("ip", &["netns", "add", &switch])?;
        run("ip", &["-n", &switch, "link", "add", "bridge0", "type", "bridge"])?;
        run("ip", &["-n", &switch, "link", "set", "bridge0", "up"])?;
        for host in self.hosts() {
            let namespace = self.namespace(host);
            let port = format!("port-{}", name(host));
            run("ip", &["netns", "add", &namespace])?;
            run(
                "ip",
                &[
                    "link", "add", "eth0", "netns", &namespace, "type", "veth", "peer", "name",
                    &port, "netns", &switch,
                ],
            )?;
            run("ip", &["-n", &switch, "link", "set", &port, "master", "bridge0", "up"])?;
            let address = format!("{}/24", self.address(host));
            run("ip", &["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        let interface = &self.interface;
        run(
            "ip",
            &["link", "add", interface, "type", "veth", "peer", "name", "port0", "netns", &switch],
        )?;
        run("ip", &["-n", &switch, "link", "set", "port0", "master", "bridge0", "up"])?;
        let address = format!("{}/24", self.outside());
        run("ip", &["address", "add", &address, "dev", interface])?;
        run("ip", &["link", "set", interface, "up"])?;
        // Agents reach the containers of this machine's daemon, which probe sidecars. Where there is no
        // daemon nobody has to reach any.
        let outside = self.outside();
        for agent in (1..=self.agents).map(Host::Agent) {
            let namespace = self.namespace(agent);
            run("ip", &["-n", &namespace, "route", "add", "default", "via", &outside])?;
        }
        run("iptables", &[&["-w", "-I"], &forward(interface)[..]].concat())
    }

    fn switch(&self) -> String {
        format!("{}switch", self.prefix)
    }

    fn hosts(&self) -> impl Iterator<Item = Host> {
        let agents = (1..=self.agents).map(Host::Agent);
        (1..=self.nodes).map(Host::Node).chain(agents)
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: Host) -> String {
        format!("{}{}", self.prefix, name(host))
    }

    /// The address of a host.
    pub fn address(&self, host: Host) -> String {
        match host {
            Host::Node(number) => format!("{}{number}", self.subnet),
            Host::Agent(number) => format!("{}{}", self.subnet, FIRST_AGENT + number),
        }
    }

    fn outside(&self) -> String {
        format!("{}254", self.subnet)
    }

    /// Whether packets can be delayed.
    pub fn can_delay(&self) -> bool {
        self.can_delay
    }

    /// Cuts a host off, in addition to whatever was done to it before.
    pub fn cut(&self, host: Host, how: &Cut) -> Result<(), Failure> {
        let is_peer = |other: &Host| *other != host && matches!(other, Host::Node(_));
        let peers: Vec<String> =
            self.hosts().filter(is_peer).map(|peer| self.address(peer)).collect();
        let lose = ["-m", "statistic", "--mode", "random", "--probability", "0.25"];
        match how {
            Cut::Off => {
                self.filter(host, &["INPUT", "-i", "eth0"])?;
                self.filter(host, &["OUTPUT", "-o", "eth0"])?;
            }
            Cut::From(others) => {
                for other in others {
                    self.part(host, &self.address(*other))?;
                }
            }
            Cut::FromPeers | Cut::Deaf | Cut::Mute => {
                for peer in &peers {
                    if *how != Cut::Mute {
                        self.filter(host, &["INPUT", "-s", peer])?;
                    }
                    if *how != Cut::Deaf {
                        self.filter(host, &["OUTPUT", "-d", peer])?;
                    }
                }
            }
            Cut::FromClients => {
                self.part(host, &self.outside())?;
                for agent in (1..=self.agents).map(Host::Agent) {
                    self.part(host, &self.address(agent))?;
                }
            }
            Cut::Lossy => {
                self.filter(host, &[&["INPUT", "-i", "eth0"], &lose[..]].concat())?;
                self.filter(host, &[&["OUTPUT", "-o", "eth0"], &lose[..]].concat())?;
            }
            Cut::Slow => self.delay(host)?,
        }
        Ok(())
    }

    /// Nothing between a host and this address.
    fn part(&self, host: Host, address: &str) -> Result<(), Failure> {
        self.filter(host, &["INPUT", "-s", address])?;
        self.filter(host, &["OUTPUT", "-d", address])
    }

    fn filter(&self, host: Host, rule: &[&str]) -> Result<(), Failure> {
        let namespace = self.namespace(host);
        let begin = ["netns", "exec", &namespace, "iptables", "-w", "-A"];
        run("ip", &[&begin, rule, &["-j", "DROP"]].concat())
    }

    fn delay(&self, host: Host) -> Result<(), Failure> {
        let namespace = self.namespace(host);
        let begin = ["-n", &namespace, "qdisc", "add", "dev", "eth0", "root", "netem"];
        run("tc", &[&begin[..], &["delay", "150ms", "50ms", "loss", "2%"]].concat())
    }

    /// Takes back every cut of a host.
    pub fn heal(&self, host: Host) -> Result<(), Failure> {
        let namespace = self.namespace(host);
        run("ip", &["netns", "exec", &namespace, "iptables", "-w", "-F"])?;
        if self.can_delay {
            // Where there is no delay there is nothing to take back.
            let _ = run("tc", &["-n", &namespace, "qdisc", "del", "dev", "eth0", "root"]);
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut names: Vec<String> = self.hosts().map(|host| self.namespace(host)).collect();
        names.push(self.switch());
        let _ = run("iptables", &[&["-w", "-D"], &forward(&self.interface)[..]].concat());
        // The interface goes with its other end; what was never made cannot be removed.
        let _ = run("ip", &["link", "del", &self.interface]);
        for name in names.iter().filter(|name| netns(name).exists()) {
            if let Err(error) = run("ip", &["netns", "del", name]) {
                eprintln!("{error}");
            }
        }
    }
}

/// The rule that lets agents through to containers.
fn forward(interface: &str) -> [&str; 5] {
    ["FORWARD", "-i", interface, "-j", "ACCEPT"]
}

/// What a host is called: `c1`, `a2`.
fn name(host: Host) -> String {
    match host {
        Host::Node(number) => format!("c{number}"),
        Host::Agent(number) => format!("a{number}"),
    }
}

/// Where `ip netns` keeps the namespace of this name.
pub fn netns(namespace: &str) -> PathBuf {
    Path::new(NAMES).join(namespace)
}

/// Removes the namespaces of suites that were killed.
fn remove_leftovers() {
    for entry in std::fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_dead = |pid: &str| !Path::new("/proc").join(pid).exists();
        if let Some(pid) = pid.filter(|pid| is_dead(pid)) {
            let interface = format!("{INTERFACE}{pid}");
            let _ = run("iptables", &[&["-w", "-D"], &forward(&interface)[..]].concat());
            let _ = run("ip", &["link", "del", &interface]);
            let _ = run("ip", &["netns", "del", &name]);
            // Its pipe, if it had one.
            let _ = std::fs::remove_file(pipe(pid));
        }
    }
}

/// Where the steps of a suite with this process id leave their marks.
pub fn pipe(pid: impl std::fmt::Display) -> PathBuf {
    PathBuf::from(format!("/run/{PREFIX}{pid}"))
}

/// A /24 of the range that is set aside for benchmarks of networks, which nobody here uses.
fn free_subnet() -> Result<String, Failure> {
    let taken = output("ip", &["-o", "-4", "address"])? + &output("ip", &["-4", "route"])?;
    let first = std::process::id() % 512;
    (0..512)
        .map(|number| (first + number) % 512)
        .map(|number| format!("198.{}.{}.", 18 + number / 256, number % 256))
        .find(|subnet| !taken.contains(subnet.as_str()))
        .ok_or_else(|| "no subnet of 198.18.0.0/15 is free".to_owned())
}

/// Runs a program to its end; an error with what it said unless it succeeds.
pub fn run(program: &str, args: &[&str]) -> Result<(), Failure> {
    output(program, args).map(|_| ())
}

/// Runs a program to its end and gives what it printed.
pub fn output(program: &str, args: &[&str]) -> Result<String, Failure> {
    let shown = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}", shown()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` failed ({}): {}", shown(), output.status, said.trim()))
}
