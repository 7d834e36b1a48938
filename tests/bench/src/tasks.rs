//! How many tasks a second are completed: their ends durable, applied and acknowledged.

use std::time::Instant;

use tokio::time::sleep;

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::Cluster;
use crate::figure::{Figure, Goal, median};
use crate::load::{Load, pipeline_run};
use crate::setting::Setting;

/// Tasks of each run.
const TASKS: usize = 20;
/// Runs that go on at a time.
const RUNS: usize = 128;
/// Submissions that are under way at a time.
const SUBMITTERS: usize = 16;
/// Agents, and how many tasks each takes at a time.
const AGENTS: usize = 4;
const SLOTS: u32 = 1024;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (nodes, goal) in [(1, 5000.0), (3, 2500.0)] {
        let cluster = Cluster::start(setting, "tasks", nodes).await?;
        let fleet = Fleet::start(&cluster.urls(), AGENTS, SLOTS);
        let client = cluster.client()?;
        let mut load =
            Load::start(&client, fleet.board(), RUNS, SUBMITTERS, usize::MAX, |number| {
                pipeline_run(&format!("bench-{number}"), TASKS)
            });
        sleep(setting.round() / 4).await;
        let mut rates = Vec::new();
        for _ in 0..setting.count(5, 2) {
            let (before, began) = (fleet.board().tasks(), Instant::now());
            sleep(setting.round()).await;
            let done = fleet.board().tasks() - before;
            if let Some(failure) = load.failure() {
                return Err(failure);
            }
            rates.push(done as f64 / began.elapsed().as_secs_f64());
        }
        eprintln!("{nodes} nodes, tasks/s of each round: {rates:.0?}");
        let name = match nodes {
            1 => "tasks completed through 1 node".to_owned(),
            _ => format!("tasks completed through {nodes} nodes"),
        };
        figures.push(Figure::new(name, median(rates), "/s", Goal::AtLeast(goal)));
    }
    Ok(figures)
}
