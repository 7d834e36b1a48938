//! How soon a first step runs on an idle fleet of three nodes and three agents: from the request until a
//! subscriber has the `step-start`. Beside it `docker run` until the first byte of its command is there.

use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use tokio::time::timeout;

use crate::Result;
use crate::cluster::{Cluster, PATIENCE};
use crate::figure::{Figure, Goal, quantile};
use crate::load::{submit_request, task_run};
use crate::real;
use crate::setting::Setting;
use crate::watch::Watch;

const IMAGE: &str = "busybox";

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    real::docker_has(IMAGE)?;
    let cluster = Cluster::start(setting, "start", 3).await?;
    let _agents = real::agents(setting, &cluster, 3)?;
    let client = cluster.client()?;
    // A follower's subscriber: the way is the longest that there is.
    let follower = (cluster.leader().await? + 1) % cluster.size();
    let mut watch = Watch::begin(cluster.connect(follower).await?, 0, &["step-start"]).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (rounds, first) = (setting.count(100, 10), 5);
    for round in 0..first + rounds {
        let at = Instant::now();
        let manifest = task_run(&format!("first-{round}"));
        let run = client.submit(submit_request(manifest)).await;
        let run = run.map_err(|error| format!("submit a run: {error}"))?.run.unwrap_or_default().id;
        let begun = loop {
            let seen = timeout(PATIENCE, watch.events.recv()).await;
            let seen = seen.map_err(|_| format!("run {run} did not start"))?;
            let seen = seen.ok_or("the subscription ended")?;
            if seen.run == run {
                break seen.at;
            }
        };
        let ended = timeout(PATIENCE, client.wait(&run)).await;
        ended.map_err(|_| "a run does not end")?.map_err(|error| error.to_string())?;
        let docker = tokio::task::spawn_blocking(first_byte).await.map_err(|e| e.to_string())??;
        // The first rounds are for agents to dial in and files to be read.
        if round >= first {
            ours.push(begun.duration_since(at).as_secs_f64() * 1000.0);
            theirs.push(docker);
        }
    }
    let (half, most) = (quantile(ours.clone(), 0.5), quantile(ours, 0.99));
    let (docker_half, docker_most) = (quantile(theirs.clone(), 0.5), quantile(theirs, 0.99));
    eprintln!("to the first step: {half:.0} ms; docker run: {docker_half:.0} ms");
    Ok(vec![
        Figure::new(
            "submit → first step runs, added to `docker run`, p50",
            half - docker_half,
            "ms",
            Goal::AtMost(150.0),
        )
        .beside("docker run", docker_half),
        Figure::new("submit → first step runs, p99", most, "ms", Goal::AtMost(500.0))
            .beside("docker run", docker_most),
    ])
}

/// Milliseconds from the start of a `docker run` until its command has written something.
fn first_byte() -> Result<f64> {
    let at = Instant::now();
    let mut child = real::docker_run(IMAGE, &["echo", "x"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("run docker: {error}"))?;
    let mut byte = [0];
    let read = child.stdout.take().map(|mut output| output.read_exact(&mut byte));
    let millis = at.elapsed().as_secs_f64() * 1000.0;
    let status = child.wait().map_err(|error| format!("wait for docker: {error}"))?;
    match read {
        Some(Ok(())) if status.success() => Ok(millis),
        _ => Err(format!("docker run ended with {status}")),
    }
}
