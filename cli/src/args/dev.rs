//! `tenon dev`: a whole fleet on one machine, for trying out.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{BackendChoice, Output};

/// Start a whole fleet on this machine, for trying out
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenon dev up\n  \
    export TENON_SERVER=$(tenon dev status -o json | jq -r .server)")]
pub struct DevArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DevCommand,
}

/// The commands; what each is for is said by its arguments.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    Up(DevUpArgs),
    Down(DevDownArgs),
    Status(DevStatusArgs),
}

/// Start coordinators and agents, and keep them until Ctrl-C or `tenon dev down`
///
/// All are processes of their own, on free ports of 127.0.0.1, and end with this one, however it ends.
/// What they store stays: the next start goes on with it, at the same addresses.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenon dev up\n  \
    tenon dev up --coordinators 1 --agents 2 --backend host\n  \
    tenon dev up --fresh -o json")]
pub struct DevUpArgs {
    /// So many coordinators: 1, 3 or 5
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=7))]
    pub coordinators: u32,

    /// So many agents
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=32))]
    pub agents: u32,

    /// What runs the steps: auto is Docker where it answers or was named (DOCKER_HOST), else host
    #[arg(long, value_enum, default_value = "auto", value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// Where everything is stored [default: dev/ in the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Forget what an earlier fleet has stored there
    #[arg(long)]
    pub fresh: bool,

    /// How to print where the fleet is, once it is ready
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// End the fleet that `tenon dev up` has started
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon dev down")]
pub struct DevDownArgs {
    /// Where everything is stored [default: dev/ in the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Show the fleet that `tenon dev up` has started
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon dev status -o json")]
pub struct DevStatusArgs {
    /// Where everything is stored [default: dev/ in the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}
