//! The commands that look at files or at the machine and run nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{FileArgs, Output};

/// Check files without running anything
///
/// Says what Tekton would refuse, in Tekton's own words, with file, line and column. Exits with 4 if
/// anything is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon validate -f .tekton/ -o json")]
pub struct ValidateArgs {
    /// Which files.
    #[command(flatten)]
    pub files: FileArgs,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// List what files define
///
/// One line for each object: kind, name, params, workspaces.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon list -f .tekton/")]
pub struct ListArgs {
    /// Which files.
    #[command(flatten)]
    pub files: FileArgs,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Draw the graph of a Pipeline
///
/// Shows which task waits for which, through runAfter and through results.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tenon graph -f pipeline.yaml -o dot | dot -Tsvg > pipeline.svg"
)]
pub struct GraphArgs {
    /// Which files.
    #[command(flatten)]
    pub files: FileArgs,

    /// Only this Pipeline, or the Pipeline in this PipelineRun
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,

    /// As what to draw it
    #[arg(short, long, value_enum, default_value = "ascii", value_name = "FORMAT")]
    pub output: GraphFormat,
}

/// What a graph is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Text for a terminal
    Ascii,
    /// Graphviz
    Dot,
    /// Mermaid, as Markdown pages show it
    Mermaid,
    /// Nodes and edges
    Json,
}

/// Check whether this machine can run pipelines
///
/// Looks at the state directory, at Docker and at what the host backend needs, and says what to do
/// about what is missing. Exits with 3 if nothing can run here.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon doctor")]
pub struct DoctorArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Print the version
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tenon version -o json")]
pub struct VersionArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    source <(tenon completions bash)\n  \
    tenon completions zsh > ~/.zfunc/_tenon\n  \
    tenon completions fish > ~/.config/fish/completions/tenon.fish")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Write the manual pages
///
/// Prints tenon(1), or with --dir writes a page for each command.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tenon man | man -l -\n  tenon man --dir ~/.local/share/man/man1"
)]
pub struct ManArgs {
    /// Write one file for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
