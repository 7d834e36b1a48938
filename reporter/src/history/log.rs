//! The run's journal as history needs it. The only file of this crate that knows how events reach
//! the disk.

use std::path::{Path, PathBuf};

use tenon_journal::{Journal, Options, Reader};

use super::Stored;
use crate::{Error, Result};

/// Below a run's directory.
const EVENTS: &str = "events";

/// The journal, opened to be written.
pub struct Log {
    run: String,
    dir: PathBuf,
    journal: Journal,
}

impl Log {
    pub fn open(dir: &Path, run: &str) -> Result<Log> {
        let (journal, _) = Journal::open(dir.join(EVENTS), Options::default()).map_err(of(run))?;
        Ok(Log { run: run.to_owned(), dir: dir.to_owned(), journal })
    }

    /// Buffers a record.
    pub fn append(&self, record: &[u8]) -> Result<()> {
        self.journal.append(&[record]).map(drop).map_err(of(&self.run))
    }

    /// Writes what is buffered, so that it can be read; returns the last index that can.
    pub fn flush(&self) -> Result<u64> {
        self.journal.flush().map_err(of(&self.run))?;
        Ok(self.journal.last_index())
    }

    /// Makes everything durable; returns the last durable index.
    pub fn sync(&self) -> Result<u64> {
        self.journal.sync().map_err(of(&self.run))
    }

    /// The last index that was appended; 0 before the first.
    pub fn last_index(&self) -> u64 {
        self.journal.last_index()
    }

    /// Everything that is there, from the beginning.
    pub fn replay(&self) -> Result<impl Iterator<Item = Result<Stored>> + use<>> {
        let mut tail = Tail::open(&self.dir, &self.run)?;
        Ok(std::iter::from_fn(move || tail.next().transpose()))
    }
}

/// The journal, opened to be read while it may grow.
pub struct Tail {
    run: String,
    reader: Reader,
}

impl Tail {
    pub fn open(dir: &Path, run: &str) -> Result<Tail> {
        let reader = Reader::open(dir.join(EVENTS), 1).map_err(of(run))?;
        Ok(Tail { run: run.to_owned(), reader })
    }

    /// The index of the record that comes next.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// The next record, if it has been written.
    pub fn next(&mut self) -> Result<Option<Stored>> {
        let Some(record) = self.reader.next().map_err(of(&self.run))? else {
            return Ok(None);
        };
        let index = record.index;
        Stored::new(record.payload.to_vec()).map(Some).map_err(|detail| Error::Record {
            run: self.run.clone(),
            index,
            detail,
        })
    }
}

fn of(run: &str) -> impl FnOnce(tenon_journal::Error) -> Error + use<> {
    let run = run.to_owned();
    move |source| Error::Journal { run, source }
}
