//! Measures clusters: real nodes of the release binary on loopback. In the suite `control-plane` agents only
//! pretend; in `fleet` some are real. `cargo xtask bench SUITE` builds and runs it, and shows what it prints:
//! one JSON object a line for each figure, as soon as it is known.
//!
//! Rivals are measured in turn with us, in the same run, on the same disk. Seeds are fixed. A missed
//! goal is printed as missed; only what cannot be measured is an error.

mod agent;
mod cluster;
mod connected;
mod etcd;
mod failover;
mod figure;
mod followers;
mod footprint;
mod journal;
mod latency;
mod lean;
mod lines;
mod load;
mod process;
mod proposals;
mod real;
mod setting;
mod start;
mod tasks;
mod watch;

use std::process::ExitCode;

use figure::Figure;
use mimalloc::MiMalloc;
use setting::Setting;

/// The clients are to cost little, beside the nodes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What went wrong, for people.
type Failure = String;
type Result<T, E = Failure> = std::result::Result<T, E>;

/// What can be measured, in the order in which it is, by suite.
const SUITES: [(&str, &[&str]); 2] = [
    (
        "control-plane",
        &["journal", "proposals", "tasks", "latency", "followers", "failover", "footprint"],
    ),
    ("fleet", &["start", "lines", "connected"]),
];

fn main() -> ExitCode {
    let outcome = Setting::of_arguments(std::env::args().skip(1)).and_then(|setting| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        runtime.block_on(measure(&setting))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(setting: &Setting) -> Result<()> {
    for name in setting.names() {
        eprintln!("==> {name}");
        let figures: Vec<Figure> = match *name {
            "journal" => journal::measure(setting)?,
            "proposals" => proposals::measure(setting).await?,
            "tasks" => tasks::measure(setting).await?,
            "latency" => latency::measure(setting).await?,
            "followers" => followers::measure(setting).await?,
            "failover" => failover::measure(setting).await?,
            "footprint" => footprint::measure(setting).await?,
            "start" => start::measure(setting).await?,
            "lines" => lines::measure(setting).await?,
            _ => connected::measure(setting).await?,
        };
        figures.iter().for_each(Figure::print);
    }
    setting.clean()
}
