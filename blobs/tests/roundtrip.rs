//! What is saved comes back: every kind of entry, and random trees over each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{assert_same, chmod, look, name, noise, write};
use proptest::prelude::*;
use tenon_blobs::{ChunkStore, LocalStore, ObjectStore, Options, SnapshotIndex, restore, save};

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn every_kind_of_entry_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a");
    write(&dir.join("empty"), b"");
    write(&dir.join("small"), b"hello");
    write(&dir.join("middle"), &noise(1, 100_000));
    write(&dir.join("large"), &noise(2, 20_000_000));
    write(&dir.join("text"), &b"all work and no play\n".repeat(200_000));
    write(&dir.join(name(b"not \xff utf-8 \n")), b"x");
    write(&dir.join("n".repeat(255)), b"long");
    write(&dir.join("d/e/f/deep"), b"deep");
    std::fs::create_dir_all(dir.join("empty-dir/inner")).unwrap();
    symlink("../nowhere", dir.join("dangling")).unwrap();
    symlink("/etc/passwd", dir.join("absolute")).unwrap();
    symlink("t".repeat(4000), dir.join("long-link")).unwrap();
    std::fs::hard_link(dir.join("small"), dir.join("another-name")).unwrap();
    std::fs::hard_link(dir.join("small"), dir.join("d/third-name")).unwrap();
    let sparse = std::fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"in the middle", 20_000_000).unwrap();
    let hole = std::fs::File::create(dir.join("hole")).unwrap();
    hole.set_len(10_000_000).unwrap();
    let small_hole = std::fs::File::create(dir.join("small-hole")).unwrap();
    small_hole.set_len(8192).unwrap();
    let huge = std::fs::File::create(dir.join("huge")).unwrap();
    huge.set_len((5 << 30) + 7).unwrap();
    huge.write_all_at(b"beyond four gigabytes", (4 << 30) + 5).unwrap();
    drop((sparse, hole, small_hole, huge));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(dir.join("socket")).unwrap();
    chmod(&dir.join("text"), 0o4755);
    chmod(&dir.join("empty"), 0o000);
    chmod(&dir.join("d/e"), 0o1777);
    chmod(&dir.join("empty-dir"), 0o555);
    let value = &b"\0any\xff"[..];
    for path in ["small", "d", "middle"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.join(path), "user.kept", value, flags).unwrap();
    }
    let old = std::fs::File::open(dir.join("middle")).unwrap();
    let before_epoch = std::time::UNIX_EPOCH - std::time::Duration::from_nanos(1_500_000_001);
    old.set_modified(before_epoch).unwrap();
    if is_root() {
        std::os::unix::fs::lchown(dir.join("text"), Some(12345), Some(54321)).unwrap();
        chmod(&dir.join("text"), 0o4755);
        std::os::unix::fs::lchown(dir.join("dangling"), Some(1), Some(2)).unwrap();
        // cap_net_raw+ep
        let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.join("middle"), "security.capability", capability, flags).unwrap();
        let (device, node) = (rustix::fs::makedev(1, 3), dir.join("null"));
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, node, kind, 0o666.into(), device).unwrap();
    }
    let before = look_without_huge(&dir);
    let store = LocalStore::open(&home.path().join("store"), 0).unwrap();
    let saved = save(&dir, &store, None, &Options::default()).unwrap();
    assert_eq!(saved.skipped, 1, "the socket");
    assert_eq!(saved.changed, 0);
    let copy = home.path().join("b");
    let restored = restore(saved.id, &copy, &store, None, &Options::default()).unwrap();
    assert_eq!((restored.files, restored.directories), (saved.files, saved.directories));
    assert_eq!(restored.bytes, saved.bytes);
    std::fs::remove_file(dir.join("socket")).unwrap();
    std::fs::File::open(&dir)
        .unwrap()
        .set_modified(copy.metadata().unwrap().modified().unwrap())
        .unwrap();
    assert_same(&before, &look_without_huge(&copy));
    let huge = copy.join("huge").metadata().unwrap();
    assert_eq!(huge.len(), (5 << 30) + 7);
    assert!(huge.blocks() < 100, "{} blocks", huge.blocks());
    let mut end = [0; 21];
    let file = std::fs::File::open(copy.join("huge")).unwrap();
    file.read_exact_at(&mut end, (4 << 30) + 5).unwrap();
    assert_eq!(&end, b"beyond four gigabytes");
    // The copy is the same snapshot.
    let again = save(&copy, &store, None, &Options::default()).unwrap();
    assert_eq!((again.id, again.new_chunks), (saved.id, 0));
}

