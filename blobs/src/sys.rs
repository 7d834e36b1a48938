//! Directories and files by descriptors: nothing here follows a symbolic link, or leaves the directory it is given.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

use crate::index::Seen;
use crate::manifest::{Meta, Xattrs};

/// For all that is opened. Opening a FIFO must not wait for who writes to it.
const COMMON: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Labels that are this machine's policy and no property of the file.
const NOT_KEPT: &[u8] = b"security.selinux";

/// Opens a directory that is an entry of another.
pub fn open_dir(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    fs::openat(at, name, COMMON | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a file to read it.
pub fn open_file(at: impl AsFd, name: &[u8]) -> Result<File> {
    fs::openat(at, name, COMMON | OFlags::RDONLY, Mode::empty()).map(File::from)
}

/// Opens a file to read and write it.
pub fn open_to_change(at: impl AsFd, name: &[u8]) -> Result<File> {
    fs::openat(at, name, COMMON | OFlags::RDWR, Mode::empty()).map(File::from)
}

/// Makes a file that is not there, for nobody else until it is whole.
pub fn create(at: impl AsFd, name: &[u8]) -> Result<File> {
    let flags = COMMON | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Opens the directory with this path below another; an empty path is that itself.
pub fn open_beneath(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = COMMON | OFlags::RDONLY | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let whole = if path.is_empty() { b"." } else { path };
    match fs::openat2(&root, whole, flags, Mode::empty(), resolve) {
        Ok(dir) => return Ok(dir),
        // An older kernel, a sandbox, or a path that is too long to be said at once.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => {}
        Err(error) => return Err(error),
    }
    let mut dir = open_dir(&root, b".")?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        dir = open_dir(&dir, name)?;
    }
    Ok(dir)
}

/// What an entry is.
pub fn stat(at: impl AsFd, name: &[u8]) -> Result<Stat> {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The names in a directory, in the order of their bytes.
pub fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The extended attributes of an open file or directory that this user may see.
pub fn xattrs(file: impl AsFd) -> Result<Xattrs> {
    let length = match fs::flistxattr_query(&file) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(error) => return Err(error),
    };
    let mut list = vec![0; length + 256];
    let length = fs::flistxattr(&file, &mut list[..])?;
    let mut xattrs = Vec::new();
    let names = list[..length].split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty() && *name != NOT_KEPT) {
        let mut value = vec![0; 256];
        let got = match fs::fgetxattr(&file, name, &mut value[..]) {
            Err(Errno::RANGE) => {
                value.resize(65536, 0);
                fs::fgetxattr(&file, name, &mut value[..])
            }
            got => got,
        };
        match got {
            Ok(length) => value.truncate(length),
            // It went meanwhile, or is for others.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => continue,
            Err(error) => return Err(error),
        }
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Makes the extended attributes of an open file these, as far as this user may.
pub fn set_xattrs(file: impl AsFd, wanted: &Xattrs, is_new: bool) -> Result<()> {
    if is_new && wanted.is_empty() {
        return Ok(());
    }
    let may_not = |error: &Errno| matches!(*error, Errno::NOTSUP | Errno::PERM | Errno::ACCESS);
    let present = xattrs(&file)?;
    for (name, _) in
        present.iter().filter(|(name, _)| wanted.iter().all(|(other, _)| other != name))
    {
        fs::fremovexattr(&file, &name[..])
            .or_else(|e| if may_not(&e) { Ok(()) } else { Err(e) })?;
    }
    for (name, value) in wanted.iter().filter(|xattr| !present.contains(xattr)) {
        let set = fs::fsetxattr(&file, &name[..], value, fs::XattrFlags::empty());
        set.or_else(|error| if may_not(&error) { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

/// Gives an open file or directory its owner, attributes, mode and time. The owner first: changing it takes set-id
/// bits and capabilities away.
pub fn set_meta(file: impl AsFd, meta: &Meta, is_new: bool) -> Result<()> {
    if is_root() {
        let now = fs::fstat(&file)?;
        if (now.st_uid, now.st_gid) != (meta.uid, meta.gid) {
            fs::fchown(
                &file,
                Some(fs::Uid::from_raw(meta.uid)),
                Some(fs::Gid::from_raw(meta.gid)),
            )?;
        }
    }
    set_xattrs(&file, &meta.xattrs, is_new)?;
    fs::fchmod(&file, Mode::from_raw_mode(u32::from(meta.mode)))?;
    fs::futimens(&file, &times(meta))
}

/// The times to set: that of access is left alone.
pub fn times(meta: &Meta) -> fs::Timestamps {
    let last_modification =
        fs::Timespec { tv_sec: meta.mtime.0, tv_nsec: i64::from(meta.mtime.1) as _ };
    let last_access = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    fs::Timestamps { last_access, last_modification }
}

/// What `stat` says of an entry, without its extended attributes.
pub fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        xattrs: Vec::new(),
    }
}

/// What changes when a file does.
pub fn seen(stat: &Stat) -> Seen {
    Seen {
        size: stat.st_size as u64,
        inode: stat.st_ino,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
    }
}

/// Removes an entry, and all in it if it is a directory.
pub fn remove(at: impl AsFd, name: &[u8]) -> Result<()> {
    match fs::unlinkat(&at, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    let dir = open_own_dir(&at, name)?;
    for name in names(&dir)? {
        remove(&dir, &name)?;
    }
    fs::unlinkat(&at, name, AtFlags::REMOVEDIR)
}

/// Opens a directory to change what is in it. Its owner may, even if the mode says otherwise.
pub fn open_own_dir(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let opened = open_dir(&at, name);
    if is_root() {
        return opened;
    }
    match opened {
        Ok(dir) => {
            let mode = fs::fstat(&dir)?.st_mode & 0o7777;
            if mode & 0o700 != 0o700 {
                fs::fchmod(&dir, Mode::from_raw_mode(mode | 0o700))?;
            }
            Ok(dir)
        }
        Err(Errno::ACCESS) => {
            fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(&at, name)
        }
        Err(error) => Err(error),
    }
}

/// Whether this user may give files away.
pub fn is_root() -> bool {
    // SAFETY: it has no arguments, and never fails.
    unsafe { libc::geteuid() == 0 }
}

/// The clock that files get their times from.
pub fn file_clock() -> (i64, u32) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    (time.tv_sec, time.tv_nsec as u32)
}

/// For messages.
pub fn path_of(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}
