//! The commands of a fleet: its coordinators, its agents, and what operators do to them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{BackendChoice, HouseArgs, Output, PolicyArgs};
use crate::log::LogLevel;

/// Run a coordinator: one node of a cluster
///
/// A node that belongs to no cluster waits until `tenon cluster init` or `tenon cluster add` makes
/// it a member; with --bootstrap it makes a cluster of itself. On SIGTERM it hands leadership over
/// and stops; what agents run goes on. Prints on stdout where it listens, once it does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon coordinator --data-dir /var/lib/tenon --bootstrap\n  \
    tenon coordinator --data-dir /var/lib/tenon --name c2 --listen 10.0.0.2:7070 --insecure")]
pub struct CoordinatorArgs {
    /// Where this node stores everything [default: coordinator/ in the state directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// This node's name, unique in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "HOST:PORT",
          value_parser = parse_address)]
    pub listen: String,

    /// Where other nodes, agents and clients reach it [default: http:// and where it listens]
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,

    /// Make a cluster of this node alone, unless it belongs to one already. Where others can reach it,
    /// or with --tls, the cluster has to know who asks: the first token is in admin.token in --data-dir
    #[arg(long)]
    pub bootstrap: bool,

    /// Join the cluster that --server names, with this token of `tenon tokens join --node`
    #[arg(long, value_name = "TOKEN", hide_default_value = true, conflicts_with = "bootstrap")]
    pub join: Option<String>,

    /// Speak TLS and want to know who asks, also where only this machine can reach it
    #[arg(long, conflicts_with = "insecure")]
    pub tls: bool,

    /// How long certificates of agents are good, in seconds: for tests
    #[arg(long, hide = true, value_name = "SECONDS")]
    pub agent_certificate_seconds: Option<u64>,

    /// The key that Secrets are stored under, the same on every node; without one, runs with Secrets
    /// are refused [default: secrets.key in --data-dir, which --bootstrap makes]
    #[arg(long, value_name = "FILE")]
    pub secrets_key: Option<PathBuf>,

    /// A command that prints that key, such as a client of a key management service: its words are
    /// separated by spaces, and no shell sees them. It is run once, at the start
    #[arg(long, value_name = "COMMAND", conflicts_with = "secrets_key")]
    pub secrets_key_command: Option<String>,

    /// Time between a leader's heartbeats, in milliseconds
    #[arg(long, default_value_t = 80, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub heartbeat_ms: u64,

    /// A leader is missed after this time, or up to twice as long, in milliseconds; at least four
    /// heartbeats
    #[arg(long, default_value_t = 400, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(40..=100_000))]
    pub election_ms: u64,

    /// How agents are chosen that fit equally: spread takes the one with the least load, pack the one
    /// with the most that has room
    #[arg(long, value_enum, default_value = "spread", value_name = "HOW")]
    pub placement: PlacementChoice,

    /// When agents save the workspaces of a run, so that they can move to another agent: task-end is when a
    /// task that could write to one has ended. Runs may say otherwise, with the annotation
    /// tenon.dev/workspace-snapshots
    #[arg(long, value_enum, default_value = "task-end", value_name = "WHEN")]
    pub workspace_snapshots: SnapshotsChoice,

    /// Keep saved workspaces in an object store that all nodes share, such as s3://BUCKET/PATH, gs://…, az://…
    /// or file:///DIR, with options from the environment (AWS_…, GOOGLE_…, AZURE_…)
    /// [default: blobs/ in the data directory of each node]
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,

    /// An agent may act for this time after it has sent a heartbeat that was answered, in milliseconds;
    /// then it freezes what it runs. Longer in a fleet of more than 8,000 agents
    #[arg(long, default_value_t = 30_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(500..=86_400_000))]
    pub lease_ms: u64,

    /// What an agent ran is placed again when it was not heard from for its lease and this time, in
    /// milliseconds: it covers clocks that go at different speeds, and the time that freezing takes
    #[arg(long, default_value_t = 10_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub lease_margin_ms: u64,

    /// Write the state, and compact the log, after this time, in milliseconds: for tests, which want
    /// to see it happen
    #[arg(long, hide = true, value_name = "MS", value_parser = clap::value_parser!(i64).range(1..))]
    pub persist_ms: Option<i64>,

    /// Write the Raft log in files of about so many KiB: for tests too
    #[arg(long, hide = true, value_name = "KIB", value_parser = clap::value_parser!(u64).range(4..))]
    pub log_segment_kib: Option<u64>,

    /// Send traces of runs there, by OTLP: http://HOST:4317, or with
    /// OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf http://HOST:4318
    /// [default: OTEL_EXPORTER_OTLP_ENDPOINT, else nowhere]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// How much to tell on stderr of what happens
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,

    /// Listen on other addresses than those of this machine alone, without TLS and authentication
    #[arg(long)]
    pub insecure: bool,
}

