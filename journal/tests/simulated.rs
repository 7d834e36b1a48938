//! A journal on a disk that loses power, runs full and fails, in random order, against a model of what may be there.
//!
//! What `sync` returned for is there after every crash, what is there is a prefix of what was appended, what was cut stays
//! cut, and a journal that failed takes nothing more. `TENON_SEED` runs one seed, `TENON_SEEDS` so many from 0.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use tenon_journal::disk::sim::{Fault, Kind, Random, SimDisk};
use tenon_journal::{Error, Journal, Options, Verify};

const DIR: &str = "/node/log";

/// What may be in the journal.
struct Model {
    /// Everything that has this index now, deleted ones too.
    records: BTreeMap<u64, Vec<u8>>,
    /// The next append gets this index.
    next: u64,
    /// Everything below was acknowledged as durable.
    durable_next: u64,
    /// The first record is one of these.
    first: std::ops::RangeInclusive<u64>,
    /// A reset to this index failed: it may have happened or not.
    resetting: Option<u64>,
}

impl Model {
    /// An empty journal that begins with an index.
    fn empty(first: u64) -> Model {
        Model {
            records: BTreeMap::new(),
            next: first,
            durable_next: first,
            first: first..=first,
            resetting: None,
        }
    }

    /// Takes over what was found after a restart, if that is possible at all.
    fn check_and_accept(&mut self, journal: &Journal) {
        let (first, next) = (journal.first_index(), journal.last_index() + 1);
        let found: Vec<_> = journal.iter(first).map(Result::unwrap).collect();
        assert_eq!(found.len() as u64, next - first);
        if let Some(to) = self.resetting.take().filter(|to| found.is_empty() && first == *to) {
            *self = Model::empty(to);
            return;
        }
        if next == first && self.durable_next <= *self.first.end() {
            // An empty journal whose first segment never reached the disk begins anew.
            assert!(
                self.first.contains(&first) || first == 1,
                "begins at {first}, not {:?}",
                self.first
            );
        } else {
            assert!(self.first.contains(&first), "begins at {first}, not in {:?}", self.first);
        }
        assert!(
            next >= self.durable_next || next == first && self.durable_next <= *self.first.end(),
            "{} was acknowledged, {} is there",
            self.durable_next - 1,
            next - 1
        );
        assert!(next <= self.next, "{} was appended, {} is there", self.next - 1, next - 1);
        for (index, record) in found {
            assert_eq!(self.records.get(&index), Some(&record), "record {index}");
        }
        self.records.split_off(&next);
        (self.next, self.durable_next, self.first) = (next, next, first..=first);
    }
}

