//! Manifests that were made to do harm, or damaged: each is an error with a code, and nothing is done outside.

use std::os::unix::fs::symlink;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{ChunkStore, ObjectStore, Options, Packed, SnapshotId, chunks_of, restore};

fn store() -> ObjectStore {
    ObjectStore::new("memory:///", []).unwrap()
}

fn keep(store: &ObjectStore, content: &[u8]) -> ChunkId {
    let packed = Packed::new(content).unwrap();
    store.put(std::slice::from_ref(&packed)).unwrap();
    packed.id
}

/// A snapshot that has these bytes in its root.
fn snapshot_of(store: &ObjectStore, height: u8, body: &[u8]) -> SnapshotId {
    SnapshotId(keep(store, &[&START[..], &[height], body].concat()))
}

fn stream(records: &[Record]) -> Vec<u8> {
    let mut stream = Vec::new();
    records.iter().for_each(|record| stream.record(record));
    stream
}

fn meta() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

fn top() -> Record {
    Record::Directory { name: Vec::new(), meta: meta() }
}

fn directory(name: &[u8]) -> Record {
    Record::Directory { name: name.to_vec(), meta: meta() }
}

fn file(name: &[u8], size: u64) -> Record {
    Record::File { name: name.to_vec(), meta: meta(), size, linked: false }
}

fn link_to(name: &[u8], target: &[u8]) -> Record {
    Record::Symlink { name: name.to_vec(), meta: meta(), target: target.to_vec() }
}

#[test]
fn what_describes_no_directory_is_refused() {
    let store = store();
    let id = keep(&store, b"evil");
    let chunk = || Record::Segment(Segment::Chunk { id, length: 4 });
    let part = |of, offset, length| {
        Record::Segment(Segment::Part(Box::new(Part { id, of, offset, length, hash: id })))
    };
    let bad_meta = |meta| Record::Directory { name: b"a".to_vec(), meta };
    let deep: Vec<Record> =
        std::iter::once(top()).chain((0..600).map(|_| directory(b"d"))).collect();
    let cases: Vec<(&str, Vec<Record>)> = vec![
        ("empty", vec![]),
        ("no top", vec![file(b"a", 0)]),
        ("a top with a name", vec![directory(b"a"), Record::End]),
        ("not ended", vec![top()]),
        ("ended twice", vec![top(), Record::End, Record::End]),
        ("goes on", vec![top(), Record::End, file(b"a", 0)]),
        ("up", vec![top(), file(b"..", 0), Record::End]),
        ("here", vec![top(), directory(b"."), Record::End, Record::End]),
        ("a path", vec![top(), file(b"a/b", 0), Record::End]),
        ("absolute", vec![top(), file(b"/etc/passwd", 0), Record::End]),
        ("no name", vec![top(), directory(b""), Record::End, Record::End]),
        ("a zero byte", vec![top(), file(b"a\0", 0), Record::End]),
        ("too long a name", vec![top(), file(&[b'a'; 256], 0), Record::End]),
        ("twice", vec![top(), file(b"a", 0), file(b"a", 0), Record::End]),
        (
            "a link, then into it",
            vec![top(), link_to(b"a", b"/tmp"), directory(b"a"), Record::End, Record::End],
        ),
        ("out of order", vec![top(), file(b"b", 0), file(b"a", 0), Record::End]),
        ("the mark", vec![top(), file(crate::restore::MARKER.as_bytes(), 0), Record::End]),
        ("too few bytes", vec![top(), file(b"a", 5), chunk(), Record::End]),
        ("too many", vec![top(), file(b"a", 3), chunk(), Record::End]),
        ("bytes of nothing", vec![top(), chunk(), Record::End]),
        (
            "another length",
            vec![
                top(),
                file(b"a", 3),
                Record::Segment(Segment::Chunk { id, length: 3 }),
                Record::End,
            ],
        ),
        (
            "no length",
            vec![
                top(),
                file(b"a", 0),
                Record::Segment(Segment::Chunk { id, length: 0 }),
                Record::End,
            ],
        ),
        ("a part outside", vec![top(), file(b"a", 4), part(4, 1, 4), Record::End]),
        ("a part far outside", vec![top(), file(b"a", 4), part(4, u32::MAX, 4), Record::End]),
        ("a part of another length", vec![top(), file(b"a", 3), part(9, 1, 3), Record::End]),
        (
            "a link to nothing",
            vec![top(), Record::Link { name: b"a".to_vec(), to: 0 }, Record::End],
        ),
        (
            "a mode",
            vec![top(), bad_meta(Meta { mode: 0o10000, ..meta() }), Record::End, Record::End],
        ),
        (
            "a time",
            vec![
                top(),
                bad_meta(Meta { mtime: (0, 1_000_000_000), ..meta() }),
                Record::End,
                Record::End,
            ],
        ),
        (
            "an owner",
            vec![top(), bad_meta(Meta { uid: u32::MAX, ..meta() }), Record::End, Record::End],
        ),
        ("an empty target", vec![top(), link_to(b"a", b""), Record::End]),
        ("too deep", deep),
        (
            "bigger than any file",
            vec![
                top(),
                file(b"a", u64::MAX),
                Record::Segment(Segment::Hole { length: u64::MAX }),
                Record::End,
            ],
        ),
    ];
    let home = tempfile::tempdir().unwrap();
    for (name, records) in cases {
        let id = snapshot_of(&store, 0, &stream(&records));
        let dir = home.path().join("top/dir");
        let error = restore(id, &dir, &store, None, &Options::default()).expect_err(name);
        assert!(error.code().starts_with("blobs/"), "{name}: {error}");
        let around: Vec<_> = std::fs::read_dir(home.path().join("top")).unwrap().collect();
        assert_eq!(around.len(), 1, "{name}");
        std::fs::remove_dir_all(home.path().join("top")).unwrap();
    }
}

