//! How many entries a second three nodes agree on, beside etcd: the same payload, as many clients,
//! the same disk, in turn. Ours is `Cluster.Probe`, theirs `KV.Put`; both over gRPC to the leader,
//! both answered when a majority has the entry on its disk and the leader has applied it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tenon_proto::control::v1::ProbeRequest;
use tenon_proto::control::v1::cluster_client::ClusterClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::etcd::{self, Etcd};
use crate::figure::{Figure, Goal, median};
use crate::setting::Setting;
use crate::{Failure, Result};

/// Bytes of each entry.
const PAYLOAD: usize = 256;
/// Connections that the clients share.
const CONNECTIONS: usize = 8;
/// Values are stored under so many keys.
const KEYS: u64 = 10_000;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let etcd = Etcd::start(setting).await?;
    if etcd.is_none() {
        eprintln!("etcd is not installed (Debian: etcd-server): no rival");
    }
    let cluster = Cluster::start(setting, "proposals", 3).await?;
    let mut figures = Vec::new();
    for clients in [64, 256] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..setting.count(3, 1) as u64 {
            let leader = cluster.leader().await?;
            let mut channels = Vec::new();
            for _ in 0..CONNECTIONS {
                channels.push(cluster.connect(leader).await?);
            }
            ours.push(rate(setting, &channels, clients, round, Kind::Probe).await?);
            let Some(etcd) = &etcd else { continue };
            let leader = etcd.leader().await?;
            let mut channels = Vec::new();
            for _ in 0..CONNECTIONS {
                channels.push(etcd::connect(&leader).await?);
            }
            theirs.push(rate(setting, &channels, clients, round, Kind::Put).await?);
        }
        let ours = median(ours);
        let name = format!("proposals of {PAYLOAD} bytes through 3 nodes, {clients} clients");
        if theirs.is_empty() {
            figures.push(Figure::new(name, ours, "/s", Goal::None));
            continue;
        }
        let theirs = median(theirs);
        figures.push(Figure::new(name, ours, "/s", Goal::None).beside("etcd", theirs));
        let name = format!("the same, relative to etcd, {clients} clients");
        figures.push(Figure::new(name, ours / theirs, "×", Goal::AtLeast(2.0)).beside("etcd", 1.0));
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Kind {
    Probe,
    Put,
}

/// Entries a second by so many clients, each of which waits for its answer.
async fn rate(
    setting: &Setting,
    channels: &[Channel],
    clients: usize,
    round: u64,
    kind: Kind,
) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for client in 0..clients {
        let channel = channels[client % channels.len()].clone();
        let done = done.clone();
        // The same keys in every run.
        let mut next = round * 1_000_003 + client as u64 * 7919 + 1;
        tasks.spawn(async move {
            let mut probe = ClusterClient::new(channel.clone());
            loop {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let payload = vec![(next >> 33) as u8; PAYLOAD];
                match kind {
                    Kind::Probe => {
                        let answer = probe.probe(ProbeRequest { payload: payload.into() }).await;
                        answer.map_err(|status| status.message().to_owned())?;
                    }
                    Kind::Put => {
                        let key = format!("bench/{:08}", (next >> 33) % KEYS).into_bytes();
                        etcd::put(channel.clone(), key, payload).await?;
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let measured = async {
        tokio::time::sleep(setting.round() / 4).await;
        let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(setting.round()).await;
        (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    };
    tokio::select! {
        rate = measured => {
            tasks.shutdown().await;
            Ok(rate)
        }
        Some(failed) = tasks.join_next() => Err(match failed {
            Ok(Err(error)) => error,
            other => Failure::from(format!("a client ended: {other:?}")),
        }),
    }
}
