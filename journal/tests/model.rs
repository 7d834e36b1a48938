//! A journal does what a `Vec` with a start index does, whatever the order of operations, segment sizes and reopenings.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use proptest::prelude::*;
use tenon_journal::{Error, Journal, Options, Verify};

#[derive(Clone, Debug)]
enum Operation {
    Append(Vec<Vec<u8>>),
    Sync,
    Flush,
    Reopen,
    TruncateSuffix(u64),
    DeletePrefix(u64),
    Reset(u64),
    Compress,
    Read(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let record = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        6 => prop::collection::vec(record, 1..8).prop_map(Operation::Append),
        3 => Just(Operation::Sync),
        1 => Just(Operation::Flush),
        2 => Just(Operation::Reopen),
        1 => (0u64..30).prop_map(Operation::TruncateSuffix),
        1 => (0u64..40).prop_map(Operation::DeletePrefix),
        1 => (1u64..1000).prop_map(Operation::Reset),
        1 => Just(Operation::Compress),
        3 => (0u64..50).prop_map(Operation::Read),
    ]
}

struct Model {
    first: u64,
    records: Vec<Vec<u8>>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

fn options(segment_bytes: u64, compress: bool) -> Options {
    let verify = if compress { Verify::Tail } else { Verify::All };
    Options {
        segment_bytes,
        compress_sealed: compress.then_some(1),
        verify,
        buffer_limit: 700,
        prepare_bytes: if compress { 0 } else { 500 },
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_journal_is_a_vec(operations in prop::collection::vec(operation(), 1..40), segment_bytes in 100u64..3000, compress: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), options(segment_bytes, compress)).unwrap();
        let mut follower = journal.reader(1);
        let mut follows = true;
        let mut model = Model { first: 1, records: Vec::new() };
        for operation in operations {
            match operation {
                Operation::Append(records) => {
                    let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                    prop_assert_eq!(journal.append(&slices).unwrap(), model.next());
                    model.records.extend(records);
                }
                Operation::Sync => {
                    prop_assert_eq!(journal.sync().unwrap(), model.next() - 1);
                    while let Some(record) = if follows { follower.next().unwrap() } else { None } {
                        let at = (record.index - model.first) as usize;
                        prop_assert_eq!(record.payload, &model.records[at][..]);
                    }
                    prop_assert!(!follows || follower.position() == model.next());
                }
                Operation::Flush => journal.flush().unwrap(),
                Operation::Reopen => {
                    follows = false;
                    follower = journal.reader(1);
                    let weak = journal;
                    drop((weak, std::mem::replace(&mut follower, tenon_journal::Reader::open(dir.path(), 1).unwrap())));
                    let (again, recovered) = Journal::open(dir.path(), options(segment_bytes, compress)).unwrap();
                    prop_assert_eq!(recovered.cut, None);
                    prop_assert_eq!(recovered.last_index + 1, if model.records.is_empty() { again.first_index() } else { model.next() });
                    if model.records.is_empty() {
                        // An empty journal that was never written has no file to remember its first index by.
                        model.first = again.first_index();
                    }
                    journal = again;
                }
                Operation::TruncateSuffix(back) => {
                    let from = model.next().saturating_sub(back);
                    follows = false;
                    if from < model.first {
                        let refused = matches!(journal.truncate_suffix(from), Err(Error::Gone { .. }));
                        prop_assert!(refused);
                    } else {
                        journal.truncate_suffix(from).unwrap();
                        model.records.truncate((from - model.first) as usize);
                    }
                }
                Operation::DeletePrefix(keep) => {
                    let keep_from = model.first + keep;
                    follows = false;
                    journal.delete_prefix(keep_from).unwrap();
                    let first = journal.first_index();
                    prop_assert!(first >= model.first && first <= keep_from.max(model.first).min(model.next()));
                    model.records.drain(..(first - model.first) as usize);
                    model.first = first;
                }
                Operation::Reset(next) => {
                    follows = false;
                    journal.reset(next).unwrap();
                    model = Model { first: next, records: Vec::new() };
                }
                Operation::Compress => journal.compress_sealed(1).unwrap(),
                Operation::Read(ahead) => {
                    let index = model.first + ahead;
                    let wanted = model.records.get(ahead as usize).cloned();
                    prop_assert_eq!(journal.read(index).unwrap(), wanted);
                }
            }
            prop_assert_eq!(journal.first_index(), model.first);
            prop_assert_eq!(journal.last_index() + 1, model.next());
        }
        let all: Vec<_> = journal.iter(model.first).map(|item| item.unwrap()).collect();
        let wanted: Vec<_> = (model.first..).zip(model.records.clone()).collect();
        prop_assert_eq!(all, wanted);
        journal.sync().unwrap();
        let mut outside = tenon_journal::Reader::open(dir.path(), model.first).unwrap();
        for record in &model.records {
            prop_assert_eq!(outside.next().unwrap().unwrap().payload, &record[..]);
        }
        prop_assert!(outside.next().unwrap().is_none());
    }
}
