//! How fast records get durable, beside a plain file: `throughput DIRECTORY [SECONDS]`.
//!
//! Both write batches of 64 records of 300 bytes and sync after each.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tenon_journal::{Error, Journal, Options};

const BATCH: usize = 64;
const RECORD: [u8; 300] = [b'r'; 300];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("throughput DIRECTORY [SECONDS]")?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let dir = Path::new(&dir).join("throughput");
    let within = Duration::from_secs(seconds);
    std::fs::create_dir_all(&dir)?;
    // In turn, so that both see the same disk.
    for round in 1..=3 {
        let journal = rate(within, with_journal(&dir.join("journal"))?)?;
        let plain = rate(within, with_file(&dir.join("plain"))?)?;
        let share = 100.0 * journal / plain;
        println!(
            "round {round}: journal {journal:.0} records/s, plain file {plain:.0} ({share:.0} %)"
        );
        let (journal, _) = Journal::open(dir.join("journal"), Options::default())?;
        let start = Instant::now();
        let mut next = journal.first_index();
        while let Some((last, _)) = journal.read_range(next, 256 << 10)?.last() {
            next = last + 1;
        }
        println!("  read back: {:.0} records/s", next as f64 / start.elapsed().as_secs_f64());
        drop(journal);
        std::fs::remove_dir_all(dir.join("journal"))?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

type Step = Box<dyn FnMut() -> Result<(), Box<dyn std::error::Error>>>;

fn rate(within: Duration, mut step: Step) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut records = 0;
    while start.elapsed() < within {
        step()?;
        records += BATCH;
    }
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

fn with_journal(dir: &Path) -> Result<Step, Error> {
    let (journal, _) = Journal::open(dir, Options::default())?;
    let batch = [&RECORD[..]; BATCH];
    Ok(Box::new(move || {
        journal.append(&batch)?;
        journal.sync()?;
        Ok(())
    }))
}

fn with_file(path: &Path) -> Result<Step, std::io::Error> {
    let mut file = File::create(path)?;
    let batch = RECORD.repeat(BATCH);
    Ok(Box::new(move || {
        file.write_all(&batch)?;
        file.sync_data()?;
        Ok(())
    }))
}
