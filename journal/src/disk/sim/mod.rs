//! A file system in memory that loses power, runs full and fails, all of it from a seed.
//!
//! A [`SimDisk`] is the machine's disk, held by whoever simulates; [`SimDisk::mount`] is what the programs of that machine
//! get. After [`SimDisk::crash`] (power) or [`SimDisk::kill`] (process) everything that was mounted before fails, so that
//! what is left of the old process can do no harm. What a crash may lose and keep is what the disk traits promise and no more:
//! any piece of an unsynced write at any byte or sector, any last names of a directory that was not synced.
//! The same calls with the same seeds give the same bytes.

mod fault;
mod file;
mod mount;
mod random;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Costs, Fault, Kind, Operation};
pub use random::Random;

use self::mount::Mount;
use self::tree::Tree;
use crate::disk::Disk;

/// A simulated disk. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

/// A copy of a disk's whole state, with what is not synced.
#[derive(Clone)]
pub struct Image {
    tree: Tree,
    random: Random,
    capacity: Option<u64>,
}

struct Inner {
    tree: Tree,
    random: Random,
    /// Counts the machine's starts: what was mounted before does not work any more.
    start: u64,
    used: u64,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    costs: Costs,
    cost: u64,
    operations: Option<Vec<Operation>>,
    locks: BTreeSet<u64>,
    open: BTreeMap<u64, usize>,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimDisk {
    /// An empty disk of no limited size.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_image(Image { tree: Tree::new(), random: Random::new(seed), capacity: None })
    }

    /// A disk in the state that was copied.
    pub fn from_image(image: Image) -> SimDisk {
        let inner = Inner {
            used: image.tree.used(),
            tree: image.tree,
            random: image.random,
            start: 0,
            capacity: image.capacity,
            faults: Vec::new(),
            costs: Costs::default(),
            cost: 0,
            operations: None,
            locks: BTreeSet::new(),
            open: BTreeMap::new(),
        };
        SimDisk { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Copies the whole state.
    pub fn image(&self) -> Image {
        let inner = lock(&self.inner);
        Image { tree: inner.tree.clone(), random: inner.random.clone(), capacity: inner.capacity }
    }

    /// The disk for programs, until the next crash.
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(Mount::of(self))
    }

    /// Cuts the power: what was not synced is lost, kept or torn as `random` says. Faults end.
    pub fn crash(&self, random: &mut Random) {
        let mut inner = lock(&self.inner);
        inner.restart();
        inner.faults.clear();
        inner.tree.lose(random);
        inner.used = inner.tree.used();
    }

    /// Kills the process: nothing is lost, but what it had mounted, opened and locked is closed. Faults stay.
    pub fn kill(&self) {
        let mut inner = lock(&self.inner);
        inner.restart();
        inner.tree.sweep(&BTreeSet::new());
    }

    /// Limits the bytes of all files together. More may be there already; then no file can grow.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.inner).capacity = bytes;
    }

    /// The bytes of all files together.
    pub fn used(&self) -> u64 {
        lock(&self.inner).used
    }

    /// Makes operations fail. Several faults count independently. A write that fails may have written a part; after a sync
    /// that fails, what was not synced is on the disk or not, and a later sync does not help.
    pub fn inject(&self, fault: Fault) {
        lock(&self.inner).faults.push(fault);
    }

    /// Nothing is to fail any more.
    pub fn clear_faults(&self) {
        lock(&self.inner).faults.clear();
    }

    /// What operations cost from now on.
    pub fn set_costs(&self, costs: Costs) {
        lock(&self.inner).costs = costs;
    }

    /// The cost of the operations since this was last asked, in nanoseconds of simulated time.
    pub fn take_cost(&self) -> u64 {
        std::mem::take(&mut lock(&self.inner).cost)
    }

    /// Keeps a list of all operations from now on, or no more.
    pub fn record_operations(&self, on: bool) {
        lock(&self.inner).operations = on.then(Vec::new);
    }

    /// The operations since this was last asked; none if they are not recorded.
    pub fn take_operations(&self) -> Vec<Operation> {
        lock(&self.inner).operations.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All files and their lengths, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let inner = lock(&self.inner);
        let length = |node| inner.tree.file(node).map_or(0, |file| file.len() as u64);
        inner.tree.files().into_iter().map(|(path, node)| (path, length(node))).collect()
    }

    /// A file's bytes, as programs see them.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = lock(&self.inner);
        let node = inner.tree.find_file(path).ok()?;
        Some(inner.tree.file(node).ok()?.bytes().to_vec())
    }

    /// Flips a bit of a file, on the disk and in what programs see. Returns whether there is such a file.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> bool {
        let mut inner = lock(&self.inner);
        let found = inner.tree.find_file(path);
        found.and_then(|node| inner.tree.file_mut(node).map(|file| file.flip(bit))).is_ok()
    }

    /// Flips a random bit of a random file that is not empty; says which.
    pub fn flip_random_bit(&self, random: &mut Random) -> Option<(PathBuf, u64)> {
        let files: Vec<_> = self.files().into_iter().filter(|(_, length)| *length > 0).collect();
        let (path, length) = files.get(random.below(files.len() as u64) as usize)?;
        let bit = random.below(length * 8);
        self.flip_bit(path, bit).then(|| (path.clone(), bit))
    }

    /// Whether a crash would lose nothing now.
    pub fn is_settled(&self) -> bool {
        lock(&self.inner).tree.is_settled()
    }
}

impl Inner {
    fn restart(&mut self) {
        self.start += 1;
        self.locks.clear();
        self.open.clear();
    }

    /// Every operation begins here: it is counted, and may fail.
    fn begin(&mut self, kind: Kind, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        let cost = self.costs.of(kind, bytes);
        self.cost += cost;
        let mut struck = None;
        for fault in &mut self.faults {
            if fault.strikes(kind) {
                struck = Some(fault.error);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        if let Some(operations) = &mut self.operations {
            let path = path.to_owned();
            operations.push(Operation {
                kind,
                path,
                offset,
                bytes,
                failed: struck.is_some(),
                cost,
            });
        }
        match struck {
            Some(error) => Err(io::Error::new(error, "simulated fault")),
            None => Ok(()),
        }
    }

    /// Writes as much as there is room for.
    fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.tree.file_mut(node)?;
        let length = file.len() as u64;
        let grown = (offset + bytes.len() as u64).saturating_sub(length);
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used));
        let missing = grown.saturating_sub(room).min(bytes.len() as u64);
        let fits = &bytes[..bytes.len() - missing as usize];
        if !fits.is_empty() {
            file.write(offset as usize, fits);
        }
        self.used += file.len() as u64 - length;
        if missing > 0 {
            return Err(io::Error::new(ErrorKind::StorageFull, "no space left (simulated)"));
        }
        Ok(())
    }

    fn set_length(&mut self, node: u64, length: u64) -> io::Result<()> {
        let file = self.tree.file_mut(node)?;
        let before = file.len() as u64;
        if before == length {
            return Ok(());
        }
        file.set_length(length as usize);
        self.used = (self.used + length).saturating_sub(before);
        Ok(())
    }
}
