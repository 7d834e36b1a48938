//! Who a node is: written once, when it begins or joins a cluster, and read at every start.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenon_journal::disk::Disk;

use crate::error::{Error, Result};
use crate::replica::Member;

/// In the data directory.
const FILE: &str = "node.json";

/// The content of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// The node's Raft id in it, never used by another node nor by this one after it lost its data.
    pub node: u64,
    /// The node's name.
    pub name: String,
    /// It is the cluster's first member and makes its first state.
    pub first: bool,
    /// The members it knew of when it joined: how it is reached by, and reaches, the others until it
    /// has their state.
    pub peers: BTreeMap<u64, Member>,
}

impl Identity {
    /// The identity in a data directory; `None` for a node that belongs to no cluster yet.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>> {
        let path = dir.join(FILE);
        if !disk.exists(&path) {
            return Ok(None);
        }
        let bytes = disk.read(&path).map_err(Error::io("read", &path))?;
        let identity = serde_json::from_slice(&bytes);
        identity.map(Some).map_err(|error| Error::Record(format!("{}: {error}", path.display())))
    }

    /// Makes it the identity of a data directory, durably.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
        let path = dir.join(FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .expect("an identity has string keys only, so it is always valid JSON");
        disk.write_atomically(&path, &bytes).map_err(Error::io("write", &path))
    }
}
