//! Saving a directory: look at all of it, read what changed, put what the store lacks, and at last its root.
//!
//! A file that changes while it is read is saved as it was read, and read again next time; one that goes is left out.
//! As many threads as [`Options`] says read slices of files, hash them, ask the store, compress and put; what
//! each holds is bounded. The tree itself (names, metadata, ids of chunks) is in memory as a whole, some 300 bytes a file.

mod content;
pub(crate) mod cut;
mod plan;
mod upload;
mod walk;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::index::Known;
use crate::manifest::{ManifestWriter, Record, Segment};
use crate::{ChunkStore, Error, Options, Result, SnapshotId, SnapshotIndex, sys};
use content::{Got, Read, Reader};
use plan::Job;
use upload::{Batch, Upload};
pub(crate) use walk::joined;
use walk::{Item, Walk, What};

/// What a save did.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The snapshot's name. All of its chunks are durable in the store.
    pub id: SnapshotId,
    /// For the next save of this directory, or a restore into it.
    pub index: SnapshotIndex,
    /// Files, symbolic links and other things that are no directories.
    pub files: u64,
    /// Directories, the one that was saved included.
    pub directories: u64,
    /// Bytes of the files' contents, holes not counted.
    pub bytes: u64,
    /// Bytes that were read; the other files had not changed.
    pub read_bytes: u64,
    /// Chunks that the store lacked.
    pub new_chunks: u64,
    /// Bytes that were put into the store, packed.
    pub new_bytes: u64,
    /// Sockets, what this user may not read, and for others than root device nodes: they are not in the snapshot.
    pub skipped: u64,
    /// Files that changed or went while they were looked at.
    pub changed: u64,
}

/// Saves a directory into a store.
///
/// Of the files that look as they did in `previous`, the index of the last save of this directory or restore into it,
/// nothing is read. A save that was broken off is repeated: it puts only what is not there yet. The times of files must
/// come from this machine's clock, which is so for file systems that are not shared.
///
/// # Errors
///
/// A directory that cannot be read, or into which a restore was broken off ([`Error::Unfinished`]); a store that does
/// not take what it is given. Then there is no snapshot; chunks that were put do no harm.
pub fn save(
    dir: &Path,
    store: &dyn ChunkStore,
    previous: Option<&SnapshotIndex>,
    options: &Options,
) -> Result<Saved> {
    let begun = sys::file_clock();
    let top: OwnedFd = std::fs::File::open(dir).map_err(Error::io("open", dir))?.into();
    let Walk { mut items, mut skipped, mut changed, .. } = Walk::of(dir, &top, options)?;
    let upload = Upload::new(store, options);
    let jobs = plan::plan(&mut items, &top, previous, &upload)?;
    let (read, read_bytes) = read_all(&items, dir, &top, &jobs, &upload, options)?;
    drop(jobs);
    take_in(&mut items, read, &mut skipped, &mut changed);
    let mut saved = Saved {
        id: SnapshotId(crate::ChunkId([0; 32])),
        index: SnapshotIndex::default(),
        files: 0,
        directories: 0,
        bytes: 0,
        read_bytes,
        new_chunks: 0,
        new_bytes: 0,
        skipped,
        changed,
    };
    let mut batch = Batch::new(&upload);
    let mut keep = |chunk: Bytes| batch.add(chunk);
    let mut writer = ManifestWriter::new(&mut keep);
    describe(items, &mut writer, &mut saved)?;
    let root = writer.finish()?;
    batch.flush()?;
    upload.finish(&root)?;
    saved.id = SnapshotId(root.id);
    saved.index.forget_since(begun);
    saved.new_chunks = upload.new_chunks.load(Ordering::Relaxed);
    saved.new_bytes = upload.new_bytes.load(Ordering::Relaxed);
    Ok(saved)
}

