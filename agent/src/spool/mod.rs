//! Where reports wait until somebody else keeps them: numbered, in order, without a gap.
//!
//! An agent of a fleet keeps them on the disk ([`DiskSpool`]): it goes on with its numbers after
//! `kill -9`, so a number is sent only when nothing can give it to another report. `tenon run` keeps
//! them in memory, where they end with the process, as all else does that it would tell.

mod disk;
mod marks;
mod memory;
mod writer;

use tenon_proto::agent::v1::{AttemptId, Report, report};
use tokio::sync::watch;

use crate::record::Marked;
pub use disk::{DiskSpool, Found, SpoolOptions};
pub(crate) use memory::MemorySpool;

/// What can be wrong with a spool.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent lives in the directory.
    #[error("another agent uses {dir}; stop it, or give this one another --data-dir")]
    Taken {
        /// The directory.
        dir: String,
    },
    /// It cannot be read, or holds what no agent wrote.
    #[error(
        "the agent's spool cannot be used: {why}. If it cannot be repaired, move the directory \
         {dir} away: the agent then begins anew, and what it ran is placed again"
    )]
    Damaged {
        /// The spool's directory.
        dir: String,
        /// What is wrong.
        why: String,
    },
    /// It can be written no more.
    #[error("the agent's spool cannot be written: {0}; what runs goes on, start the agent again")]
    Failed(String),
}

impl SpoolError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SpoolError::Taken { .. } => "agent/taken",
            SpoolError::Damaged { .. } => "agent/spool-damaged",
            SpoolError::Failed(_) => "agent/spool-failed",
        }
    }
}

/// How far a spool's reports are safe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Safe {
    /// The reports up to this number.
    pub number: u64,
    /// Why there will be no more.
    pub failed: Option<SpoolError>,
}

/// The reports of one agent's life.
pub(crate) enum Spool {
    Memory(MemorySpool),
    Disk(Box<DiskSpool>),
}

impl Spool {
    /// Numbers a report and takes it. `marked` is told when the report is safe.
    pub(crate) fn push(
        &mut self,
        attempt: AttemptId,
        time_ms: i64,
        what: report::What,
        marked: Option<Marked>,
    ) -> u64 {
        let report = |number| Report { number, attempt: Some(attempt), time_ms, what: Some(what) };
        match self {
            Spool::Memory(spool) => spool.push(report, marked.as_ref()),
            Spool::Disk(spool) => spool.push(report, marked),
        }
    }

    /// Somebody else keeps the reports up to this number.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        match self {
            Spool::Memory(spool) => spool.acknowledge(number),
            Spool::Disk(spool) => spool.acknowledge(number),
        }
    }

    /// Somebody keeps the reports up to this number: they must be this spool's.
    pub(crate) fn check(&self, number: u64) -> Result<(), SpoolError> {
        match self {
            Spool::Memory(_) => Ok(()),
            Spool::Disk(spool) => spool.check(number),
        }
    }

    /// Nobody is left to tell: what would end with this process needs not to be waited for.
    pub(crate) fn abandon(&mut self) {
        if let Spool::Memory(spool) = self {
            spool.acknowledge(u64::MAX);
        }
    }

    /// Everything that is not acknowledged is to be sent again.
    pub(crate) fn rewind(&mut self) {
        match self {
            Spool::Memory(spool) => spool.rewind(),
            Spool::Disk(spool) => spool.rewind(),
        }
    }

    /// The next reports to send: at most so many, and of at most so many bytes unless it is one.
    pub(crate) fn next(&mut self, most: usize, bytes: usize) -> Result<Vec<Report>, SpoolError> {
        match self {
            Spool::Memory(spool) => Ok(spool.next(most, bytes)),
            Spool::Disk(spool) => spool.next(most, bytes),
        }
    }

    /// Whether there is something to send.
    pub(crate) fn is_waiting(&self) -> bool {
        match self {
            Spool::Memory(spool) => spool.is_waiting(),
            Spool::Disk(spool) => spool.is_waiting(),
        }
    }

    /// Whether more reports may be taken.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Spool::Memory(spool) => spool.has_room(),
            Spool::Disk(spool) => spool.has_room(),
        }
    }

    /// Whether everything is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Spool::Memory(spool) => spool.is_empty(),
            Spool::Disk(spool) => spool.is_empty(),
        }
    }

    /// Tells how far reports are safe, where that is not at once.
    pub(crate) fn safe(&self) -> Option<watch::Receiver<Safe>> {
        match self {
            Spool::Memory(_) => None,
            Spool::Disk(spool) => Some(spool.safe()),
        }
    }

    /// Tells the marks that are safe, and says up to which report everything is.
    pub(crate) fn tell_marks(&mut self) -> u64 {
        match self {
            Spool::Memory(_) => u64::MAX,
            Spool::Disk(spool) => spool.tell_marks(),
        }
    }
}

impl Default for Spool {
    fn default() -> Spool {
        Spool::Memory(MemorySpool::default())
    }
}
