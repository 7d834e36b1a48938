//! Opening a journal's directory: find the segments, check them, cut a torn tail.
//!
//! Invariant: only bytes that cannot have been acknowledged are ever removed. Whatever else is wrong is reported and left
//! alone, and then nothing at all is changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::active::Active;
use crate::disk::Disk;
use crate::frame::{self, HEAD, Head};
use crate::journal::{Options, Segment, Verify};
use crate::segment::{self, SEGMENT_HEAD, SegmentFile, SegmentHead};
use crate::source::{Frames, Next, is_zero};
use crate::{Error, directory};

/// What `open` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first record's index (what the first record will get, when there are none).
    pub first_index: u64,
    /// The last record's index; `first_index - 1` when there are none.
    pub last_index: u64,
    /// The torn tail that was cut, if any. Nothing acknowledged was in it.
    pub cut: Option<Cut>,
}

/// A torn tail: the trace of a write that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file that was cut.
    pub file: PathBuf,
    /// Its length now.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// What the writer starts from.
pub(crate) struct Start {
    pub segments: Vec<Segment>,
    pub salt: u32,
    pub next: u64,
    pub active: Option<Active>,
    pub cut: Option<Cut>,
    /// From where on the newest segment's bytes are not known to have been synced.
    unproven: u64,
}

/// What to do to the tail once everything was found good.
#[derive(Default)]
struct Mend {
    unlink: Option<SegmentFile>,
    shorten: Option<(SegmentFile, u64)>,
}

/// Reads the directory and mends its tail. The caller holds the lock.
pub(crate) fn recover(dir: &Path, options: &Options) -> Result<Start, Error> {
    let disk = &*options.disk;
    finish_reset(disk, dir)?;
    let mut files = segment::list(disk, dir)?;
    let mut start = Start {
        segments: Vec::new(),
        salt: disk.entropy() as u32,
        next: options.first_index.max(1),
        active: None,
        cut: None,
        unproven: 0,
    };
    let mut mend = Mend::default();

    let headless = match files.last() {
        Some(last) if !last.sealed => head_is_missing(disk, last)?,
        _ => false,
    };
    if let Some(last) = files.pop_if(|_| headless) {
        start.next = last.first;
        let rest = rest(disk, &last, 0)?;
        start.cut = Some(cut(&last, 0, &rest, "its head was never written".to_owned()));
        mend.unlink = Some(last);
    }
    let mut salt = None;
    for (position, file) in files.iter().enumerate() {
        let successor = files.get(position + 1);
        let handle = file.open(disk)?;
        let head = SegmentHead::read(file, &*handle)?
            .ok_or_else(|| file.damaged(0, "the file has no head"))?;
        if *salt.get_or_insert(head.salt) != head.salt {
            return Err(file.damaged(0, "the file belongs to another journal"));
        }
        let mut segment = Segment::new(file.clone());
        let is_tail = successor.is_none();
        if !is_tail && options.verify == Verify::Tail {
            start.segments.push(segment);
            continue;
        }
        let mut frames = Frames::new(file.clone(), handle, head.salt, head.first, SEGMENT_HEAD);
        // Records that were not durable yet when the newest one so far was appended, and where they begin.
        let mut unproven = VecDeque::new();
        let bad = loop {
            let begin = frames.offset();
            if frames.at_seek_point() {
                segment.note(frames.next_index(), frames.offset());
            }
            match frames.next()? {
                Next::Record(payload) if is_tail => {
                    let head = Head::parse(&frames.bytes()[payload.start - HEAD..]);
                    let durable = head.and_then(|head| head.durable()).unwrap_or(0);
                    unproven.push_back((frames.next_index() - 1, begin));
                    while unproven.pop_front_if(|(index, _)| *index <= durable).is_some() {}
                }
                Next::Record(_) => {}
                Next::End => break None,
                Next::Bad(reason) => break Some(reason),
            }
        };
        let (next, offset) = (frames.next_index(), frames.offset());
        match (bad, successor) {
            (None, Some(successor)) if successor.first != next => {
                let reason =
                    format!("records {next} to {} are missing", successor.first.saturating_sub(1));
                return Err(file.damaged(offset, reason));
            }
            (Some(reason), Some(_)) => return Err(file.damaged(offset, reason)),
            (Some(reason), None) if file.sealed || start.cut.is_some() => {
                return Err(file.damaged(offset, reason));
            }
            (Some(reason), None) => {
                let rest = rest(disk, file, offset)?;
                if frame::proof_of_damage(&rest, head.salt, next).is_some() {
                    return Err(file.damaged(offset, reason));
                }
                start.cut = Some(cut(file, offset, &rest, reason));
                mend.shorten = Some((file.clone(), offset));
            }
            (None, None) if !file.sealed => {
                let rest = rest(disk, file, offset)?;
                // Zeros that were written in advance end with the next open; more than zeros is what a write left
                // whose beginning never reached the disk.
                if !is_zero(&rest) {
                    let reason = format!("record {next} is missing");
                    if start.cut.is_some()
                        || frame::proof_of_damage(&rest, head.salt, next).is_some()
                    {
                        return Err(file.damaged(offset, reason));
                    }
                    start.cut = Some(cut(file, offset, &rest, reason));
                }
                if !rest.is_empty() {
                    mend.shorten = Some((file.clone(), offset));
                }
            }
            (None, _) => {}
        }
        if is_tail {
            if mend.unlink.is_some() && start.next != next {
                return Err(file
                    .damaged(offset, format!("records {next} to {} are missing", start.next - 1)));
            }
            start.next = next;
            start.unproven = match unproven.front() {
                Some((index, begin)) if *index > head.first => *begin,
                // The file's head is no older than its first record.
                Some(_) => 0,
                None if next == head.first => 0,
                None => offset,
            };
        }
        start.segments.push(segment);
    }
    start.salt = salt.unwrap_or(start.salt);
    carry_out(disk, dir, &mut start, mend)?;
    Ok(start)
}

