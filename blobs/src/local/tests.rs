//! Stories of a store on a disk: what it survives, and what it gives up.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::*;

fn chunk(number: u32) -> Packed {
    // A kilobyte or so that does not pack.
    let mut content = vec![0; 1000 + number as usize % 100];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut content);
    Packed::new(&content).unwrap()
}

fn chunks(numbers: std::ops::Range<u32>) -> Vec<Packed> {
    numbers.map(chunk).collect()
}

fn ids(chunks: &[Packed]) -> Vec<ChunkId> {
    chunks.iter().map(|chunk| chunk.id).collect()
}

fn pack_files(dir: &Path) -> Vec<PathBuf> {
    pack_numbers(dir).unwrap().iter().map(|n| dir.join(format!("pack-{n:08}"))).collect()
}

#[test]
fn what_was_put_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let all = chunks(0..100);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    store.put(&all[..50]).unwrap();
    store.put(&all[25..75]).unwrap();
    assert_eq!(store.missing(&ids(&all)).unwrap(), ids(&all[75..]));
    assert_eq!(LocalStore::open(dir.path(), 0).err().unwrap().code(), "blobs/locked");
    drop(store);
    for _ in 0..2 {
        let store = LocalStore::open(dir.path(), 0).unwrap();
        assert_eq!(store.size().chunks, 75);
        assert_eq!(store.get(&ids(&all[..75])).unwrap(), all[..75]);
        assert_eq!(store.get(&ids(&all[74..76])).unwrap_err().code(), "blobs/missing-chunk");
        assert_eq!(store.damage(), []);
    }
    // The half-full pack goes on.
    let store = LocalStore::open(dir.path(), 0).unwrap();
    store.put(&all).unwrap();
    assert_eq!((store.size().chunks, store.size().packs), (100, 1));
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let all = chunks(0..3);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    store.put(&all).unwrap();
    drop(store);
    let file = &pack_files(dir.path())[0];
    let whole = std::fs::read(file).unwrap();
    for length in (0..whole.len()).step_by(13) {
        std::fs::write(file, &whole[..length]).unwrap();
        let store = LocalStore::open(dir.path(), 0).unwrap();
        assert_eq!(store.damage(), []);
        store.put(&all).unwrap();
        assert_eq!(store.get(&ids(&all)).unwrap(), all);
        drop(store);
        assert_eq!(std::fs::read(file).unwrap(), whole, "cut at {length}");
    }
}

#[test]
fn any_flipped_byte_costs_one_chunk_at_most_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let all = chunks(0..3);
    for sealed in [false, true] {
        let dir = dir.path().join(sealed.to_string());
        let store = LocalStore::open(&dir, 0).unwrap();
        store.put(&all).unwrap();
        if sealed {
            store.seal(&mut lock(&store.appender)).unwrap();
        }
        drop(store);
        let file = &pack_files(&dir)[0];
        let whole = std::fs::read(file).unwrap();
        let records = 8 + all.iter().map(|chunk| pack::HEAD + chunk.bytes.len()).sum::<usize>();
        for at in (8..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            pack_files(&dir)[1..].iter().for_each(|file| std::fs::remove_file(file).unwrap());
            std::fs::write(file, &bytes).unwrap();
            let store = LocalStore::open(&dir, 0).unwrap();
            let lost: Vec<_> =
                all.iter().filter(|chunk| store.get(&[chunk.id]).is_err()).cloned().collect();
            let expected = usize::from(at < records);
            assert_eq!(lost.len(), expected, "byte {at}, sealed {sealed}");
            // The last record's head cannot be told from one that was being written; any other damage is told.
            let last = at >= records - pack::HEAD - all[2].bytes.len();
            assert!(store.damage().len() == expected || last && !sealed, "byte {at}");
            assert_eq!(store.missing(&ids(&all)).unwrap(), ids(&lost));
            store.put(&lost).unwrap();
            assert_eq!(store.get(&ids(&all)).unwrap(), all);
        }
    }
}

#[test]
fn a_sweep_frees_dead_packs_and_rewrites_mostly_dead_ones() {
    let dir = tempfile::tempdir().unwrap();
    let all = chunks(0..300);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    for part in all.chunks(100) {
        store.put(part).unwrap();
        store.seal(&mut lock(&store.appender)).unwrap();
    }
    // All of the first pack dead, four fifths of the second, none of the third.
    let live: HashSet<ChunkId> = ids(&all[180..]).into_iter().collect();
    let is_live = |id: &ChunkId| live.contains(id);
    assert_eq!(store.sweep(&is_live, Duration::from_secs(3600)).unwrap(), Swept::default());
    let before = store.size().bytes;
    let swept = store.sweep(&is_live, Duration::ZERO).unwrap();
    assert_eq!((swept.packs, swept.chunks), (2, 180));
    assert!(store.size().bytes < before / 2);
    assert_eq!(store.sweep(&is_live, Duration::ZERO).unwrap(), Swept::default());
    assert_eq!(store.missing(&ids(&all)).unwrap(), ids(&all[..180]));
    drop(store);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    assert_eq!(store.missing(&ids(&all)).unwrap(), ids(&all[..180]));
    assert_eq!(store.get(&ids(&all[180..])).unwrap(), all[180..]);
}

