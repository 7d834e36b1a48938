//! Memory of a node that has nothing to do, and of one with a history; and how soon such a node is
//! there again after `kill -9`.

use std::time::Instant;

use tokio::time::{Duration, sleep};

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::Cluster;
use crate::figure::{Figure, Goal, median};
use crate::load::{Load, task_run};
use crate::setting::Setting;

/// Until what was done for the start is over.
const SETTLE: Duration = Duration::from_secs(3);
/// Until what was applied has gone to the disk: a node does that at least every ten seconds.
const PERSIST: Duration = Duration::from_secs(12);
/// Runs that go on at a time, and submissions.
const RUNS: usize = 256;
const SUBMITTERS: usize = 32;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::start(setting, "footprint", 1).await?;
    sleep(SETTLE).await;
    let idle = cluster.resident(0)?;
    let runs = setting.count(100_000, 2_000);
    let began = Instant::now();
    finish_runs(&cluster, runs).await?;
    eprintln!("{runs} runs finished in {:.1} s", began.elapsed().as_secs_f64());
    let busy = cluster.resident(0)?;
    sleep(PERSIST).await;
    let full = cluster.resident(0)?;
    eprintln!("resident: {busy:.0} MB at the end of the last run, {full:.0} MB later");
    let mut times = Vec::new();
    let mut restarted = Vec::new();
    for _ in 0..setting.count(5, 2) {
        cluster.kill(0);
        let began = Instant::now();
        cluster.spawn(0)?;
        cluster.wait_until_ready(0).await?;
        times.push(began.elapsed().as_secs_f64());
        restarted.push(cluster.resident(0)?);
    }
    let with = format!("with {runs} finished runs");
    Ok(vec![
        Figure::new("resident memory, idle", idle, "MB", Goal::AtMost(40.0)),
        Figure::new(format!("resident memory {with}"), full.max(busy), "MB", Goal::AtMost(300.0)),
        Figure::new(
            format!("resident memory {with}, after a restart"),
            median(restarted),
            "MB",
            Goal::AtMost(300.0),
        ),
        Figure::new(
            format!("kill -9 and start again {with}, until /readyz"),
            median(times),
            "s",
            Goal::AtMost(2.0),
        ),
    ])
}

async fn finish_runs(cluster: &Cluster, runs: usize) -> Result<()> {
    let fleet = Fleet::start(&cluster.urls(), 2, 1024);
    let client = cluster.client()?;
    let mut load = Load::start(&client, fleet.board(), RUNS, SUBMITTERS, runs, |number| {
        task_run(&format!("old-{number}"))
    });
    let mut before = (0, Instant::now());
    while fleet.board().runs() < runs {
        sleep(Duration::from_millis(50)).await;
        if let Some(failure) = load.failure() {
            return Err(failure);
        }
        let ended = fleet.board().runs();
        if ended > before.0 {
            before = (ended, Instant::now());
        } else if before.1.elapsed() > crate::cluster::PATIENCE {
            return Err(format!("{ended} of {runs} runs ended, then no more"));
        }
    }
    Ok(())
}