/// Reading five gigabytes of zeros would take longer than all the rest.
fn look_without_huge(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, common::Seen> {
    let away = dir.with_extension("huge");
    let modified = dir.metadata().unwrap().modified().unwrap();
    std::fs::rename(dir.join("huge"), &away).unwrap();
    std::fs::File::open(dir).unwrap().set_modified(modified).unwrap();
    let seen = look(dir);
    std::fs::rename(&away, dir.join("huge")).unwrap();
    std::fs::File::open(dir).unwrap().set_modified(modified).unwrap();
    seen
}

#[test]
fn a_hundred_thousand_entries_of_one_directory_come_back() {
    // In memory where there is such a place: disks take minutes to forget so many files.
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = home.path().join("a");
    std::fs::create_dir(&dir).unwrap();
    for number in 0..100_000 {
        // Few have a content: disks take long to forget so many.
        let content = if number % 20 == 0 { number.to_string() } else { String::new() };
        std::fs::write(dir.join(number.to_string()), content).unwrap();
    }
    let store = LocalStore::open(&home.path().join("store"), 0).unwrap();
    let saved = save(&dir, &store, None, &Options::default()).unwrap();
    assert_eq!(saved.files, 100_000);
    assert!(saved.new_chunks < 2000, "{} chunks", saved.new_chunks);
    let copy = home.path().join("b");
    restore(saved.id, &copy, &store, None, &Options::default()).unwrap();
    assert_same(&look(&dir), &look(&copy));
}

#[test]
fn a_file_that_becomes_a_hole_gives_back_its_last_block_too() {
    let home = tempfile::tempdir().unwrap();
    let (dir, copy) = (home.path().join("a"), home.path().join("b"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::File::create(dir.join("n")).unwrap().set_len(22_421).unwrap();
    write(&copy.join("n"), &noise(1, 30_000));
    let store = LocalStore::open(&home.path().join("store"), 0).unwrap();
    let saved = save(&dir, &store, None, &Options::default()).unwrap();
    restore(saved.id, &copy, &store, None, &Options::default()).unwrap();
    assert_same(&look(&dir), &look(&copy));
}

/// What a random tree is made of.
#[derive(Clone, Debug)]
enum Entry {
    File {
        seed: u64,
        length: usize,
        mode: u32,
    },
    Sparse {
        seed: u64,
        at: u64,
        length: u64,
    },
    Directory {
        entries: Vec<(u8, Entry)>,
        mode: u32,
    },
    Symlink(String),
    /// Another name of the file that was made so many before it.
    Link(usize),
    Fifo,
}

fn entry() -> impl Strategy<Value = Entry> {
    let length = prop_oneof![4 => 0..20_000_usize, 1 => 20_000..700_000_usize, 1 => Just(0_usize)];
    let mode = prop_oneof![Just(0o644_u32), Just(0o755), Just(0o600), Just(0o4711), Just(0o444)];
    let leaf = prop_oneof![
        // Few seeds: there are to be equal files.
        6 => (0..6_u64, length, mode).prop_map(|(seed, length, mode)| Entry::File { seed, length, mode }),
        1 => (0..6_u64, 0..1_000_000_u64, 0..2_000_000_u64)
            .prop_map(|(seed, at, length)| Entry::Sparse { seed, at, length }),
        1 => "[a-z/.]{1,20}".prop_map(Entry::Symlink),
        1 => (0..4_usize).prop_map(Entry::Link),
        1 => Just(Entry::Fifo),
    ];
    let mode = prop_oneof![Just(0o755_u32), Just(0o700), Just(0o1777), Just(0o2750), Just(0o555)];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        (proptest::collection::vec((any::<u8>(), inner), 0..8), mode.clone())
            .prop_map(|(entries, mode)| Entry::Directory { entries, mode })
    })
}

fn tree() -> impl Strategy<Value = Vec<(u8, Entry)>> {
    proptest::collection::vec((any::<u8>(), entry()), 0..12)
}

fn make(dir: &Path, entries: &[(u8, Entry)], files: &mut Vec<std::path::PathBuf>) {
    for (label, entry) in entries {
        // Few names, so that of two trees many have the same; one in eight is no UTF-8.
        let label = label % 16;
        let path = dir.join(name(&if label % 8 == 0 {
            vec![0xfe, label + 1]
        } else {
            vec![b'a' + label]
        }));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match entry {
            Entry::File { seed, length, mode } => {
                std::fs::write(&path, noise(*seed, *length)).unwrap();
                chmod(&path, *mode);
                files.push(path);
            }
            Entry::Sparse { seed, at, length } => {
                let file = std::fs::File::create(&path).unwrap();
                file.write_all_at(&noise(*seed, 5000), *at).unwrap();
                file.set_len(*length).unwrap();
            }
            Entry::Directory { entries, mode } => {
                std::fs::create_dir(&path).unwrap();
                make(&path, entries, files);
                chmod(&path, *mode);
            }
            Entry::Symlink(target) => symlink(target, &path).unwrap(),
            Entry::Link(back) => {
                let first = files.len().checked_sub(back + 1).map(|at| files[at].clone());
                if let Some(first) = first {
                    // Root may write into any directory, others not into one that is done.
                    let _ = std::fs::hard_link(first, &path);
                }
            }
            Entry::Fifo => {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), 0).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_tree_comes_back_over_any_other(one in tree(), two in tree()) {
        let home = tempfile::tempdir().unwrap();
        let local = LocalStore::open(&home.path().join("store"), 0).unwrap();
        let objects = ObjectStore::new("memory:///x", []).unwrap();
        let trees = [home.path().join("one"), home.path().join("two")];
        for (dir, entries) in trees.iter().zip([&one, &two]) {
            std::fs::create_dir(dir).unwrap();
            make(dir, entries, &mut Vec::new());
        }
        let options = Options::default();
        for store in [&local as &dyn ChunkStore, &objects] {
            let saved = trees.clone().map(|dir| save(&dir, store, None, &options).unwrap());
            let copy = home.path().join("copy");
            // Into nothing, over another without and with what is known of it, over itself, and changed by hand.
            let mut index: Option<SnapshotIndex> = None;
            for (step, at) in [0, 1, 0, 0, 1, 1].into_iter().enumerate() {
                let known = index.as_ref().filter(|_| step != 1);
                let restored = restore(saved[at].id, &copy, store, known, &options).unwrap();
                assert_same(&look(&trees[at]), &look(&copy));
                let again = save(&copy, store, Some(&restored.index), &options).unwrap();
                index = Some(again.index);
                // Not always the same id: which small files share a chunk depends on which were known.
                let third = home.path().join("third");
                restore(again.id, &third, store, None, &options).unwrap();
                assert_same(&look(&trees[at]), &look(&third));
                std::fs::remove_dir_all(third).unwrap();
            }
            std::fs::remove_dir_all(copy).unwrap();
        }
    }
}
