//! Measures moving a workspace beside `tar | zstd`: `cargo xtask bench workspace` builds and runs it, and shows what it
//! prints, one JSON object a line. It works in the given directory, else where temporary files go.
//!
//! The tree is 1 GB in 10,000 files, half of them like text and half random, from a fixed seed. Both sides save to the same
//! disk and restore from it, and sync in the end. They take turns; a figure is the middle one of the rounds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use tenon_blobs::{LocalStore, Options, SnapshotIndex, restore, save};

const FILES: u64 = 10_000;
const BYTES: u64 = 1_000_000_000;
const ROUNDS: u64 = 3;

type Failure = Box<dyn std::error::Error>;

/// Seconds of `tar | zstd`, of a faster one, and what `ours` says.
type Round = ([f64; 2], [f64; 2], [f64; 6]);

fn main() -> Result<(), Failure> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(parent)?;
    let tree = home.path().join("tree");
    let bytes = make(&tree)?;
    eprintln!("{FILES} files, {bytes} bytes");
    let mut rounds: Vec<Round> = Vec::new();
    for number in 0..ROUNDS {
        let tar = tar(home.path(), &tree, "-q")?;
        let fast = tar_fast(home.path(), &tree)?;
        let round = ours(home.path(), &tree, number)?;
        eprintln!("round {}: tar {tar:.2?}, -1 -T0 {fast:.2?}, ours {round:.2?}", number + 1);
        rounds.push((tar, fast, round));
    }
    let middle = |of: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    let tar = middle(&|(tar, ..)| tar[0] + tar[1]);
    let fast = middle(&|(_, fast, _)| fast[0] + fast[1]);
    let whole = middle(&|(.., ours)| ours[0] + ours[1]);
    let again = middle(&|(.., ours)| ours[2] + ours[3]);
    let part = |at: usize| middle(&move |(.., ours)| ours[at]);
    let (pack, unpack) = (middle(&|(tar, ..)| tar[0]), middle(&|(tar, ..)| tar[1]));
    let line = |name: &str, value: f64, unit: &str, rival: Option<(&str, f64)>, limit| {
        let rival = rival.map(|(name, value)| json!({"name": name, "value": value}));
        let limit: Option<f64> = limit;
        let goal = if limit.is_some() { "atLeast" } else { "none" };
        let (name, unit) = (format!("workspace: {name}"), unit.to_owned());
        println!(
            "{}",
            json!({"name": name, "value": value, "unit": unit, "rival": rival, "goal": goal,
                   "limit": limit})
        );
    };
    line("save", rate(part(0)), "MB/s", Some(("tar | zstd", rate(pack))), None);
    line("restore", rate(part(1)), "MB/s", Some(("zstd | tar", rate(unpack))), None);
    let rival = Some(("tar | zstd", 1.0));
    line("save and restore, speed", tar / whole, "×", rival, Some(0.8));
    line("save and restore with 95 % unchanged, speed", tar / again, "×", rival, Some(5.0));
    let rival = Some(("tar | zstd -1 -T0", 1.0));
    line("save and restore, speed", fast / whole, "×", rival, None);
    line("save and restore with 95 % unchanged, speed", fast / again, "×", rival, None);
    line("save with 95 % unchanged", part(2), "s", Some(("tar | zstd", pack)), None);
    line("restore with 95 % unchanged", part(3), "s", Some(("zstd | tar", unpack)), None);
    line("stored", part(4), "MB", None, None);
    line("stored in addition for the 5 %", part(5), "MB", None, None);
    Ok(())
}

/// Saves and restores, then changes one file in twenty and does both again: four times in seconds, and the megabytes that
/// were stored by both.
fn ours(home: &Path, tree: &Path, round: u64) -> Result<[f64; 6], Failure> {
    let (packs, copy) = (home.join("packs"), home.join("copy"));
    let options = Options::default();
    sync()?;
    let start = Instant::now();
    let store = LocalStore::open(&packs, 0)?;
    let saved = save(tree, &store, None, &options)?;
    sync()?;
    let save_time = start.elapsed();
    let start = Instant::now();
    let restored = restore(saved.id, &copy, &store, None, &options)?;
    sync()?;
    let restore_time = start.elapsed();
    check(home, tree)?;
    change(tree, round)?;
    // As from one process to the next.
    saved.index.store(&home.join("index-tree"))?;
    restored.index.store(&home.join("index-copy"))?;
    sync()?;
    let start = Instant::now();
    let index = SnapshotIndex::load(&home.join("index-tree"));
    let again = save(tree, &store, index.as_ref(), &options)?;
    sync()?;
    let again_time = start.elapsed();
    let start = Instant::now();
    let index = SnapshotIndex::load(&home.join("index-copy"));
    restore(again.id, &copy, &store, index.as_ref(), &options)?;
    sync()?;
    let restore_again_time = start.elapsed();
    check(home, tree)?;
    drop(store);
    std::fs::remove_dir_all(packs)?;
    std::fs::remove_dir_all(copy)?;
    let seconds =
        [save_time, restore_time, again_time, restore_again_time].map(|t| t.as_secs_f64());
    let [one, two, three, four] = seconds;
    Ok([one, two, three, four, saved.new_bytes as f64 / 1e6, again.new_bytes as f64 / 1e6])
}

