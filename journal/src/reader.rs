//! Reading a journal while it is written: by a handle of the same process, or by another process, or after its writer died.
//!
//! A reader takes no lock and changes nothing. In process it sees records once they are durable; from outside, once they
//! are written. From outside, a bad record at the very end is taken for one that is still being written ("nothing more
//! now"), unless a later record proves that it was durable.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::disk::{self, Disk};
use crate::journal::{Shared, lock};
use crate::segment::{self, SegmentFile, SegmentHead};
use crate::source::{Frames, Next};
use crate::watch::Watch;
use crate::{Error, frame};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Reads records in order and follows the journal as it grows.
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Option<Arc<Shared>>,
    frames: Option<Frames>,
    next: u64,
    until: Option<u64>,
    watch: Option<Watch>,
    /// Offset and file length of the last bad record that was found to be merely unfinished.
    unfinished: Option<(u64, u64)>,
}

impl Reader {
    /// Reads the journal of another process, or of none, from the record `from` on.
    pub fn open(dir: impl AsRef<Path>, from: u64) -> Result<Reader, Error> {
        let dir = dir.as_ref().to_owned();
        let disk = disk::real();
        disk.read_dir(&dir).map_err(Error::io("read the directory", &dir))?;
        Ok(Reader {
            disk,
            dir,
            shared: None,
            frames: None,
            next: from.max(1),
            until: None,
            watch: None,
            unfinished: None,
        })
    }

    pub(crate) fn of(shared: Arc<Shared>, from: u64, until: Option<u64>) -> Reader {
        let dir = shared.dir.clone();
        Reader {
            disk: Arc::clone(&shared.options.disk),
            dir,
            shared: Some(shared),
            frames: None,
            next: from.max(1),
            until,
            watch: None,
            unfinished: None,
        }
    }

    /// Starts where another reader of the same journal stopped.
    pub(crate) fn at(self, frames: Option<Frames>) -> Reader {
        Reader { frames, ..self }
    }

    /// The place where it stopped.
    pub(crate) fn into_frames(self) -> Option<Frames> {
        self.frames
    }

    /// The index of the record that `next` will return.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next record; `None` when there is no more now.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the reader, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        let limit = self.limit();
        let payload = loop {
            if limit.is_some_and(|limit| self.next >= limit) {
                return Ok(None);
            }
            if self.frames.is_none() {
                self.frames = self.locate()?;
            }
            let Some(frames) = self.frames.as_mut() else {
                return Ok(None);
            };
            match frames.next()? {
                Next::Record(_) if frames.next_index() <= self.next => {}
                Next::Record(payload) => {
                    self.next = frames.next_index();
                    break payload;
                }
                Next::End => {
                    if !self.move_on(None, limit)? {
                        return Ok(None);
                    }
                }
                Next::Bad(reason) => {
                    if !self.move_on(Some(reason), limit)? {
                        return Ok(None);
                    }
                }
            }
        };
        let bytes = self.frames.as_ref().map_or(&[][..], |frames| &frames.bytes()[payload]);
        Ok(Some(Record { index: self.next - 1, payload: bytes }))
    }

    /// Waits until there may be more to read; `false` when the time ran out first.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        if let Some(shared) = &self.shared {
            let state = lock(&shared.state);
            let next = self.next;
            let waited = shared
                .durable_changed
                .wait_timeout_while(state, timeout, |state| state.durable_next <= next);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            return Ok(state.durable_next > next);
        }
        match &self.watch {
            Some(watch) => Ok(watch.wait(timeout)),
            None => {
                // What was written before the watch existed makes no event: let the caller look once more.
                self.watch = Some(Watch::new(&self.dir)?);
                Ok(true)
            }
        }
    }

    /// Records from this index on are not to be shown yet.
    fn limit(&self) -> Option<u64> {
        self.until.or_else(|| self.shared.as_ref().map(|shared| lock(&shared.state).durable_next))
    }

    /// Opens the segment that holds the next record.
    fn locate(&mut self) -> Result<Option<Frames>, Error> {
        // A segment may be sealed or deleted between listing and opening; what is listed then is current.
        for _ in 0..100 {
            let segments = segment::list(&*self.disk, &self.dir)?;
            let at = segments.partition_point(|segment| segment.first <= self.next);
            let Some(segment) = at.checked_sub(1).map(|at| &segments[at]) else {
                return match segments.first() {
                    Some(oldest) => Err(Error::Gone { index: self.next, first: oldest.first }),
                    None => Ok(None),
                };
            };
            let file = match segment.open(&*self.disk) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            let Some(head) = SegmentHead::read(segment, &*file)? else {
                return Ok(None);
            };
            let (index, offset) = self.seek(segment).unwrap_or((segment.first, 0));
            return Ok(Some(Frames::new(segment.clone(), file, head.salt, index, offset)));
        }
        Ok(None)
    }

    /// Where the writer's handle says that one can start in a segment.
    fn seek(&self, file: &SegmentFile) -> Option<(u64, u64)> {
        let state = lock(&self.shared.as_ref()?.state);
        state
            .segments
            .iter()
            .find(|segment| segment.file == *file)
            .map(|segment| segment.seek(self.next))
    }

    /// The current segment gives no more: `true` if the next one was found, `false` if there is nothing more now.
    fn move_on(&mut self, bad: Option<String>, limit: Option<u64>) -> Result<bool, Error> {
        let Some(frames) = self.frames.as_mut() else {
            return Ok(false);
        };
        let (at, offset) = (frames.next_index(), frames.offset());
        let current = frames.segment().clone();
        let later = segment::list(&*self.disk, &self.dir)?
            .into_iter()
            .find(|segment| segment.first > current.first);
        let length = frames.file().len().map_err(Error::io("stat the file", &current.path))?;
        match (later, bad) {
            (Some(later), None) if later.first == at => {
                self.frames = None;
                return Ok(true);
            }
            // The writer may have completed this segment after we read: only a second look tells.
            (Some(_), _) if !current.sealed && !still_bad(&*self.disk, frames)? => {
                frames.reread();
                return Ok(true);
            }
            (Some(later), None) => return Err(Error::Gone { index: at, first: later.first }),
            (Some(_), Some(reason)) => return Err(current.damaged(offset, reason)),
            (None, Some(reason)) if current.sealed => return Err(current.damaged(offset, reason)),
            (None, Some(reason)) => {
                let seen = Some((offset, length));
                if self.unfinished != seen {
                    let bytes = self.disk.read(&current.path);
                    let bytes = bytes.map_err(Error::io("read the file", &current.path))?;
                    let rest = bytes.get(offset as usize..).unwrap_or_default();
                    let proven = frame::proof_of_damage(rest, frames.salt(), at).is_some();
                    if proven && still_bad(&*self.disk, frames)? {
                        return Err(current.damaged(offset, reason));
                    }
                    self.unfinished = seen;
                }
            }
            (None, None) if length < offset => {
                return Err(Error::Gone { index: self.next, first: at });
            }
            (None, None) => {}
        }
        if limit.is_some_and(|limit| at < limit) && still_bad(&*self.disk, frames)? {
            return Err(current.damaged(offset, format!("record {at} should be here")));
        }
        frames.reread();
        Ok(false)
    }
}

/// A second look at the file, for records that were completed after the first.
fn still_bad(disk: &dyn Disk, frames: &Frames) -> Result<bool, Error> {
    let (index, offset) = (frames.next_index(), frames.offset());
    let file = frames.segment().open(disk)?;
    let mut again = Frames::new(frames.segment().clone(), file, frames.salt(), index, offset);
    Ok(!matches!(again.next()?, Next::Record(_)))
}
