//! A copy of everything as one stream, and a new cluster out of it.
//!
//! A backup is what a member would fetch as a snapshot: a line of JSON (the [`Descriptor`]), the dump
//! of the state, then the records of the event log, each with its length in front. It holds Secrets
//! only as the cluster stores them: encrypted. A restored cluster has another id and one member.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tenon_journal::disk;
use tenon_proto::raft::v1::{Chunk, FetchRequest, History, StateDump, fetch_request::What};
use tenon_store::SledStore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::apply_thread::FromUser;
use super::identity::Identity;
use super::membership::stopping;
use super::{Handle, alone};
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::recorder::Recorder;
use crate::replica::snapshot::{Descriptor, Fetch};
use crate::replica::{Member, Replica};
use crate::server::{self, Fault, Items};

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Tells a backup from other files.
    format: String,
    descriptor: Descriptor,
}

const FORMAT: &str = "tenon-backup-1";
/// The longest first line that is believed.
const HEAD_BYTES: usize = 1 << 20;

/// Streams a backup of what this node has applied.
pub(super) async fn stream(handle: &Handle) -> server::Result<Items<Bytes>> {
    let member = handle.member().ok_or_else(stopping)?;
    let (reply, made) = tokio::sync::oneshot::channel();
    member.users.send(FromUser::Snapshot(reply)).await.map_err(|_| stopping())?;
    let descriptor = made.await.map_err(|_| stopping())?;
    let (sender, receiver) = mpsc::channel(4);
    handle.shared.runtime.spawn_blocking(move || {
        let send = |bytes: Bytes| sender.blocking_send(Ok(bytes)).is_ok();
        let head = Head { format: FORMAT.to_owned(), descriptor: descriptor.clone() };
        let mut line = serde_json::to_vec(&head).unwrap_or_default();
        line.push(b'\n');
        if !send(line.into()) {
            return;
        }
        let mut offset = 0;
        let mut from = descriptor.first_record;
        let snapshot = || descriptor.id.clone();
        loop {
            let what = if offset < descriptor.bytes {
                What::State(StateDump { snapshot: snapshot(), offset })
            } else if from < descriptor.next_record {
                What::History(History {
                    snapshot: snapshot(),
                    from,
                    to: descriptor.next_record - 1,
                })
            } else {
                return;
            };
            let request = FetchRequest { header: None, what: Some(what) };
            match member.snapshots.read(&request) {
                Ok(chunk) if chunk.data.is_empty() && chunk.records.is_empty() => {
                    let fault = Fault::internal("the backup was overtaken by a newer snapshot");
                    let _ = sender.blocking_send(Err(fault));
                    return;
                }
                Ok(chunk) => {
                    offset += chunk.data.len() as u64;
                    from += chunk.records.len() as u64;
                    if !send(encode(&chunk)) {
                        return;
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error.into()));
                    return;
                }
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn encode(chunk: &Chunk) -> Bytes {
    if chunk.records.is_empty() {
        return chunk.data.clone();
    }
    let mut bytes = BytesMut::new();
    for record in &chunk.records {
        bytes.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
        bytes.put_slice(record);
    }
    bytes.freeze()
}

/// Makes the first member of a new cluster out of a backup, in an empty data directory. Returns the
/// new cluster's id.
pub fn restore(backup: &mut dyn Read, dir: &Path, name: &str, url: &str) -> Result<String> {
    let unreadable =
        |source: io::Error| Error::Io { action: "read", path: "the backup".into(), source };
    let not_one = || Error::Record("this is not a backup of Tenon, or it is cut short".to_owned());
    let disk = disk::real();
    if Identity::read(&*disk, dir)?.is_some() {
        return Err(Error::Busy(dir.to_owned()));
    }
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        if line.len() > HEAD_BYTES || backup.read(&mut byte).map_err(unreadable)? == 0 {
            return Err(not_one());
        }
        line.push(byte[0]);
    }
    let head: Head = serde_json::from_slice(&line).map_err(|_| not_one())?;
    if head.format != FORMAT {
        return Err(not_one());
    }
    let descriptor = head.descriptor;
    let store = Arc::new(SledStore::open(dir.join("state"))?);
    let events = dir.join("events");
    let mut replica = Replica::open(store, |next| {
        EventLog::open(disk.clone(), &events, next).map(Recorder::Log)
    })?;
    let incoming = dir.join("incoming");
    let mut fetch = Fetch::begin(disk.clone(), &incoming, descriptor.clone(), &mut replica)?;
    while let Some(FetchRequest { what: Some(what), .. }) = fetch.next() {
        let chunk = match what {
            What::State(StateDump { offset, .. }) => {
                let left = usize::try_from(descriptor.bytes - offset).unwrap_or(usize::MAX);
                let mut data = vec![0; left.min(1 << 20)];
                backup.read_exact(&mut data).map_err(|_| not_one())?;
                Chunk { position: offset, data: data.into(), ..Chunk::default() }
            }
            What::History(History { from, .. }) => {
                let mut length = [0; 4];
                backup.read_exact(&mut length).map_err(|_| not_one())?;
                let mut record = vec![0; u32::from_le_bytes(length) as usize];
                backup.read_exact(&mut record).map_err(|_| not_one())?;
                Chunk { position: from, records: vec![record.into()], ..Chunk::default() }
            }
        };
        fetch.take(&mut replica, &chunk)?;
    }
    if !fetch.is_sound()? {
        return Err(not_one());
    }
    replica.install(&fetch)?;
    let cluster = new_cluster_id(&*disk);
    let member = Member { name: name.to_owned(), url: url.to_owned() };
    let identity = alone_in(&mut replica, &cluster, member)?;
    identity.write(&*disk, dir)?;
    Ok(cluster)
}

/// Makes a data directory that has lost its cluster the only member of a new one, with everything
/// that is in its log, whether or not it was ever agreed on. Returns the new cluster's id.
pub fn recover(dir: &Path) -> Result<String> {
    let disk = disk::real();
    let Some(identity) = Identity::read(&*disk, dir)? else {
        return Err(Error::Record(format!("{} is not the directory of a member", dir.display())));
    };
    let store = Arc::new(SledStore::open(dir.join("state"))?);
    let events = dir.join("events");
    let mut replica = Replica::open(store, |next| {
        EventLog::open(disk.clone(), &events, next).map(Recorder::Log)
    })?;
    super::rescue::apply_everything(&disk, &dir.join("log"), &identity, &mut replica)?;
    let cluster = new_cluster_id(&*disk);
    let me = replica.meta().members.get(&identity.node).cloned();
    let me = me.unwrap_or(Member { name: identity.name.clone(), url: String::new() });
    let identity = alone_in(&mut replica, &cluster, me)?;
    identity.write(&*disk, dir)?;
    Ok(cluster)
}

/// The state becomes that of a new cluster whose only member has an id that was never used.
fn alone_in(replica: &mut Replica, cluster: &str, member: Member) -> Result<Identity> {
    let node = replica.meta().next_node;
    replica.found_anew(cluster, node, member.clone(), alone(node))?;
    Ok(Identity {
        cluster: cluster.to_owned(),
        node,
        name: member.name,
        first: true,
        peers: std::collections::BTreeMap::new(),
    })
}

/// An id for a cluster.
pub(super) fn new_cluster_id(disk: &dyn disk::Disk) -> String {
    let millis = u64::try_from(super::apply_thread::now().0).unwrap_or_default();
    let random = u128::from(disk.entropy()) << 64 | u128::from(disk.entropy());
    ulid::Ulid::from_parts(millis, random).to_string()
}
