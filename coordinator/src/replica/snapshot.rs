//! The state as a whole, for a member that the log no longer reaches.
//!
//! A snapshot is a dump of the store at an applied index, and the event log up to where that index
//! had brought it. The dump is a file of its own; the event log is the same record for record on
//! every member, so the receiver asks only for the records that it does not have. Both are fetched in
//! chunks by position, so whatever breaks is taken up where it stopped, also after a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenon_journal::Journal;
use tenon_journal::disk::Disk;
use tenon_proto::raft::v1::{Chunk, FetchRequest, History, StateDump, fetch_request::What};
use tenon_store::Batch;

use super::{Configuration, Replica, keys};
use crate::error::{Error, Result};

/// Bytes of one chunk: small enough to pass between heartbeats.
const CHUNK: usize = 256 << 10;
/// Pairs that go into the new store together.
const PAIRS: usize = 1000;

/// What a snapshot holds; travels with Raft's own message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Names it on the member that made it.
    pub id: String,
    /// Log index and term up to which it is the state.
    pub index: u64,
    /// Term of that index.
    pub term: u64,
    /// The configuration as of that index.
    pub configuration: Configuration,
    /// Bytes of the dump.
    pub bytes: u64,
    /// SHA-256 of the dump, hex.
    pub sha256: String,
    /// First record of the event log that the maker still has.
    pub first_record: u64,
    /// The record that the event log goes on with after this state.
    pub next_record: u64,
}

impl Descriptor {
    /// As it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a descriptor has string keys only")
    }

    /// Out of what travelled.
    pub fn from_bytes(bytes: &[u8]) -> Result<Descriptor> {
        serde_json::from_slice(bytes).map_err(|error| Error::Record(error.to_string()))
    }
}

/// Reads what other members ask for; cheap to clone, and used from any thread.
#[derive(Clone)]
pub struct SnapshotSource {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    events: Journal,
    chunk: usize,
}

impl SnapshotSource {
    /// Dumps are in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, events: Journal) -> SnapshotSource {
        SnapshotSource { disk, dir, events, chunk: CHUNK }
    }

    /// Likewise, in chunks of about so many bytes.
    pub fn with_chunks_of(self, bytes: usize) -> SnapshotSource {
        SnapshotSource { chunk: bytes, ..self }
    }

    /// One chunk of what is asked for, from the position that is asked for.
    pub fn read(&self, request: &FetchRequest) -> Result<Chunk> {
        match &request.what {
            Some(What::State(StateDump { snapshot, offset })) => {
                let path = self.dir.join(file_name(snapshot)?);
                let file = self.disk.open_read(&path).map_err(Error::io("open", &path))?;
                let length = file.len().map_err(Error::io("stat", &path))?;
                let size = usize::try_from(length.saturating_sub(*offset)).unwrap_or(self.chunk);
                let mut data = vec![0; size.min(self.chunk)];
                let read =
                    file.read_full_at(&mut data, *offset).map_err(Error::io("read", &path))?;
                data.truncate(read);
                let last = offset + data.len() as u64 >= length;
                Ok(Chunk { position: *offset, data: data.into(), last, ..Chunk::default() })
            }
            Some(What::History(History { from, to, .. })) => {
                let from = (*from).max(self.events.first_index());
                let records = self.events.read_range(from, self.chunk)?;
                let records: Vec<bytes::Bytes> = records
                    .into_iter()
                    .take_while(|(index, _)| index <= to)
                    .map(|(_, record)| record.into())
                    .collect();
                let last = from + records.len() as u64 > *to || records.is_empty();
                Ok(Chunk { position: from, records, last, ..Chunk::default() })
            }
            None => Err(Error::Record("a request for nothing".to_owned())),
        }
    }
}

/// The file of a dump. The name came over the network: it must be one that this code makes.
fn file_name(id: &str) -> Result<String> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(Error::Record(format!("{id:?} names no snapshot")));
    }
    Ok(format!("{id}.dump"))
}

impl Replica {
    /// Makes a snapshot of what is applied, and removes older ones.
    pub fn make_snapshot(&mut self, disk: &dyn Disk, dir: &Path) -> Result<Descriptor> {
        self.persist()?;
        disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut dump = Vec::new();
        let everything = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        self.store.scan(everything, false, &mut |key, value| {
            for part in [key, value] {
                dump.extend_from_slice(
                    &u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes(),
                );
                dump.extend_from_slice(part);
            }
            std::ops::ControlFlow::Continue(())
        })?;
        let sha256 = hex(&Sha256::digest(&dump));
        let id = format!("{:x}-{:x}", self.meta.term, self.meta.applied);
        let name = file_name(&id)?;
        let path = dir.join(&name);
        disk.write_atomically(&path, &dump).map_err(Error::io("write", &path))?;
        for other in disk.read_dir(dir).map_err(Error::io("read", dir))? {
            if other != path {
                disk.remove_file(&other).map_err(Error::io("remove", &other))?;
            }
        }
        let first_record = self.recorder.log().map_or(1, |log| log.first_index());
        Ok(Descriptor {
            id,
            index: self.meta.applied,
            term: self.meta.term,
            configuration: self.meta.configuration.clone(),
            bytes: dump.len() as u64,
            sha256,
            first_record,
            next_record: self.meta.next_record,
        })
    }

