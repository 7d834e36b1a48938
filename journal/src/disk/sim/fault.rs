//! What a simulated disk is asked to do, what that costs, and how it is to fail.

use std::io;
use std::path::PathBuf;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Opening, listing, looking at names and lengths.
    Look,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Changing a length.
    SetLength,
    /// Making a file durable.
    Sync,
    /// Creating a file or directory.
    Create,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Making names durable.
    SyncDirectory,
}

impl Kind {
    fn changes_something(self) -> bool {
        !matches!(self, Kind::Look | Kind::Read)
    }
}

/// An operation that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind fails; `None`: any that changes something.
    pub on: Option<Kind>,
    /// So many of them succeed first.
    pub after: u64,
    /// So many fail then, at most.
    pub times: u64,
    /// How.
    pub error: io::ErrorKind,
}

impl Fault {
    /// The next operation of a kind fails with an I/O error, once.
    pub fn next(on: Kind) -> Fault {
        Fault { on: Some(on), after: 0, times: 1, error: io::ErrorKind::Other }
    }

    /// Whether this operation is to fail.
    pub(super) fn strikes(&mut self, kind: Kind) -> bool {
        let concerned = self.on.map_or(kind.changes_something(), |on| on == kind);
        if !concerned || self.times == 0 {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// How long operations take, in nanoseconds of simulated time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// An operation of any kind.
    pub operation: u64,
    /// Each KiB that is read or written, besides.
    pub kibibyte: u64,
    /// A sync of a file or directory, besides.
    pub sync: u64,
}

impl Costs {
    pub(super) fn of(&self, kind: Kind, bytes: u64) -> u64 {
        let sync = matches!(kind, Kind::Sync | Kind::SyncDirectory);
        self.operation
            + self.kibibyte.saturating_mul(bytes) / 1024
            + if sync { self.sync } else { 0 }
    }
}

/// An operation that was done or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was.
    pub kind: Kind,
    /// On which file or directory.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Whether an injected fault struck.
    pub failed: bool,
    /// What it cost, in nanoseconds of simulated time.
    pub cost: u64,
}
