//! `tenon agents`: what operators do to agents.

use clap::{Args, Subcommand};

use super::Output;

/// See the agents of a cluster, and take them out of service
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenon agents list --server http://c1:7070\n  \
    tenon agents drain a1 --deadline 10m --server http://c1:7070")]
pub struct AgentsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: AgentsCommand,
}

/// The commands; what each is for is said by its arguments.
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    List(AgentsListArgs),
    Show(AgentsShowArgs),
    Cordon(AgentsCordonArgs),
    Uncordon(AgentsUncordonArgs),
    Drain(AgentsDrainArgs),
    Remove(AgentsRemoveArgs),
}

/// List the agents, by name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon agents list -o json --server http://c1:7070")]
pub struct AgentsListArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Show one agent: what it offers, and what it runs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon agents show a1 --server http://c1:7070")]
pub struct AgentsShowArgs {
    /// The agent's name
    pub name: String,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Give an agent no new work
///
/// What it runs goes on. `tenon agents uncordon` gives it work again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon agents cordon a1 --server http://c1:7070")]
pub struct AgentsCordonArgs {
    /// The agent's name
    pub name: String,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Give an agent work again
///
/// Also ends a drain.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon agents uncordon a1 --server http://c1:7070")]
pub struct AgentsUncordonArgs {
    /// The agent's name
    pub name: String,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Empty an agent, to maintain or switch off its machine
///
/// It gets no new work. What it runs may end; what still runs at the deadline is stopped and runs
/// again on another agent, which costs none of the pipeline's retries. The state is `drained` when
/// nothing is left on it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon agents drain a1 --server http://c1:7070\n  \
    tenon agents drain a1 --deadline 10m --server http://c1:7070")]
pub struct AgentsDrainArgs {
    /// The agent's name
    pub name: String,

    /// How long what it runs may still take, e.g. 10m; 0s for at once [default: as long as it takes]
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<String>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Remove an agent that is gone for good from the fleet
///
/// Refused while attempts are placed on it, or it is in contact: stop it first, and wait until it is down. An agent
/// that dials in again belongs to the fleet again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon agents remove a1 --server http://c1:7070")]
pub struct AgentsRemoveArgs {
    /// The agent's name
    pub name: String,
}
