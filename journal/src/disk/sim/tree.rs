//! Directories and files by number, and what of the names is on the disk.
//!
//! Names of one directory reach the disk in the order of their changes, those of two directories independently of each
//! other: a little worse than any real file system. A rename is one change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::Random;
use super::file::SimFile;

const ROOT: u64 = 0;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(SimFile),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    names: BTreeMap<OsString, u64>,
    /// What is not synced: for each change, the names and what they named before.
    changes: Vec<Vec<(OsString, Option<u64>)>>,
}

/// All that a disk holds.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

fn not_found() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "no such file or directory (simulated)")
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

impl Tree {
    pub fn new() -> Tree {
        Tree { nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]), next: 1 }
    }

    pub fn find(&self, path: &Path) -> Option<u64> {
        names(path).try_fold(ROOT, |at, name| self.directory(at)?.names.get(name).copied())
    }

    pub fn find_file(&self, path: &Path) -> io::Result<u64> {
        let found = self.find(path).ok_or_else(not_found)?;
        match self.nodes.get(&found) {
            Some(Node::File(_)) => Ok(found),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub fn find_directory(&self, path: &Path) -> io::Result<u64> {
        let found = self.find(path).ok_or_else(not_found)?;
        self.directory(found).map(|_| found).ok_or(ErrorKind::NotADirectory.into())
    }

    pub fn file(&self, node: u64) -> io::Result<&SimFile> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(not_found()),
        }
    }

    pub fn file_mut(&mut self, node: u64) -> io::Result<&mut SimFile> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(not_found()),
        }
    }

    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let directory = self.find_directory(path)?;
        let names = self.directory(directory).map(|directory| directory.names.keys());
        Ok(names.into_iter().flatten().map(|name| path.join(name)).collect())
    }

    pub fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            at = match self.directory(at).and_then(|directory| directory.names.get(name)) {
                Some(next) => *next,
                None => {
                    let new = self.add(Node::Directory(Directory::default()));
                    self.change(at, [(name.to_owned(), Some(new))])?;
                    new
                }
            };
        }
        self.directory(at).map(drop).ok_or(ErrorKind::NotADirectory.into())
    }

    pub fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        let (parent, name) = self.place_of(path)?;
        let new = self.add(Node::File(SimFile::default()));
        self.change(parent, [(name, Some(new))])?;
        Ok(new)
    }

    /// Within one directory only: that is all that anybody here needs.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from).ok_or_else(not_found)?;
        let ((parent, old), (other, new)) = (self.place_of(from)?, self.place_of(to)?);
        if parent != other {
            return Err(ErrorKind::CrossesDevices.into());
        }
        self.change(parent, [(old, None), (new, Some(node))])
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (parent, name) = self.place_of(path)?;
        self.change(parent, [(name, None)])
    }

    pub fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find_directory(path)?;
        for child in self.list(path)? {
            match self.find_directory(&child) {
                Ok(_) => self.remove_directory(&child)?,
                Err(_) => self.remove_file(&child)?,
            }
        }
        let (parent, name) = self.place_of(path)?;
        debug_assert_ne!(node, parent);
        self.change(parent, [(name, None)])
    }

    pub fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find_directory(path)?;
        if let Some(Node::Directory(directory)) = self.nodes.get_mut(&node) {
            directory.changes.clear();
        }
        Ok(())
    }

    /// The power was cut. Files that nobody named durably are gone.
    pub fn lose(&mut self, random: &mut Random) {
        for node in self.nodes.values_mut() {
            if let Node::Directory(directory) = node {
                let kept = match random.below(3) {
                    0 => 0,
                    1 => directory.changes.len(),
                    _ => random.below(directory.changes.len() as u64 + 1) as usize,
                };
                while directory.changes.len() > kept {
                    for (name, old) in directory.changes.pop().into_iter().flatten().rev() {
                        directory.set(name, old);
                    }
                }
                directory.changes.clear();
            }
        }
        self.sweep(&BTreeSet::new());
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.lose(random);
            }
        }
    }

    /// Forgets what has no name, could get none back by a crash, and is not open.
    pub fn sweep(&mut self, open: &BTreeSet<u64>) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut ahead = vec![ROOT];
        ahead.extend(open);
        reached.extend(open);
        while let Some(at) = ahead.pop() {
            let Some(directory) = self.directory(at) else { continue };
            let former = directory.changes.iter().flatten().filter_map(|(_, old)| *old);
            for node in directory.names.values().copied().chain(former) {
                if reached.insert(node) {
                    ahead.push(node);
                }
            }
        }
        self.nodes.retain(|node, _| reached.contains(node));
    }

    /// The bytes of all files that have a name.
    pub fn used(&self) -> u64 {
        self.files().iter().map(|(_, node)| self.file(*node).map_or(0, SimFile::len) as u64).sum()
    }

    /// All files, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut ahead = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, at)) = ahead.pop() {
            match self.nodes.get(&at) {
                Some(Node::File(_)) => found.push((path, at)),
                Some(Node::Directory(directory)) => {
                    ahead.extend(directory.names.iter().map(|(name, at)| (path.join(name), *at)));
                }
                None => {}
            }
        }
        found.sort();
        found
    }

    /// Whether a crash would lose nothing.
    pub fn is_settled(&self) -> bool {
        self.nodes.values().all(|node| match node {
            Node::File(file) => file.is_settled(),
            Node::Directory(directory) => directory.changes.is_empty(),
        })
    }

    fn directory(&self, node: u64) -> Option<&Directory> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn place_of(&self, path: &Path) -> io::Result<(u64, OsString)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let parent = self.find_directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.to_owned()))
    }

    fn add(&mut self, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        number
    }

    fn change<const N: usize>(
        &mut self,
        directory: u64,
        names: [(OsString, Option<u64>); N],
    ) -> io::Result<()> {
        let Some(Node::Directory(directory)) = self.nodes.get_mut(&directory) else {
            return Err(ErrorKind::NotADirectory.into());
        };
        let change = names.map(|(name, node)| {
            let old = directory.set(name.clone(), node);
            (name, old)
        });
        directory.changes.push(change.into());
        Ok(())
    }
}

impl Directory {
    fn set(&mut self, name: OsString, node: Option<u64>) -> Option<u64> {
        match node {
            Some(node) => self.names.insert(name, node),
            None => self.names.remove(&name),
        }
    }
}
