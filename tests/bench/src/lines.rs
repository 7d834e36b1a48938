//! Lines of 100 bytes from a step, through its agent and three nodes, to a subscriber of a follower. All of
//! them have to come, in their order. Beside it `docker run` with the same command.

use std::process::Stdio;
use std::time::Instant;

use tenon_proto::control::v1::SubscribeRequest;
use tenon_proto::control::v1::events_client::EventsClient;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::Result;
use crate::cluster::{Cluster, PATIENCE};
use crate::figure::{Figure, Goal, median};
use crate::load::submit_request;
use crate::real;
use crate::setting::Setting;

const IMAGE: &str = "busybox";
/// Digits of a line's number; the rest of its 100 bytes is the same in all.
const DIGITS: usize = 7;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    real::docker_has(IMAGE)?;
    let lines = setting.count(2_000_000, 200_000);
    let cluster = Cluster::start(setting, "lines", 3).await?;
    let _agents = real::agents(setting, &cluster, 1)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setting.count(5, 2) {
        ours.push(lines as f64 / talk(&cluster, round, lines).await?);
        let script = script(lines);
        let began = Instant::now();
        let mut docker = real::docker_run(IMAGE, &["sh", "-c", &script]);
        let status = docker.stdout(Stdio::null()).status();
        let status = status.map_err(|error| format!("run docker: {error}"))?;
        if !status.success() {
            return Err(format!("docker run ended with {status}"));
        }
        theirs.push(lines as f64 / began.elapsed().as_secs_f64());
    }
    let name = format!("lines of 100 bytes, agent → follower's subscriber, all of {lines}");
    Ok(vec![
        Figure::new(name, median(ours), "lines/s", Goal::AtLeast(200_000.0))
            .beside("docker run > /dev/null", median(theirs)),
    ])
}

/// Seconds from the first line of a run to its last one, as a follower's subscriber sees them.
async fn talk(cluster: &Cluster, round: usize, lines: usize) -> Result<f64> {
    let follower = (cluster.leader().await? + 1) % cluster.size();
    let since = cluster.status(follower).await?.last_seq;
    let kinds = ["step-log", "run-end"].map(str::to_owned).to_vec();
    let request = SubscribeRequest { since, follow: true, kinds, ..SubscribeRequest::default() };
    let channel = cluster.connect(follower).await?;
    let mut client = EventsClient::new(channel).max_decoding_message_size(64 << 20);
    let events = client.subscribe(request).await.map_err(|status| status.message().to_owned());
    let mut events = events?.into_inner();
    let run = cluster.client()?.submit(submit_request(manifest(round, lines))).await;
    run.map_err(|error| format!("submit a run: {error}"))?;
    let (mut began, mut seen) = (None, 0);
    loop {
        let batch = timeout(PATIENCE, events.next()).await;
        let batch = batch.map_err(|_| format!("after {seen} lines nothing more came"))?;
        let batch = batch.ok_or("the subscription ended")?;
        let batch = batch.map_err(|status| status.message().to_owned())?;
        let began = *began.get_or_insert_with(Instant::now);
        for event in &batch.lines {
            match number_in(event) {
                Some(number) if number == seen + 1 => seen = number,
                Some(number) => return Err(format!("line {number} came after line {seen}")),
                None if seen == lines => return Ok(began.elapsed().as_secs_f64()),
                None => {
                    let event = String::from_utf8_lossy(event);
                    return Err(format!("the run ended after {seen} lines: {event}"));
                }
            }
        }
    }
}

/// The number in a line's event; none in the run's end. The event is not parsed: who subscribes is to cost
/// little, because it runs on the same processors.
fn number_in(event: &[u8]) -> Option<usize> {
    let key = br#""line":""#;
    let at = event.windows(key.len()).position(|window| window == key)? + key.len();
    std::str::from_utf8(event.get(at..at + DIGITS)?).ok()?.parse().ok()
}

fn script(lines: usize) -> String {
    let rest = "x".repeat(99 - DIGITS - 1);
    format!(r#"awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf "%0{DIGITS}d {rest}\n", i }}'"#)
}

fn manifest(round: usize, lines: usize) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: talk-{round}}}\nspec:\n  taskSpec:\n    \
         steps:\n    - name: talk\n      image: {IMAGE}\n      script: |\n        {}\n",
        script(lines)
    )
}
