//! Trees: making them, looking at all there is to see of them, and stores to try.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tenon_blobs::{ChunkId, ChunkStore, Error, Packed, Result};

/// All that is to see of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Content of a file, target of a link.
    content: Vec<u8>,
    /// Where a file has data: start and end.
    data: Vec<(u64, u64)>,
    /// The first path with the same inode.
    same_as: Option<PathBuf>,
}

/// Everything in a directory, itself included, by path.
pub fn look(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(path) = rest.pop() {
        let whole = dir.join(&path);
        let meta = whole.symlink_metadata().unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&whole)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names.reverse();
            rest.extend(names.iter().map(|name| path.join(name)));
        }
        let content = match () {
            () if kind.is_file() => std::fs::read(&whole).unwrap(),
            () if kind.is_symlink() => {
                std::fs::read_link(&whole).unwrap().as_os_str().as_bytes().to_vec()
            }
            () => Vec::new(),
        };
        if kind.is_socket() {
            continue;
        }
        let same_as = match meta.nlink() > 1 && !kind.is_dir() {
            true => Some(inodes.entry(meta.ino()).or_insert_with(|| path.clone()).clone()),
            false => None,
        };
        let one = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            xattrs: if kind.is_symlink() { Vec::new() } else { xattrs(&whole) },
            content,
            data: if kind.is_file() { data(&whole, meta.len()) } else { Vec::new() },
            same_as,
        };
        seen.insert(path, one);
    }
    seen
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; rustix::fs::llistxattr_query(path).unwrap()];
    let length = match list.len() {
        0 => 0,
        _ => rustix::fs::llistxattr(path, &mut list[..]).unwrap(),
    };
    let mut xattrs = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort();
    xattrs
}

fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = std::fs::File::open(path).unwrap();
    let (mut data, mut at) = (Vec::new(), 0);
    while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).unwrap();
        data.push((start, at));
        if at >= size {
            break;
        }
    }
    data
}

/// Says what differs, which of two maps with long contents nobody could see.
pub fn assert_same(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>) {
    for path in one.keys().chain(other.keys()).collect::<HashSet<_>>() {
        let (one, other) = (one.get(path), other.get(path));
        let short = |seen: Option<&Seen>| {
            seen.map(|seen| {
                let digest = blake3::hash(&seen.content).to_hex();
                let length = seen.content.len();
                format!(
                    "{:?} {length} bytes {digest}",
                    Seen { content: Vec::new(), ..seen.clone() }
                )
            })
        };
        assert!(one == other, "{}:\n  {:?}\n  {:?}", path.display(), short(one), short(other));
    }
}

/// Bytes that do not pack, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// A store that counts, and fails when it is told to.
pub struct Watched<S> {
    pub store: S,
    pub asked: Mutex<Vec<ChunkId>>,
    pub puts: Mutex<Vec<ChunkId>>,
    pub gets: Mutex<Vec<ChunkId>>,
    /// So many chunks may be put or got; then nothing works any more.
    pub left: Mutex<usize>,
}

impl<S: ChunkStore> Watched<S> {
    pub fn new(store: S) -> Watched<S> {
        Watched {
            store,
            asked: Mutex::default(),
            puts: Mutex::default(),
            gets: Mutex::default(),
            left: Mutex::new(usize::MAX),
        }
    }

    pub fn allow(&self, chunks: usize) {
        *self.left.lock().unwrap() = chunks;
    }

    pub fn taken(list: &Mutex<Vec<ChunkId>>) -> Vec<ChunkId> {
        std::mem::take(&mut *list.lock().unwrap())
    }

    fn spend(&self, chunks: usize) -> Result<()> {
        let mut left = self.left.lock().unwrap();
        match left.checked_sub(chunks) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => {
                *left = 0;
                Err(Error::Remote {
                    action: "reach the store".into(),
                    reason: "it is cut off".into(),
                })
            }
        }
    }
}

impl<S: ChunkStore> ChunkStore for Watched<S> {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        self.asked.lock().unwrap().extend_from_slice(ids);
        self.store.missing(ids)
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        self.spend(chunks.len())?;
        self.puts.lock().unwrap().extend(chunks.iter().map(|chunk| chunk.id));
        self.store.put(chunks)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        self.spend(ids.len())?;
        self.gets.lock().unwrap().extend_from_slice(ids);
        self.store.get(ids)
    }
}
