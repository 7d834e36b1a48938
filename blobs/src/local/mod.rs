//! A store on a disk of this machine: append-only pack files, and an index of them in memory.
//!
//! A directory with `pack-<number>` files of some 128 MiB and a lock. Chunks are appended to the newest pack, synced,
//! and only then entered into the index, so what [`put`](ChunkStore::put) has returned for survives a power cut, and
//! nothing is said to be here that may not be. A full pack gets a trailer that lists it; opening reads trailers, and reads
//! through a pack that has none. What is damaged counts as missing and is told by [`LocalStore::damage`]. An index entry
//! takes some 64 bytes of memory; how packs are laid out is in `pack.rs`, how room is made in `sweep.rs`.

mod pack;
mod scan;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::{ChunkId, ChunkStore, Error, Packed, Result};
use pack::Pack;

pub use sweep::Swept;

/// A pack that is longer gets no more chunks.
const PACK_BYTES: u64 = 128 << 20;

/// How much is written before the appender is given to the next.
const APPEND_BYTES: usize = 8 << 20;

/// How much damage is remembered until somebody asks.
const DAMAGE_KEPT: usize = 1000;

/// A store of chunks in a directory.
pub struct LocalStore {
    dir: PathBuf,
    /// So many bytes of the disk are left free.
    keep_free: u64,
    opened: Instant,
    /// Taken before `index` where both are needed.
    appender: Mutex<Appender>,
    index: Mutex<Index>,
    sweeping: Mutex<()>,
    /// Held for reading from writing a chunk until it is in the index.
    putting: RwLock<()>,
    damage: Mutex<Vec<Damage>>,
    _lock: File,
}

/// Where the next chunk goes.
struct Appender {
    /// The newest pack, if it may grow.
    pack: Option<Arc<Pack>>,
    next_number: u32,
    /// Why nothing can be appended any more.
    failed: Option<String>,
}

#[derive(Default)]
struct Index {
    places: HashMap<ChunkId, Place>,
    packs: BTreeMap<u32, Arc<Pack>>,
}

/// Where a chunk is.
#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    /// Of its record, in the pack.
    offset: u32,
    /// Of the packed chunk.
    length: u32,
    /// When it was last put or asked for, in seconds since the store was opened.
    touched: u32,
}

/// Something in a pack that is not what was written there. What it held counts as missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How much.
    pub bytes: u64,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Chunks that can be got.
    pub chunks: u64,
    /// Pack files.
    pub packs: u64,
    /// Bytes of the pack files, dead chunks included.
    pub bytes: u64,
}

