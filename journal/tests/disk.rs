//! The simulated disk keeps to its rules, and what is built on them holds at every crash point.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tenon_journal::disk::Disk;
use tenon_journal::disk::sim::{Costs, Fault, Kind, Random, SimDisk};

fn durable_dir(disk: &dyn Disk) -> &'static Path {
    let dir = Path::new("/dir");
    disk.create_dir_all(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    dir
}

#[test]
fn a_file_that_is_written_atomically_is_old_or_new_at_every_crash_point() {
    let (mut olds, mut news) = (0, 0);
    for seed in 0..400 {
        let sim = SimDisk::new(seed);
        let mut random = Random::new(seed);
        let disk = sim.mount();
        let path = durable_dir(&*disk).join("file");
        let (old, new) = (vec![b'o'; 700], vec![b'n'; random.below(2000) as usize]);
        disk.write_atomically(&path, &old).unwrap();
        let fault = Fault {
            on: None,
            after: random.below(8),
            times: u64::MAX,
            error: if random.one_in(2) { ErrorKind::StorageFull } else { ErrorKind::Other },
        };
        sim.inject(fault);
        let written = disk.write_atomically(&path, &new);
        sim.crash(&mut random);
        let found = sim.mount().read(&path).unwrap();
        assert!(found == old || found == new, "seed {seed}");
        assert!(written.is_err() || found == new, "seed {seed}: it was lost after the return");
        if found == old { olds += 1 } else { news += 1 }
    }
    assert!(olds > 50 && news > 50, "{olds} {news}");
}

#[test]
fn names_need_their_directory_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let sim = SimDisk::new(seed);
        let disk = sim.mount();
        let dir = durable_dir(&*disk);
        let file = disk.create_new(&dir.join("a")).unwrap();
        file.write_all_at(b"content", 0).unwrap();
        file.sync_data().unwrap();
        disk.create_new(&dir.join("b")).unwrap();
        sim.crash(&mut Random::new(seed));
        let disk = sim.mount();
        match disk.read(&dir.join("a")) {
            Ok(bytes) => {
                assert_eq!(bytes, b"content");
                kept += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                // Names come in the order of their making.
                assert!(!disk.exists(&dir.join("b")));
                lost += 1;
            }
        }
        assert!(sim.is_settled());
    }
    assert!(kept > 20 && lost > 20, "{kept} {lost}");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let sim = SimDisk::new(1);
    let disk = sim.mount();
    let dir = durable_dir(&*disk);
    sim.set_capacity(Some(1000));
    let file = disk.create(&dir.join("file")).unwrap();
    file.write_all_at(&[1; 900], 0).unwrap();
    let error = file.write_all_at(&[2; 200], 900).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!((file.len().unwrap(), sim.used()), (1000, 1000));
    // What is there can be changed, and shortened; then there is room.
    file.write_all_at(&[3; 500], 500).unwrap();
    file.set_len(100).unwrap();
    file.write_all_at(&[4; 900], 100).unwrap();
    disk.remove_file(&dir.join("file")).unwrap();
    assert_eq!(sim.used(), 0);
    // An open file outlives its name.
    assert_eq!(file.len().unwrap(), 1000);
}

#[test]
fn nothing_of_the_old_process_works_after_a_kill() {
    let sim = SimDisk::new(1);
    let old = sim.mount();
    let dir = durable_dir(&*old);
    let file = old.create(&dir.join("file")).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    let held = old.lock_dir(dir).unwrap().unwrap();
    assert!(old.lock_dir(dir).unwrap().is_none());
    sim.kill();
    assert!(file.write_all_at(b"late", 0).is_err());
    assert!(file.sync_data().is_err() && old.create(&dir.join("other")).is_err());
    assert!(!old.exists(dir));
    let new = sim.mount();
    let _held_again = new.lock_dir(dir).unwrap().unwrap();
    // The end of the old one frees nothing of the new one.
    drop((held, file));
    assert!(new.lock_dir(dir).unwrap().is_none());
    assert_eq!(new.read(&dir.join("file")).unwrap(), b"kept");
    assert!(!sim.is_settled());
}

#[test]
fn a_copy_of_a_disk_goes_its_own_way() {
    let sim = SimDisk::new(1);
    let disk = sim.mount();
    let path = durable_dir(&*disk).join("file");
    disk.write_atomically(&path, b"one").unwrap();
    disk.create(&path).unwrap().write_all_at(b"unsynced", 0).unwrap();
    let image = sim.image();
    let outcomes = |seed| {
        let copy = SimDisk::from_image(image.clone());
        copy.crash(&mut Random::new(seed));
        copy.mount().read(&path).unwrap()
    };
    assert_eq!(outcomes(3), outcomes(3));
    let all: std::collections::BTreeSet<_> = (0..50).map(outcomes).collect();
    assert!(all.contains(&b"one"[..]) && all.contains(&b"unsynced"[..]) && all.len() > 2);
    assert_eq!(disk.read(&path).unwrap(), b"unsynced");
}

#[test]
fn operations_cost_time_and_are_listed() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = sim.mount();
    let dir = durable_dir(&*disk);
    sim.set_costs(Costs { operation: 10, kibibyte: 100, sync: 1000 });
    sim.record_operations(true);
    sim.take_cost();
    let file = disk.create(&dir.join("file")).unwrap();
    file.write_all_at(&[0; 2048], 0).unwrap();
    sim.inject(Fault::next(Kind::Sync));
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(sim.take_cost(), 10 + 210 + 1010 + 1010);
    let listed: Vec<_> =
        sim.take_operations().into_iter().map(|done| (done.kind, done.failed)).collect();
    let wanted =
        [(Kind::Create, false), (Kind::Write, false), (Kind::Sync, true), (Kind::Sync, false)];
    assert_eq!(listed, wanted);
    assert_eq!(sim.take_cost(), 0);
}
