//! Getting chunks and writing them where they belong.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use super::shared::{Shared, lock};
use super::{Piece, target::Target};
use crate::manifest::Segment;
use crate::{ChunkId, Error, Result};

/// How many chunks are got at a time.
const BATCH: usize = 32;

/// No file system's blocks are larger.
const LARGEST_BLOCK: u64 = 1 << 20;

/// A place that a chunk, or a part of it, goes to.
struct Want<'t, 'a> {
    target: &'t Target<'a>,
    file: Arc<File>,
    offset: u64,
    /// In the chunk.
    from: u32,
    length: u32,
    /// Of the whole chunk.
    of: u32,
}

/// Does jobs until there are no more.
pub(super) fn work<'a>(shared: &'a Shared<'a>, queue: &Mutex<Receiver<Vec<Piece<'a>>>>) {
    let mut buffer = Vec::new();
    loop {
        let job = lock(queue).recv();
        let Ok(job) = job else { return };
        // Jobs are taken also after an error: whoever makes them may be waiting to hand one on.
        let done = shared.check().and_then(|()| write(shared, &job, &mut buffer));
        shared.note(done);
    }
}

fn write(shared: &Shared<'_>, job: &[Piece<'_>], buffer: &mut Vec<u8>) -> Result<()> {
    let mut wanted: HashMap<ChunkId, Vec<Want<'_, '_>>> = HashMap::new();
    let mut ids = Vec::new();
    for piece in job {
        let target = &*piece.target;
        let file = target.open()?;
        let mut offset = piece.offset;
        for segment in &piece.segments {
            let (id, from, length, of, hash) = match segment {
                Segment::Hole { length } => {
                    hole(target, &file, offset, *length)?;
                    offset += length;
                    continue;
                }
                Segment::Chunk { id, length } => (*id, 0, *length, *length, id),
                Segment::Part(part) => (part.id, part.offset, part.length, part.of, &part.hash),
            };
            if target.present.is_some() && has(&file, offset, length, hash, buffer) {
                shared.kept_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
            } else {
                let wants = wanted.entry(id).or_default();
                if wants.is_empty() {
                    ids.push(id);
                }
                wants.push(Want { target, file: file.clone(), offset, from, length, of });
            }
            offset += u64::from(length);
        }
    }
    for ids in ids.chunks(BATCH) {
        shared.check()?;
        for packed in shared.store.get(ids)? {
            shared.fetched_bytes.fetch_add(packed.bytes.len() as u64, Ordering::Relaxed);
            let content = packed.unpack(buffer)?;
            for want in wanted.get(&packed.id).into_iter().flatten() {
                let end = (want.from + want.length) as usize;
                let part = content.get(want.from as usize..end);
                let part = part.filter(|_| content.len() == want.of as usize);
                let part = part.ok_or(Error::Damaged {
                    id: packed.id,
                    reason: "the manifest says that it has another length",
                })?;
                want.file
                    .write_all_at(part, want.offset)
                    .map_err(|error| want.target.failed("write", error))?;
            }
        }
    }
    Ok(())
}

/// Whether a file has this content there.
fn has(file: &File, offset: u64, length: u32, hash: &ChunkId, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(length as usize, 0);
    file.read_exact_at(buffer, offset).is_ok() && ChunkId::of(buffer) == *hash
}

/// Makes a hole, which reads as zeros.
fn hole(target: &Target<'_>, file: &File, offset: u64, length: u64) -> Result<()> {
    let failed = |error| target.failed("make a hole in", error);
    if target.present.is_some() {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Of a block that is not whole only bytes are cleared; at the end of a file it may go as a whole.
        let is_last = offset + length == target.size;
        let reach = if is_last { length.saturating_add(LARGEST_BLOCK) } else { length };
        match fallocate(file, punch, offset, reach) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => {
                zeros(target, file, offset, length)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    // It may be what the file ends with.
    let size = file.metadata().map_err(|error| target.failed("look at", error))?.len();
    if size < offset + length { ftruncate(file, target.size).map_err(failed) } else { Ok(()) }
}

fn zeros(target: &Target<'_>, file: &File, mut offset: u64, mut length: u64) -> Result<()> {
    let zeros = [0; 64 << 10];
    while length > 0 {
        let some = length.min(zeros.len() as u64);
        file.write_all_at(&zeros[..some as usize], offset)
            .map_err(|error| target.failed("write", error))?;
        offset += some;
        length -= some;
    }
    Ok(())
}
