//! The command line as types. Help texts are written for people who read them in a terminal.
//!
//! Environment variables and config-file keys are derived from these definitions by
//! [`crate::config`], so every flag has both without being named there.

mod history;
mod inspect;
mod run;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use history::{LogsArgs, RunsArgs, RunsCommand, RunsListArgs, RunsPruneArgs, RunsShowArgs};
pub use inspect::{
    CompletionsArgs, DoctorArgs, GraphArgs, GraphFormat, ListArgs, ManArgs, ValidateArgs,
    VersionArgs,
};
pub use run::{BackendChoice, RunArgs};

/// Run Tekton pipelines on your own machines, without Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "tenon",
    version,
    disable_help_subcommand = true,
    after_help = "Example:\n  tenon run -f pipeline.yaml\n\n\
        Every flag can also be set by an environment variable and in a tenon.toml:\n\
        `tenon help-config` says how. A flag wins over the variable, the variable over the file."
)]
pub struct Cli {
    /// Where runs are stored [default: $XDG_STATE_HOME/tenon, else ~/.local/state/tenon]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run pipelines and tasks here and now
    Run(Box<RunArgs>),
    /// Check files without running anything
    Validate(ValidateArgs),
    /// List what files define
    List(ListArgs),
    /// Draw the graph of a Pipeline
    Graph(GraphArgs),
    /// Look at stored runs, or remove them
    Runs(RunsArgs),
    /// Print the output of a stored or running run
    Logs(LogsArgs),
    /// Check whether this machine can run pipelines
    Doctor(DoctorArgs),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Explain environment variables and the config file
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
