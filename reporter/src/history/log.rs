//! The run's journal as history needs it. The only file of this crate that knows how events reach
//! the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Stored;
use crate::{Error, Result};

/// The journal, opened to be written.
#[derive(Debug)]
pub struct Log {
    run: String,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Log {
    pub fn open(dir: &Path, run: &str) -> Result<Log> {
        let events = dir.join("events");
        fs::create_dir_all(&events).map_err(Error::io("create", &events))?;
        let path = events.join("log");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Ok(Log { run: run.to_owned(), path, file, buffer: Vec::new() })
    }

    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(record);
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(Error::io("write", &self.path))?;
        self.buffer.clear();
        Ok(())
    }

    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_data().map_err(Error::io("sync", &self.path))
    }

    pub fn replay(&self) -> Result<impl Iterator<Item = Result<Stored>>> {
        let dir = self.path.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        let mut tail = Tail::open(dir, &self.run)?;
        Ok(std::iter::from_fn(move || tail.next().transpose()))
    }
}

/// The journal, opened to be read while it may grow.
#[derive(Debug)]
pub struct Tail {
    run: String,
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    index: u64,
}

impl Tail {
    pub fn open(dir: &Path, run: &str) -> Result<Tail> {
        Ok(Tail {
            run: run.to_owned(),
            path: dir.join("events").join("log"),
            file: None,
            offset: 0,
            index: 0,
        })
    }

    /// The next record, if it is there.
    pub fn next(&mut self) -> Result<Option<Stored>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut read = || -> std::io::Result<Option<Vec<u8>>> {
            file.seek(SeekFrom::Start(self.offset))?;
            let mut length = [0; 4];
            if file.read_exact(&mut length).is_err() {
                return Ok(None);
            }
            let mut record = vec![0; u32::from_le_bytes(length) as usize];
            Ok(file.read_exact(&mut record).is_ok().then_some(record))
        };
        let Some(record) = read().map_err(Error::io("read", &self.path))? else {
            return Ok(None);
        };
        self.offset += 4 + record.len() as u64;
        let index = self.index;
        self.index += 1;
        Stored::new(record).map(Some).map_err(|detail| Error::Record {
            run: self.run.clone(),
            index,
            detail,
        })
    }
}
