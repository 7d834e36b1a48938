//! All stores pass the same suite, and do what a map does under random operations.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs::File;
use std::ops::Bound;
use std::time::Duration;

use proptest::prelude::*;
use tenon_store::conformance::{self, Model, Operation, Subject};
use tenon_store::{Batch, Change, Fault, MemoryStore, Range, SledStore, Store};

struct Sled {
    dir: tempfile::TempDir,
    store: Option<SledStore>,
}

impl Sled {
    fn new() -> Sled {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path().join("store")).unwrap();
        Sled { dir, store: Some(store) }
    }
}

impl Subject for Sled {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(SledStore::open(self.dir.path().join("store")).unwrap());
    }
}

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn reopen(&mut self) {
        self.0.crash(|_| 0);
    }
}

#[test]
fn sled_passes() {
    conformance::check(&mut || Box::new(Sled::new()));
}

#[test]
fn memory_passes() {
    conformance::check(&mut || Box::new(Memory(MemoryStore::new())));
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that operations meet, and some long ones with common beginnings.
    prop_oneof![
        prop::collection::vec(0u8..3, 0..4),
        (0u8..20).prop_map(|last| [&b"a long common beginning "[..], &[last]].concat()),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..50),
        1 => (any::<u8>(), 0usize..100_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::vec((key(), prop::option::weighted(0.7, value)), 0..8)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let range = (bound(), bound()).prop_map(|range| -> Range { range });
    prop_oneof![
        10 => changes().prop_map(Operation::Write),
        2 => Just(Operation::Sync),
        6 => key().prop_map(Operation::Get),
        6 => (range, any::<bool>(), 0usize..10)
            .prop_map(|(range, reverse, most)| Operation::Scan(range, reverse, most)),
        1 => Just(Operation::Reopen),
        1 => prop::collection::vec(changes(), 0..4).prop_map(Operation::Replace),
    ]
}

fn compare(subject: &mut dyn Subject, operations: Vec<Operation>) {
    let mut model = Model::default();
    for operation in operations {
        model.step(subject, operation);
    }
    model.compare(subject.store());
    subject.store().sync().unwrap();
    subject.reopen();
    model.compare(subject.store());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_is_a_map(operations in prop::collection::vec(operation(), 1..60)) {
        compare(&mut Sled::new(), operations);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_a_map(operations in prop::collection::vec(operation(), 1..60)) {
        compare(&mut Memory(MemoryStore::new()), operations);
    }

    /// A crash takes whole batches, the newest first, and none that was synced.
    #[test]
    fn memory_loses_the_newest_batches(
        synced in prop::collection::vec(changes(), 0..6),
        unsynced in prop::collection::vec(changes(), 0..6),
        kept in 0usize..8,
    ) {
        let (store, wanted) = (MemoryStore::new(), MemoryStore::new());
        let write = |store: &MemoryStore, changes: &[Change]| {
            let mut batch = Batch::new();
            for (key, value) in changes.iter().cloned() {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            store.write(batch).unwrap();
        };
        synced.iter().for_each(|changes| write(&store, changes));
        store.sync().unwrap();
        unsynced.iter().for_each(|changes| write(&store, changes));
        store.crash(|batches| {
            assert_eq!(batches, unsynced.len());
            kept
        });
        synced.iter().chain(unsynced.iter().take(kept)).for_each(|changes| write(&wanted, changes));
        let all = || (Bound::Unbounded, Bound::Unbounded);
        prop_assert_eq!(
            conformance::entries(&store, all(), false),
            conformance::entries(&wanted, all(), false)
        );
        prop_assert_eq!(store.disk_bytes(), wanted.disk_bytes());
    }
}

#[test]
fn a_failing_memory_store_takes_nothing_and_keeps_what_it_has() {
    let store = MemoryStore::new();
    let batch = |value: &str| {
        let mut batch = Batch::new();
        batch.put("key", value);
        batch
    };
    store.write(batch("1")).unwrap();
    for (fault, code) in [(Fault::NoSpace, "store/no-space"), (Fault::Io, "store/io")] {
        store.set_fault(Some(fault));
        assert_eq!(store.write(batch("2")).unwrap_err().code(), code);
        assert_eq!(store.sync().unwrap_err().code(), code);
        assert!(store.begin_replacement().is_err());
        assert_eq!(store.get(b"key").unwrap().unwrap(), b"1");
    }
    store.crash(|_| 0);
    assert_eq!(store.get(b"key").unwrap(), None);
    store.write(batch("3")).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_spike_is_given_back() {
    let sled = Sled::new();
    let store = sled.store.as_ref().unwrap();
    for round in 0..200u32 {
        let mut batch = Batch::new();
        for number in 0..50 {
            batch.put(format!("{round}/{number}"), vec![round as u8; 2000]);
        }
        store.write(batch).unwrap();
    }
    store.sync().unwrap();
    for round in 1..200u32 {
        let mut batch = Batch::new();
        (0..50).for_each(|number| batch.delete(format!("{round}/{number}")));
        store.write(batch).unwrap();
    }
    store.sync().unwrap();
    let before = store.disk_bytes();
    assert!(before > 10 << 20, "sled gives room back by itself now: {before}");
    assert!(store.compact_if_wasteful(4 << 20).unwrap());
    let after = store.disk_bytes();
    assert!(after < 4 << 20, "{before} became {after}");
    assert!(!store.compact_if_wasteful(4 << 20).unwrap());
    assert_eq!(store.get(b"0/7").unwrap().unwrap(), vec![0; 2000]);
    assert_eq!(store.get(b"1/7").unwrap(), None);
}

#[test]
fn one_process_at_a_time() {
    let sled = Sled::new();
    let error = SledStore::open(sled.dir.path().join("store")).err().unwrap();
    assert_eq!(error.code(), "store/locked");
}

#[test]
fn a_store_opens_again_at_once_after_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::open(dir.path()).unwrap());
    // A thread of sled's that has just written something may be held up before it lets go of the file.
    let file = File::open(dir.path().join("state-000001/db")).unwrap();
    file.try_lock().unwrap();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| SledStore::open(dir.path()).map(drop));
        std::thread::park_timeout(Duration::from_millis(50));
        file.unlock().unwrap();
        opened.join().unwrap().unwrap();
    });
}
