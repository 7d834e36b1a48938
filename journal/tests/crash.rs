//! What `sync` has returned for is there afterwards: after `kill -9`, after a power cut, and after the disk was full.
//!
//! The tests start this same test program again in a role (`TENON_JOURNAL_ROLE`); the roles do nothing when the variable is
//! not set. Mounts are made in a private mount namespace, so that nothing is left behind; where that is not allowed, the
//! test says that it was skipped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tenon_journal::{Error, Journal, Options, Reader};

const ROLE: &str = "TENON_JOURNAL_ROLE";
const DIR: &str = "TENON_JOURNAL_DIR";

fn options() -> Options {
    Options {
        segment_bytes: 20_000,
        compress_sealed: Some(1),
        buffer_limit: 4000,
        ..Options::default()
    }
}

fn record(index: u64) -> Vec<u8> {
    let length = (index.wrapping_mul(2_654_435_761) >> 7) % 400;
    format!("{index}:{}", "r".repeat(length as usize)).into_bytes()
}

/// This program again, in a role.
fn role(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "play_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .env(DIR, dir);
    command.stdout(Stdio::piped());
    command
}

/// The same with mounts of its own; `None` where the system forbids that.
fn role_with_mounts(name: &str, dir: &Path) -> Option<Command> {
    let unshare = ["--mount", "--map-root-user"];
    let may = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return None;
    }
    let inner = role(name, dir);
    let mut command = Command::new("unshare");
    // Loop devices need the real root; a small tmpfs does not.
    let root = fs::metadata("/proc/self").unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&root) == 0;
    command.args(if is_root { &unshare[..1] } else { &unshare[..] });
    command.arg(inner.get_program()).args(inner.get_args());
    command.env(ROLE, name).env(DIR, dir).stdout(Stdio::piped());
    Some(command)
}

#[test]
fn play_role() {
    let Ok(name) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    match name.as_str() {
        "writer" => write_forever(&dir),
        "full" => fill_the_disk(&dir),
        "power" => cut_the_power(&dir),
        other => panic!("no role {other}"),
    }
}

/// Appends, syncs, and says so on standard output, until somebody kills it.
fn write_forever(dir: &Path) {
    let (journal, recovered) = Journal::open(dir, options()).unwrap();
    let mut next = recovered.last_index + 1;
    let mut out = std::io::stdout();
    loop {
        for _ in 0..1 + next % 23 {
            assert_eq!(journal.append(&[&record(next)]).unwrap(), next);
            next += 1;
        }
        let durable = journal.sync().unwrap();
        assert_eq!(durable, next - 1);
        writeln!(out, "ack {durable}").unwrap();
    }
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("ack ")?.parse().ok()
}

/// Reads acknowledgements until `enough` of them came, and returns the last.
fn read_acknowledgements(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    enough: u64,
) -> u64 {
    let mut last = 0;
    let numbers = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line));
    for number in numbers.take(enough as usize) {
        last = number;
    }
    last
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Opens the journal, checks every record, and returns the last index.
fn check(dir: &Path) -> u64 {
    let (journal, recovered) = Journal::open(dir, options()).unwrap();
    let mut next = 1;
    for item in journal.iter(1) {
        let (index, payload) = item.unwrap();
        assert_eq!((index, payload), (next, record(next)));
        next += 1;
    }
    assert_eq!(recovered.last_index, next - 1);
    recovered.last_index
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let mut child = role("writer", dir.path()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 1 + random() % 40;
        let mut last = read_acknowledgements(&mut lines, enough);
        kill(child);
        // What it said between our decision and its death counts too.
        last = last.max(read_acknowledgements(&mut lines, u64::MAX));
        let found = check(dir.path());
        assert!(found >= last, "round {round}: {last} was acknowledged, {found} is there");
    }
}

