//! Saves and restores that are cut off, by the store or by `kill -9`, go on where they were; and nothing is twice.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::{Watched, assert_same, look, noise, write};
use tenon_blobs::{
    ChunkId, ChunkStore, Error, LocalStore, ObjectStore, Options, SnapshotId, SnapshotIndex,
    chunks_of, is_unfinished, restore, save,
};

fn options() -> Options {
    Options { threads: 4, ..Options::default() }
}

/// Some large files, and some hundred small ones.
fn tree(dir: &Path) {
    for number in 0..8 {
        write(&dir.join(format!("large/{number}")), &noise(number, 3_000_000));
    }
    for number in 0..400 {
        let name = format!("small/{}/{number}", number % 7);
        write(&dir.join(name), &noise(1000 + number, 3000));
    }
}

fn memory() -> Watched<ObjectStore> {
    Watched::new(ObjectStore::new("memory:///", []).unwrap())
}

#[test]
fn a_save_that_was_cut_off_puts_only_the_rest() {
    let home = tempfile::tempdir().unwrap();
    tree(home.path());
    let store = memory();
    let mut puts = Vec::new();
    let mut allowed = 40;
    let saved = loop {
        store.allow(allowed);
        match save(home.path(), &store, None, &options()) {
            Ok(saved) => break saved,
            Err(error) => assert_eq!(error.code(), "blobs/remote"),
        }
        puts.extend(Watched::<ObjectStore>::taken(&store.puts));
        allowed += 40;
    };
    puts.extend(Watched::<ObjectStore>::taken(&store.puts));
    let distinct: HashSet<_> = puts.iter().collect();
    assert_eq!(puts.len(), distinct.len(), "no chunk is put twice");
    assert!(puts.len() > 100 && (saved.new_chunks as usize) < puts.len());
    store.allow(usize::MAX);
    let again = save(home.path(), &store, None, &options()).unwrap();
    assert_eq!((again.id, again.new_chunks), (saved.id, 0));
}

#[test]
fn a_save_that_takes_long_asks_again_for_all_that_it_relies_on() {
    let home = tempfile::tempdir().unwrap();
    tree(home.path());
    let store = memory();
    let options = Options { ask_again: Duration::ZERO, ..options() };
    wait_for_a_tick();
    let first = save(home.path(), &store, None, &options).unwrap();
    write(&home.path().join("new"), &noise(77, 3_000_000));
    for previous in [None, Some(&first.index)] {
        Watched::<ObjectStore>::taken(&store.asked);
        let saved = save(home.path(), &store, previous, &options).unwrap();
        let mut relied = HashSet::new();
        chunks_of(saved.id, &store, &mut |id| assert!(relied.insert(id))).unwrap();
        let asked = Watched::<ObjectStore>::taken(&store.asked);
        let times = |id: &ChunkId| asked.iter().filter(|it| *it == id).count();
        assert!(relied.iter().all(|id| *id == saved.id.0 || times(id) >= 2));
    }
}

#[test]
fn what_did_not_change_is_neither_read_nor_put() {
    let home = tempfile::tempdir().unwrap();
    tree(home.path());
    let store = memory();
    // What changes in the tick of a save is read again by the next, and small files are then put together anew.
    wait_for_a_tick();
    let first = save(home.path(), &store, None, &options()).unwrap();
    assert_eq!(first.read_bytes, first.bytes);
    // A copy of all has nothing new but names.
    let copy = home.path().join("copy");
    for number in 0..8 {
        write(&copy.join(number.to_string()), &noise(number, 3_000_000));
    }
    let second = save(home.path(), &store, Some(&first.index), &options()).unwrap();
    assert!(second.new_bytes < 50_000, "{}", second.new_bytes);
    wait_for_a_tick();
    let index = save(home.path(), &store, None, &options()).unwrap().index;
    write(&home.path().join("small/1/1"), b"changed");
    // Three bytes in the middle of a large one.
    let mut content = noise(3, 3_000_000);
    content.splice(1_500_000..1_500_000, *b"new");
    write(&home.path().join("large/3"), &content);
    let third = save(home.path(), &store, Some(&index), &options()).unwrap();
    assert_eq!(third.read_bytes, 3_000_003 + 7);
    assert!(third.new_bytes < 1_200_000, "{}", third.new_bytes);
    assert_ne!(third.id, second.id);
    // A store that forgot something gets it again, though the index says it was there.
    let mut live = HashSet::new();
    chunks_of(first.id, &store, &mut |id| assert!(live.insert(id))).unwrap();
    let lost = *live.iter().next().unwrap();
    store.store.sweep(&|id| *id != lost, Duration::ZERO).unwrap();
    save(home.path(), &store, Some(&third.index), &options()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let fourth = save(home.path(), &store, Some(&third.index), &options()).unwrap();
    restore(fourth.id, copy.path(), &store, None, &options()).unwrap();
    assert_same(&look(home.path()), &look(copy.path()));
}

/// Until all that changed so far is older than the clock that a save compares it with: that one moves in ticks, while a
/// change may carry the precise time.
fn wait_for_a_tick() {
    let changed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let coarse = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of our own.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    while coarse() <= changed {
        std::thread::yield_now();
    }
}

#[test]
fn a_restore_that_was_cut_off_is_seen_as_such_and_gets_only_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let (dir, copy) = (home.path().join("a"), home.path().join("b"));
    tree(&dir);
    let store = memory();
    let saved = save(&dir, &store, None, &options()).unwrap();
    let (mut rounds, mut gets, mut allowed) = (0, 0, 60);
    let restored = loop {
        store.allow(allowed);
        match restore(saved.id, &copy, &store, None, &options()) {
            Ok(restored) => break restored,
            Err(error) => assert_eq!(error.code(), "blobs/remote"),
        }
        gets += Watched::<ObjectStore>::taken(&store.gets).len();
        rounds += 1;
        assert!(is_unfinished(&copy));
        let error = save(&copy, &store, None, &options()).unwrap_err();
        assert_eq!(error.code(), "blobs/unfinished-restore");
        allowed += 60;
    };
    assert!(rounds >= 2, "{rounds}");
    assert!(!is_unfinished(&copy));
    assert!(restored.kept_bytes > 0 && gets > 0);
    assert_same(&look(&dir), &look(&copy));
}

