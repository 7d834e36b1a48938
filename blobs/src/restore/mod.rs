//! Making a directory equal to a snapshot.
//!
//! The caller's thread reads the manifest, makes directories and removes what is too much; other threads get chunks and
//! write files. What is there already and has the right content is kept: by the index where a file looks as it did, else by
//! hashing it; so a restore that was broken off goes on where it was. Only files with one name are changed in place.
//! While it works, a file [`MARKER`] lies in the directory. It is removed when all is on the disk; as long as it is there
//! the restore is not finished, [`is_unfinished`] says so, and [`save`](crate::save()) refuses the directory.
//!
//! Names come from whoever made the manifest. Each is one component, opened relative to its directory's descriptor
//! and never through a symbolic link, so nothing outside is touched.

mod entry;
mod fetch;
mod shared;
mod target;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;

use crate::manifest::{ManifestReader, Meta, Record, Segment};
use crate::{ChunkId, ChunkStore, Error, Options, Result, SnapshotId, SnapshotIndex, sys};
use entry::Place;
use shared::Shared;

/// Lies in a directory that is being restored.
pub(crate) const MARKER: &str = ".tenon-restore-unfinished";

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// For the next save of this directory, or another restore into it.
    pub index: SnapshotIndex,
    /// Files, symbolic links and other things that are no directories.
    pub files: u64,
    /// Directories, the one that was restored included.
    pub directories: u64,
    /// Bytes of the files' contents, holes not counted.
    pub bytes: u64,
    /// Bytes of them that were there already.
    pub kept_bytes: u64,
    /// Bytes that were got from the store for files, packed.
    pub fetched_bytes: u64,
    /// What this user may not make: device nodes, if it is not root.
    pub skipped: u64,
}

/// Makes a directory equal to a snapshot, on the disk. The directory is made if it is not there.
///
/// What is in it and not in the snapshot is removed; nothing may use it meanwhile. `previous` is the index of the last
/// save of this directory or restore into it: with it, files that are to stay are not read.
///
/// # Errors
///
/// A chunk that is missing or damaged, a manifest that is none, a full disk. The directory is then neither what it was nor
/// the snapshot, which [`is_unfinished`] says also after a crash; the same restore again goes on.
pub fn restore(
    id: SnapshotId,
    dir: &Path,
    store: &dyn ChunkStore,
    previous: Option<&SnapshotIndex>,
    options: &Options,
) -> Result<Restored> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let parent: OwnedFd = std::fs::File::open(dir).map_err(Error::io("open", dir))?.into();
    let top = sys::open_own_dir(&parent, b".").map_err(Error::io("open", dir))?;
    // Before anything is changed: that there is such a snapshot.
    let mut manifest = ManifestReader::new(id, store)?;
    let Some(Record::Directory { meta, .. }) = manifest.next()? else {
        return Err(manifest.bad("it is empty"));
    };
    mark(&top, dir)?;
    let shared = Shared::new(dir, &top, store, previous, options);
    let (skipped, counts) = std::thread::scope(|scope| {
        let threads = options.threads.max(1);
        let (jobs, queue) = std::sync::mpsc::sync_channel(threads * 2);
        let queue = Arc::new(std::sync::Mutex::new(queue));
        for _ in 0..threads {
            let (shared, queue) = (&shared, queue.clone());
            scope.spawn(move || fetch::work(shared, &queue));
        }
        // Without a receiver the thread that makes the jobs stops too, should the others end early.
        drop(queue);
        let mut place = Place::new(&shared, jobs)?;
        let walked = place.all(&mut manifest);
        shared.note(walked);
        Ok((place.skipped, (place.files, place.directories)))
    })?;
    shared.outcome()?;
    rustix::fs::syncfs(&top).map_err(Error::io("sync", dir))?;
    // No change that comes after this moment looks as if it had been before.
    let moment = sys::file_clock();
    unmark(&top, &meta, dir)?;
    let mut index = shared.take_index();
    index.forget_since(moment);
    Ok(Restored {
        index,
        files: counts.0,
        directories: counts.1,
        bytes: shared.bytes.load(Ordering::Relaxed),
        kept_bytes: shared.kept_bytes.load(Ordering::Relaxed),
        fetched_bytes: shared.fetched_bytes.load(Ordering::Relaxed),
        skipped,
    })
}

/// Whether a restore into this directory was broken off: it is neither what it was nor what it was to become.
pub fn is_unfinished(dir: &Path) -> bool {
    dir.join(MARKER).symlink_metadata().is_ok()
}

fn mark(top: &OwnedFd, dir: &Path) -> Result<()> {
    match sys::create(top, MARKER.as_bytes()) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(Error::io("write to", dir)(error)),
    }
    rustix::fs::fsync(top).map_err(Error::io("sync", dir))
}

/// The last steps. The directory's own mode and owner come before the mark goes, its time after.
fn unmark(top: &OwnedFd, meta: &Meta, dir: &Path) -> Result<()> {
    let writable = Meta { mode: meta.mode | 0o700, ..meta.clone() };
    let set = |meta| sys::set_meta(top, meta, false).map_err(Error::io("set the mode of", dir));
    set(if sys::is_root() { meta } else { &writable })?;
    rustix::fs::unlinkat(top.as_fd(), MARKER, AtFlags::empty())
        .map_err(Error::io("remove the mark in", dir))?;
    set(meta)?;
    rustix::fs::fsync(top).map_err(Error::io("sync", dir))
}

/// Tells of each chunk that a snapshot needs, its manifest's included, once: what a sweep must leave.
pub fn chunks_of(
    id: SnapshotId,
    store: &dyn ChunkStore,
    tell: &mut dyn FnMut(ChunkId),
) -> Result<()> {
    let mut manifest = ManifestReader::new(id, store)?;
    let mut told = HashSet::new();
    loop {
        let record = manifest.next()?;
        manifest.chunks.drain(..).filter(|id| told.insert(*id)).for_each(&mut *tell);
        match record {
            Some(Record::Segment(segment)) => {
                segment.chunk().filter(|id| told.insert(*id)).into_iter().for_each(&mut *tell);
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

/// A piece of a file that a thread has to see to.
struct Piece<'a> {
    target: Arc<target::Target<'a>>,
    offset: u64,
    segments: Vec<Segment>,
}
