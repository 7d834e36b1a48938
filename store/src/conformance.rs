//! What any store must do: a suite to run over each of them.
//!
//! [`check`] tells the stories that are worth telling; [`Model`] is a store of the simplest kind, to compare with under random
//! operations. Both panic where the store is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::{Batch, Range, Store, is_empty, prefix};

/// A store under test.
pub trait Subject {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Closes the store and opens it again. What was synced is there; what was not may be lost from the newest batch on.
    fn reopen(&mut self);
}

/// Tells all stories, each to a new, empty store.
pub fn check(make: &mut dyn FnMut() -> Box<dyn Subject>) {
    keys_are_sorted_by_their_bytes(&*make());
    scans_keep_to_their_bounds(&*make());
    a_scan_stops_when_it_is_told(&*make());
    of_two_changes_of_a_key_the_later_counts(&*make());
    any_bytes_are_keys_and_values(&*make());
    batches_are_seen_whole(&*make());
    what_was_synced_is_there_after_reopening(&mut *make());
    a_replacement_replaces_everything(&mut *make());
    an_abandoned_replacement_does_nothing(&mut *make());
    a_store_is_used_by_many_threads(&*make());
}

fn batch(changes: &[(&str, Option<&str>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(*key, *value),
            None => batch.delete(*key),
        }
    }
    batch
}

