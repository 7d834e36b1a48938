//! The commands about runs that were started before.

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

/// Look at runs, cancel, repeat or remove them
///
/// With --server the runs of the cluster, else those of this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs list")]
pub struct RunsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RunsCommand,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    List(RunsListArgs),
    Show(RunsShowArgs),
    Cancel(RunsCancelArgs),
    Rerun(RunsRerunArgs),
    Release(RunsReleaseArgs),
    Explain(RunsExplainArgs),
    Prune(RunsPruneArgs),
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it has to be at least 1".to_owned()),
        Ok(limit) => Ok(limit),
        Err(_) => Err("not a number".to_owned()),
    }
}

/// List runs, newest first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs list --limit 5 --status failed -o json")]
pub struct RunsListArgs {
    /// At most so many [default: all, of a cluster 100]
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub limit: Option<usize>,

    /// Only runs that stand like this: pending, running, succeeded, failed, infrafailed, timeout,
    /// cancelled; may be repeated
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub status: Vec<String>,

    /// Only this namespace
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Of a cluster: only runs with these labels, as kubectl writes selectors
    #[arg(long, value_name = "SELECTOR")]
    pub selector: Option<String>,

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

/// End a run of a cluster early
///
/// Without --mode a PipelineRun stops its tasks and runs its `finally` tasks, as with Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs cancel latest --server http://c1:7070")]
pub struct RunsCancelArgs {
    /// `latest`, an id, the beginning of one, or the name of a run
    #[arg(value_name = "RUN")]
    pub run: String,

    /// How, by Tekton's names
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<CancelChoice>,

    /// Kill steps instead of asking them to end; no `finally` tasks
    #[arg(long, conflicts_with = "mode")]
    pub now: bool,

    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Tekton's ways to end a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CancelChoice {
    /// Stop everything, no `finally`
    #[value(name = "Cancelled", alias = "cancelled")]
    Cancelled,
    /// Stop the running tasks, then run `finally`
    #[value(name = "CancelledRunFinally", alias = "cancelled-run-finally")]
    CancelledRunFinally,
    /// Let running tasks finish, then run `finally`
    #[value(name = "StoppedRunFinally", alias = "stopped-run-finally")]
    StoppedRunFinally,
}

/// Run the same again on a cluster
///
/// Prints the new run's id; `tenon logs ID --follow` shows it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs rerun 01J9 --from-failed")]
pub struct RunsRerunArgs {
    /// `latest`, an id, the beginning of one, or the name of a run
    #[arg(value_name = "RUN")]
    pub run: String,

    /// Keep what succeeded, with its results and workspaces, and run the rest
    #[arg(long)]
    pub from_failed: bool,

    /// The same key is the same new run, however often it is sent
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Start a run of a cluster that waits to be released
///
/// A PipelineRun that was submitted with `spec.status: PipelineRunPending` begins only then.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs release 01J9 --server http://c1:7070")]
pub struct RunsReleaseArgs {
    /// `latest`, an id, the beginning of one, or the name of a run
    #[arg(value_name = "RUN")]
    pub run: String,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Say what every task of a run does or waits for
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon runs explain latest --server http://c1:7070")]
pub struct RunsExplainArgs {
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
    pub output: EventsOutput,
}

/// Print events, those of a run or all
///
/// Each event is a line of docs/events.md. Of a cluster and without RUN: the events of all runs and
/// of the cluster itself. Resume with --since and the `seq` of the last line that was read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon events --follow --since 4711 --server http://c1:7070\n  \
    tenon events latest --kind task-end,run-end\n  \
    tenon events 01J9 --task test -o pretty")]
pub struct EventsArgs {
    /// `latest`, an id, the beginning of one, or the name of a run [default: all; without a
    /// cluster, the latest]
    pub run: Option<String>,

    /// Go on with what comes; of a run, until it ends
    #[arg(long)]
    pub follow: bool,

    /// Only events after this sequence number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,

    /// Only these kinds of events
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub kind: Vec<String>,

    /// Only this task
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,

    /// Only this step or sidecar
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Of a cluster: only this namespace
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// json prints the lines as they are, pretty one short line for each
    #[arg(short, long, value_enum, default_value = "json", value_name = "FORMAT")]
    pub output: EventsOutput,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventsOutput {
    /// For programs
    Json,
    /// For people
    Pretty,
}
