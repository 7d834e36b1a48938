//! A file's bytes as programs see them, and what of them is on the disk.
//!
//! Programs see `seen`. The changes since the last sync are kept with what they replaced, so that a sync costs nothing and a
//! crash can go back and choose. After a failed sync the two differ for good: `stored` is then what the disk holds, and only
//! what is written again gets there.

use std::collections::BTreeSet;

use super::Random;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    seen: Vec<u8>,
    changes: Vec<Change>,
    /// What the disk holds without `changes`, if that is not `seen` without them.
    stored: Option<Vec<u8>>,
}

/// A change that is not synced, and what it replaced.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, length: usize, old: Vec<u8>, old_length: usize },
    SetLength { length: usize, old_length: usize, cut: Vec<u8> },
}

/// A change that may be made again.
enum Redo {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength { length: usize },
}

impl SimFile {
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.seen
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let old_length = self.seen.len();
        if offset == old_length {
            self.seen.extend_from_slice(bytes);
            self.changes.push(Change::Write {
                offset,
                length: bytes.len(),
                old: Vec::new(),
                old_length,
            });
            return;
        }
        let end = offset + bytes.len();
        let old = self.seen.get(offset..end.min(old_length)).unwrap_or_default().to_vec();
        self.seen.resize(old_length.max(end), 0);
        self.seen[offset..end].copy_from_slice(bytes);
        self.changes.push(Change::Write { offset, length: bytes.len(), old, old_length });
    }

    pub fn set_length(&mut self, length: usize) {
        let old_length = self.seen.len();
        let cut = self.seen.get(length..).unwrap_or_default().to_vec();
        self.seen.resize(length, 0);
        self.changes.push(Change::SetLength { length, old_length, cut });
    }

    /// Everything that was written is on the disk now.
    pub fn sync(&mut self) {
        if let Some(mut stored) = self.stored.take() {
            let seen = self.seen.clone();
            self.roll_back().iter().for_each(|redo| redo.apply(&mut stored));
            self.seen = seen;
            self.stored = Some(stored).filter(|stored| *stored != self.seen);
        }
        self.changes.clear();
    }

    /// The disk took some of it, and programs are never told what.
    pub fn fail_sync(&mut self, random: &mut Random) {
        let seen = self.seen.clone();
        let redo = self.roll_back();
        let rolled_back = std::mem::replace(&mut self.seen, seen);
        let stale = self.stored.take().unwrap_or(rolled_back);
        let mut stored = stale.clone();
        // Lengths go through the file system's own journal; when that fails, nothing works any more.
        redo.iter().for_each(|redo| redo.apply(&mut stored));
        lose_sectors(&mut stored, &stale, &redo, random);
        self.stored = Some(stored).filter(|stored| *stored != self.seen);
    }

    /// The power was cut: goes on with what the disk holds and some of what was on its way there.
    pub fn lose(&mut self, random: &mut Random) {
        let redo = self.roll_back();
        let rolled_back = std::mem::take(&mut self.seen);
        let before = self.stored.take().unwrap_or(rolled_back);
        self.seen = if redo.is_empty() { before } else { outcome(before, &redo, random) };
    }

    /// Whether a crash could change it.
    pub fn is_settled(&self) -> bool {
        self.changes.is_empty() && self.stored.is_none()
    }

    /// Flips a bit of what is seen and stored.
    pub fn flip(&mut self, bit: u64) {
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        for bytes in std::iter::once(&mut self.seen).chain(self.stored.as_mut()) {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= mask;
            }
        }
    }

    /// Takes the changes out of `seen`, newest first, and lists them, oldest first, with the bytes that they wrote.
    fn roll_back(&mut self) -> Vec<Redo> {
        let mut redo = Vec::with_capacity(self.changes.len());
        for change in self.changes.drain(..).rev() {
            match change {
                Change::Write { offset, length, old, old_length } => {
                    redo.push(Redo::Write {
                        offset,
                        bytes: self.seen[offset..offset + length].to_vec(),
                    });
                    self.seen[offset..offset + old.len()].copy_from_slice(&old);
                    self.seen.truncate(old_length);
                }
                Change::SetLength { length, old_length, cut } => {
                    redo.push(Redo::SetLength { length });
                    self.seen.truncate(old_length);
                    self.seen.extend_from_slice(&cut);
                }
            }
        }
        redo.reverse();
        redo
    }
}