fn tar_fast(home: &Path, tree: &Path) -> Result<[f64; 2], Failure> {
    tar(home, tree, "-q -1 -T0")
}

/// Packs the tree into a file and unpacks it again; the seconds of both.
fn tar(home: &Path, tree: &Path, zstd: &str) -> Result<[f64; 2], Failure> {
    sync()?;
    let start = Instant::now();
    shell(home, &format!("tar -C {} -cf - . | zstd {zstd} -o tree.tar.zst", tree.display()))?;
    sync()?;
    let pack = start.elapsed();
    let start = Instant::now();
    shell(home, "mkdir copy && zstd -q -dc tree.tar.zst | tar -C copy -xpf -")?;
    sync()?;
    let unpack = start.elapsed();
    check(home, tree)?;
    std::fs::remove_file(home.join("tree.tar.zst"))?;
    std::fs::remove_dir_all(home.join("copy"))?;
    Ok([pack.as_secs_f64(), unpack.as_secs_f64()])
}

fn check(home: &Path, tree: &Path) -> Result<(), Failure> {
    shell(home, &format!("diff -rq {} copy", tree.display()))
}

fn sync() -> Result<(), Failure> {
    shell(Path::new("/"), "sync")
}

fn shell(dir: &Path, line: &str) -> Result<(), Failure> {
    let status = Command::new("sh").arg("-c").arg(line).current_dir(dir).status()?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` ended with {status}").into()) }
}

/// The same numbers for the same seed.
struct Random(blake3::OutputReader);

impl Random {
    fn new(seed: u64) -> Random {
        Random(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

fn path(tree: &Path, number: u64) -> PathBuf {
    tree.join(format!("d{:02}/e{}/f{number}", number / 500, number / 50 % 10))
}

/// Sizes as in a build tree, from two kilobytes to some megabytes: most files are small, most bytes are in large ones.
fn make(tree: &Path) -> Result<u64, Failure> {
    let mut random = Random::new(7);
    let mut size = || {
        let doublings = (0..12).take_while(|_| random.below(100) < 62).count() as u32;
        (1024_u64 << doublings) + random.below(1024 << doublings)
    };
    let sizes: Vec<u64> = (0..FILES).map(|_| size()).collect();
    let share = BYTES as f64 / sizes.iter().sum::<u64>() as f64;
    let mut total = 0;
    for (number, size) in (0..).zip(sizes) {
        let file = path(tree, number);
        let content = content(number, (size as f64 * share) as usize);
        std::fs::create_dir_all(file.parent().unwrap_or(tree))?;
        std::fs::write(file, &content)?;
        total += content.len() as u64;
    }
    Ok(total)
}

/// Every second file is like text, lines of words of which some are frequent; the others do not pack.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut content = vec![0; size];
    if seed.is_multiple_of(2) {
        random.0.fill(&mut content);
        return content;
    }
    let mut letters = Random::new(1);
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| (0..2 + letters.below(9)).map(|_| b'a' + letters.below(26) as u8).collect())
        .collect();
    content.clear();
    let mut numbers = vec![0; 4096];
    while content.len() < size {
        random.0.fill(&mut numbers);
        for pair in numbers.chunks_exact(2) {
            content.extend_from_slice(&words[usize::from(pair[0]) * usize::from(pair[1]) / 16]);
            content.push(if pair[1] % 11 == 0 { b'\n' } else { b' ' });
        }
    }
    content.truncate(size);
    content
}

/// Every twentieth file becomes another of the same size.
fn change(tree: &Path, round: u64) -> Result<(), Failure> {
    for number in (round..FILES).step_by(20) {
        let file = path(tree, number);
        let size = file.metadata()?.len() as usize;
        std::fs::write(file, content(number + 20 * FILES * (round + 1), size))?;
    }
    Ok(())
}