    /// Replaces the state by a snapshot whose parts have all been fetched.
    pub fn install(&mut self, fetched: &Fetch) -> Result<()> {
        let dump = fetched.dump()?;
        let mut replacement = self.store.begin_replacement()?;
        let mut batch = Batch::default();
        let mut rest = dump.as_slice();
        let mut part = || -> Option<Vec<u8>> {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = tail;
            Some(part.to_vec())
        };
        while let (Some(key), Some(value)) = (part(), part()) {
            batch.put(key, value);
            if batch.len() >= PAIRS {
                replacement.write(std::mem::take(&mut batch))?;
            }
        }
        replacement.write(batch)?;
        if let Some(log) = self.recorder.log() {
            log.sync()?;
        }
        replacement.commit()?;
        self.reload()?;
        fetched.remove()
    }

    /// Takes over what the store holds now.
    fn reload(&mut self) -> Result<()> {
        let bytes = self.store.get(keys::META)?;
        let bytes = bytes.ok_or_else(|| Error::Record("a snapshot without a state".to_owned()))?;
        self.meta =
            serde_json::from_slice(&bytes).map_err(|error| Error::Record(error.to_string()))?;
        self.keys = BTreeMap::new();
        self.dirty.clear();
        self.unpersisted = 0;
        self.persisted = self.meta.applied;
        self.load_trust()?;
        self.load_runs()?;
        let next = self.meta.next_record;
        if let Some(log) = self.recorder.log() {
            log.installed(next);
        }
        Ok(())
    }
}

/// A snapshot on its way here.
pub struct Fetch {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    descriptor: Descriptor,
    received: u64,
    next_record: u64,
}

impl Fetch {
    /// Begins, or goes on with what an earlier attempt left in `dir`.
    pub fn begin(
        disk: Arc<dyn Disk>,
        dir: &Path,
        descriptor: Descriptor,
        replica: &mut Replica,
    ) -> Result<Fetch> {
        disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
        // The content is in the name, so a part of another dump is never gone on with.
        let name = format!("{}-{}.part", file_name(&descriptor.id)?, &descriptor.sha256);
        let path = dir.join(&name);
        for other in disk.read_dir(dir).map_err(Error::io("read", dir))? {
            if other != path {
                disk.remove_file(&other).map_err(Error::io("remove", &other))?;
            }
        }
        let received = if disk.exists(&path) {
            let file = disk.open_read(&path).map_err(Error::io("open", &path))?;
            file.len().map_err(Error::io("stat", &path))?
        } else {
            disk.create_new(&path).map_err(Error::io("create", &path))?;
            0
        };
        let here = replica.recorder.log().map_or(0, |log| log.last_index());
        let next_record = (here + 1).max(descriptor.first_record);
        Ok(Fetch { disk, path, received, descriptor, next_record })
    }

    /// What it is.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// What to ask for next; `None` when everything is here.
    pub fn next(&self) -> Option<FetchRequest> {
        let snapshot = self.descriptor.id.clone();
        let what = if self.received < self.descriptor.bytes {
            What::State(StateDump { snapshot, offset: self.received })
        } else if self.next_record < self.descriptor.next_record {
            let to = self.descriptor.next_record - 1;
            What::History(History { snapshot, from: self.next_record, to })
        } else {
            return None;
        };
        Some(FetchRequest { header: None, what: Some(what) })
    }

    /// Takes a chunk. One that does not belong here is ignored: it is asked for again.
    pub fn take(&mut self, replica: &mut Replica, chunk: &Chunk) -> Result<()> {
        if !chunk.data.is_empty() && chunk.position == self.received {
            let path = &self.path;
            let file = self.disk.open_write(path).map_err(Error::io("open", path))?;
            file.write_all_at(&chunk.data, self.received).map_err(Error::io("write", path))?;
            self.received += chunk.data.len() as u64;
        }
        let count = chunk.records.len() as u64;
        let fits = chunk.position >= self.next_record
            && chunk.position + count <= self.descriptor.next_record;
        if count > 0 && fits {
            if let Some(log) = replica.recorder.log() {
                log.receive(chunk.position, &chunk.records)?;
            }
            self.next_record = chunk.position + count;
        }
        Ok(())
    }

    /// Whether the dump that came is the one that was made. One that is not is dropped, and begun
    /// anew the next time.
    pub fn is_sound(&self) -> Result<bool> {
        let sound = hex(&Sha256::digest(&self.dump()?)) == self.descriptor.sha256;
        if !sound {
            self.remove()?;
        }
        Ok(sound)
    }

    fn dump(&self) -> Result<Vec<u8>> {
        self.disk.read(&self.path).map_err(Error::io("read", &self.path))
    }

    fn remove(&self) -> Result<()> {
        self.disk.remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