impl Redo {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Redo::Write { offset, bytes: written } => write(bytes, *offset, written),
            Redo::SetLength { length } => bytes.resize(*length, 0),
        }
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    to.resize(to.len().max(end), 0);
    to[offset..end].copy_from_slice(bytes);
}

/// What may be on the disk after a crash in the middle of changes: none of them, all, the first ones and a piece of the next,
/// or the first ones with sectors missing. Lengths are kept in order; bytes are not.
fn outcome(before: Vec<u8>, redo: &[Redo], random: &mut Random) -> Vec<u8> {
    let mut bytes = before;
    match random.below(4) {
        0 => {}
        1 => redo.iter().for_each(|redo| redo.apply(&mut bytes)),
        2 => {
            let whole = random.below(redo.len() as u64) as usize;
            redo[..whole].iter().for_each(|redo| redo.apply(&mut bytes));
            if let Redo::Write { offset, bytes: written } = &redo[whole] {
                let torn = random.below(written.len() as u64 + 1) as usize;
                write(&mut bytes, *offset, &written[..torn]);
            }
        }
        _ => {
            let whole = 1 + random.below(redo.len() as u64) as usize;
            let stale = bytes.clone();
            redo[..whole].iter().for_each(|redo| redo.apply(&mut bytes));
            lose_sectors(&mut bytes, &stale, &redo[..whole], random);
        }
    }
    bytes
}

/// Puts what was there before (or zeros) back into some of the sectors that were written to. Lengths stay.
fn lose_sectors(bytes: &mut [u8], stale: &[u8], redo: &[Redo], random: &mut Random) {
    let mut sectors = BTreeSet::new();
    for redo in redo {
        if let Redo::Write { offset, bytes: written } = redo {
            sectors.extend(offset / SECTOR..(offset + written.len()).div_ceil(SECTOR));
        }
    }
    for sector in sectors {
        if random.one_in(3) {
            for at in sector * SECTOR..((sector + 1) * SECTOR).min(bytes.len()) {
                bytes[at] = stale.get(at).copied().unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(synced: &[u8]) -> SimFile {
        let mut file = SimFile::default();
        file.write(0, synced);
        file.sync();
        file
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let mut file = file(b"synced");
            file.write(6, &vec![b'x'; random.below(3000) as usize]);
            file.write(6 + 100, b"over");
            file.lose(&mut random);
            assert_eq!(&file.bytes()[..6], b"synced", "seed {seed}");
            assert!(file.is_settled());
        }
    }

    #[test]
    fn crashes_lose_keep_and_tear() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut file = file(b"");
            file.write(0, &[b'x'; 2000]);
            file.lose(&mut Random::new(seed));
            match file.bytes().iter().filter(|byte| **byte == b'x').count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 20 && kept > 20 && torn > 20, "{lost} {kept} {torn}");
    }

    #[test]
    fn a_later_sync_says_nothing_about_what_a_failed_one_lost() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let mut file = file(b"");
            file.write(0, &[b'1'; SECTOR]);
            file.fail_sync(&mut random);
            assert_eq!(file.bytes(), [b'1'; SECTOR]);
            file.write(SECTOR, b"second");
            file.sync();
            let mut rewritten = file.clone();
            file.lose(&mut random);
            lost += usize::from(file.bytes()[0] != b'1');
            assert_eq!(&file.bytes()[SECTOR..], b"second", "seed {seed}");
            rewritten.write(0, &[b'1'; SECTOR]);
            rewritten.sync();
            rewritten.lose(&mut random);
            assert_eq!(&rewritten.bytes()[..SECTOR], [b'1'; SECTOR]);
        }
        assert!(lost > 20, "{lost}");
    }
}
