//! Whatever happens to a journal's bytes, opening and reading it gives a true prefix or a refusal, never a panic and never
//! records that were not written.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::path::Path;

use tenon_journal::{Error, Journal, Options, Reader};

fn record(index: u64) -> Vec<u8> {
    format!("record {index} {}", "x".repeat((index % 17) as usize)).into_bytes()
}

fn write(dir: &Path, options: Options, batches: u64, batch: u64) {
    let (journal, _) = Journal::open(dir, options).unwrap();
    for start in 0..batches {
        for index in start * batch + 1..=start * batch + batch {
            journal.append(&[&record(index)]).unwrap();
        }
        journal.sync().unwrap();
    }
}

/// Opens for writing and reads everything: the number of records, all of which must be true.
fn open_and_count(dir: &Path, options: Options) -> Result<u64, Error> {
    let (journal, recovered) = Journal::open(dir, options)?;
    let mut count = 0;
    for item in journal.iter(recovered.first_index) {
        let (index, payload) = item?;
        assert_eq!(payload, record(index));
        count += 1;
    }
    assert_eq!(recovered.last_index + 1 - recovered.first_index, count);
    // It can be written to and read again.
    let index = journal.append(&[b"after"]).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.read(index).unwrap().unwrap(), b"after");
    Ok(count)
}

fn read_from_outside(dir: &Path) {
    let Ok(mut reader) = Reader::open(dir, 1) else { return };
    while let Ok(Some(found)) = reader.next() {
        assert_eq!(found.payload, record(found.index));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(to).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn flip_everything(options: &Options, batches: u64, batch: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    write(&good, options.clone(), batches, batch);
    let all = files(&good);
    let total = batches * batch;
    for (position, file) in all.iter().enumerate() {
        let bytes = fs::read(file).unwrap();
        for at in 0..bytes.len() {
            copy(&good, &bad);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(bad.join(file.file_name().unwrap()), &changed).unwrap();
            read_from_outside(&bad);
            match open_and_count(&bad, options.clone()) {
                Ok(count) => {
                    assert_eq!(
                        position + 1,
                        all.len(),
                        "damage of an older segment passed: {} byte {at}",
                        file.display()
                    );
                    assert!(
                        count >= total - batch,
                        "more than the last batch was cut: {count} of {total} are left"
                    );
                    // Zeros that were written in advance hold nothing that could be lost.
                    let is_prepared = at > bytes.iter().rposition(|byte| *byte != 0).unwrap();
                    assert_eq!(count == total, is_prepared, "a flip at byte {at}");
                }
                Err(Error::Damaged { file: named, .. }) => {
                    assert_eq!(named.file_name(), file.file_name());
                }
                Err(other) => panic!("unexpected: {other}"),
            }
        }
    }
}

#[test]
fn every_flip_in_one_segment_is_cut_or_refused() {
    flip_everything(&Options::default(), 4, 3);
}

#[test]
fn every_flip_in_a_segment_with_prepared_zeros_is_cut_or_refused() {
    flip_everything(&Options { prepare_bytes: 100, ..Options::default() }, 4, 3);
}

#[test]
fn every_flip_in_small_segments_is_cut_or_refused() {
    flip_everything(&Options { segment_bytes: 200, ..Options::default() }, 4, 3);
}

#[test]
fn every_flip_in_compressed_segments_is_refused() {
    flip_everything(
        &Options { segment_bytes: 300, compress_sealed: Some(3), ..Options::default() },
        6,
        3,
    );
}

#[test]
fn every_truncation_of_the_tail_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let options = Options { segment_bytes: 200, ..Options::default() };
    write(&good, options.clone(), 5, 2);
    let last = files(&good).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let mut before = 0;
    for length in 0..=bytes.len() {
        copy(&good, &bad);
        fs::write(bad.join(last.file_name().unwrap()), &bytes[..length]).unwrap();
        read_from_outside(&bad);
        let count = open_and_count(&bad, options.clone())
            .unwrap_or_else(|error| panic!("length {length}: {error}"));
        assert!(count >= before);
        before = count;
    }
    assert_eq!(before, 10);
}

#[test]
fn zeros_and_rubbish_after_the_tail_are_cut() {
    for rubbish in [vec![0; 5000], vec![0xff; 5000], b"TNNJRNL1 not a record at all".to_vec()] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), Options::default(), 2, 5);
        let file = files(dir.path()).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(&rubbish);
        fs::write(&file, bytes).unwrap();
        let (journal, recovered) = Journal::open(dir.path(), Options::default()).unwrap();
        let cut = recovered.cut.map_or(0, |cut| cut.bytes);
        // Zeros are what stands where nothing was written yet: none of them is a trace of a write.
        assert_eq!(cut, if rubbish[0] == 0 { 0 } else { rubbish.len() as u64 });
        drop(journal);
        assert_eq!(open_and_count(dir.path(), Options::default()).unwrap(), 10);
    }
}

#[test]
fn missing_swapped_and_foreign_files_are_refused() {
    let options = Options { segment_bytes: 200, ..Options::default() };
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), options.clone(), 8, 2);
        dir
    };
    let refused = |dir: &Path| {
        let error = open_and_count(dir, options.clone()).unwrap_err();
        assert_eq!(error.code(), "journal/damaged", "{error}");
        assert!(error.to_string().contains("Restore"), "{error}");
    };
    let missing = fresh();
    fs::remove_file(&files(missing.path())[1]).unwrap();
    refused(missing.path());

    let swapped = fresh();
    let names = files(swapped.path());
    fs::rename(&names[1], swapped.path().join("x.tmp")).unwrap();
    fs::rename(&names[2], &names[1]).unwrap();
    fs::rename(swapped.path().join("x.tmp"), &names[2]).unwrap();
    refused(swapped.path());

    let (mine, other) = (fresh(), fresh());
    fs::copy(&files(other.path())[1], &files(mine.path())[1]).unwrap();
    refused(mine.path());
}

#[test]
fn a_refused_journal_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), Options::default(), 4, 3);
    let file = files(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[60] ^= 1;
    fs::write(&file, &bytes).unwrap();
    fs::write(dir.path().join("00000000000000000099.tmp"), b"left over").unwrap();
    assert!(open_and_count(dir.path(), Options::default()).is_err());
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, _) = Journal::open(dir.path(), Options::default()).unwrap();
    let error = Journal::open(dir.path(), Options::default()).err().unwrap();
    assert_eq!(error.code(), "journal/locked");
}
