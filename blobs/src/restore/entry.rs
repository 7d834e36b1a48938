//! Going through the manifest: what is too much is removed, what is missing is made, what files lack is handed on.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;

use super::Piece;
use super::shared::{Shared, lock};
use super::target::{Directory, Target};
use crate::manifest::{ManifestReader, Meta, Record, Segment};
use crate::{Error, Result, sys};

/// How much of a file is handed on at a time, and how much of small ones together.
const JOB_BYTES: u64 = 4 << 20;
/// How many segments.
const JOB_SEGMENTS: usize = 256;
/// Segments of one file that are remembered for the index.
const REMEMBERED: usize = 1 << 20;

/// Goes through a manifest.
pub(super) struct Place<'a> {
    shared: &'a Shared<'a>,
    jobs: SyncSender<Vec<Piece<'a>>>,
    /// The directories that are open, the top first.
    open: Vec<Level<'a>>,
    file: Option<Current<'a>>,
    /// What is not handed on yet.
    job: Vec<Piece<'a>>,
    job_bytes: u64,
    job_segments: usize,
    /// The paths of files that have other names.
    linked: Vec<Vec<u8>>,
    pub files: u64,
    pub directories: u64,
    pub skipped: u64,
}

struct Level<'a> {
    directory: Arc<Directory<'a>>,
    /// What was in it, in reverse: the next name is the last.
    present: Vec<Vec<u8>>,
}

/// The file whose segments follow.
struct Current<'a> {
    target: Arc<Target<'a>>,
    /// Where the next segment goes.
    offset: u64,
    /// Segments that are not handed on yet.
    segments: Vec<Segment>,
    bytes: u64,
    /// How many segments were before these; all of them as they are known.
    passed: Option<usize>,
}

impl<'a> Place<'a> {
    pub fn new(shared: &'a Shared<'a>, jobs: SyncSender<Vec<Piece<'a>>>) -> Result<Place<'a>> {
        let fd = sys::open_dir(shared.top, b".").map_err(Error::io("open", shared.root))?;
        let mut present = sys::names(&fd).map_err(Error::io("list", shared.root))?;
        present.retain(|name| name != super::MARKER.as_bytes());
        present.reverse();
        let directory =
            Arc::new(Directory { shared, fd, path: Vec::new(), meta: None, _parent: None });
        Ok(Place {
            shared,
            jobs,
            open: vec![Level { directory, present }],
            file: None,
            job: Vec::new(),
            job_bytes: 0,
            job_segments: 0,
            linked: Vec::new(),
            files: 0,
            directories: 1,
            skipped: 0,
        })
    }

    /// Everything. The record of the top itself was read before.
    pub fn all(&mut self, manifest: &mut ManifestReader<'_>) -> Result<()> {
        while let Some(record) = manifest.next()? {
            self.shared.check()?;
            manifest.chunks.clear();
            match record {
                Record::Segment(segment) => self.segment(segment)?,
                record => {
                    self.end_file()?;
                    self.entry(record)?;
                }
            }
        }
        self.end_file()?;
        self.hand_on()
    }

    fn entry(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Segment(_) => Ok(()),
            Record::End => self.end_directory(),
            Record::Directory { name, meta } => self.directory(&name, meta),
            Record::File { name, meta, size, linked } => self.file(name, meta, size, linked),
            Record::Symlink { name, meta, target } => self.symlink(&name, &meta, &target),
            Record::Link { name, to } => self.link(&name, to),
            Record::Fifo { name, meta } => self.node(&name, &meta, FileType::Fifo, 0),
            Record::Device { name, meta, block, device } => {
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.node(&name, &meta, kind, device)
            }
        }
    }

