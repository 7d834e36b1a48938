//! Reports on the disk: a journal whose index is the report's number.
//!
//! The directory is named after the agent's life (`spool/<incarnation>/`), so numbers and the name
//! under which they are counted come and go together.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use tenon_journal::{Journal, Options, Reader};
use tenon_proto::agent::v1::{AttemptId, Report, report};
use tokio::sync::watch;

use super::marks::{Checkpoint, Entry, Marks};
use super::writer::{Order, Writer};
use super::{Safe, SpoolError};
use crate::record::{Mark, Marked};

/// A file of the spool; acknowledged reports are dropped by files.
const SEGMENT: u64 = 16 << 20;
/// Name of the directory with one directory for each life; there is one.
const SPOOL: &str = "spool";
/// Bytes that may wait for the disk before no more is taken.
const UNSAFE: u64 = 8 << 20;
/// How finely it is known how many bytes stand before which number.
const PIECE: u64 = 256 << 10;

/// How long a process that is about to be gone is waited for, and how often it is looked for.
const LEAVING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// How a spool is kept.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The agent's directory; the spool is below it.
    pub data_dir: PathBuf,
    /// Bytes of unacknowledged reports above which steps are slowed down.
    pub limit: u64,
}

/// What an earlier process left in the spool.
#[derive(Debug, Default)]
pub struct Found {
    /// The agent's life, which goes on.
    pub incarnation: String,
    /// Attempts whose end is in the spool.
    pub(crate) ended: HashSet<AttemptId>,
    /// The others that were begun, and where their records stand.
    pub(crate) marks: Marks,
}

/// See [`super::Spool`].
pub struct DiskSpool {
    parent: PathBuf,
    journal: Journal,
    writer: Writer,
    safe: watch::Receiver<Safe>,
    limit: u64,
    last_number: u64,
    acknowledged: u64,
    reader: Reader,
    /// The number that `reader` gives next.
    next: u64,
    /// Where the live attempts' records stand, as of the last report.
    marks: Marks,
    /// Marks that are not safe yet, by number.
    waiting: VecDeque<(u64, Marked)>,
    sizes: Sizes,
    dropped: u64,
    /// Held for as long as the agent lives.
    _lock: File,
}

impl DiskSpool {
    /// Removes a life that is over: nobody takes what it had to report. The next start begins another one.
    pub fn forget(data_dir: &Path, life: &str) -> io::Result<()> {
        fs::remove_dir_all(data_dir.join(SPOOL).join(life))
    }

    /// Opens the spool of the agent that lives in `data_dir`, or begins one; `new_life` names it then.
    pub fn open(
        options: &SpoolOptions,
        new_life: impl FnOnce() -> String,
    ) -> Result<(DiskSpool, Found), SpoolError> {
        let parent = options.data_dir.join(SPOOL);
        let damaged = |dir: &Path, why: &dyn std::fmt::Display| SpoolError::Damaged {
            dir: dir.display().to_string(),
            why: why.to_string(),
        };
        crate::pod::make_dir(&parent, 0o700).map_err(|error| damaged(&parent, &error))?;
        let lock = lock(&options.data_dir)?;
        let lives = lives(&parent).map_err(|error| damaged(&parent, &error))?;
        let incarnation = match &lives[..] {
            [] => new_life(),
            [one] => one.clone(),
            more => return Err(damaged(&parent, &format!("it holds {} lives", more.len()))),
        };
        let dir = parent.join(&incarnation);
        let journal = Options { segment_bytes: SEGMENT, ..Options::default() };
        let opened = Journal::open(&dir, journal);
        let (journal, recovered) = opened.map_err(|error| damaged(&parent, &error))?;
        let mut found = Found { incarnation, ..Found::default() };
        let checkpoint = Checkpoint::read(&dir).map_err(|error| damaged(&parent, &error))?;
        if checkpoint.number > recovered.last_index {
            return Err(damaged(&parent, &"reports at its end are missing"));
        }
        let as_of = checkpoint.number;
        found.marks = checkpoint.into_marks();
        let mut sizes = Sizes::default();
        for entry in journal.iter(recovered.first_index) {
            let (number, bytes) = entry.map_err(|error| damaged(&parent, &error))?;
            sizes.add(number, bytes.len());
            let Ok(Entry { report: Some(report), mark }) = Entry::decode(&bytes[..]) else {
                return Err(damaged(&parent, &format!("record {number} is no report")));
            };
            let Some(attempt) = report.attempt else { continue };
            let has_ended = matches!(report.what, Some(report::What::Ended(_)));
            if number > as_of {
                note(&mut found.marks, &attempt, mark, has_ended);
            }
            if has_ended {
                found.ended.insert(attempt);
            }
        }
        let state = Safe { number: recovered.last_index, failed: None };
        let (safe, told) = watch::channel(state);
        let writer = Writer::start(journal.clone(), dir, safe);
        let spool = DiskSpool {
            writer: writer.map_err(|error| damaged(&parent, &error))?,
            parent,
            safe: told,
            limit: options.limit,
            last_number: recovered.last_index,
            acknowledged: recovered.first_index - 1,
            reader: journal.reader(recovered.first_index),
            next: recovered.first_index,
            marks: found.marks.clone(),
            waiting: VecDeque::new(),
            sizes,
            dropped: 0,
            journal,
            _lock: lock,
        };
        Ok((spool, found))
    }

