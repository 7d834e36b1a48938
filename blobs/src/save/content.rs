//! Reading files into chunks.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::cut;
use super::plan::Job;
use super::upload::Batch;
use super::walk::{self, Item, What};
use crate::manifest::{Part, Segment, Xattrs};
use crate::{ChunkId, Error, Result, sys};

/// What was read of a file.
pub(crate) struct Read {
    pub item: usize,
    pub offset: u64,
    pub got: Got,
}

pub(crate) enum Got {
    /// Pieces that follow each other, and whether the file was the same before and after.
    Content { segments: Vec<Segment>, xattrs: Xattrs, steady: bool },
    /// It is not there any more, or something else is.
    Gone,
    /// This user may not read it.
    Refused,
}

/// Reads for one thread.
pub(crate) struct Reader<'a> {
    items: &'a [Item],
    root: &'a Path,
    top: &'a OwnedFd,
    batch: Batch<'a>,
    /// The directory of the last file; the next is mostly in the same.
    dir: Option<(Arc<[u8]>, OwnedFd)>,
    pub read: Vec<Read>,
    pub bytes: u64,
}

impl<'a> Reader<'a> {
    pub fn new(
        items: &'a [Item],
        root: &'a Path,
        top: &'a OwnedFd,
        batch: Batch<'a>,
    ) -> Reader<'a> {
        Reader { items, root, top, batch, dir: None, read: Vec::new(), bytes: 0 }
    }

    /// Does a job.
    pub fn job(&mut self, job: &Job) -> Result<()> {
        match job {
            Job::Together(items) => self.together(items),
            Job::Slice { item, offset, length } => self.slice(*item, *offset, *length),
        }
    }

    /// Sends what is left to send.
    pub fn finish(mut self) -> Result<(Vec<Read>, u64)> {
        self.batch.flush()?;
        Ok((self.read, self.bytes))
    }

    fn slice(&mut self, item: usize, offset: u64, length: u64) -> Result<()> {
        let got = self.with_file(item, |reader, file| {
            let mut content = Vec::with_capacity(length as usize);
            append(file, &mut content, offset, length)?;
            reader.bytes += content.len() as u64;
            Ok(content)
        })?;
        let got = match got {
            Ok((content, xattrs, steady)) => {
                let content = Bytes::from(content);
                let chunks = cut::file(&content).into_iter();
                let segments = chunks
                    .map(|range| {
                        let length = range.len() as u32;
                        Ok(Segment::Chunk { id: self.batch.add(content.slice(range))?, length })
                    })
                    .collect::<Result<_>>()?;
                Got::Content { segments, xattrs, steady }
            }
            Err(got) => got,
        };
        self.read.push(Read { item, offset, got });
        Ok(())
    }

    fn together(&mut self, items: &[usize]) -> Result<()> {
        let mut content = Vec::new();
        let mut parts = Vec::new();
        for item in items {
            let start = content.len();
            let size = match &self.items[*item].what {
                What::File(file) => file.seen.size,
                _ => 0,
            };
            let got = self.with_file(*item, |_, file| append(file, &mut content, 0, size))?;
            match got {
                Ok(((), xattrs, steady)) => {
                    parts.push((*item, start..content.len(), xattrs, steady));
                }
                Err(got) => self.read.push(Read { item: *item, offset: 0, got }),
            }
        }
        self.bytes += content.len() as u64;
        let content = Bytes::from(content);
        let of = content.len() as u32;
        let id = if of == 0 { None } else { Some(self.batch.add(content.clone())?) };
        for (item, range, xattrs, steady) in parts {
            let length = range.len() as u32;
            let segment = id.filter(|_| length > 0).map(|id| match length == of {
                true => Segment::Chunk { id, length },
                false => Segment::Part(Box::new(Part {
                    id,
                    of,
                    offset: range.start as u32,
                    length,
                    hash: ChunkId::of(&content[range]),
                })),
            });
            let segments = segment.into_iter().collect();
            self.read.push(Read {
                item,
                offset: 0,
                got: Got::Content { segments, xattrs, steady },
            });
        }
        Ok(())
    }

    /// Opens a file, has it read, and looks whether it stayed the same.
    fn with_file<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut Self, &File) -> std::io::Result<T>,
    ) -> Result<std::result::Result<(T, Xattrs, bool), Got>> {
        let item = &self.items[at];
        let What::File(wanted) = &item.what else { return Ok(Err(Got::Gone)) };
        let path = || sys::path_of(self.root, &walk::joined(&wanted.dir, &item.name));
        let opened = self.open(&wanted.dir, &item.name);
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                return Ok(Err(Got::Gone));
            }
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Err(Got::Refused)),
            Err(error) => return Err(Error::io("open", &path())(error)),
        };
        let look = |file: &File| rustix::fs::fstat(file).map_err(Error::io("look at", &path()));
        let before = look(&file)?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            return Ok(Err(Got::Gone));
        }
        let xattrs = sys::xattrs(&file).map_err(Error::io("read attributes of", &path()))?;
        let done = read(self, &file).map_err(Error::io("read", &path()))?;
        let after = look(&file)?;
        let steady = sys::seen(&before) == wanted.seen && sys::seen(&after) == wanted.seen;
        Ok(Ok((done, xattrs, steady)))
    }

    fn open(&mut self, dir: &Arc<[u8]>, name: &[u8]) -> rustix::io::Result<File> {
        match &self.dir {
            Some((path, opened)) if Arc::ptr_eq(path, dir) => sys::open_file(opened, name),
            _ => {
                let opened = sys::open_beneath(self.top.as_fd(), dir)?;
                let file = sys::open_file(&opened, name);
                self.dir = Some((dir.clone(), opened));
                file
            }
        }
    }
}

/// Appends what a file has there, at most so much.
fn append(
    file: &File,
    content: &mut Vec<u8>,
    mut offset: u64,
    mut left: u64,
) -> std::io::Result<()> {
    content.reserve(left as usize);
    while left > 0 {
        let before = content.len();
        content.reserve(left as usize);
        // The spare room may be larger than what is wanted.
        let room = &mut content.spare_capacity_mut()[..left as usize];
        let got = match rustix::io::pread(file, room, offset) {
            Ok((got, _)) => got.len(),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if got == 0 {
            break;
        }
        // SAFETY: so many bytes after the former length were just read.
        unsafe { content.set_len(before + got) };
        offset += got as u64;
        left -= got as u64;
    }
    Ok(())
}