impl LocalStore {
    /// Opens the store in this directory, which is made if it is not there. `keep_free` bytes of the disk are never
    /// used: where they would be, [`put`](ChunkStore::put) is refused with [`Error::NoSpace`].
    pub fn open(dir: &Path, keep_free: u64) -> Result<LocalStore> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => Error::Locked { dir: dir.to_owned() },
            std::fs::TryLockError::Error(error) => Error::io("lock", &lock_path)(error),
        })?;
        let mut index = Index::default();
        let mut damage = Vec::new();
        let mut growing = None;
        for number in pack_numbers(dir)? {
            let (pack, sealed) = scan::open(dir, number, &mut damage, |id, offset, length| {
                index.places.insert(id, Place { pack: number, offset, length, touched: 0 });
            })?;
            let pack = Arc::new(pack);
            growing = (!sealed && pack.length() < PACK_BYTES).then(|| pack.clone());
            index.packs.insert(number, pack);
        }
        let next_number = index.packs.keys().last().map_or(1, |last| last + 1);
        damage.truncate(DAMAGE_KEPT);
        Ok(LocalStore {
            dir: dir.to_owned(),
            keep_free,
            opened: Instant::now(),
            appender: Mutex::new(Appender { pack: growing, next_number, failed: None }),
            index: Mutex::new(index),
            sweeping: Mutex::new(()),
            putting: RwLock::new(()),
            damage: Mutex::new(damage),
            _lock: lock,
        })
    }

    /// The damage that was found since this was last asked, opening included.
    pub fn damage(&self) -> Vec<Damage> {
        std::mem::take(&mut *lock(&self.damage))
    }

    /// What the store holds.
    pub fn size(&self) -> Size {
        let index = lock(&self.index);
        Size {
            chunks: index.places.len() as u64,
            packs: index.packs.len() as u64,
            bytes: index.packs.values().map(|pack| pack.length()).sum(),
        }
    }

    fn now(&self) -> u32 {
        u32::try_from(self.opened.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// Appends the chunks and makes them durable; where each is.
    fn append(&self, chunks: &[&Packed]) -> Result<Vec<Place>> {
        let mut places = Vec::with_capacity(chunks.len());
        let mut written: Vec<(Arc<Pack>, u64)> = Vec::new();
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|chunk| {
                bytes += pack::HEAD + chunk.bytes.len();
                bytes <= APPEND_BYTES
            });
            let (part, others) = rest.split_at(fits.count().max(1));
            rest = others;
            let records = pack::records(part);
            let mut appender = lock(&self.appender);
            let pack = self.growing(&mut appender)?;
            let start = pack.append(&records)?;
            drop(appender);
            let mut offset = start;
            for chunk in part {
                let length = chunk.bytes.len() as u32;
                places.push(Place { pack: pack.number, offset, length, touched: self.now() });
                offset += pack::HEAD as u32 + length;
            }
            written.push((pack, u64::from(offset)));
        }
        for (pack, end) in written {
            if let Err(error) = pack.sync_to(end) {
                // What of it is on the disk nobody knows; only reading it again will tell.
                lock(&self.appender).failed.get_or_insert(error.to_string());
                return Err(error);
            }
        }
        Ok(places)
    }

    /// The pack to append to: a new one if there is none or it is full.
    fn growing(&self, appender: &mut Appender) -> Result<Arc<Pack>> {
        if let Some(reason) = &appender.failed {
            return Err(Error::Failed { dir: self.dir.clone(), reason: reason.clone() });
        }
        if let Some(pack) = appender.pack.clone().filter(|pack| pack.length() < PACK_BYTES) {
            return Ok(pack);
        }
        self.seal(appender)?;
        let pack = Arc::new(Pack::create(&self.dir, appender.next_number)?);
        appender.next_number += 1;
        appender.pack = Some(pack.clone());
        lock(&self.index).packs.insert(pack.number, pack.clone());
        Ok(pack)
    }

    /// Ends the newest pack; a later chunk begins another.
    fn seal(&self, appender: &mut Appender) -> Result<()> {
        let Some(pack) = appender.pack.clone() else { return Ok(()) };
        if let Err(error) = pack.seal() {
            // A full disk leaves it as it was.
            if !matches!(error, Error::NoSpace { .. }) {
                appender.failed.get_or_insert(error.to_string());
            }
            return Err(error);
        }
        appender.pack = None;
        Ok(())
    }

    fn check_room(&self, bytes: usize) -> Result<()> {
        if self.keep_free == 0 {
            return Ok(());
        }
        let disk = rustix::fs::statvfs(&self.dir).map_err(Error::io("look at", &self.dir))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free.checked_sub(bytes as u64) {
            Some(left) if left >= self.keep_free => Ok(()),
            _ => Err(Error::NoSpace { path: self.dir.clone() }),
        }
    }

    /// Forgets a chunk that turned out to be damaged, unless it is elsewhere by now.
    fn found_damaged(&self, id: ChunkId, place: Place, pack: &Pack) {
        let mut index = lock(&self.index);
        if index
            .places
            .get(&id)
            .is_some_and(|now| (now.pack, now.offset) == (place.pack, place.offset))
        {
            index.places.remove(&id);
        }
        drop(index);
        let mut damage = lock(&self.damage);
        if damage.len() < DAMAGE_KEPT {
            damage.push(Damage {
                file: pack.path.clone(),
                offset: u64::from(place.offset),
                bytes: pack::HEAD as u64 + u64::from(place.length),
            });
        }
    }

    fn read(&self, id: ChunkId, place: Place, pack: &Pack) -> Result<Packed> {
        match pack.read(id, place.offset, place.length)? {
            Some(bytes) => Ok(Packed { id, bytes: bytes.into() }),
            None => {
                self.found_damaged(id, place, pack);
                Err(Error::Damaged { id, reason: "the store's file is not what was written" })
            }
        }
    }
}

impl ChunkStore for LocalStore {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        let now = self.now();
        let mut index = lock(&self.index);
        let missing = ids.iter().filter(|id| !index.touch(id, now)).copied().collect();
        Ok(missing)
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        let now = self.now();
        let mut index = lock(&self.index);
        let mut seen = HashSet::new();
        let new: Vec<&Packed> = chunks
            .iter()
            .filter(|chunk| seen.insert(chunk.id) && !index.touch(&chunk.id, now))
            .collect();
        drop(index);
        if new.is_empty() {
            return Ok(());
        }
        if let Some(chunk) = new.iter().find(|chunk| chunk.bytes.len() > crate::MAX_PACKED) {
            return Err(Error::Damaged {
                id: chunk.id,
                reason: "it is longer than a chunk may be",
            });
        }
        self.check_room(new.iter().map(|chunk| chunk.bytes.len() + pack::HEAD).sum())?;
        let _putting = self.putting.read().unwrap_or_else(PoisonError::into_inner);
        let places = self.append(&new)?;
        let mut index = lock(&self.index);
        index.places.extend(new.iter().map(|chunk| chunk.id).zip(places));
        Ok(())
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        let index = lock(&self.index);
        let places: Vec<(ChunkId, Place, Arc<Pack>)> = ids
            .iter()
            .map(|id| {
                let place = index.places.get(id).ok_or(Error::Missing { id: *id })?;
                let pack = index.packs.get(&place.pack).ok_or(Error::Missing { id: *id })?;
                Ok((*id, *place, pack.clone()))
            })
            .collect::<Result<_>>()?;
        drop(index);
        places.into_iter().map(|(id, place, pack)| self.read(id, place, &pack)).collect()
    }
}

impl Index {
    /// Whether the chunk is here; that it was asked for is remembered.
    fn touch(&mut self, id: &ChunkId, now: u32) -> bool {
        let place = self.places.get_mut(id);
        place.map(|place| place.touched = now).is_some()
    }
}

/// The numbers of the packs in a directory, in order.
fn pack_numbers(dir: &Path) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("pack-"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Nothing here is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
