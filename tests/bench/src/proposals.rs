//! How many entries a second three nodes agree on, beside etcd: the same payload, the same clients,
//! the same disk, one after the other. Ours is `Cluster.Probe`, theirs `KV.Put`; both over gRPC to the leader,
//! both answered when a majority has the entry on its disk and the leader has applied it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tenon_proto::control::v1::ProbeRequest;
use tenon_proto::control::v1::cluster_client::ClusterClient;
use tokio::task::{JoinSet, LocalSet};

use crate::cluster::Cluster;
use crate::etcd::{self, Etcd};
use crate::figure::{Figure, Goal, median};
use crate::lean::Lean;
use crate::setting::Setting;
use crate::{Failure, Result};

/// How many clients ask at a time.
const CLIENTS: [usize; 2] = [64, 256];
/// Bytes of each entry.
const PAYLOAD: usize = 256;
/// Connections that the clients share.
const CONNECTIONS: usize = 8;
/// Values are stored under so many keys.
const KEYS: u64 = 10_000;

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    // One after the other, and what one has written is on the disk before the next begins: neither has to bear what the
    // other does when it is idle, or has left to be done.
    let cluster = Cluster::start(setting, "proposals", 3).await?;
    let ours = rates(setting, &cluster.url(cluster.leader().await?), Kind::Probe).await?;
    drop(cluster);
    written();
    let theirs = match Etcd::start(setting).await? {
        Some(etcd) => Some(rates(setting, &etcd.leader().await?, Kind::Put).await?),
        None => {
            eprintln!("etcd is not installed (Debian: etcd-server): no rival");
            None
        }
    };
    written();
    let mut figures = Vec::new();
    for (number, clients) in CLIENTS.into_iter().enumerate() {
        let name = format!("proposals of {PAYLOAD} bytes through 3 nodes, {clients} clients");
        let figure = Figure::new(name, ours[number], "/s", Goal::None);
        let Some(theirs) = &theirs else {
            figures.push(figure);
            continue;
        };
        figures.push(figure.beside("etcd", theirs[number]));
        let name = format!("the same, relative to etcd, {clients} clients");
        let relative = ours[number] / theirs[number];
        figures.push(Figure::new(name, relative, "×", Goal::AtLeast(2.0)).beside("etcd", 1.0));
    }
    Ok(figures)
}

/// The rate of each number of clients, in the middle of some rounds.
async fn rates(setting: &Setting, url: &str, kind: Kind) -> Result<Vec<f64>> {
    let mut rates = Vec::new();
    for clients in CLIENTS {
        let mut rounds = Vec::new();
        for round in 0..setting.count(3, 1) as u64 {
            rounds.push(rate(setting, url, clients, round, kind).await?);
        }
        rates.push(median(rounds));
    }
    Ok(rates)
}

#[derive(Clone, Copy)]
enum Kind {
    Probe,
    Put,
}

/// Waits until everything is on the disk that anybody has written.
fn written() {
    // SAFETY: sync has no preconditions.
    unsafe { libc::sync() };
}

/// Entries a second by so many clients, each of which waits for its answer. All of them share a thread of their own,
/// so that they take little from the nodes.
async fn rate(setting: &Setting, url: &str, clients: usize, round: u64, kind: Kind) -> Result<f64> {
    let (url, time) = (url.to_owned(), setting.round());
    let driven = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        runtime.block_on(drive(&url, clients, round, kind, time))
    });
    driven.await.map_err(|error| format!("the clients failed: {error}"))?
}

async fn drive(url: &str, clients: usize, round: u64, kind: Kind, time: Duration) -> Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Lean::connect(url).await?);
    }
    let done = Rc::new(Cell::new(0_u64));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let local = LocalSet::new();
    for client in 0..clients {
        let connection = connections[client % CONNECTIONS].clone();
        let done = done.clone();
        // The same keys in every run.
        let mut next = round * 1_000_003 + client as u64 * 7919 + 1;
        tasks.spawn_local_on(
            async move {
                let origin = connection.origin();
                let mut probe = ClusterClient::with_origin(connection.clone(), origin);
                loop {
                    next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let payload = vec![(next >> 33) as u8; PAYLOAD];
                    match kind {
                        Kind::Probe => {
                            let answer =
                                probe.probe(ProbeRequest { payload: payload.into() }).await;
                            answer.map_err(|status| status.message().to_owned())?;
                        }
                        Kind::Put => {
                            let key = format!("bench/{:08}", (next >> 33) % KEYS).into_bytes();
                            etcd::put(&connection, key, payload).await?;
                        }
                    }
                    done.set(done.get() + 1);
                }
            },
            &local,
        );
    }
    let measured = async {
        tokio::time::sleep(time / 4).await;
        let (before, began) = (done.get(), Instant::now());
        tokio::time::sleep(time).await;
        (done.get() - before) as f64 / began.elapsed().as_secs_f64()
    };
    let rate = async {
        tokio::select! {
            rate = measured => Ok(rate),
            Some(failed) = tasks.join_next() => Err(match failed {
                Ok(Err(error)) => error,
                other => Failure::from(format!("a client ended: {other:?}")),
            }),
        }
    };
    local.run_until(rate).await
}