    pub(crate) fn push(
        &mut self,
        report: impl FnOnce(u64) -> Report,
        marked: Option<Marked>,
    ) -> u64 {
        let number = self.last_number + 1;
        let report = report(number);
        let attempt = report.attempt.clone().unwrap_or_default();
        let has_ended = matches!(report.what, Some(report::What::Ended(_)));
        let mark = marked.as_ref().map(|marked| marked.mark.clone());
        let entry = Entry { report: Some(report), mark: mark.clone() };
        let bytes = entry.encode_to_vec();
        // A journal that has failed says so through the writer, and takes no more.
        if self.journal.append(&[&bytes]).is_err() {
            self.writer.order(Order::Sync);
            return number;
        }
        self.last_number = number;
        self.sizes.add(number, bytes.len());
        note(&mut self.marks, &attempt, mark, has_ended);
        self.waiting.extend(marked.map(|marked| (number, marked)));
        self.writer.order(Order::Sync);
        number
    }

    pub(crate) fn check(&self, number: u64) -> Result<(), SpoolError> {
        if number <= self.last_number {
            return Ok(());
        }
        let last = self.last_number;
        Err(SpoolError::Damaged {
            dir: self.parent.display().to_string(),
            why: format!("the coordinators know report {number}, and it ends with {last}"),
        })
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        self.acknowledged = self.acknowledged.max(number.min(self.last_number));
        self.sizes.forget_before(self.acknowledged);
        if self.sizes.up_to(self.acknowledged) >= self.dropped + SEGMENT {
            self.dropped = self.sizes.up_to(self.acknowledged);
            let checkpoint = Checkpoint::new(self.last_number, &self.marks);
            let keep_from = self.acknowledged + 1;
            self.writer.order(Order::Drop { keep_from, checkpoint });
        }
        if self.next <= self.acknowledged {
            self.rewind();
        }
    }

    pub(crate) fn rewind(&mut self) {
        self.next = self.acknowledged + 1;
        self.reader = self.journal.reader(self.next);
    }

    pub(crate) fn next(
        &mut self,
        most: usize,
        most_bytes: usize,
    ) -> Result<Vec<Report>, SpoolError> {
        let fail = |error: &dyn std::fmt::Display| SpoolError::Failed(error.to_string());
        let mut batch = Vec::new();
        let mut bytes = 0;
        // The reader gives what is durable, and no more.
        while batch.len() < most && bytes < most_bytes && self.is_waiting() {
            let Some(record) = self.reader.next().map_err(|error| fail(&error))? else { break };
            self.next = record.index + 1;
            bytes += record.payload.len();
            let entry = Entry::decode(record.payload).map_err(|error| fail(&error))?;
            batch.extend(entry.report);
        }
        Ok(batch)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.next <= self.safe.borrow().number
    }