/// Everything in a range.
pub fn entries(store: &dyn Store, range: Range, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visited = store.scan(range, reverse, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    visited.unwrap();
    found
}

fn all() -> Range {
    (Bound::Unbounded, Bound::Unbounded)
}

fn keys(store: &dyn Store, range: Range, reverse: bool) -> Vec<String> {
    let entries = entries(store, range, reverse);
    entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

fn keys_are_sorted_by_their_bytes(subject: &dyn Subject) {
    let store = subject.store();
    let mut batch = Batch::new();
    for key in [&b"b"[..], b"", b"a", b"a\0", b"\xff", b"aa", b"a\xff", b"B"] {
        batch.put(key, key);
    }
    store.write(batch).unwrap();
    let sorted = [&b""[..], b"B", b"a", b"a\0", b"aa", b"a\xff", b"b", b"\xff"];
    let forward: Vec<_> = entries(store, all(), false).into_iter().map(|(key, _)| key).collect();
    assert_eq!(forward, sorted);
    let mut backward: Vec<_> =
        entries(store, all(), true).into_iter().map(|(key, _)| key).collect();
    backward.reverse();
    assert_eq!(backward, sorted);
}

fn scans_keep_to_their_bounds(subject: &dyn Subject) {
    let store = subject.store();
    let names = ["a", "b", "c", "d", "e"];
    store.write(batch(&names.map(|name| (name, Some("value"))))).unwrap();
    let bounds = |name: &str| {
        let name = name.as_bytes().to_vec();
        [Bound::Included(name.clone()), Bound::Excluded(name), Bound::Unbounded]
    };
    for start in ["", "a", "b", "bb", "e", "f"].into_iter().flat_map(bounds) {
        for end in ["", "a", "bb", "d", "e", "f"].into_iter().flat_map(bounds) {
            let range = (start.clone(), end);
            let inside = |name: &&str| {
                let key = name.as_bytes().to_vec();
                std::ops::RangeBounds::contains(&range, &key)
            };
            let wanted: Vec<_> = names.iter().copied().filter(inside).collect();
            assert_eq!(keys(store, range.clone(), false), wanted, "{range:?}");
            let backward: Vec<_> = wanted.iter().rev().copied().collect();
            assert_eq!(keys(store, range.clone(), true), backward, "{range:?} backward");
        }
    }
    let mut more = Batch::new();
    more.put(&b"c\xff\xff"[..], "x");
    store.write(more).unwrap();
    assert_eq!(entries(store, prefix(b"c"), false).len(), 2);
    assert_eq!(entries(store, prefix(b"c\xff"), true).len(), 1);
    assert_eq!(entries(store, prefix(b"\xff\xff"), false).len(), 0);
    assert_eq!(entries(store, prefix(b""), false).len(), 6);
}

fn a_scan_stops_when_it_is_told(subject: &dyn Subject) {
    let store = subject.store();
    store.write(batch(&[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))])).unwrap();
    for (reverse, wanted) in [(false, ["a", "b"]), (true, ["c", "b"])] {
        let mut seen = Vec::new();
        let visited = store.scan(all(), reverse, &mut |key, _| {
            seen.push(String::from_utf8(key.to_vec()).unwrap());
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        visited.unwrap();
        assert_eq!(seen, wanted);
    }
}

fn of_two_changes_of_a_key_the_later_counts(subject: &dyn Subject) {
    let store = subject.store();
    store
        .write(batch(&[("a", Some("1")), ("a", Some("2")), ("b", Some("1")), ("b", None)]))
        .unwrap();
    store.write(batch(&[("c", None), ("c", Some("3")), ("never", None)])).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"2");
    assert_eq!(store.get(b"b").unwrap(), None);
    assert_eq!(store.get(b"c").unwrap().unwrap(), b"3");
    store.write(Batch::new()).unwrap();
    store.write(batch(&[("a", None)])).unwrap();
    assert_eq!(keys(store, all(), false), ["c"]);
}

fn any_bytes_are_keys_and_values(subject: &dyn Subject) {
    let store = subject.store();
    let long: Vec<u8> =
        (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut batch = Batch::new();
    batch.put("empty", "");
    batch.put("long", long.clone());
    batch.put(vec![0; 500], vec![0; 500]);
    for number in 0..40 {
        batch.put(format!("many/{number:03}"), &long[number..number + 60_000]);
    }
    store.write(batch).unwrap();
    store.sync().unwrap();
    assert_eq!(store.get(b"empty").unwrap().unwrap(), b"");
    assert!(store.get(b"long").unwrap().unwrap() == long);
    assert_eq!(store.get(&[0; 500]).unwrap().unwrap(), [0; 500]);
    assert!(store.get(b"many/039").unwrap().unwrap() == long[39..60_039]);
}

fn batches_are_seen_whole(subject: &dyn Subject) {
    let store = subject.store();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..200 {
                let value = round.to_string();
                store.write(batch(&[("x", Some(&value)), ("y", Some(&value))])).unwrap();
            }
        });
        // Reading y first: had a batch been seen by halves, x would be behind y.
        while !writer.is_finished() {
            let y = store.get(b"y").unwrap().map(|value| number(&value));
            let x = store.get(b"x").unwrap().map(|value| number(&value));
            assert!(x >= y, "{x:?} and {y:?}");
        }
    });
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn what_was_synced_is_there_after_reopening(subject: &mut dyn Subject) {
    for round in 0..5 {
        let value = round.to_string();
        subject
            .store()
            .write(batch(&[("last", Some(&value)), (&format!("round-{round}"), Some("x"))]))
            .unwrap();
        subject.store().sync().unwrap();
        subject.reopen();
        assert_eq!(subject.store().get(b"last").unwrap().unwrap(), value.as_bytes());
        assert_eq!(entries(subject.store(), prefix(b"round-"), false).len(), round + 1);
    }
    assert!(subject.store().disk_bytes() > 0);
}

fn a_replacement_replaces_everything(subject: &mut dyn Subject) {
    for round in 0..3 {
        let store = subject.store();
        store.write(batch(&[("old", Some("1")), ("both", Some("1"))])).unwrap();
        store.sync().unwrap();
        let mut replacement = store.begin_replacement().unwrap();
        replacement.write(batch(&[("both", Some("2")), ("new", Some("2"))])).unwrap();
        replacement.write(batch(&[("gone", Some("2")), ("newer", Some("2"))])).unwrap();
        replacement.write(batch(&[("gone", None)])).unwrap();
        // Until it is committed nothing is seen of it, and the old content takes writes.
        assert_eq!(store.get(b"both").unwrap().unwrap(), b"1");
        store.write(batch(&[("late", Some("1"))])).unwrap();
        assert_eq!(store.get(b"late").unwrap().unwrap(), b"1");
        replacement.commit().unwrap();
        assert_eq!(keys(store, all(), false), ["both", "new", "newer"], "round {round}");
        assert_eq!(store.get(b"both").unwrap().unwrap(), b"2");
        // A commit is durable by itself.
        subject.reopen();
        assert_eq!(keys(subject.store(), all(), false), ["both", "new", "newer"]);
        subject.store().write(batch(&[("after", Some("3"))])).unwrap();
        subject.store().sync().unwrap();
        subject.reopen();
        assert_eq!(keys(subject.store(), all(), false), ["after", "both", "new", "newer"]);
        subject.store().write(batch(&[("after", None)])).unwrap();
    }
}

