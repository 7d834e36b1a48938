//! How long nothing starts when the leader dies: from `kill -9` until the first task has started of a
//! run that was submitted after it, as a subscriber of a surviving node sees it. Clients and agents
//! have to notice, to find the new leader, and to begin anew.

use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::{Cluster, PATIENCE};
use crate::figure::{Figure, Goal, quantile};
use crate::latency::warm_up;
use crate::load::{submit_request, task_run};
use crate::setting::Setting;
use crate::watch::Watch;

/// Runs are submitted all the time, one after the other with this pause.
const PAUSE: Duration = Duration::from_millis(20);

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::start(setting, "failover", 3).await?;
    let _fleet = Fleet::start(&cluster.urls(), 2, 256);
    warm_up(&cluster).await?;
    let client = cluster.client()?;
    let mut background = JoinSet::new();
    background.spawn(async move {
        for number in 0.. {
            // One that fails was submitted in vain; the measured ones are others.
            let _ = client.submit(submit_request(task_run(&format!("load-{number}")))).await;
            sleep(PAUSE).await;
        }
    });
    let mut gaps = Vec::new();
    for round in 0..setting.count(50, 5) {
        let leader = cluster.leader().await?;
        let mut watches = Vec::new();
        for number in (0..cluster.size()).filter(|number| *number != leader) {
            let since = cluster.status(number).await?.last_seq;
            let channel = cluster.connect(number).await?;
            watches.push(Watch::begin(channel, since, &["task-start"]).await?);
        }
        // Connected to the leader, like everybody who was at work when it died.
        let client = cluster.client()?;
        let before = client.submit(submit_request(task_run(&format!("before-{round}")))).await;
        before.map_err(|error| format!("submit a run: {error}"))?;
        let died = Instant::now();
        cluster.kill(leader);
        let after = client.submit(submit_request(task_run(&format!("after-{round}")))).await;
        let after =
            after.map_err(|error| format!("submit a run: {error}"))?.run.unwrap_or_default();
        let (one, other) = watches.split_at_mut(1);
        let first = tokio::select! {
            at = started(&mut one[0], &after.id) => at,
            at = started(&mut other[0], &after.id) => at,
        };
        let first = first.map_err(|error| format!("after kill {}: {error}", round + 1))?;
        let gap = first.duration_since(died).as_secs_f64();
        eprintln!("kill {}: {gap:.3} s", round + 1);
        gaps.push(gap);
        cluster.spawn(leader)?;
        cluster.wait_until_ready(leader).await?;
    }
    let name = format!("kill -9 of the leader → next task-start, {} failovers", gaps.len());
    Ok(vec![
        Figure::new(format!("{name}, p50"), quantile(gaps.clone(), 0.5), "s", Goal::AtMost(1.0)),
        Figure::new(format!("{name}, p99"), quantile(gaps, 0.99), "s", Goal::AtMost(2.0)),
    ])
}

async fn started(watch: &mut Watch, run: &str) -> Result<Instant> {
    loop {
        let seen = timeout(PATIENCE, watch.events.recv()).await;
        let seen = seen.map_err(|_| "nothing starts any more")?;
        let seen = seen.ok_or("a surviving node ended its subscription")?;
        if seen.run == run {
            return Ok(seen.at);
        }
    }
}
