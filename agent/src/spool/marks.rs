//! Where the records of the live attempts stand, as of one report: what the spool still knows of them
//! when the reports that said it are acknowledged and dropped.
//!
//! The file is replaced as a whole, and before reports are dropped: what it says and the reports
//! behind it always make up everything.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;

use prost::Message;
use tenon_proto::agent::v1::{AttemptId, Report};

use crate::record::Mark;

const FILE: &str = "marks";

/// Marks by attempt and by the container's place in it.
pub(crate) type Marks = HashMap<AttemptId, BTreeMap<u32, Mark>>;

/// One record of the spool: a report, and where somebody goes on who has it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub report: Option<Report>,
    #[prost(message, optional, tag = "2")]
    pub mark: Option<Mark>,
}

/// The file's contents.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Checkpoint {
    /// The report that this is the state after.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(message, repeated, tag = "2")]
    marks: Vec<OfAttempt>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfAttempt {
    #[prost(message, optional, tag = "1")]
    attempt: Option<AttemptId>,
    #[prost(message, repeated, tag = "2")]
    marks: Vec<Mark>,
}

impl Checkpoint {
    pub fn new(number: u64, marks: &Marks) -> Checkpoint {
        let of_attempt = |(attempt, marks): (&AttemptId, &BTreeMap<u32, Mark>)| OfAttempt {
            attempt: Some(attempt.clone()),
            marks: marks.values().cloned().collect(),
        };
        Checkpoint { number, marks: marks.iter().map(of_attempt).collect() }
    }

    pub fn into_marks(self) -> Marks {
        let of_attempt = |of: OfAttempt| {
            let marks = of.marks.into_iter().map(|mark| (mark.container, mark)).collect();
            Some((of.attempt?, marks))
        };
        self.marks.into_iter().filter_map(of_attempt).collect()
    }

    /// Replaces the file in `dir`, durably.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let draft = dir.join("marks.draft");
        fs::write(&draft, self.encode_to_vec())?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// What the file in `dir` says; nothing where there is none yet.
    pub fn read(dir: &Path) -> io::Result<Checkpoint> {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => Checkpoint::decode(&bytes[..]).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Checkpoint::default()),
            Err(error) => Err(error),
        }
    }
}