fn an_abandoned_replacement_does_nothing(subject: &mut dyn Subject) {
    subject.store().write(batch(&[("old", Some("1"))])).unwrap();
    subject.store().sync().unwrap();
    for _ in 0..3 {
        let mut replacement = subject.store().begin_replacement().unwrap();
        replacement.write(batch(&[("new", Some("2"))])).unwrap();
        drop(replacement);
        assert_eq!(keys(subject.store(), all(), false), ["old"]);
    }
    subject.reopen();
    assert_eq!(keys(subject.store(), all(), true), ["old"]);
}

fn a_store_is_used_by_many_threads(subject: &dyn Subject) {
    let store = subject.store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    let mut batch = Batch::new();
                    batch.put(format!("{thread}/{round:03}"), round.to_string());
                    store.write(batch).unwrap();
                    if round % 10 == 0 {
                        store.sync().unwrap();
                    }
                    let found = entries(store, prefix(format!("{thread}/").as_bytes()), true);
                    assert_eq!(found.len(), round + 1);
                }
            });
        }
    });
    assert_eq!(entries(store, all(), false).len(), 200);
}

/// One step of a random test.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Writes a batch: a key, and its value or `None` to delete it.
    Write(Vec<crate::Change>),
    /// Syncs.
    Sync,
    /// Looks up a key.
    Get(Vec<u8>),
    /// Scans a range, in reverse if so, and stops after so many.
    Scan(Range, bool, usize),
    /// Syncs, closes and opens.
    Reopen,
    /// Replaces the content by these batches.
    Replace(Vec<Vec<crate::Change>>),
}

/// What a store must be equal to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    content: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    /// Does a step with a store and with itself, and compares.
    pub fn step(&mut self, subject: &mut dyn Subject, operation: Operation) {
        match operation {
            Operation::Write(changes) => {
                subject.store().write(batch_of(changes.clone())).unwrap();
                self.apply(changes);
            }
            Operation::Sync => subject.store().sync().unwrap(),
            Operation::Get(key) => {
                assert_eq!(subject.store().get(&key).unwrap().as_ref(), self.content.get(&key));
            }
            Operation::Scan(range, reverse, most) => {
                let mut found = Vec::new();
                let visited = subject.store().scan(range.clone(), reverse, &mut |key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    if found.len() < most {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                });
                visited.unwrap();
                assert_eq!(found, self.scan(range, reverse, most.max(1)));
            }
            Operation::Reopen => {
                subject.store().sync().unwrap();
                subject.reopen();
            }
            Operation::Replace(batches) => {
                let mut replacement = subject.store().begin_replacement().unwrap();
                self.content.clear();
                for changes in batches {
                    replacement.write(batch_of(changes.clone())).unwrap();
                    self.apply(changes);
                }
                replacement.commit().unwrap();
            }
        }
    }

    /// Compares everything.
    pub fn compare(&self, store: &dyn Store) {
        let wanted: Vec<_> = self.content.clone().into_iter().collect();
        assert_eq!(entries(store, all(), false), wanted);
    }

    fn apply(&mut self, changes: Vec<crate::Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.content.insert(key, value)),
                None => drop(self.content.remove(&key)),
            }
        }
    }

    fn scan(&self, range: Range, reverse: bool, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        if is_empty(&range) {
            return Vec::new();
        }
        let entries = self.content.range(range).map(|(key, value)| (key.clone(), value.clone()));
        if reverse { entries.rev().take(most).collect() } else { entries.take(most).collect() }
    }
}

fn batch_of(changes: Vec<crate::Change>) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}
