//! How much later a follower's subscriber sees an event than the leader's: the leader shows an event
//! as soon as its entry is committed and applied, so this is the time from the commit, by one clock.

use std::collections::HashMap;

use tokio::time::{Duration, timeout};

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::Cluster;
use crate::figure::{Figure, Goal, quantile};
use crate::latency::{paced_runs, warm_up};
use crate::setting::Setting;
use crate::watch::{Seen, Watch};

/// How long no event may come before all have come.
const QUIET: Duration = Duration::from_millis(500);

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(setting, "followers", 3).await?;
    let _fleet = Fleet::start(&cluster.urls(), 1, 1024);
    warm_up(&cluster).await?;
    let leader = cluster.leader().await?;
    let since = cluster.status(leader).await?.last_seq;
    let mut first = Watch::begin(cluster.connect(leader).await?, since, &[]).await?;
    let follower = (leader + 1) % cluster.size();
    let mut second = Watch::begin(cluster.connect(follower).await?, since, &[]).await?;
    paced_runs(&cluster, setting.count(2000, 200)).await?;
    let before: HashMap<u64, Seen> =
        all(&mut first).await.into_iter().map(|seen| (seen.seq, seen)).collect();
    let after = all(&mut second).await;
    if before.is_empty() || before.len() != after.len() {
        return Err(format!(
            "the leader showed {} events and the follower {}",
            before.len(),
            after.len()
        ));
    }
    let later: Vec<f64> = after
        .iter()
        .filter_map(|seen| {
            let shown = before.get(&seen.seq)?.at;
            let later = seen.at.saturating_duration_since(shown).as_secs_f64();
            let sooner = shown.saturating_duration_since(seen.at).as_secs_f64();
            Some((later - sooner) * 1000.0)
        })
        .collect();
    let name = "event at a follower's subscriber, after the leader's has it";
    Ok(vec![
        Figure::new(format!("{name}, p50"), quantile(later.clone(), 0.5), "ms", Goal::None),
        Figure::new(format!("{name}, p99"), quantile(later, 0.99), "ms", Goal::None),
    ])
}

async fn all(watch: &mut Watch) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Ok(Some(seen)) = timeout(QUIET, watch.events.recv()).await {
        all.push(seen);
    }
    all
}
