//! Looking at everything in a directory, without reading any file.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Stat, readlinkat};
use rustix::io::Errno;

use crate::index::Seen;
use crate::manifest::{Meta, Segment};
use crate::options::MAX_DEPTH;
use crate::{Error, Options, Result, restore, sys};

/// An entry, in the order of the manifest.
pub(crate) struct Item {
    pub name: Vec<u8>,
    pub meta: Meta,
    pub what: What,
}

pub(crate) enum What {
    Directory,
    /// Ends a directory.
    End,
    File(File),
    Symlink(Vec<u8>),
    /// Another name of the file that is this item.
    Link(usize),
    Fifo,
    Device {
        block: bool,
        device: u64,
    },
    /// It turned out that it is not there any more.
    Gone,
}

pub(crate) struct File {
    /// The path of its directory, from the top.
    pub dir: Arc<[u8]>,
    pub seen: Seen,
    pub linked: bool,
    /// It takes less of the disk than it has bytes.
    pub sparse: bool,
    pub content: Vec<Segment>,
    /// Its content is not known (yet), or it changed while it was read.
    pub uncertain: bool,
}

impl Item {
    /// The path of a file, from the top.
    pub fn path(&self, file: &File) -> Vec<u8> {
        joined(&file.dir, &self.name)
    }
}

pub(crate) fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

pub(crate) struct Walk<'a> {
    pub items: Vec<Item>,
    pub skipped: u64,
    pub changed: u64,
    root: &'a Path,
    options: &'a Options,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), usize>,
}

impl<'a> Walk<'a> {
    /// Looks at all that is in a directory.
    pub fn of(root: &'a Path, dir: &OwnedFd, options: &'a Options) -> Result<Walk<'a>> {
        let mut walk = Walk {
            items: Vec::new(),
            skipped: 0,
            changed: 0,
            root,
            options,
            linked: HashMap::new(),
        };
        let stat = rustix::fs::fstat(dir).map_err(Error::io("look at", root))?;
        walk.directory(dir, Vec::new(), b"", &stat, 0)?;
        Ok(walk)
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        name: Vec<u8>,
        path: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<()> {
        self.options.check()?;
        let here = || sys::path_of(self.root, path);
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep { path: here() });
        }
        let mut meta = sys::meta(stat);
        meta.xattrs =
            sys::xattrs(dir).map_err(|error| Error::io("read attributes of", &here())(error))?;
        let names = sys::names(dir).map_err(|error| Error::io("list", &here())(error))?;
        self.items.push(Item { name, meta, what: What::Directory });
        let shared: Arc<[u8]> = path.into();
        for name in names {
            if depth == 0 && name == restore::MARKER.as_bytes() {
                return Err(Error::Unfinished { dir: self.root.to_owned() });
            }
            let stat = match sys::stat(dir, &name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    self.changed += 1;
                    continue;
                }
                Err(Errno::ACCESS) => {
                    self.skipped += 1;
                    continue;
                }
                Err(error) => {
                    let path = sys::path_of(self.root, &joined(path, &name));
                    return Err(Error::io("look at", &path)(error));
                }
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                match sys::open_dir(dir, &name) {
                    Ok(dir) => {
                        let path = joined(path, &name);
                        self.directory(&dir, name, &path, &stat, depth + 1)?;
                    }
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.changed += 1,
                    Err(Errno::ACCESS | Errno::PERM) => self.skipped += 1,
                    Err(error) => {
                        let path = sys::path_of(self.root, &joined(path, &name));
                        return Err(Error::io("open", &path)(error));
                    }
                }
            } else {
                self.entry(dir, &shared, name, &stat)?;
            }
        }
        self.items.push(Item { name: Vec::new(), meta: Meta::default(), what: What::End });
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, path: &Arc<[u8]>, name: Vec<u8>, stat: &Stat) -> Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match self.linked.get(&inode) {
                Some(first) => {
                    if let What::File(file) = &mut self.items[*first].what {
                        file.linked = true;
                    }
                    What::Link(*first)
                }
                None => {
                    if stat.st_nlink > 1 {
                        self.linked.insert(inode, self.items.len());
                    }
                    What::File(File {
                        dir: path.clone(),
                        seen: sys::seen(stat),
                        linked: false,
                        sparse: (stat.st_blocks as u64) * 512 < stat.st_size as u64,
                        content: Vec::new(),
                        uncertain: true,
                    })
                }
            },
            FileType::Symlink => match readlinkat(dir, &name[..], Vec::new()) {
                Ok(target) => What::Symlink(target.into_bytes()),
                Err(Errno::NOENT | Errno::INVAL) => {
                    self.changed += 1;
                    return Ok(());
                }
                Err(error) => {
                    let path = sys::path_of(self.root, &joined(path, &name));
                    return Err(Error::io("read the link", &path)(error));
                }
            },
            FileType::Fifo => What::Fifo,
            kind @ (FileType::BlockDevice | FileType::CharacterDevice) if sys::is_root() => {
                What::Device { block: kind == FileType::BlockDevice, device: stat.st_rdev }
            }
            _ => {
                self.skipped += 1;
                return Ok(());
            }
        };
        self.items.push(Item { name, meta: sys::meta(stat), what });
        Ok(())
    }
}