#[test]
fn another_process_can_be_followed_while_it_writes_and_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = role("writer", dir.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    read_acknowledgements(&mut lines, 1);
    let drain = std::thread::spawn(move || {
        lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).last()
    });
    let mut reader = Reader::open(dir.path(), 1).unwrap();
    let mut next = 1;
    while next < 3000 {
        while let Some(found) = reader.next().unwrap() {
            assert_eq!((found.index, found.payload), (next, &record(next)[..]));
            next += 1;
        }
        assert!(reader.wait(Duration::from_secs(20)).unwrap(), "nothing came for 20 seconds");
    }
    kill(child);
    let last = drain.join().unwrap().unwrap();
    while let Some(found) = reader.next().unwrap() {
        assert_eq!((found.index, found.payload), (next, &record(next)[..]));
        next += 1;
    }
    assert!(next > last, "{last} was acknowledged, the reader saw up to {}", next - 1);
}

fn run_role_with_mounts(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = role_with_mounts(name, dir.path()) else {
        println!("skipped: this system allows no private mounts");
        return;
    };
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    run_role_with_mounts("full");
}

fn mount(arguments: &[&str], what: &Path, at: &Path) -> bool {
    fs::create_dir_all(at).unwrap();
    Command::new("mount")
        .args(arguments)
        .arg(what)
        .arg(at)
        .status()
        .is_ok_and(|status| status.success())
}

fn fill_the_disk(dir: &Path) {
    let disk = dir.join("disk");
    if !mount(&["-t", "tmpfs", "-o", "size=400k"], Path::new("tmpfs"), &disk) {
        println!("skipped: this system allows no tmpfs here");
        return;
    }
    let (ballast, log) = (disk.join("ballast"), disk.join("log"));
    fs::write(&ballast, vec![0; 200_000]).unwrap();
    let (journal, _) = Journal::open(&log, Options { compress_sealed: None, ..options() }).unwrap();
    let (mut next, mut durable) = (1, 0);
    let append = |next: &mut u64| {
        journal.append(&[&record(*next)]).map(|_| *next += 1)?;
        journal.sync()
    };
    let refused = loop {
        match append(&mut next) {
            Ok(last) => durable = last,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused:?}");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    // It goes on refusing, takes a bounded amount, and what is stored can be read.
    let refusals = (0..200).filter(|_| append(&mut next).is_err()).count();
    assert_eq!(refusals, 200);
    assert_eq!(journal.durable_index(), durable);
    let mut reader = Reader::open(&log, 1).unwrap();
    for index in 1..=durable {
        assert_eq!(reader.next().unwrap().unwrap().payload, record(index));
    }
    // Room comes back: what was buffered follows, in order, and nothing is missing.
    fs::remove_file(&ballast).unwrap();
    assert_eq!(journal.sync().unwrap(), next - 1);
    drop(journal);
    assert_eq!(check(&log), next - 1);
    println!("durable at the refusal: {durable}; after: {}", next - 1);
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    run_role_with_mounts("power");
}

/// Writes to an ext4 image, copies the image as the disk would be after a power cut, and opens the copy.
fn cut_the_power(dir: &Path) {
    let (image, copy, live, after) =
        (dir.join("image"), dir.join("copy"), dir.join("live"), dir.join("after"));
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
    if !made.is_ok_and(|status| status.success()) || !mount(&["-o", "loop"], &image, &live) {
        println!("skipped: this system allows no loop mounts");
        return;
    }
    for round in 0..5 {
        let mut child = role("writer", &live.join("log")).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let last = read_acknowledgements(&mut lines, 1 + random() % 60);
        // Stopped, so that the image does not change while it is copied; only what was flushed is in it.
        let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
        assert!(stopped.unwrap().success());
        assert!(
            Command::new("cp")
                .args(["--sparse=always"])
                .args([&image, &copy])
                .status()
                .unwrap()
                .success()
        );
        kill(child);
        let last = last.max(read_acknowledgements(&mut lines, u64::MAX));
        assert!(mount(&["-o", "loop"], &copy, &after));
        let found = check(&after.join("log"));
        assert!(found >= last, "round {round}: {last} was acknowledged, {found} is there");
        assert!(Command::new("umount").arg(&after).status().unwrap().success());
        println!("round {round}: acknowledged {last}, found {found}");
    }
    assert!(Command::new("umount").arg(&live).status().unwrap().success());
}