/// A reset that was announced has happened: does the rest of it.
fn finish_reset(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let paths = disk.read_dir(dir).map_err(Error::io("read the directory", dir))?;
    for announced in paths.iter().filter_map(|path| SegmentFile::parse_announced(path)) {
        let handle = announced.open(disk)?;
        if SegmentHead::read(&announced, &*handle)?.is_none() {
            return Err(announced.damaged(0, "the file has no head"));
        }
        complete_reset(disk, dir, &announced)?;
    }
    Ok(())
}

/// Removes all segments and gives the announced one its name. The announcement goes last: until then, this can be repeated.
pub(crate) fn complete_reset(
    disk: &dyn Disk,
    dir: &Path,
    announced: &SegmentFile,
) -> Result<(), Error> {
    // It may be there and not be durable.
    directory::sync(disk, dir)?;
    for old in segment::list(disk, dir)? {
        for sealed in [false, true] {
            let form = SegmentFile::new(dir, old.first, sealed);
            if disk.exists(&form.path) {
                disk.remove_file(&form.path).map_err(Error::io("remove the file", &form.path))?;
            }
        }
    }
    directory::sync(disk, dir)?;
    let fresh = SegmentFile::new(dir, announced.first, false);
    let renamed = disk.rename(&announced.path, &fresh.path);
    renamed.map_err(Error::io("rename the file", &announced.path))?;
    directory::sync(disk, dir)
}

/// Everything was found good: now, and only now, change the directory.
fn carry_out(disk: &dyn Disk, dir: &Path, start: &mut Start, mend: Mend) -> Result<(), Error> {
    if let Some(file) = mend.unlink {
        directory::unlink(disk, &file.path)?;
    }
    if let Some((file, offset)) = mend.shorten {
        let handle = disk.open_write(&file.path);
        let handle = handle.map_err(Error::io("open the file", &file.path))?;
        handle.set_len(offset).map_err(Error::io("shorten the file", &file.path))?;
        handle.sync_data().map_err(Error::io("sync the file", &file.path))?;
    }
    for segment in start.segments.iter().filter(|segment| segment.file.sealed) {
        let plain = SegmentFile::new(dir, segment.file.first, false);
        if disk.exists(&plain.path) {
            directory::unlink(disk, &plain.path)?;
        }
    }
    for path in disk.read_dir(dir).map_err(Error::io("read the directory", dir))? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            directory::unlink(disk, &path)?;
        }
    }
    // What is not there any more must not come back either.
    directory::sync(disk, dir)?;
    if let Some(tail) = start.segments.last().filter(|tail| !tail.file.sealed) {
        let active = Active::open(disk, &tail.file)?;
        // A process that was killed leaves records in the page cache only: they count as durable from here on. If it was a
        // failed sync that ended it, the system takes them for written although they are not: only writing helps.
        let again = active.offset.saturating_sub(start.unproven);
        let mut bytes = vec![0; usize::try_from(again).unwrap_or(0)];
        let read = active.file.read_full_at(&mut bytes, start.unproven);
        let read = read.map_err(Error::io("read the file", &tail.file.path))?;
        let written = active.file.write_all_at(&bytes[..read], start.unproven);
        written.map_err(Error::io("write the file", &tail.file.path))?;
        active.file.sync_data().map_err(Error::io("sync the file", &tail.file.path))?;
        start.active = Some(active);
    }
    Ok(())
}

/// Whether the file was created and its head never written. Other damage is reported when its turn comes.
fn head_is_missing(disk: &dyn Disk, file: &SegmentFile) -> Result<bool, Error> {
    match file.open(disk).and_then(|handle| SegmentHead::read(file, &*handle)) {
        Ok(head) => Ok(head.is_none()),
        Err(Error::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a file holds from an offset on.
fn rest(disk: &dyn Disk, file: &SegmentFile, offset: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = disk.read(&file.path).map_err(Error::io("read the file", &file.path))?;
    Ok(bytes.split_off(usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())))
}

/// What of a tail was written, zeros at its end left out.
fn cut(file: &SegmentFile, offset: u64, rest: &[u8], reason: String) -> Cut {
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    Cut { file: file.path.clone(), offset, bytes: written, reason }
}