struct World {
    random: Random,
    disk: SimDisk,
    journal: Option<Journal>,
    options: Options,
    model: Model,
    written: u64,
    /// Faults or a limit are on, so calls may fail.
    troubled: bool,
    /// The journal said that it takes no more.
    failed: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.draw());
        let options = Options {
            segment_bytes: 100 + random.below(4000),
            buffer_limit: 200 + random.below(5000) as usize,
            compress_sealed: random.one_in(4).then_some(1),
            prepare_bytes: if random.one_in(2) { random.below(3000) } else { 0 },
            verify: if random.one_in(3) { Verify::Tail } else { Verify::All },
            ..Options::default()
        };
        let model = Model::empty(1);
        let mut world = World {
            random,
            disk,
            journal: None,
            options,
            model,
            written: 0,
            troubled: false,
            failed: false,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let options = Options { disk: self.disk.mount(), ..self.options.clone() };
        let opened = Journal::open(DIR, options.clone()).or_else(|error| {
            assert!(self.troubled, "{error}");
            assert!(matches!(error, Error::Io { .. } | Error::NoSpace { .. }), "{error}");
            self.disk.clear_faults();
            Journal::open(DIR, options)
        });
        let (journal, recovered) =
            opened.unwrap_or_else(|error| panic!("cannot be opened: {error}"));
        assert_eq!(
            (recovered.first_index, recovered.last_index),
            (journal.first_index(), journal.last_index())
        );
        self.disk.clear_faults();
        self.model.check_and_accept(&journal);
        self.journal = Some(journal);
        self.failed = false;
    }

    fn journal(&self) -> Journal {
        self.journal.clone().unwrap()
    }

    /// What a call returned, if it may fail at this time.
    fn judge<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                assert!(!self.failed, "a failed journal went on");
                Some(value)
            }
            Err(error) => {
                println!("  {error}");
                assert!(self.troubled || self.failed, "{error}");
                if self.failed {
                    assert_eq!(error.code(), "journal/failed");
                }
                self.notice_failure();
                None
            }
        }
    }

    fn notice_failure(&mut self) {
        self.failed |= matches!(self.journal().append(&[]), Err(Error::Failed { .. }));
    }

    fn step(&mut self) {
        let journal = self.journal();
        let choice = self.random.below(40);
        println!(
            "{choice}: {:?} {}..{}",
            self.model.first, self.model.durable_next, self.model.next
        );
        match choice {
            0..=11 => self.append(),
            12..=18 => {
                let synced = journal.sync();
                if let Some(last) = self.judge(synced) {
                    assert_eq!(last, self.model.next - 1);
                    self.model.durable_next = self.model.next;
                }
            }
            19 | 20 => {
                let flushed = journal.flush();
                self.judge(flushed);
            }
            21 | 22 => {
                let back = self.random.below(8);
                let from = self.model.next.saturating_sub(back).max(journal.first_index());
                let cut = journal.truncate_suffix(from);
                match self.judge(cut) {
                    Some(()) => {
                        self.model.records.split_off(&from);
                        self.model.next = from;
                        self.model.durable_next = self.model.durable_next.min(from);
                    }
                    None => self.model.durable_next = self.model.durable_next.min(from),
                }
            }
            23 | 24 => {
                let keep = journal.first_index() + self.random.below(20);
                let deleted = journal.delete_prefix(keep);
                let (least, most) = (*self.model.first.start(), *self.model.first.end());
                self.model.first = match self.judge(deleted) {
                    Some(()) => journal.first_index()..=journal.first_index(),
                    None => least..=keep.max(most),
                };
            }
            25 => {
                let to = 1 + self.random.below(100);
                if !self.random.one_in(3) {
                    return;
                }
                let refused = self.failed;
                let reset = journal.reset(to);
                match self.judge(reset) {
                    Some(()) => {
                        self.model = Model::empty(to);
                    }
                    // Either it stopped the journal, or nothing has happened.
                    None if self.failed && !refused => self.model.resetting = Some(to),
                    None => {}
                }
            }
            26 => {
                let compressed = journal.compress_sealed(1);
                self.judge(compressed);
            }
            27..=31 => self.read(),
            32 => {
                // A limit that is near, far or none.
                let limit = self.disk.used() + self.random.below(3000);
                let limit = (!self.random.one_in(3)).then_some(limit);
                self.disk.set_capacity(limit);
                self.troubled |= limit.is_some();
            }
            33 | 34 => {
                let kinds = [
                    None,
                    Some(Kind::Write),
                    Some(Kind::Sync),
                    Some(Kind::SyncDirectory),
                    Some(Kind::Create),
                    Some(Kind::Remove),
                    Some(Kind::Rename),
                    Some(Kind::SetLength),
                    Some(Kind::Read),
                    Some(Kind::Look),
                ];
                let on = kinds[self.random.below(kinds.len() as u64) as usize];
                let error =
                    if self.random.one_in(3) { ErrorKind::StorageFull } else { ErrorKind::Other };
                self.disk.inject(Fault {
                    on,
                    after: self.random.below(8),
                    times: 1 + self.random.below(2),
                    error,
                });
                self.troubled = true;
            }
            35 => {
                // Time passes: no more faults.
                self.disk.clear_faults();
                self.disk.set_capacity(None);
                self.troubled = false;
                // What was tried last may be what made it fail.
                self.notice_failure();
            }
            36 => {
                drop(journal);
                self.journal = None;
                self.open();
            }
            37 => {
                self.disk.kill();
                self.journal = None;
                self.open();
            }
            _ => {
                let mut random = Random::new(self.random.draw());
                self.disk.crash(&mut random);
                self.journal = None;
                self.open();
            }
        }
    }

    fn append(&mut self) {
        let records: Vec<_> = (0..1 + self.random.below(5))
            .map(|_| {
                self.written += 1;
                let length = self.random.below(300) as usize;
                format!("{}:{}", self.written, "r".repeat(length)).into_bytes()
            })
            .collect();
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let appended = self.journal().append(&slices);
        if let Some(first) = self.judge(appended) {
            assert_eq!(first, self.model.next);
            for record in records {
                self.model.records.insert(self.model.next, record);
                self.model.next += 1;
            }
        }
    }

    fn read(&mut self) {
        let journal = self.journal();
        let (first, next) = (journal.first_index(), journal.last_index() + 1);
        if !self.failed {
            assert_eq!(next, self.model.next);
        }
        let mut from = first + self.random.below(next - first + 1);
        let bytes = self.random.below(2000) as usize;
        loop {
            let read = journal.read_range(from, bytes);
            self.notice_failure();
            let range = match read {
                Ok(range) => range,
                Err(_) if self.troubled || self.failed => return,
                Err(error) => panic!("{error}"),
            };
            for (index, record) in &range {
                assert_eq!(*index, from);
                assert_eq!(self.model.records.get(index), Some(record), "record {index}");
                from += 1;
            }
            if range.is_empty() || self.random.one_in(3) {
                assert!(
                    !range.is_empty() || from == next || self.failed,
                    "nothing at {from} of {next}"
                );
                return;
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..20 + world.random.below(150) {
        world.step();
    }
    // In the end all is well again, and everything works.
    world.disk.clear_faults();
    world.disk.set_capacity(None);
    world.disk.kill();
    world.journal = None;
    world.troubled = false;
    world.open();
    world.append();
    world.journal().sync().unwrap();
    world.model.durable_next = world.model.next;
    world.disk.crash(&mut Random::new(seed));
    world.journal = None;
    world.open();
}

#[test]
fn a_journal_keeps_its_promises_on_a_disk_that_keeps_none() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("TENON_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TENON_SEEDS").unwrap_or(1000),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "replay with TENON_SEED={seed}");
    }
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let bytes = |seed| {
        let disk = SimDisk::new(seed);
        disk.record_operations(true);
        let options = Options { disk: disk.mount(), segment_bytes: 2000, ..Options::default() };
        let (journal, _) = Journal::open(DIR, options).unwrap();
        for index in 0..200u64 {
            journal.append(&[&index.to_le_bytes()[..], &[7; 100]]).unwrap();
            if index % 7 == 0 {
                journal.sync().unwrap();
            }
        }
        disk.crash(&mut Random::new(seed));
        let files: Vec<_> = disk
            .files()
            .into_iter()
            .map(|(path, _)| (disk.content(Path::new(&path)), path))
            .collect();
        (files, disk.take_operations())
    };
    assert_eq!(bytes(5), bytes(5));
    assert_ne!(bytes(5), bytes(6));
}