#[test]
fn what_is_no_manifest_is_refused_without_touching_the_directory() {
    let store = store();
    let list = |ids: &[ChunkId]| ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>();
    let some = keep(&store, b"some");
    for id in [
        SnapshotId(some),
        SnapshotId(keep(&store, b"")),
        SnapshotId(keep(&store, &START)),
        SnapshotId(ChunkId::of(b"not there")),
        snapshot_of(&store, MAX_HEIGHT + 1, &list(&[some])),
        snapshot_of(&store, 1, b"no ids"),
        snapshot_of(&store, 1, &[]),
        snapshot_of(&store, 2, &list(&[some])),
        snapshot_of(&store, 1, &list(&[some])),
        snapshot_of(&store, 1, &list(&vec![some; MAX_LIST + 1])),
        snapshot_of(&store, 0, &[0xff; 100]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "mine").unwrap();
        restore(id, dir.path(), &store, None, &Options::default()).unwrap_err();
        chunks_of(id, &store, &mut |_| {}).unwrap_err();
        assert_eq!(std::fs::read_to_string(dir.path().join("mine")).unwrap(), "mine");
        assert!(!crate::is_unfinished(dir.path()));
    }
}

#[test]
fn nothing_is_written_through_a_symbolic_link_that_lies_in_the_way() {
    let store = store();
    let id = keep(&store, b"evil");
    let chunk = || Record::Segment(Segment::Chunk { id, length: 4 });
    let records = [
        top(),
        directory(b"d"),
        file(b"f", 4),
        chunk(),
        Record::End,
        file(b"g", 4),
        chunk(),
        Record::End,
    ];
    let snapshot = snapshot_of(&store, 0, &stream(&records));
    let home = tempfile::tempdir().unwrap();
    let (outside, dir) = (home.path().join("outside"), home.path().join("dir"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["f", "g", "kept"] {
        std::fs::write(outside.join(name), "good").unwrap();
    }
    symlink(&outside, dir.join("d")).unwrap();
    symlink(outside.join("g"), dir.join("g")).unwrap();
    symlink(&outside, dir.join("too-much")).unwrap();
    // A name that is another's file too is replaced, not changed.
    restore(snapshot, &dir, &store, None, &Options::default()).unwrap();
    for name in ["f", "g", "kept"] {
        assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "good");
    }
    assert_eq!(std::fs::read_to_string(dir.join("d/f")).unwrap(), "evil");
    std::fs::remove_file(dir.join("g")).unwrap();
    std::fs::hard_link(outside.join("g"), dir.join("g")).unwrap();
    restore(snapshot, &dir, &store, None, &Options::default()).unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("g")).unwrap(), "good");
    assert_eq!(std::fs::read_to_string(dir.join("g")).unwrap(), "evil");
}

#[test]
fn a_large_manifest_is_a_tree_and_most_of_it_stays_when_a_record_changes() {
    let store = store();
    let mut ids = Vec::new();
    let mut write = |changed: u32| {
        let mut kept = Vec::new();
        let mut keep = |chunk: Bytes| {
            kept.push(keep(&store, &chunk));
            Ok(ChunkId::of(&chunk))
        };
        let mut writer = ManifestWriter::new(&mut keep);
        writer.push(&top()).unwrap();
        for number in 0..300_000_u32 {
            let mtime = (i64::from(number == changed), 0);
            let name = format!("{number:08}").into_bytes();
            let meta = Meta { mtime, ..meta() };
            writer.push(&Record::File { name, meta, size: 0, linked: false }).unwrap();
        }
        writer.push(&Record::End).unwrap();
        let root = writer.finish().unwrap();
        store.put(std::slice::from_ref(&root)).unwrap();
        let mut reader = ManifestReader::new(SnapshotId(root.id), &store).unwrap();
        let mut count = 0;
        while reader.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 300_002);
        ids.push(kept);
    };
    write(7);
    write(200_000);
    let first: std::collections::HashSet<_> = ids[0].iter().collect();
    let new = ids[1].iter().filter(|id| !first.contains(id)).count();
    assert!(first.len() > 50 && new <= 6, "{new} of {}", first.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut rest = Decode(&bytes);
        while let Ok(record) = rest.record() {
            // What is read is written as it was read, but for numbers that are longer than they need be.
            let again = stream(std::slice::from_ref(&record));
            prop_assert_eq!(Decode(&again).record(), Ok(record));
        }
        let store = store();
        let id = snapshot_of(&store, 0, &[&stream(&[top()])[..], &bytes].concat());
        let mut reader = ManifestReader::new(id, &store).unwrap();
        while let Ok(Some(_)) = reader.next() {}
    }
}