#[test]
fn whoever_cancels_is_obeyed() {
    let home = tempfile::tempdir().unwrap();
    tree(home.path());
    let store = memory();
    let options = options();
    options.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(save(home.path(), &store, None, &options), Err(Error::Cancelled)));
}

#[test]
fn a_chunk_that_is_lost_or_damaged_is_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a");
    tree(&dir);
    let packs = home.path().join("packs");
    let store = LocalStore::open(&packs, 0).unwrap();
    let saved = save(&dir, &store, None, &options()).unwrap();
    let pack = packs.join("pack-00000001");
    let mut bytes = std::fs::read(&pack).unwrap();
    for at in (1000..bytes.len()).step_by(1_000_000) {
        bytes[at] ^= 1;
    }
    std::fs::write(&pack, bytes).unwrap();
    let error = restore(saved.id, &home.path().join("b"), &store, None, &options()).unwrap_err();
    assert_eq!(error.code(), "blobs/damaged-chunk");
    assert!(!store.damage().is_empty());
    drop(store);
    let store = LocalStore::open(&packs, 0).unwrap();
    assert!(store.damage().len() > 10);
    // Saving it again mends the store.
    let again = save(&dir, &store, Some(&saved.index), &options()).unwrap();
    assert!(again.new_chunks > 10);
    restore(again.id, &home.path().join("b"), &store, None, &options()).unwrap();
    assert_same(&look(&dir), &look(&home.path().join("b")));
}

/// What the killed process does; the arguments come by the environment.
#[test]
fn child() {
    let Some(home) = std::env::var_os("BLOBS_CHILD").map(PathBuf::from) else { return };
    let store = LocalStore::open(&home.join("store"), 0).unwrap();
    let live = Duration::ZERO;
    for round in 0.. {
        let saved = save(&home.join("a"), &store, None, &options()).unwrap();
        std::fs::write(home.join("saved.new"), saved.id.to_string()).unwrap();
        std::fs::rename(home.join("saved.new"), home.join("saved")).unwrap();
        let mut needed = HashSet::new();
        chunks_of(saved.id, &store, &mut |id| assert!(needed.insert(id))).unwrap();
        // What is dead for sure, so that there is something to sweep.
        let waste: Vec<_> = (0..200)
            .map(|number| {
                tenon_blobs::Packed::new(&noise(round * 1000 + number + 5000, 9000)).unwrap()
            })
            .collect();
        store.put(&waste).unwrap();
        store.sweep(&|id| needed.contains(id), live).unwrap();
        restore(saved.id, &home.join("b"), &store, None, &options()).unwrap();
        println!("round");
        std::fs::remove_dir_all(home.join("b")).unwrap();
    }
}

#[test]
fn nothing_saved_is_lost_and_no_restore_half_done_by_kills_at_any_moment() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for number in 0..3 {
        write(&home.join(format!("a/{number}")), &noise(number, 2_000_000));
    }
    for number in 0..300 {
        write(&home.join(format!("a/s/{number}")), &noise(100 + number, 2000));
    }
    let before = look(&home.join("a"));
    for kill in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("BLOBS_CHILD", home)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over what it does; when exactly does not matter.
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_millis(30 + kill * 67 % 500));
        // A busy machine may not come to a first snapshot in this time; the later kills are to meet one.
        let late = Instant::now() + Duration::from_secs(120);
        while kill == 5 && !home.join("saved").exists() && Instant::now() < late {
            let _ = wait.recv_timeout(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = LocalStore::open(&home.join("store"), 0).unwrap();
        assert_eq!(store.damage(), []);
        let Ok(id) = std::fs::read_to_string(home.join("saved")) else { continue };
        let id: SnapshotId = id.parse().unwrap();
        let copy = home.join("b");
        restore(id, &copy, &store, None, &options()).unwrap();
        assert_same(&before, &look(&copy));
        let mut needed = Vec::new();
        chunks_of(id, &store, &mut |id| needed.push(id)).unwrap();
        assert_eq!(store.missing(&needed).unwrap(), []);
    }
    assert!(home.join("saved").exists(), "the child never came so far");
    assert_eq!(SnapshotIndex::load(&home.join("none")), None);
}
