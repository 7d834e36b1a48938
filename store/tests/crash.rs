//! What `sync` has returned for is there afterwards, whole: after `kill -9`, after a power cut, after the disk was full, and
//! after I/O errors. Damage is noticed, and never a panic.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use tenon_store::{Batch, Error, SledStore, Store};

#[path = "../../journal/tests/support/mod.rs"]
mod support;

/// So many numbers are kept; older ones are deleted.
const WINDOW: u64 = 60;

#[test]
fn play_role() {
    let Some((name, dir)) = support::my_role() else { return };
    match name.as_str() {
        "writer" => write_forever(&dir),
        "power" => support::cut_the_power("writer", &dir, 12, check),
        "full" => match support::mount_ext4(&dir.join("image"), &dir.join("disk"), 16) {
            true => fill_the_disk(&dir.join("disk")),
            false => support::skip("this system allows no loop mounts"),
        },
        "fill" => write_until_it_fails(&dir, "store/no-space"),
        "limited" => {
            limit_file_sizes(3 << 20);
            write_until_it_fails(&dir, "store/io");
        }
        other => panic!("no role {other}"),
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("number/{number:020}").into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    // Now and then so large that sled keeps it in a file of its own.
    let length = match number % 41 {
        7 => 70_000,
        8 => 600_000,
        _ => number.wrapping_mul(2_654_435_761) % 700,
    };
    (0..length).map(|at| (at.wrapping_mul(number | 1) >> 3) as u8).collect()
}

/// The batch of a number: what is there afterwards are the last numbers and nothing else.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put("last", number.to_be_bytes());
    batch.put(key(number), value(number));
    if let Some(old) = number.checked_sub(WINDOW) {
        batch.delete(key(old));
    }
    batch
}

fn last(store: &dyn Store) -> u64 {
    let last = store.get(b"last").unwrap();
    last.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

fn write_forever(dir: &Path) {
    let store = SledStore::open(dir).unwrap();
    let mut next = last(&store) + 1;
    loop {
        for _ in 0..1 + next % 7 {
            store.write(batch(next)).unwrap();
            next += 1;
        }
        if next.is_multiple_of(29) {
            replace_by_the_same(&store);
        } else {
            store.sync().unwrap();
        }
        support::acknowledge(next - 1);
    }
}

fn replace_by_the_same(store: &SledStore) {
    let mut replacement = store.begin_replacement().unwrap();
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let copied = store.scan(everything, false, &mut |key, value| {
        let mut batch = Batch::new();
        batch.put(key, value);
        replacement.write(batch).unwrap();
        ControlFlow::Continue(())
    });
    copied.unwrap();
    replacement.commit().unwrap();
}

/// Checks that what is there is whole, and returns the last number.
fn check(dir: &Path) -> u64 {
    check_store(&SledStore::open(dir).unwrap())
}

fn check_store(store: &SledStore) -> u64 {
    let last = last(store);
    let mut next = (last + 1).saturating_sub(WINDOW).max(1);
    let visited = store.scan(tenon_store::prefix(b"number/"), false, &mut |found, bytes| {
        assert_eq!(found, key(next));
        assert!(bytes == value(next), "the value of {next} of {last}");
        next += 1;
        ControlFlow::Continue(())
    });
    visited.unwrap();
    assert_eq!(next, last + 1);
    last
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    support::kill_again_and_again("writer", &dir.path().join("store"), 20, check);
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    support::play_with_mounts("power");
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    support::play_with_mounts("full");
}

/// In a process of its own: writes until that fails, with the code that is expected.
fn write_until_it_fails(dir: &Path, code: &str) {
    let store = SledStore::open(dir).unwrap();
    let mut next = last(&store) + 1;
    let error = loop {
        let mut growing = batch(next);
        growing.put(format!("filler/{next}"), value(next + 1).repeat(20));
        match store.write(growing).and_then(|()| store.sync()) {
            Ok(()) => support::acknowledge(next),
            Err(error) => break error,
        }
        next += 1;
    };
    assert_eq!(error.code(), code, "{error}");
    println!("{error}");
    let refused = store.write(batch(next)).unwrap_err();
    assert_eq!(refused.code(), "store/failed", "{refused}");
    assert_eq!(store.sync().unwrap_err().code(), "store/failed");
    assert_eq!(store.get(b"last").unwrap_err().code(), "store/failed");
}

/// Runs such a process to its end and returns the last number that it acknowledged.
fn run_until_it_fails(role: &str, dir: &Path) -> u64 {
    let output = support::role(role, dir).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged =
        said.lines().filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).next_back();
    acknowledged.expect("nothing was acknowledged")
}

