//! What `sync` has returned for is there afterwards: after `kill -9`, after a power cut, and after the disk was full.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tenon_journal::{Error, Journal, Options, Reader};

mod support;

fn options() -> Options {
    Options {
        segment_bytes: 20_000,
        compress_sealed: Some(1),
        buffer_limit: 4000,
        prepare_bytes: 3000,
        ..Options::default()
    }
}

fn record(index: u64) -> Vec<u8> {
    let length = (index.wrapping_mul(2_654_435_761) >> 7) % 400;
    format!("{index}:{}", "r".repeat(length as usize)).into_bytes()
}

#[test]
fn play_role() {
    let Some((name, dir)) = support::my_role() else { return };
    match name.as_str() {
        "writer" => write_forever(&dir),
        "full tmpfs" => match support::mount_tmpfs(&dir.join("disk"), 400) {
            true => fill_the_disk(&dir.join("disk")),
            false => support::skip("this system allows no tmpfs here"),
        },
        "full ext4" => match support::mount_ext4(&dir.join("image"), &dir.join("disk"), 8) {
            true => fill_the_disk(&dir.join("disk")),
            false => support::skip("this system allows no loop mounts"),
        },
        "power" => support::cut_the_power("writer", &dir, 8, check),
        other => panic!("no role {other}"),
    }
}

/// Appends, syncs, and says so, until somebody kills it.
fn write_forever(dir: &Path) {
    let (journal, recovered) = Journal::open(dir, options()).unwrap();
    let mut next = recovered.last_index + 1;
    loop {
        for _ in 0..1 + next % 23 {
            assert_eq!(journal.append(&[&record(next)]).unwrap(), next);
            next += 1;
        }
        let durable = journal.sync().unwrap();
        assert_eq!(durable, next - 1);
        support::acknowledge(durable);
    }
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

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    support::kill_again_and_again("writer", dir.path(), 20, check);
}

#[test]
fn another_process_can_be_followed_while_it_writes_and_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = support::Writer::start("writer", dir.path());
    writer.wait_for(1);
    let mut reader = Reader::open(dir.path(), 1).unwrap();
    let mut next = 1;
    while next < 3000 {
        while let Some(found) = reader.next().unwrap() {
            assert_eq!((found.index, found.payload), (next, &record(next)[..]));
            next += 1;
        }
        // It stops when nobody reads what it says.
        writer.wait_for(1);
        assert!(reader.wait(Duration::from_secs(20)).unwrap(), "nothing came for 20 seconds");
    }
    let last = writer.kill();
    while let Some(found) = reader.next().unwrap() {
        assert_eq!((found.index, found.payload), (next, &record(next)[..]));
        next += 1;
    }
    assert!(next > last, "{last} was acknowledged, the reader saw up to {}", next - 1);
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    support::play_with_mounts("power");
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    support::play_with_mounts("full tmpfs");
}

#[test]
fn a_full_ext4_is_an_error_and_passes() {
    support::play_with_mounts("full ext4");
}

fn fill_the_disk(disk: &Path) {
    let (ballast, log) = (disk.join("ballast"), disk.join("log"));
    support::fill_up_to(&ballast, 200_000);
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
    assert_eq!(refused.code(), "journal/no-space");
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