/// When agents save workspaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotsChoice {
    /// When a task ends that could write to one
    TaskEnd,
    /// Never: a workspace stays on the agent that first used it
    Never,
}

/// How agents are chosen that fit equally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlacementChoice {
    /// The least loaded one: tasks disturb each other least
    Spread,
    /// The most loaded one that has room: others stay free for large tasks, or to be switched off
    Pack,
}

/// Run an agent: runs tasks for a cluster
///
/// Dials the coordinators, so it needs no open port, and follows their leader by itself. On SIGTERM
/// it stops what it runs, with grace, and ends. After a crash, start it again with the same
/// directory: it goes on with the containers that it finds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon agent --server http://10.0.0.1:7070,http://10.0.0.2:7070\n  \
    tenon agent --name gpu1 --slots 2 --label gpu=true\n  \
    tenon agent --allow-host-path /srv/cache --allow-image 'registry.example.com/*'\n  \
    tenon agent --config /etc/tenon/agent.toml --print-config")]
pub struct AgentArgs {
    /// Its name, unique in the fleet [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// At most so many tasks at a time [default: what the machine can do]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,

    /// What runs the steps: auto is Docker where it answers or was named (DOCKER_HOST), else host
    #[arg(long, value_enum, default_value = "auto", value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// Join the cluster with this token of `tenon tokens join`, if this agent has not joined before
    #[arg(long, value_name = "TOKEN", hide_default_value = true)]
    pub join: Option<String>,

    /// How much to tell on stderr of what happens
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,

    /// A label that a pod's nodeSelector may ask for; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,

    /// CPUs that its tasks may ask for in all, such as 3.5 [default: those of the machine]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<f64>,

    /// Memory that its tasks may ask for in all, in MiB [default: that of the machine]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub memory_mib: Option<u64>,

    /// Where it keeps what it has not reported yet, and the directories of what it runs; one agent
    /// each [default: agents/NAME in the state directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Reports that wait for a coordinator take so much of the disk at most, in MiB; then steps that
    /// print are slowed down
    #[arg(long, default_value_t = 1024, value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub spool_mib: u64,

    /// What becomes of running steps when the agent has been out of contact for longer than its lease:
    /// frozen ones go on later, killed ones are lost
    #[arg(long, value_enum, default_value = "freeze", value_name = "WHAT")]
    pub on_lease_expiry: LeaseExpiry,

    /// A file of image replacements: each line `GLOB REPLACEMENT`
    #[arg(long, value_name = "FILE")]
    pub image_map: Option<PathBuf>,

    /// Leave containers and directories behind for inspection
    #[arg(long)]
    pub keep: bool,

    /// What tasks may have.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Housekeeping.
    #[command(flatten)]
    pub house: HouseArgs,

    /// Print all options as they hold, each with where it is from, and end
    #[arg(long)]
    pub print_config: bool,
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    let cpus = text.parse::<f64>().ok().filter(|cpus| (0.001..=1e6).contains(cpus));
    cpus.ok_or_else(|| "not a number of CPUs, such as 3.5".to_owned())
}

/// What is done with running steps when a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeaseExpiry {
    /// Nothing of them moves until the agent is back in contact
    Freeze,
    /// They are killed
    Kill,
}

/// Freeze what an agent runs when its lease is over; started by the agent
#[derive(Debug, Parser)]
pub struct GuardArgs {
    /// The agent's directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Which guard it is
    #[arg(long, value_name = "ID")]
    pub id: String,

    /// The agent's process
    #[arg(long, value_name = "PROCESS")]
    pub agent: String,

    /// Whose containers it freezes
    #[arg(long, value_name = "OWNER")]
    pub owner: String,

    /// Where they run
    #[arg(long, value_name = "BACKEND")]
    pub backend: String,

    /// What it does
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_lease_expiry: LeaseExpiry,
}