/// Does the jobs, on as many threads as there may be.
fn read_all(
    items: &[Item],
    dir: &Path,
    top: &OwnedFd,
    jobs: &[Job],
    upload: &Upload<'_>,
    options: &Options,
) -> Result<(Vec<Read>, u64)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reader = Reader::new(items, dir, top, Batch::new(upload));
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = options.check().and_then(|()| reader.job(job));
            if let Err(error) = done {
                // The others find nothing more to do.
                next.store(jobs.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        reader.finish()
    };
    let threads = options.threads.clamp(1, jobs.len().max(1));
    let results: Vec<Result<(Vec<Read>, u64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let (mut all, mut bytes) = (Vec::new(), 0);
    for result in results {
        let (read, read_bytes) = result?;
        all.extend(read);
        bytes += read_bytes;
    }
    Ok((all, bytes))
}

/// Puts together what was read of each file.
fn take_in(items: &mut [Item], mut read: Vec<Read>, skipped: &mut u64, changed: &mut u64) {
    read.sort_by_key(|read| (read.item, read.offset));
    let mut rest = read.into_iter().peekable();
    while let Some(first) = rest.next() {
        let at = first.item;
        let item = &mut items[at];
        let What::File(file) = &mut item.what else { continue };
        // Where the content that is known ends; nothing comes after a piece that was shorter than it had looked.
        let (mut end, mut steady, mut gone) = (0, true, false);
        let mut next = Some(first);
        while let Some(read) = next {
            match read.got {
                Got::Content { segments, xattrs, steady: same } => {
                    steady &= same;
                    item.meta.xattrs = xattrs;
                    if read.offset > end && file.sparse {
                        file.content.push(Segment::Hole { length: read.offset - end });
                    }
                    if read.offset > end && !file.sparse {
                        next = rest.next_if(|read| read.item == at);
                        continue;
                    }
                    end = read.offset + segments.iter().map(Segment::length).sum::<u64>();
                    file.content.extend(segments);
                }
                Got::Gone => {
                    (steady, gone) = (false, true);
                }
                Got::Refused => {
                    *skipped += 1;
                    gone = true;
                }
            }
            next = rest.next_if(|read| read.item == at);
        }
        if gone {
            item.what = What::Gone;
        } else {
            if end < file.seen.size && file.sparse {
                file.content.push(Segment::Hole { length: file.seen.size - end });
            }
            file.uncertain = !steady;
        }
        *changed += u64::from(!steady);
    }
}

/// Writes the manifest, and the index for the next time.
fn describe(items: Vec<Item>, writer: &mut ManifestWriter<'_>, saved: &mut Saved) -> Result<()> {
    // By item, how manieth of the files with several names it is.
    let mut linked = std::collections::HashMap::new();
    for (at, item) in items.into_iter().enumerate() {
        saved.files += u64::from(!matches!(item.what, What::Directory | What::End | What::Gone));
        let path = match &item.what {
            What::File(file) => item.path(file),
            _ => Vec::new(),
        };
        let Item { name, meta, what } = item;
        let record = match what {
            What::Directory => {
                saved.directories += 1;
                Record::Directory { name, meta }
            }
            What::End => Record::End,
            What::File(file) => {
                if file.linked {
                    linked.insert(at, linked.len() as u64);
                }
                let size = file.content.iter().map(Segment::length).sum();
                let xattrs = meta.xattrs.clone();
                writer.push(&Record::File { name, meta, size, linked: file.linked })?;
                for segment in &file.content {
                    if segment.chunk().is_some() {
                        saved.bytes += segment.length();
                    }
                    writer.push(&Record::Segment(segment.clone()))?;
                }
                if !file.uncertain {
                    saved
                        .index
                        .insert(&path, Known { seen: file.seen, xattrs, content: file.content });
                }
                continue;
            }
            What::Symlink(target) => Record::Symlink { name, meta, target },
            What::Link(first) => match linked.get(&first) {
                Some(to) => Record::Link { name, to: *to },
                // What it is another name of went while it was read.
                None => {
                    saved.files -= 1;
                    saved.changed += 1;
                    continue;
                }
            },
            What::Fifo => Record::Fifo { name, meta },
            What::Device { block, device } => Record::Device { name, meta, block, device },
            What::Gone => continue,
        };
        writer.push(&record)?;
    }
    Ok(())
}
