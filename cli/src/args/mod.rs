//! The command line as types. Help texts are written for people who read them in a terminal.
//!
//! Environment variables and config-file keys are derived from these definitions by
//! [`crate::config`], so every flag has both without being named there.

mod agents;
mod cluster;
mod dev;
mod history;
mod house;
mod inspect;
mod policy;
mod run;
mod trust;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use agents::{AgentsArgs, AgentsCommand};
pub use cluster::{
    AgentArgs, BackupArgs, ClusterArgs, ClusterCommand, CoordinatorArgs, GuardArgs, InitArgs,
    LeaseExpiry, PlacementChoice, RecoverArgs, RestoreArgs, SnapshotsChoice,
};
pub use dev::{DevArgs, DevCommand, DevDownArgs, DevStatusArgs, DevUpArgs};
pub use history::{
    CancelChoice, EventsArgs, EventsOutput, LogsArgs, RunsArgs, RunsCancelArgs, RunsCommand,
    RunsExplainArgs, RunsListArgs, RunsPruneArgs, RunsReleaseArgs, RunsRerunArgs, RunsShowArgs,
};
pub use house::HouseArgs;
pub use inspect::{
    CompletionsArgs, DoctorArgs, GraphArgs, GraphFormat, ListArgs, ManArgs, ValidateArgs,
    VersionArgs,
};
pub use policy::PolicyArgs;
pub use run::{BackendChoice, RunArgs};
pub use trust::{AuditArgs, CertificatesArgs, CertificatesCommand, TokensArgs, TokensCommand};

/// Run Tekton pipelines on your own machines, without Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "tenon",
    version,
    after_help = "Example:\n  tenon run -f pipeline.yaml\n\n\
        Every flag can also be set by an environment variable and in a tenon.toml:\n\
        `tenon help-config` says how. A flag wins over the variable, the variable over the file."
)]
pub struct Cli {
    /// Where runs are stored [default: $XDG_STATE_HOME/tenon, else ~/.local/state/tenon]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Nodes of the cluster to work with, separated by commas; without one, this machine
    #[arg(long, global = true, value_name = "URL[,URL]")]
    pub server: Option<String>,

    /// Read this config file, and no other [default: see `tenon help-config`]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The API token to show the cluster, where it wants to know who asks; better TENON_TOKEN than the
    /// command line, which other users of the machine see
    #[arg(long, global = true, value_name = "TOKEN", hide_default_value = true)]
    pub token: Option<String>,

    /// The certificate of the cluster's authority (PEM); a token knows the authority without it
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands; what each is for is said by its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<RunArgs>),
    Validate(ValidateArgs),
    List(ListArgs),
    Graph(GraphArgs),
    Runs(RunsArgs),
    Logs(LogsArgs),
    Events(EventsArgs),
    Coordinator(CoordinatorArgs),
    Agent(AgentArgs),
    Agents(AgentsArgs),
    Cluster(ClusterArgs),
    Tokens(TokensArgs),
    Certificates(CertificatesArgs),
    Audit(AuditArgs),
    Dev(DevArgs),
    Doctor(DoctorArgs),
    Version(VersionArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// Explain environment variables and the config file
    #[command(after_help = "Example:\n  tenon help-config")]
    HelpConfig,
}

/// How a command's answer is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Pretty,
    /// For programs
    Json,
    /// For programs that like YAML
    Yaml,
}

/// Where the files are. Shared by the commands that read them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileArgs {
    /// A YAML file, a directory of them, or - for stdin; may be repeated [default: .tekton/ or
    /// pipeline.yaml]
    #[arg(short, long, value_name = "PATH")]
    pub file: Vec<PathBuf>,

    /// Set one of Tekton's feature flags, e.g. enable-api-fields=alpha; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub feature_flag: Vec<String>,
}
