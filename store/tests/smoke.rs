//! The stores do the simplest things.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::ops::{Bound, ControlFlow};

use tenon_store::{Batch, SledStore, Store};

#[test]
fn a_store_keeps_what_was_synced_and_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path().join("store")).unwrap();
    let mut batch = Batch::new();
    batch.put("b", "2");
    batch.put("a", "1");
    store.write(batch).unwrap();
    store.sync().unwrap();
    drop(store);
    let store = SledStore::open(dir.path().join("store")).unwrap();
    let mut replacement = store.begin_replacement().unwrap();
    let mut batch = Batch::new();
    batch.put("c", "3");
    replacement.write(batch).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
    replacement.commit().unwrap();
    drop(store);
    let store = SledStore::open(dir.path().join("store")).unwrap();
    let mut keys = Vec::new();
    store
        .scan((Bound::Unbounded, Bound::Unbounded), false, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(keys, [b"c"]);
}