/// It is all there, and it goes on.
fn check_and_go_on(dir: &Path, acknowledged: u64) {
    let store = SledStore::open(dir).unwrap();
    let found = check_store(&store);
    assert!(found >= acknowledged, "{acknowledged} was synced, {found} is there");
    store.write(batch(found + 1)).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_eq!(check(dir), found + 1);
}

fn fill_the_disk(disk: &Path) {
    let ballast = disk.join("ballast");
    support::fill_up_to(&ballast, 5 << 20);
    let dir = disk.join("store");
    let acknowledged = run_until_it_fails("fill", &dir);
    println!("synced when the disk was full: {acknowledged}");
    // On a full disk it cannot always be opened, but says so.
    if let Err(error) = SledStore::open(&dir) {
        assert_eq!(error.code(), "store/no-space", "{error}");
    }
    fs::remove_file(&ballast).unwrap();
    check_and_go_on(&dir, acknowledged);
}

/// No file may grow over a limit: writes fail with an I/O error.
#[test]
fn an_io_error_stops_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = run_until_it_fails("limited", dir.path());
    check_and_go_on(dir.path(), acknowledged);
}

fn limit_file_sizes(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: plain system calls; the process is this test's own.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else if entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
}

#[test]
fn damage_is_noticed_and_nothing_wrong_is_ever_read() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let store = SledStore::open(&good).unwrap();
    for number in 1..=300 {
        store.write(batch(number)).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    let seed = support::random();
    println!("seed {seed}");
    let mut random = seed;
    let (mut harmless, mut noticed) = (0, 0);
    for round in 0..60 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = |shift: u32, below: u64| (random >> shift) % below;
        let _ = fs::remove_dir_all(&bad);
        copy(&good, &bad);
        let mut all = Vec::new();
        files(&bad, &mut all);
        all.sort();
        // Mostly the database itself, which is nearly all of it.
        let file = match all.iter().find(|file| file.ends_with("db")) {
            Some(db) if round % 3 != 0 => db.clone(),
            _ => all[draw(40, all.len() as u64) as usize].clone(),
        };
        let mut bytes = fs::read(&file).unwrap();
        let at = draw(20, bytes.len() as u64) as usize;
        match round % 4 {
            0 => bytes[at] ^= 1 << (at % 8),
            1 => bytes.truncate(at),
            2 => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
            _ => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = !*byte),
        }
        fs::write(&file, bytes).unwrap();
        let what = format!("round {round} at {at} of {}", file.display());
        match SledStore::open(&bad) {
            Err(error) => {
                noticed += 1;
                assert!(
                    matches!(error, Error::Damaged { .. } | Error::Io { .. }),
                    "{what}: {error:?}"
                );
            }
            Ok(store) => {
                assert_eq!(check_store(&store), 300, "{what}");
                harmless += 1;
            }
        }
    }
    println!("{noticed} noticed, {harmless} harmless");
    assert!(noticed > 10);
}

#[test]
fn what_is_damaged_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(SledStore::open(&path).unwrap());
    fs::write(path.join("current"), "rubbish").unwrap();
    let error = SledStore::open(&path).err().unwrap();
    assert_eq!(error.code(), "store/damaged");
    assert!(error.to_string().contains("new member"), "{error}");
    // Nothing was changed, and it stays so until somebody decides.
    assert!(SledStore::open(&path).is_err());
    let aside = SledStore::set_aside(&path).unwrap();
    assert_eq!(fs::read(aside.join("current")).unwrap(), b"rubbish");
    SledStore::open(&path).unwrap();
    assert_ne!(SledStore::set_aside(&path).unwrap(), aside);
}

#[test]
fn a_missing_pointer_or_directory_is_damage() {
    for missing in ["current", "state-000001", "synced"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        drop(SledStore::open(&path).unwrap());
        let gone = path.join(missing);
        if gone.is_dir() {
            fs::remove_dir_all(gone).unwrap();
        } else {
            fs::remove_file(gone).unwrap();
        }
        let error = SledStore::open(&path).err().unwrap();
        assert_eq!(error.code(), "store/damaged");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    fs::create_dir_all(path.join("state-000001")).unwrap();
    fs::write(path.join("current"), "state-000001 unfinished\n").unwrap();
    fs::write(path.join("state-000001/db"), "half").unwrap();
    fs::write(path.join("synced"), "half").unwrap();
    let store = SledStore::open(&path).unwrap();
    store.write(batch(1)).unwrap();
    store.sync().unwrap();
    drop(store);
    // Left-overs of a replacement that was never committed go.
    copy(&path.join("state-000001"), &path.join("state-000007"));
    assert_eq!(check(&path), 1);
    assert!(!path.join("state-000007").exists());
}
