//! What a store costs: `load DIRECTORY [RECORDS]` writes records of 400 bytes and opens them again.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::time::Instant;

use tenon_store::{Batch, SledStore, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("load DIRECTORY [RECORDS]")?;
    let records: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dir = Path::new(&dir).join("store");
    if !dir.exists() {
        // Opening is measured in a process of its own: run it twice.
        load(&dir, records)?;
        println!("run it again to see how it is opened");
        return Ok(());
    }
    let start = Instant::now();
    let store = SledStore::open(&dir)?;
    println!("opened and checked in {:.2?}, resident memory {} MB", start.elapsed(), resident());
    let start = Instant::now();
    let mut count = 0;
    store.scan((Bound::Unbounded, Bound::Unbounded), true, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    println!("scanned {count} in {:.2?}, resident memory {} MB", start.elapsed(), resident());
    let start = Instant::now();
    for number in (0..records).step_by(7) {
        store.get(&key(number))?.ok_or("missing")?;
    }
    let each = start.elapsed() / u32::try_from(records.div_ceil(7))?;
    println!("looked up in {each:.2?} each");
    drop(store);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn key(number: u64) -> Vec<u8> {
    format!("run/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

fn load(dir: &Path, records: u64) -> Result<(), Box<dyn std::error::Error>> {
    let store = SledStore::open(dir)?;
    println!("empty: resident memory {} MB", resident());
    let start = Instant::now();
    let mut batch = Batch::new();
    for number in 0..records {
        batch.put(key(number), vec![number as u8; 400]);
        if batch.len() == 1000 {
            store.write(std::mem::take(&mut batch))?;
        }
        if number % 10_000 == 9_999 {
            store.sync()?;
        }
    }
    store.write(batch)?;
    store.sync()?;
    let (time, disk) = (start.elapsed(), store.disk_bytes() >> 20);
    println!("{records} records in {time:.2?}, resident memory {} MB, disk {disk} MB", resident());
    let start = Instant::now();
    let mut batch = Batch::new();
    for number in 0..1000 {
        batch.put(key(number), vec![1; 400]);
    }
    store.write(batch)?;
    store.sync()?;
    println!("a batch of 1000 changes and a sync: {:.2?}", start.elapsed());
    Ok(())
}

/// Resident memory of this process, in MB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}
