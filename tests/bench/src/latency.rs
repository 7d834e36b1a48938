//! How long a run waits for its first task to start: from the request until a subscriber sees the
//! `task-start` event. That takes three agreements one after the other (the run, its place, the
//! agent's report), each on the disks of a majority.
//!
//! Runs come at random moments, on average fifty a second, whatever became of those before.

use std::collections::HashMap;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::{Duration, sleep_until, timeout};

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::{Cluster, PATIENCE};
use crate::figure::{Figure, Goal, quantile};
use crate::load::{submit_request, task_run};
use crate::setting::Setting;
use crate::watch::Watch;

/// Between runs, on average.
const MEAN: f64 = 0.02;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for nodes in [1, 3] {
        let cluster = Cluster::start(setting, "latency", nodes).await?;
        let _fleet = Fleet::start(&cluster.urls(), 1, 1024);
        let leader = cluster.leader().await?;
        let mut watch = Watch::begin(cluster.connect(leader).await?, 0, &["task-start"]).await?;
        warm_up(&cluster).await?;
        let submitted = paced_runs(&cluster, setting.count(2000, 200)).await?;
        let mut begun: HashMap<String, Instant> = HashMap::new();
        let mut waits = Vec::new();
        for (run, at) in submitted {
            while !begun.contains_key(&run) {
                let seen = timeout(PATIENCE, watch.events.recv()).await;
                let seen = seen.map_err(|_| format!("run {run} did not start"))?;
                let seen = seen.ok_or("the subscription ended")?;
                begun.entry(seen.run).or_insert(seen.at);
            }
            waits.push(begun[&run].duration_since(at).as_secs_f64() * 1000.0);
        }
        let name =
            format!("submit → task-start, {nodes} node{}", if nodes == 1 { "" } else { "s" });
        let (p50, p99) = (quantile(waits.clone(), 0.5), quantile(waits, 0.99));
        figures.push(Figure::new(format!("{name}, p50"), p50, "ms", Goal::AtMost(5.0)));
        figures.push(Figure::new(format!("{name}, p99"), p99, "ms", Goal::AtMost(25.0)));
    }
    Ok(figures)
}

/// Connections are made, the agent is there.
pub async fn warm_up(cluster: &Cluster) -> Result<()> {
    let client = cluster.client()?;
    for number in 0..20 {
        let run = client.submit(submit_request(task_run(&format!("warm-{number}")))).await;
        let run = run.map_err(|error| error.to_string())?.run.unwrap_or_default();
        let ended = timeout(PATIENCE, client.wait(&run.id)).await;
        ended.map_err(|_| "a run does not end")?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Submits so many runs; gives the id of each and when it was asked for.
pub async fn paced_runs(cluster: &Cluster, runs: usize) -> Result<Vec<(String, Instant)>> {
    let client = cluster.client()?;
    let mut random = Random(0x7E_404);
    let mut next = tokio::time::Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..runs {
        // Times between events that come by themselves are exponential.
        next += Duration::from_secs_f64(-MEAN * (1.0 - random.next()).ln());
        sleep_until(next).await;
        let client = client.clone();
        tasks.spawn(async move {
            let at = Instant::now();
            let run = client.submit(submit_request(task_run(&format!("paced-{number}")))).await;
            run.map(|answer| (answer.run.unwrap_or_default().id, at))
        });
    }
    let mut submitted = Vec::new();
    while let Some(run) = tasks.join_next().await {
        let run = run.map_err(|error| error.to_string())?;
        submitted.push(run.map_err(|error| format!("submit a run: {error}"))?);
    }
    Ok(submitted)
}

/// Numbers from 0 to 1, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