/// Make a cluster, look at it, change it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster status --server http://10.0.0.1:7070")]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    Init(InitArgs),
    Status(StatusArgs),
    Ready(ReadyArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
    Transfer(TransferArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Recover(RecoverArgs),
}

/// Make a cluster of started, empty nodes
///
/// With --data-dir, on the machine of the first node and before it is started: makes a cluster that
/// speaks TLS and has to know who asks, and prints the first token, for an admin, this once. Other
/// nodes join it with `tenon coordinator --join`. Without, the node that --server names becomes the
/// first member of a cluster in which anybody may do anything, and the others follow.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon cluster init --data-dir /var/lib/tenon --advertise https://c1:7070\n  \
    tenon cluster init --server http://c1:7070 --peer http://c2:7070 --peer http://c3:7070")]
pub struct InitArgs {
    /// Where the first node is to store everything; it must be empty or not there
    #[arg(long, value_name = "DIR", requires = "advertise")]
    pub data_dir: Option<PathBuf>,

    /// Where other nodes, agents and clients will reach the first node
    #[arg(long, value_name = "URL", requires = "data_dir")]
    pub advertise: Option<String>,

    /// The first node's name [default: the host's name]
    #[arg(long, value_name = "NAME", requires = "data_dir")]
    pub name: Option<String>,

    /// The key that Secrets are stored under [default: secrets.key in --data-dir, which is made]
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    pub secrets_key: Option<PathBuf>,

    /// A command that prints that key; as with `tenon coordinator`
    #[arg(long, value_name = "COMMAND", requires = "data_dir", conflicts_with = "secrets_key")]
    pub secrets_key_command: Option<String>,

    /// Another node that becomes a member at once; may be repeated
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub peer: Vec<String>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Show members, leader and agents
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster status -o json")]
pub struct StatusArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Ask a node whether it can serve: for health checks
///
/// Asks `/readyz` of the first node that --server names. It takes no token; a secured node is known by
/// its authority (--ca). Exit code 0 when it can serve, else 3.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenon cluster ready --server http://127.0.0.1:7070\n  \
    tenon cluster ready --server https://127.0.0.1:7070 --ca /var/lib/tenon/tls/ca.crt")]
pub struct ReadyArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Make a started, empty node a member
///
/// It learns everything first, and gets a vote when it has caught up.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster add http://c4:7070")]
pub struct AddArgs {
    /// Where the new node is reached
    #[arg(value_name = "URL")]
    pub url: String,

    /// Its name [default: the one it was started with]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Give it no vote
    #[arg(long)]
    pub learner: bool,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Make a member none
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster remove c2")]
pub struct RemoveArgs {
    /// Its id, name or URL
    #[arg(value_name = "MEMBER")]
    pub member: String,

    /// Even if the rest has no majority of nodes that answer
    #[arg(long)]
    pub force: bool,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Hand leadership to another member
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster transfer c3")]
pub struct TransferArgs {
    /// Its id, name or URL [default: whichever is furthest]
    #[arg(value_name = "MEMBER")]
    pub to: Option<String>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Copy everything into a file
///
/// The copy is consistent, and is taken while the cluster works. Secrets in it are encrypted: keep
/// the key file too, elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon cluster backup tenon-backup")]
pub struct BackupArgs {
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Make a new node's data of a backup
///
/// No coordinator may be using the directory. Start one on it afterwards: it is a cluster of its own
/// with one node, to which others are added.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon cluster restore tenon-backup --data-dir /var/lib/tenon --advertise http://c1:7070")]
pub struct RestoreArgs {
    /// What `tenon cluster backup` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where the new node is to store everything; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The new node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Where other nodes, agents and clients will reach it
    #[arg(long, default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub advertise: String,
}

/// Make a cluster of the one node that survived
///
/// Only when a majority of the nodes is lost for ever: what the survivor had not yet heard is lost,
/// and nodes that come back later must be wiped before they are added. The coordinator must not be
/// running.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon cluster recover --data-dir /var/lib/tenon --i-know-that-the-others-are-lost")]
pub struct RecoverArgs {
    /// Where the survivor stores everything
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Says that no other node will ever come back with its data
    #[arg(long)]
    pub i_know_that_the_others_are_lost: bool,
}

fn parse_address(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return Err("not of the form HOST:PORT".to_owned());
    };
    match port.parse::<u16>() {
        Ok(_) if !host.contains(':') || host.starts_with('[') => Ok(text.to_owned()),
        Ok(_) => Err("an IPv6 address is to stand in brackets: [::1]:7070".to_owned()),
        Err(_) => Err("the port has to be from 0 to 65535".to_owned()),
    }
}