    pub(crate) fn has_room(&self) -> bool {
        let all = self.sizes.up_to(self.last_number);
        let safe = self.safe.borrow();
        safe.failed.is_none()
            && all - self.sizes.up_to(self.acknowledged) < self.limit
            && all - self.sizes.up_to(safe.number) < UNSAFE
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.acknowledged >= self.last_number
    }

    pub(crate) fn safe(&self) -> watch::Receiver<Safe> {
        self.safe.clone()
    }

    pub(crate) fn tell_marks(&mut self) -> u64 {
        let safe = self.safe.borrow().number;
        while let Some((number, marked)) = self.waiting.front()
            && *number <= safe
        {
            marked.keep();
            self.waiting.pop_front();
        }
        safe
    }
}

fn note(marks: &mut Marks, attempt: &AttemptId, mark: Option<Mark>, has_ended: bool) {
    if has_ended {
        marks.remove(attempt);
        return;
    }
    // Also one that has no mark yet was begun by somebody.
    let of_attempt = marks.entry(attempt.clone()).or_default();
    if let Some(mark) = mark {
        of_attempt.insert(mark.container, mark);
    }
}

/// One agent a directory.
fn lock(data_dir: &Path) -> Result<File, SpoolError> {
    let path = data_dir.join("lock");
    let dir = data_dir.display().to_string();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file
        .map_err(|error| SpoolError::Damaged { dir: dir.clone(), why: format!("lock: {error}") })?;
    let until = Instant::now() + LEAVING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // One that was killed a moment ago may hold it still; nothing tells when it does not.
            Err(_) if Instant::now() < until => std::thread::park_timeout(LOOK),
            Err(_) => return Err(SpoolError::Taken { dir }),
        }
    }
}

