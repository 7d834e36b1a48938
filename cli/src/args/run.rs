//! `tenon run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{FileArgs, Output, PolicyArgs};

/// Run pipelines and tasks, here or on a cluster
///
/// Runs every PipelineRun and TaskRun of the files, one after the other, in order. Files without one
/// need --pipeline or --task, unless they define exactly one Pipeline, or no Pipeline and exactly one
/// Task: that one then runs.
///
/// Ctrl-C once cancels and runs the `finally` tasks; Ctrl-C twice stops everything now.
///
/// With --server the runs go to a cluster, whose agents decide what runs the steps; this shows them as
/// it shows runs of this machine, also when coordinators die meanwhile.
///
/// Exit codes: 0 succeeded, 1 internal error, 2 usage, 3 environment (no Docker, state directory not
/// writable), 4 invalid input, 5 a task failed, 6 timeout, 130 cancelled. Of several runs, the first
/// that did not succeed decides.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon run -f pipeline.yaml\n  \
    tenon run -f tasks/ --pipeline build -p revision=main -p 'flags=[\"-v\",\"-race\"]'\n  \
    tenon run -f task.yaml --task test -w source=. -o json | jq -r .line\n  \
    tenon run -f pipeline.yaml --server http://c1:7070,http://c2:7070 --detach")]
pub struct RunArgs {
    /// Which files.
    #[command(flatten)]
    pub files: FileArgs,

    /// Run this Pipeline of the files
    #[arg(long, value_name = "NAME", conflicts_with = "task")]
    pub pipeline: Option<String>,

    /// Run this Task of the files
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,

    /// A param; arrays as JSON or by repeating it, objects as JSON
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub param: Vec<String>,

    /// A workspace: DIR, emptyDir, configmap:NAME or secret:NAME
    #[arg(short, long, value_name = "NAME=SOURCE")]
    pub workspace: Vec<String>,

    /// What to print on stdout: log lines, events as JSON lines, or the final objects
    #[arg(short, long, value_enum, default_value = "pretty", value_name = "FORMAT")]
    pub output: Output,

    /// How long a run may take, e.g. 90s or 1h30m; overrides what the run says
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,

    /// At most so many tasks at a time [default: what the machine can do]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub parallel: Option<u32>,

    /// Send the run's trace there when it is over, by OTLP: http://HOST:4317, or with
    /// OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf http://HOST:4318
    /// [default: OTEL_EXPORTER_OTLP_ENDPOINT, else nowhere]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Leave containers and directories behind for inspection
    #[arg(long)]
    pub keep: bool,

    /// What runs the steps: auto is Docker where it answers or was named (DOCKER_HOST), else host
    #[arg(long, value_enum, default_value = "auto", value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// A file of image replacements: each line `GLOB REPLACEMENT`
    #[arg(long, value_name = "FILE")]
    pub image_map: Option<PathBuf>,

    /// What tasks may have.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Namespace of objects that name none
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub namespace: String,

    /// Also emit `debug` events
    #[arg(long)]
    pub debug: bool,

    /// With --server: print the run's id once it is accepted, and leave it alone
    #[arg(long)]
    pub detach: bool,

    /// With --server: the same key with the same files is the same run, however often it is sent
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,

    /// No log lines and no remarks: only the summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// Which backend runs the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// Docker where its socket answers, else host
    Auto,
    /// Containers
    Docker,
    /// Processes in namespaces of their own; images are ignored
    Host,
}