#[test]
fn sweeps_beside_puts_lose_nothing_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), 0).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let live: Mutex<HashSet<ChunkId>> = Mutex::default();
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut sweeps = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || sweeps < 3 {
                // What is live is known before it is put, as if it had been asked for.
                store.sweep(&|id| lock(&live).contains(id), Duration::ZERO).unwrap();
                sweeps += 1;
            }
        });
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (store, live) = (&store, &live);
                scope.spawn(move || {
                    for round in 0..40 {
                        let start = (writer * 40 + round) * 10;
                        let some = chunks(start..start + 10);
                        lock(live).extend(some.iter().step_by(3).map(|chunk| chunk.id));
                        store.put(&some).unwrap();
                        let kept: Vec<_> = some.iter().step_by(3).cloned().collect();
                        assert_eq!(store.get(&ids(&kept)).unwrap(), kept);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeper.join().unwrap();
    });
    let live: Vec<ChunkId> = lock(&live).iter().copied().collect();
    assert_eq!(store.missing(&live).unwrap(), []);
    drop(store);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    assert_eq!(store.get(&live).unwrap().len(), live.len());
    assert_eq!(store.damage(), []);
}

#[test]
fn a_damaged_chunk_in_a_pack_that_is_rewritten_is_told_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let all = chunks(0..100);
    let store = LocalStore::open(dir.path(), 0).unwrap();
    store.put(&all).unwrap();
    let place = lock(&store.index).places[&all[3].id];
    let file = OpenOptions::new().write(true).open(&pack_files(dir.path())[0]).unwrap();
    file.write_all_at(b"?", u64::from(place.offset) + 60).unwrap();
    let live: HashSet<ChunkId> = ids(&all[..10]).into_iter().collect();
    store.sweep(&|id| live.contains(id), Duration::ZERO).unwrap();
    assert_eq!(store.missing(&ids(&all[..10])).unwrap(), [all[3].id]);
    assert_eq!(store.damage().len(), 1);
}

#[test]
fn a_disk_without_room_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), 0).unwrap();
    store.put(&chunks(0..10)).unwrap();
    drop(store);
    let store = LocalStore::open(dir.path(), u64::MAX).unwrap();
    assert_eq!(store.put(&chunks(5..15)).unwrap_err().code(), "blobs/no-space");
    assert_eq!(store.get(&ids(&chunks(0..10))).unwrap(), chunks(0..10));
    assert_eq!(store.missing(&ids(&chunks(10..15))).unwrap().len(), 5);
}

/// A file system of so many bytes, as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mounted(size: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mount.unwrap().success(), "only root may mount");
        Small(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let umount = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(umount.unwrap().success());
    }
}

#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_acknowledged_and_is_swept() {
    let disk = Small::mounted("3m");
    let dir = disk.0.path().join("store");
    let store = LocalStore::open(&dir, 0).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let number = kept.len() as u32;
        let batch = chunks(number..number + 50);
        match store.put(&batch) {
            Ok(()) => kept.extend(batch),
            Err(error) => {
                assert_eq!(error.code(), "blobs/no-space");
                break batch;
            }
        }
    };
    assert!(kept.len() > 500);
    // The last bytes of the disk are somebody else's.
    let rest = dir.join("../rest");
    let mut file = File::create(&rest).unwrap();
    while std::io::Write::write_all(&mut file, &[7; 100]).is_ok() {}
    assert_eq!(store.missing(&ids(&refused)).unwrap(), ids(&refused));
    assert_eq!(store.get(&ids(&kept)).unwrap(), kept);
    drop(store);
    let store = LocalStore::open(&dir, 0).unwrap();
    assert_eq!(store.damage(), []);
    assert_eq!(store.get(&ids(&kept)).unwrap(), kept);
    assert_eq!(store.put(&refused).unwrap_err().code(), "blobs/no-space");

    let swept = store.sweep(&|_| false, Duration::ZERO).unwrap();
    assert_eq!((swept.chunks, store.size().chunks), (kept.len() as u64, 0));
    store.put(&refused).unwrap();
    drop(store);
    let store = LocalStore::open(&dir, 0).unwrap();
    assert_eq!(store.get(&ids(&refused)).unwrap(), refused);
}