fn lives(parent: &Path) -> std::io::Result<Vec<String>> {
    let mut lives = Vec::new();
    for entry in fs::read_dir(parent)? {
        lives.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(lives)
}

/// How many bytes there were up to which report; exact to a piece.
#[derive(Default)]
struct Sizes {
    bytes: u64,
    last: u64,
    /// Number, and bytes up to it.
    pieces: VecDeque<(u64, u64)>,
}

impl Sizes {
    fn add(&mut self, number: u64, bytes: usize) {
        self.bytes += bytes as u64;
        self.last = number;
        if self.pieces.back().is_none_or(|(_, before)| self.bytes - before >= PIECE) {
            self.pieces.push_back((number, self.bytes));
        }
    }

    fn forget_before(&mut self, number: u64) {
        while self.pieces.get(1).is_some_and(|(second, _)| *second <= number) {
            self.pieces.pop_front();
        }
    }

    fn up_to(&self, number: u64) -> u64 {
        if number >= self.last {
            return self.bytes;
        }
        let after = self.pieces.partition_point(|(last, _)| *last <= number);
        after.checked_sub(1).map_or(0, |piece| self.pieces[piece].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_proto::agent::v1::{Ended, Output};

    fn attempt(name: &str) -> AttemptId {
        AttemptId { task_run: name.to_owned(), ..AttemptId::default() }
    }

    fn options(dir: &Path) -> SpoolOptions {
        SpoolOptions { data_dir: dir.to_owned(), limit: 1 << 20 }
    }

    fn open(dir: &Path) -> (DiskSpool, Found) {
        DiskSpool::open(&options(dir), || "life".to_owned()).unwrap()
    }

    fn push(spool: &mut DiskSpool, name: &str, what: report::What, marked: Option<Marked>) -> u64 {
        let report =
            |number| Report { number, attempt: Some(attempt(name)), time_ms: 1, what: Some(what) };
        spool.push(report, marked)
    }

    fn output(bytes: usize) -> report::What {
        report::What::Output(Output { chunk: vec![7; bytes], ..Output::default() })
    }

    fn until_safe(spool: &DiskSpool, number: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut safe = spool.safe();
        let wait = safe.wait_for(|safe| safe.number >= number || safe.failed.is_some());
        runtime.block_on(async { assert!(wait.await.unwrap().failed.is_none()) });
    }

    fn numbers(spool: &mut DiskSpool) -> Vec<u64> {
        let mut numbers = Vec::new();
        while spool.is_waiting() {
            numbers.extend(spool.next(10, 1 << 20).unwrap().iter().map(|report| report.number));
        }
        numbers
    }

    #[test]
    fn another_process_goes_on_with_the_life_its_numbers_and_what_was_not_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, found) = open(dir.path());
        assert_eq!(found.incarnation, "life");
        let mark = Mark { container: 3, next: 17, ..Mark::default() };
        let marked = Marked::new(mark.clone());
        push(&mut spool, "a", output(10), Some(marked.clone()));
        push(&mut spool, "b", output(10), None);
        let last = push(&mut spool, "b", report::What::Ended(Ended::default()), None);
        until_safe(&spool, last);
        assert_eq!(marked.kept(), 0);
        spool.tell_marks();
        assert_eq!(marked.kept(), 17);
        assert_eq!(numbers(&mut spool), [1, 2, 3]);
        spool.acknowledge(1);
        drop(spool);

        let (mut spool, found) = DiskSpool::open(&options(dir.path()), || panic!()).unwrap();
        assert_eq!(found.incarnation, "life");
        assert_eq!(found.ended, HashSet::from([attempt("b")]));
        assert_eq!(found.marks[&attempt("a")][&3], mark);
        spool.acknowledge(1);
        assert_eq!(numbers(&mut spool), [2, 3]);
        assert_eq!(push(&mut spool, "a", output(1), None), 4);
        until_safe(&spool, 4);
        assert_eq!(numbers(&mut spool), [4]);
        spool.acknowledge(2);
        spool.rewind();
        assert_eq!(numbers(&mut spool), [3, 4]);
        assert!(!spool.is_empty());
        spool.acknowledge(u64::MAX);
        assert!(spool.is_empty());
    }

    #[test]
    fn a_directory_has_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let _spool = open(dir.path());
        let again = DiskSpool::open(&options(dir.path()), || "other".to_owned());
        let error = again.err().unwrap();
        assert_eq!(error.code(), "agent/taken");
    }

    #[test]
    fn what_is_acknowledged_goes_from_the_disk_and_its_marks_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(dir.path());
        let mark = Mark { container: 0, next: 1 << 30, ..Mark::default() };
        push(&mut spool, "a", output(1), Some(Marked::new(mark.clone())));
        for _ in 0..40 {
            let last = push(&mut spool, "b", output(1 << 20), None);
            until_safe(&spool, last);
            spool.acknowledge(last);
        }
        // One more is what the writer drops before.
        let last = push(&mut spool, "b", output(1), None);
        until_safe(&spool, last);
        drop(spool);
        let (spool, found) = open(dir.path());
        assert!(spool.journal.first_index() > 10, "{}", spool.journal.first_index());
        assert_eq!(found.marks[&attempt("a")][&0], mark);
    }

    #[test]
    fn a_full_spool_takes_no_more_until_enough_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(dir.path());
        let mut last = 0;
        while spool.has_room() {
            last = push(&mut spool, "a", output(300 << 10), None);
            until_safe(&spool, last);
        }
        assert_eq!(last, 4);
        spool.acknowledge(2);
        assert!(spool.has_room());
    }

    #[test]
    fn a_damaged_spool_says_what_to_do_and_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(dir.path());
        for number in 1..=3 {
            push(&mut spool, "a", output(5000), None);
            until_safe(&spool, number);
        }
        drop(spool);
        let life = dir.path().join("spool/life");
        let file = fs::read_dir(&life).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&file).unwrap();
        bytes[3000] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let error = DiskSpool::open(&options(dir.path()), || "other".to_owned()).err().unwrap();
        assert_eq!(error.code(), "agent/spool-damaged");
        assert!(error.to_string().contains("move the directory"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}
