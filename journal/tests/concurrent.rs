//! Several threads on one journal: shared syncs, followers that are woken, listeners that are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tenon_journal::{Journal, Options};

#[test]
fn concurrent_writers_get_what_they_were_promised() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 8000, compress_sealed: Some(1), ..Options::default() };
    let (journal, _) = Journal::open(dir.path(), options.clone()).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let teller = Arc::clone(&told);
    journal.on_durable(move |last| {
        teller.fetch_max(last, Ordering::SeqCst);
    });
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (journal, barrier) = (&journal, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for number in 0..100u64 {
                    let record = format!("{thread} {number}");
                    let index = journal.append(&[record.as_bytes(), b"second"]).unwrap();
                    assert!(journal.sync().unwrap() > index);
                    assert_eq!(journal.read(index).unwrap().unwrap(), record.as_bytes());
                    if number % 30 == 29 {
                        journal.delete_prefix(index.saturating_sub(300)).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(journal.durable_index(), 800);
    assert_eq!(told.load(Ordering::SeqCst), 800);
    let first = journal.first_index();
    assert!(first > 1);
    drop(journal);
    let (journal, recovered) = Journal::open(dir.path(), options).unwrap();
    assert_eq!((recovered.first_index, recovered.last_index, recovered.cut), (first, 800, None));
    assert_eq!(journal.iter(first).map(Result::unwrap).count() as u64, 801 - first);
}

#[test]
fn a_follower_is_woken_by_sync_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(dir.path(), Options { segment_bytes: 1000, ..Options::default() }).unwrap();
    let mut reader = journal.reader(1);
    journal.append(&[b"not yet"]).unwrap();
    journal.flush().unwrap();
    assert!(reader.next().unwrap().is_none());
    assert!(!reader.wait(Duration::from_millis(1)).unwrap());
    std::thread::scope(|scope| {
        let follower = scope.spawn(move || {
            let mut seen = 0u64;
            while seen < 500 {
                assert!(reader.wait(Duration::from_secs(20)).unwrap());
                while let Some(record) = reader.next().unwrap() {
                    seen += 1;
                    assert_eq!(record.index, seen);
                }
            }
        });
        for number in 2..=500u32 {
            journal.append(&[&number.to_le_bytes()]).unwrap();
            journal.sync().unwrap();
        }
        follower.join().unwrap();
    });
}

#[test]
fn everything_deleted_leaves_little_on_disk_and_the_indices_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() })
            .unwrap();
    let record = vec![7; 10_000];
    for _ in 0..250 {
        journal.append(&[&record]).unwrap();
    }
    journal.sync().unwrap();
    assert!(journal.disk_bytes() > 2_000_000);
    journal.delete_prefix(251).unwrap();
    assert!(journal.disk_bytes() < 1000, "{}", journal.disk_bytes());
    assert_eq!((journal.first_index(), journal.last_index()), (251, 250));
    drop(journal);
    let (journal, recovered) = Journal::open(dir.path(), Options::default()).unwrap();
    assert_eq!((recovered.first_index, recovered.last_index), (251, 250));
    assert_eq!(journal.append(&[b"next"]).unwrap(), 251);
    assert_eq!(journal.read(100).unwrap_err().code(), "journal/gone");
}

#[test]
fn ranges_are_read_while_records_are_appended_and_segments_sealed() {
    const LAST: u64 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 5000, buffer_limit: 2000, ..Options::default() };
    let (journal, _) = Journal::open(dir.path(), options).unwrap();
    let record = |index: u64| format!("{index}:{}", "r".repeat((index % 60) as usize));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 1..=LAST {
                journal.append(&[record(index).as_bytes()]).unwrap();
                match index % 100 {
                    50 => drop(journal.sync().unwrap()),
                    99 => journal.compress_sealed(1).unwrap(),
                    _ => {}
                }
            }
        });
        for bytes in [1, 300, 100_000] {
            let journal = &journal;
            scope.spawn(move || {
                let mut next = 1;
                while next <= LAST {
                    let range = journal.read_range(next, bytes).unwrap();
                    for (index, payload) in range {
                        assert_eq!((index, payload), (next, record(next).into_bytes()));
                        next += 1;
                    }
                }
            });
        }
    });
    assert!(journal.read_range(LAST + 1, 10).unwrap().is_empty());
    journal.delete_prefix(LAST).unwrap();
    assert_eq!(journal.read_range(1, 10).unwrap_err().code(), "journal/gone");
    journal.truncate_suffix(LAST).unwrap();
    journal.append(&[b"other"]).unwrap();
    assert_eq!(journal.read_range(LAST, 10).unwrap(), [(LAST, b"other".to_vec())]);
}