    /// The open directory, its records being in order. Removes what comes before this name, and says what has it.
    fn advance(&mut self, name: &[u8]) -> Result<(Arc<Directory<'a>>, Option<Stat>)> {
        let Some(level) = self.open.last_mut() else {
            // `ManifestReader` lets nothing come after the end of the top.
            return Err(Error::Cancelled);
        };
        let directory = level.directory.clone();
        let mut here = false;
        while let Some(next) = level.present.pop_if(|next| next.as_slice() <= name) {
            if next == name {
                here = true;
            } else {
                remove(&directory, &next)?;
            }
        }
        let present = match here {
            false => None,
            true => match sys::stat(&directory.fd, name) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(failed(&directory, name, "look at", error)),
            },
        };
        Ok((directory, present))
    }

    fn directory(&mut self, name: &[u8], meta: Meta) -> Result<()> {
        let (parent, present) = self.advance(name)?;
        let is_there = present.is_some_and(|stat| is(&stat, FileType::Directory));
        if !is_there {
            if present.is_some() {
                remove(&parent, name)?;
            }
            fs::mkdirat(&parent.fd, name, Mode::RWXU)
                .map_err(|error| failed(&parent, name, "create", error))?;
        }
        let fd = sys::open_own_dir(&parent.fd, name)
            .map_err(|error| failed(&parent, name, "open", error))?;
        let mut names = Vec::new();
        if is_there {
            names = sys::names(&fd).map_err(|error| failed(&parent, name, "list", error))?;
            names.reverse();
        }
        let path = crate::save::joined(&parent.path, name);
        let shared = self.shared;
        let directory = Directory { shared, fd, path, meta: Some(meta), _parent: Some(parent) };
        self.open.push(Level { directory: Arc::new(directory), present: names });
        self.directories += 1;
        Ok(())
    }

    fn end_directory(&mut self) -> Result<()> {
        let Some(level) = self.open.pop() else { return Ok(()) };
        level.present.iter().try_for_each(|name| remove(&level.directory, name))
    }

    fn file(&mut self, name: Vec<u8>, meta: Meta, size: u64, linked: bool) -> Result<()> {
        let (directory, present) = self.advance(&name)?;
        self.files += 1;
        let path = crate::save::joined(&directory.path, &name);
        // One with other names may be somebody else's too, and one that its owner may not write needs root.
        let may_stay = |stat: &Stat| {
            let accessible = sys::is_root() || stat.st_mode & 0o600 == 0o600;
            is(stat, FileType::RegularFile) && stat.st_nlink == 1 && !linked && accessible
        };
        if present.as_ref().is_some_and(|stat| !may_stay(stat)) {
            remove(&directory, &name)?;
        }
        let present = present.filter(may_stay);
        let known = present.as_ref().and_then(|stat| {
            let known = self.shared.previous?.get(&path)?;
            (known.seen == sys::seen(stat) && known.seen.size == size).then(|| known.clone())
        });
        let target = Arc::new(Target {
            directory,
            name,
            path,
            meta,
            size,
            present,
            known,
            content: Mutex::default(),
            file: Mutex::default(),
            complete: AtomicBool::new(false),
        });
        if linked {
            // A link to it may be the next record.
            target.open()?;
            self.linked.push(target.path.clone());
        }
        let passed = target.known.is_some().then_some(0);
        self.file = Some(Current { target, offset: 0, segments: Vec::new(), bytes: 0, passed });
        Ok(())
    }

    fn segment(&mut self, segment: Segment) -> Result<()> {
        let Some(current) = &mut self.file else { return Ok(()) };
        if segment.chunk().is_some() {
            self.shared.bytes.fetch_add(segment.length(), Ordering::Relaxed);
            current.bytes += segment.length();
        }
        current.segments.push(segment);
        match current.bytes >= JOB_BYTES || current.segments.len() >= JOB_SEGMENTS {
            true => self.piece(false),
            false => Ok(()),
        }
    }

    fn end_file(&mut self) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        self.piece(true)?;
        if let Some(current) = self.file.take() {
            current.target.complete.store(true, Ordering::Release);
            // The last of a file that needed nothing: it is finished here.
            drop(current);
        }
        Ok(())
    }

    /// What was gathered of a file becomes a piece of a job, unless the file is known to have it.
    fn piece(&mut self, last: bool) -> Result<()> {
        let Some(current) = &mut self.file else { return Ok(()) };
        let segments = std::mem::take(&mut current.segments);
        let bytes = std::mem::take(&mut current.bytes);
        let offset = current.offset;
        current.offset += segments.iter().map(Segment::length).sum::<u64>();
        let target = &current.target;
        let mut content = lock(&target.content);
        if content.len() < REMEMBERED {
            content.extend_from_slice(&segments);
        }
        drop(content);
        if let (Some(passed), Some(known)) = (current.passed, &target.known) {
            let end = passed + segments.len();
            if known.content.get(passed..end) == Some(&segments[..]) {
                current.passed = Some(end);
                self.shared.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
                return Ok(());
            }
            current.passed = None;
        }
        // An empty file, too, has to be made; what ends a longer one was handed on.
        if segments.is_empty() && (!last || offset > 0) {
            return Ok(());
        }
        self.job_bytes += bytes;
        self.job_segments += segments.len() + 1;
        self.job.push(Piece { target: target.clone(), offset, segments });
        match self.job_bytes >= JOB_BYTES || self.job_segments >= JOB_SEGMENTS {
            true => self.hand_on(),
            false => Ok(()),
        }
    }

    fn hand_on(&mut self) -> Result<()> {
        let job = std::mem::take(&mut self.job);
        (self.job_bytes, self.job_segments) = (0, 0);
        match job.is_empty() {
            true => Ok(()),
            // Nobody takes it any more: the reason was noted before.
            false => self.jobs.send(job).map_err(|_| Error::Cancelled),
        }
    }

    fn symlink(&mut self, name: &[u8], meta: &Meta, target: &[u8]) -> Result<()> {
        let (directory, present) = self.advance(name)?;
        self.files += 1;
        let fd = &directory.fd;
        let is_there = present.is_some_and(|stat| {
            is(&stat, FileType::Symlink)
                && fs::readlinkat(fd, name, Vec::new())
                    .is_ok_and(|there| there.as_bytes() == target)
        });
        if !is_there {
            if present.is_some() {
                remove(&directory, name)?;
            }
            fs::symlinkat(target, fd, name)
                .map_err(|error| failed(&directory, name, "create", error))?;
        }
        self.own_meta(&directory, name, meta)
    }

    fn node(&mut self, name: &[u8], meta: &Meta, kind: FileType, device: u64) -> Result<()> {
        let (directory, present) = self.advance(name)?;
        if present.is_some() {
            remove(&directory, name)?;
        }
        if kind != FileType::Fifo && !sys::is_root() {
            self.skipped += 1;
            return Ok(());
        }
        match fs::mknodat(&directory.fd, name, kind, Mode::RUSR | Mode::WUSR, device as _) {
            Ok(()) => {}
            // Root of a namespace only.
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.skipped += 1;
                return Ok(());
            }
            Err(error) => return Err(failed(&directory, name, "create", error)),
        }
        self.files += 1;
        self.own_meta(&directory, name, meta)?;
        // The node was made a moment ago; it is no symbolic link that this could follow.
        fs::chmodat(&directory.fd, name, Mode::from_raw_mode(meta.mode.into()), AtFlags::empty())
            .map_err(|error| failed(&directory, name, "set the mode of", error))
    }

    /// The owner and time of something that is not opened.
    fn own_meta(&self, directory: &Directory<'_>, name: &[u8], meta: &Meta) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if sys::is_root() {
            let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
            fs::chownat(&directory.fd, name, owner.0, owner.1, nofollow)
                .map_err(|error| failed(directory, name, "set the owner of", error))?;
        }
        fs::utimensat(&directory.fd, name, &sys::times(meta), nofollow)
            .map_err(|error| failed(directory, name, "set the time of", error))
    }

    fn link(&mut self, name: &[u8], to: u64) -> Result<()> {
        let (directory, present) = self.advance(name)?;
        self.files += 1;
        // `ManifestReader` has seen that there is one.
        let Some(path) = self.linked.get(to as usize) else { return Err(Error::Cancelled) };
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (dir, first) = at.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
        let failed = |error| failed(&directory, name, "link", error);
        let dir = sys::open_beneath(self.shared.top.as_fd(), dir).map_err(failed)?;
        if let Some(present) = present {
            let first = sys::stat(&dir, first).map_err(failed)?;
            if (present.st_dev, present.st_ino) == (first.st_dev, first.st_ino) {
                return Ok(());
            }
            remove(&directory, name)?;
        }
        fs::linkat(&dir, first, &directory.fd, name, AtFlags::empty()).map_err(failed)
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn remove(directory: &Directory<'_>, name: &[u8]) -> Result<()> {
    sys::remove(&directory.fd, name).map_err(|error| failed(directory, name, "remove", error))
}

fn failed(directory: &Directory<'_>, name: &[u8], action: &'static str, error: Errno) -> Error {
    let path = directory.shared.path(&crate::save::joined(&directory.path, name));
    Error::io(action, &path)(error)
}
