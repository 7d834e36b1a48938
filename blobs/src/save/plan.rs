//! What has to be read: files that are not known to be as they were, small ones together.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::cut::{SHARED, SHARING, SLICE, SMALL, ends_shared};
use super::walk::{File, Item, What};
use crate::index::Known;
use crate::manifest::Segment;
use crate::{ChunkId, Result, SnapshotIndex, sys};

use super::upload::Upload;

/// Something for one thread to read.
pub(crate) enum Job {
    /// Small files, which share a chunk.
    Together(Vec<usize>),
    /// Bytes of a larger file.
    Slice { item: usize, offset: u64, length: u64 },
}

/// Takes over what is known of unchanged files, and says what is left to read.
pub(crate) fn plan(
    items: &mut [Item],
    root: impl AsFd,
    previous: Option<&SnapshotIndex>,
    upload: &Upload<'_>,
) -> Result<Vec<Job>> {
    if let Some(previous) = previous {
        take_over(items, previous, upload)?;
    }
    let mut jobs = Vec::new();
    let (mut together, mut bytes) = (Vec::new(), 0);
    for (at, item) in items.iter_mut().enumerate() {
        let name = &item.name;
        let What::File(file) = &mut item.what else { continue };
        if !file.uncertain {
            continue;
        }
        // One that is packed by its file system takes less of the disk too.
        let pieces = if file.sparse { data(name, file, &root) } else { None };
        file.sparse = pieces.is_some();
        let size = file.seen.size;
        if file.sparse || size > SMALL {
            let whole = 0..size;
            slices(at, pieces.as_deref().unwrap_or(std::slice::from_ref(&whole)), &mut jobs);
            continue;
        }
        if bytes + file.seen.size > SHARED[1] {
            jobs.push(Job::Together(std::mem::take(&mut together)));
            bytes = 0;
        }
        together.push(at);
        bytes += file.seen.size;
        if together.len() >= SHARING || bytes >= SHARED[0] && ends_shared(name) {
            jobs.push(Job::Together(std::mem::take(&mut together)));
            bytes = 0;
        }
    }
    if !together.is_empty() {
        jobs.push(Job::Together(together));
    }
    Ok(jobs)
}

/// Gives files that look as they did the content that they had, if the store has it, and marks the others. A chunk
/// that is shared stays in use while at least half of it is needed: else the store would keep it, and every restore
/// get it, for the sake of a small part.
fn take_over(items: &mut [Item], previous: &SnapshotIndex, upload: &Upload<'_>) -> Result<()> {
    let known: Vec<Option<&Known>> = items
        .iter()
        .map(|item| match &item.what {
            What::File(file) => {
                previous.get(&item.path(file)).filter(|known| known.seen == file.seen)
            }
            _ => None,
        })
        .collect();
    let mut used: HashMap<ChunkId, (u64, u64)> = HashMap::new();
    let mut ids: HashSet<ChunkId> = HashSet::new();
    for segment in known.iter().flatten().flat_map(|known| &known.content) {
        ids.extend(segment.chunk());
        if let Segment::Part(part) = segment {
            used.entry(part.id).or_insert((0, u64::from(part.of))).0 += u64::from(part.length);
        }
    }
    let ids: Vec<ChunkId> = ids.into_iter().collect();
    let lacking = upload.lacks(&ids)?;
    let is_worn = |id| used.get(&id).is_some_and(|(bytes, of)| bytes * 2 < *of);
    for (item, known) in items.iter_mut().zip(known) {
        let What::File(file) = &mut item.what else { continue };
        match known {
            Some(known)
                if known
                    .content
                    .iter()
                    .filter_map(Segment::chunk)
                    .all(|id| !lacking.contains(&id) && !is_worn(id)) =>
            {
                file.content.clone_from(&known.content);
                item.meta.xattrs.clone_from(&known.xattrs);
                file.uncertain = false;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Jobs for pieces of a file.
fn slices(item: usize, pieces: &[Range<u64>], jobs: &mut Vec<Job>) {
    for piece in pieces {
        let mut offset = piece.start;
        while offset < piece.end {
            let length = SLICE.min(piece.end - offset);
            jobs.push(Job::Slice { item, offset, length });
            offset += length;
        }
    }
    if pieces.is_empty() {
        // It is one hole. Its attributes are wanted all the same.
        jobs.push(Job::Slice { item, offset: 0, length: 0 });
    }
}

/// Where a file has data, if it has holes.
fn data(name: &[u8], file: &File, root: impl AsFd) -> Option<Vec<Range<u64>>> {
    let opened = sys::open_file(sys::open_beneath(root, &file.dir).ok()?, name).ok()?;
    let size = file.seen.size;
    let mut data: Vec<Range<u64>> = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match seek(&opened, SeekFrom::Data(offset)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => return None,
        };
        let end = seek(&opened, SeekFrom::Hole(start)).unwrap_or(size).clamp(start, size);
        if end > start {
            data.push(start..end);
        }
        offset = end.max(start + 1);
    }
    let whole = 0..size;
    (data != [whole]).then_some(data)
}
