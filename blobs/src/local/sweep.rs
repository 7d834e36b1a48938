//! Making room: packs without live chunks go, mostly dead ones are rewritten.
//!
//! A dead chunk leaves the index first, so that nobody is told any more that it is here. The live ones of a pack are
//! copied to the newest pack and durable there before the index points at the copies, and only then the file is removed.
//! A crash in between leaves a chunk twice, or a dead one that is here again; neither does harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use super::{LocalStore, lock, pack};
use crate::{ChunkId, Error, Packed, Result};

/// How many bytes are copied before they are synced.
const COPY_BYTES: usize = 8 << 20;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Packs that are gone.
    pub packs: u64,
    /// Bytes of these, less those that were copied.
    pub freed: u64,
    /// Bytes of live chunks that were copied.
    pub copied: u64,
    /// Chunks that are gone.
    pub chunks: u64,
}

impl LocalStore {
    /// Removes chunks that are not live and were neither put nor asked for within `unasked`, as far as whole packs
    /// become free of live ones or are less than half live. A save relies on chunks that it asked for, and its snapshot is
    /// known as live only when it is over: so `unasked` has to be longer than any save takes. When the store is opened,
    /// all count as asked for.
    pub fn sweep(&self, live: &dyn Fn(&ChunkId) -> bool, unasked: Duration) -> Result<Swept> {
        let _one_at_a_time = lock(&self.sweeping);
        let unasked = u32::try_from(unasked.as_secs()).unwrap_or(u32::MAX);
        let is_dead =
            |id: &ChunkId, touched: u32| self.now().saturating_sub(touched) >= unasked && !live(id);
        let mut swept = Swept::default();
        for (number, chunks) in self.mostly_dead(&is_dead)? {
            self.sweep_pack(number, chunks, &is_dead, &mut swept)?;
        }
        Ok(swept)
    }

    /// The sealed packs that are to go, those with the least to copy first, and the chunks of each.
    fn mostly_dead(
        &self,
        is_dead: &dyn Fn(&ChunkId, u32) -> bool,
    ) -> Result<Vec<(u32, Vec<ChunkId>)>> {
        let mut live_bytes: BTreeMap<u32, u64> = BTreeMap::new();
        let index = lock(&self.index);
        for (id, place) in &index.places {
            if !is_dead(id, place.touched) {
                *live_bytes.entry(place.pack).or_default() += u64::from(place.length);
            }
        }
        let live_in = |number: &u32| live_bytes.get(number).copied().unwrap_or(0);
        let lengths: Vec<(u32, u64)> =
            index.packs.iter().map(|(number, pack)| (*number, pack.length())).collect();
        drop(index);
        let mut packs = Vec::new();
        for (number, length) in lengths {
            // One that holds nothing yet gains nothing by being replaced.
            if length <= pack::START.len() as u64 || live_in(&number) * 2 >= length {
                continue;
            }
            let mut appender = lock(&self.appender);
            if appender.pack.as_ref().is_some_and(|pack| pack.number == number) {
                match self.seal(&mut appender) {
                    // It goes without a trailer: whoever opens it reads through it.
                    Err(Error::NoSpace { .. }) => appender.pack = None,
                    sealed => sealed?,
                }
            }
            packs.push(number);
        }
        packs.sort_by_key(live_in);
        // They grow no more; once this is had, what was being written to them is in the index.
        drop(self.putting.write().unwrap_or_else(PoisonError::into_inner));
        let wanted: BTreeSet<u32> = packs.iter().copied().collect();
        let mut chunks: BTreeMap<u32, Vec<ChunkId>> = BTreeMap::new();
        for (id, place) in &lock(&self.index).places {
            if wanted.contains(&place.pack) {
                chunks.entry(place.pack).or_default().push(*id);
            }
        }
        Ok(packs
            .into_iter()
            .map(|number| (number, chunks.remove(&number).unwrap_or_default()))
            .collect())
    }

    fn sweep_pack(
        &self,
        number: u32,
        chunks: Vec<ChunkId>,
        is_dead: &dyn Fn(&ChunkId, u32) -> bool,
        swept: &mut Swept,
    ) -> Result<()> {
        let mut kept = Vec::new();
        let mut index = lock(&self.index);
        let Some(old) = index.packs.get(&number).cloned() else { return Ok(()) };
        for id in chunks {
            let Some(place) = index.places.get(&id).copied().filter(|place| place.pack == number)
            else {
                continue;
            };
            // It may have been asked for meanwhile.
            if is_dead(&id, place.touched) {
                index.places.remove(&id);
                swept.chunks += 1;
            } else {
                kept.push((id, place));
            }
        }
        drop(index);
        kept.sort_by_key(|(_, place)| place.offset);
        let mut copied = 0;
        while !kept.is_empty() {
            let mut bytes = 0;
            let some = kept.iter().take_while(|(_, place)| {
                bytes += place.length as usize;
                bytes <= COPY_BYTES
            });
            let some = some.count().max(1);
            let mut chunks: Vec<Packed> = Vec::new();
            for (id, place) in kept.drain(..some) {
                match self.read(id, place, &old) {
                    Ok(chunk) => chunks.push(chunk),
                    // Told, and no longer in the index.
                    Err(Error::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let chunks: Vec<&Packed> = chunks.iter().collect();
            let places = self.append(&chunks)?;
            let mut index = lock(&self.index);
            for (chunk, place) in chunks.iter().zip(places) {
                copied += u64::from(place.length);
                if let Some(now) = index.places.get_mut(&chunk.id).filter(|now| now.pack == number)
                {
                    *now = super::Place { touched: now.touched, ..place };
                }
            }
        }
        lock(&self.index).packs.remove(&number);
        std::fs::remove_file(&old.path).map_err(Error::io("remove", &old.path))?;
        swept.packs += 1;
        swept.copied += copied;
        swept.freed += old.length().saturating_sub(copied);
        Ok(())
    }
}
