//! The log by itself: whenever it stops, what was synced is there again, and it is a log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::Arc;

use tenon_consensus::{
    Committed, ConfState, Core, Error, LogOptions, LogWriter, Options, Position, Repair,
    SnapshotMeta,
};
use tenon_journal::disk::sim::{Fault, Random, SimDisk};
use tenon_journal::disk::{self, Disk};

const DIR: &str = "/node/raft";

fn options(disk: Arc<dyn Disk>) -> LogOptions {
    LogOptions { segment_bytes: 2 << 10, prepare_bytes: 700, memory_bytes: 1 << 10, disk }
}

/// What a node on its own was promised by its log.
#[derive(Clone, Debug, Default)]
struct Promised {
    applied: Position,
    term: u64,
    data: Vec<(u64, Vec<u8>)>,
}

/// Runs a single voter that proposes, compacts and is opened again, until the disk fails. Whatever comes back from `sync` is
/// promised.
fn run(disk: &SimDisk, promised: &mut Promised, members: &ConfState) -> Result<(), Error> {
    if promised.applied.index == 0 {
        promised.applied = LogWriter::bootstrap(Path::new(DIR), options(disk.mount()), members)?;
    }
    for _ in 0..3 {
        let (mut log, view, _) = LogWriter::open(Path::new(DIR), options(disk.mount()))?;
        log.repair(promised.applied)?;
        let applied = promised.applied.index;
        let mut core = Core::new(Options::new(1), view, applied, members.clone())?;
        for round in 0..20_u8 {
            let _ = core.propose(vec![round; 150]);
            while let Some(ready) = core.ready()? {
                if let Some(write) = ready.write {
                    log.write(&write)?;
                    core.persisted(log.sync()?);
                    promised.term = core.status().term;
                }
                for committed in ready.committed {
                    if let Committed::Entry { index, data, .. } = &committed {
                        promised.data.push((*index, data.to_vec()));
                    }
                    promised.applied = committed.position();
                    core.applied(committed.index());
                }
            }
            if round % 5 == 4
                && let Some(compaction) = core.compact(promised.applied.index - 2)
            {
                log.compact(&compaction)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_synced() {
    let members = ConfState::of_voters([1]);
    let mut crashes = 0;
    for after in 0.. {
        let disk = SimDisk::new(after);
        disk.inject(Fault { after, times: u64::MAX, ..fault() });
        let mut promised = Promised::default();
        let ended = run(&disk, &mut promised, &members);
        for luck in 0..3 {
            let copy = SimDisk::from_image(disk.image());
            copy.crash(&mut Random::new(luck));
            check(&copy, &promised, &members, after);
            // And it goes on from there.
            run(&copy, &mut promised.clone(), &members).unwrap();
        }
        crashes += 1;
        if ended.is_ok() {
            break;
        }
    }
    assert!(crashes > 100, "{crashes}");
}

fn fault() -> Fault {
    Fault { on: None, ..Fault::next(tenon_journal::disk::sim::Kind::Sync) }
}

fn check(disk: &SimDisk, promised: &Promised, members: &ConfState, after: u64) {
    if promised.applied.index == 0 {
        return;
    }
    let (mut log, view, found) = LogWriter::open(Path::new(DIR), options(disk.mount())).unwrap();
    assert_eq!(log.repair(promised.applied).unwrap(), Repair::Unneeded, "after {after}");
    assert!(found.term >= promised.term, "after {after}: {found:?}, {promised:?}");
    assert!(found.last >= promised.applied.index);
    assert!(found.first < promised.applied.index || promised.applied.index <= 2);
    let from = found.first - 1;
    let mut core = Core::new(Options::new(1), view, from, members.clone()).unwrap();
    let mut data = Vec::new();
    while let Some(ready) = core.ready().unwrap() {
        for committed in ready.committed {
            if let Committed::Entry { index, data: bytes, .. } = &committed {
                data.push((*index, bytes.to_vec()));
            }
            core.applied(committed.index());
        }
    }
    for expected in promised.data.iter().filter(|(index, _)| *index > from) {
        // What was applied was committed, though the log need not know: the core was told less here.
        let known = data.iter().find(|(index, _)| *index == expected.0);
        assert!(known.is_none_or(|known| known == expected), "after {after}");
    }
}

#[test]
fn a_log_begins_once_and_has_a_writer_once() {
    let dir = tempfile::tempdir().unwrap();
    let members = ConfState::of_voters([1, 2, 3]);
    let first = LogWriter::bootstrap(dir.path(), LogOptions::default(), &members).unwrap();
    assert_eq!(first, Position { index: 1, term: 1 });
    // A second try after a crash is no harm as long as nothing happened.
    LogWriter::bootstrap(dir.path(), LogOptions::default(), &members).unwrap();
    let (mut log, view, found) = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    assert_eq!((found.first, found.last, found.term, found.commit), (2, 1, 1, 1));
    assert_eq!(log.repair(first).unwrap(), Repair::Unneeded);
    let locked = LogWriter::open(dir.path(), LogOptions::default()).err().unwrap();
    assert_eq!(locked.code(), "journal/locked");

    let alone = ConfState::of_voters([1]);
    let mut core = Core::new(Options::new(1), view, 1, alone).unwrap();
    while let Some(ready) = core.ready().unwrap() {
        if let Some(write) = ready.write {
            log.write(&write).unwrap();
            core.persisted(log.sync().unwrap());
        }
    }
    drop((core, log));
    let used = LogWriter::bootstrap(dir.path(), LogOptions::default(), &members).unwrap_err();
    assert_eq!(used.code(), "consensus/exists");
    let wrong = LogWriter::bootstrap(dir.path(), LogOptions::default(), &ConfState::default());
    assert_eq!(wrong.unwrap_err().code(), "consensus/invalid");
}

#[test]
fn a_state_and_a_log_that_do_not_belong_together_are_told_apart() {
    let disk = SimDisk::new(1);
    let members = ConfState::of_voters([1]);
    let mut promised = Promised::default();
    run(&disk, &mut promised, &members).unwrap();
    let (mut log, view, found) = LogWriter::open(Path::new(DIR), options(disk.mount())).unwrap();
    assert!(found.first > 5);
    let too_old = log.repair(Position { index: 3, term: 1 }).unwrap_err();
    assert_eq!(too_old.code(), "consensus/apart");
    assert!(matches!(
        Core::new(Options::new(1), view.clone(), 3, members.clone()),
        Err(Error::Apart { .. })
    ));
    // The state of a snapshot that the log has not heard of.
    let ahead = Position { index: 1000, term: 50 };
    assert_eq!(log.repair(ahead).unwrap(), Repair::BegunAnew);
    assert_eq!(log.repair(ahead).unwrap(), Repair::Unneeded);
    drop((log, view));
    let (_, _, found) = LogWriter::open(Path::new(DIR), options(disk.mount())).unwrap();
    assert_eq!((found.first, found.last, found.commit, found.term), (1001, 1000, 1000, 50));
}

#[test]
fn a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(4);
    let members = ConfState::of_voters([1]);
    LogWriter::bootstrap(Path::new(DIR), options(disk.mount()), &members).unwrap();
    let (mut log, view, _) = LogWriter::open(Path::new(DIR), options(disk.mount())).unwrap();
    let mut core = Core::new(Options::new(1), view, 1, members).unwrap();
    disk.set_capacity(Some(disk.used() + 400));
    let mut full = 0;
    let mut committed = 0;
    for _ in 0..20 {
        let _ = core.propose(vec![7; 100]);
        while let Some(ready) = core.ready().unwrap() {
            committed += ready.committed.len();
            let Some(write) = ready.write else { continue };
            let before = core.status().persisted;
            log.write(&write).unwrap();
            match log.sync() {
                Ok(number) => core.persisted(number),
                Err(error) => {
                    assert_eq!(error.code(), "journal/no-space");
                    assert_eq!(core.status().persisted, before);
                    full += 1;
                }
            }
        }
    }
    assert!(full > 0 && committed < 20, "{full} times full, {committed} committed");
    disk.set_capacity(None);
    core.persisted(log.sync().unwrap());
    while let Some(ready) = core.ready().unwrap() {
        committed += ready.committed.len();
    }
    assert_eq!(committed, 21);
}

#[test]
fn a_damaged_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let journal = tenon_journal::Journal::open(dir.path(), tenon_journal::Options::default());
    let (journal, _) = journal.unwrap();
    journal.append(&[b"\xffwhat is this"]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let error = LogWriter::open(dir.path(), LogOptions::default()).err().unwrap();
    assert_eq!(error.code(), "consensus/damaged");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn a_snapshot_that_nobody_could_use_is_not_offered() {
    let members = ConfState::of_voters([1]);
    let dir = tempfile::tempdir().unwrap();
    LogWriter::bootstrap(
        dir.path(),
        LogOptions { disk: disk::real(), ..LogOptions::default() },
        &members,
    )
    .unwrap();
    let (_log, view, _) = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    let mut core = Core::new(Options::new(1), view, 1, members.clone()).unwrap();
    let meta = |index, term| SnapshotMeta {
        position: Position { index, term },
        conf_state: members.clone(),
        data: b"where".to_vec(),
    };
    assert!(!core.offer_snapshot(meta(9, 1)), "not applied");
    assert!(!core.offer_snapshot(meta(1, 7)), "another term");
    assert!(core.offer_snapshot(meta(1, 1)));
    assert_eq!(core.offered_snapshot(), Some(meta(1, 1)));
}