#[test]
fn flipped_bits_are_refused_or_cut_and_never_read() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(seed);
        let options = || Options {
            disk: disk.mount(),
            segment_bytes: 1500,
            compress_sealed: Some(1),
            ..Options::default()
        };
        let record = |index: u64| format!("record {index} {}", "x".repeat((index % 90) as usize));
        let (journal, _) = Journal::open(DIR, options()).unwrap();
        for index in 1..=80 {
            journal.append(&[record(index).as_bytes()]).unwrap();
            if index % 5 == 0 {
                journal.sync().unwrap();
            }
        }
        disk.kill();
        drop(journal);
        let (path, bit) = disk.flip_random_bit(&mut random).unwrap();
        let what = format!("seed {seed}: {} bit {bit}", path.display());
        match Journal::open(DIR, options()) {
            Ok((journal, recovered)) => {
                assert!(recovered.cut.is_some(), "{what} went unnoticed");
                assert!(recovered.last_index >= 75, "{what} cut more than the last batch");
                for item in journal.iter(1) {
                    let (index, bytes) = item.unwrap();
                    assert_eq!(bytes, record(index).as_bytes(), "{what}");
                }
            }
            Err(error) => assert_eq!(error.code(), "journal/damaged", "{what}: {error}"),
        }
    }
}
