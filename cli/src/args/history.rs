//! The commands that read stored runs.

use clap::{Args, Subcommand};

use super::Output;

/// Look at stored runs, or remove them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs list")]
pub struct RunsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RunsCommand,
}

/// What can be done with stored runs.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List stored runs, newest first
    List(RunsListArgs),
    /// Show one run: its tasks and how they ended
    Show(RunsShowArgs),
    /// Remove old runs
    Prune(RunsPruneArgs),
}

/// List stored runs, newest first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs list --limit 5 -o json")]
pub struct RunsListArgs {
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Show one run: its tasks and how they ended
///
/// With -o yaml: the final PipelineRun or TaskRun and its children, as Tekton would have them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs show latest -o yaml")]
pub struct RunsShowArgs {
    /// `latest`, an id, the beginning of one, or the name of a run
    #[arg(default_value = "latest")]
    pub run: String,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Remove old runs
///
/// Removes what either rule names. A run that is going on is never removed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon runs prune --keep 50\n  \
    tenon runs prune --older-than 720h --dry-run")]
#[group(id = "rule", required = true, multiple = true, args = ["keep", "older_than"])]
pub struct RunsPruneArgs {
    /// Keep only so many of the newest runs
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,

    /// Remove runs that began longer ago than this, e.g. 12h or 720h
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<String>,

    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Print the output of a stored or running run
///
/// With -o json exactly the bytes that `tenon run -o json` printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon logs\n  \
    tenon logs latest --task test --step unit\n  \
    tenon logs 01J9 -o json --kind task-end,run-end")]
pub struct LogsArgs {
    /// `latest`, an id, the beginning of one, or the name of a run
    #[arg(default_value = "latest")]
    pub run: String,

    /// Only this task
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,

    /// Only this step or sidecar
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Only these kinds of events
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub kind: Vec<String>,

    /// Only events after this sequence number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,

    /// Go on until the run ends
    #[arg(long)]
    pub follow: bool,

    /// pretty prints log lines, json prints events
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}
