//! What the disk takes for a sync, to read the other figures by; and how fast records get durable in the
//! journal, beside a plain file: batches of 64 records of 300 bytes, a sync after each.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use tenon_journal::{Journal, Options};

use crate::Result;
use crate::figure::{Figure, Goal, median, quantile};
use crate::setting::Setting;

const BATCH: usize = 64;
const RECORD: [u8; 300] = [b'r'; 300];

pub fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..setting.count(5, 2) {
        let dir = setting.dir("journal")?;
        let (journal, _) =
            Journal::open(&dir, Options::default()).map_err(|error| error.to_string())?;
        let batch = [&RECORD[..]; BATCH];
        ours.push(rate(setting, || {
            journal.append(&batch).map_err(|error| error.to_string())?;
            journal.sync().map(|_| ()).map_err(|error| error.to_string())
        })?);
        drop(journal);
        let path = setting.dir("plain")?.join("file");
        let mut file = File::create(&path).map_err(|error| error.to_string())?;
        let batch = RECORD.repeat(BATCH);
        theirs.push(rate(setting, || {
            file.write_all(&batch)
                .and_then(|()| file.sync_data())
                .map_err(|error| format!("write {}: {error}", path.display()))
        })?);
    }
    setting.dir("journal")?;
    setting.dir("plain")?;
    let name = format!("journal: records of {} bytes, {BATCH} a sync", RECORD.len());
    let figure = Figure::new(name, median(ours), "/s", Goal::None);
    let mut figures = sync_cost(setting)?;
    figures.push(figure.beside("plain file", median(theirs)));
    Ok(figures)
}

/// How long `fdatasync` takes after 4 KiB were appended to a file.
fn sync_cost(setting: &Setting) -> Result<Vec<Figure>> {
    let path = setting.dir("plain")?.join("file");
    let mut file = File::create(&path).map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    for _ in 0..setting.count(2000, 200) {
        file.write_all(&[b's'; 4096]).map_err(|error| format!("write a file: {error}"))?;
        let began = Instant::now();
        file.sync_data().map_err(|error| format!("sync a file: {error}"))?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    setting.dir("plain")?;
    let name = "the disk: fdatasync after 4 KiB appended";
    let (p50, p99) = (quantile(times.clone(), 0.5), quantile(times, 0.99));
    Ok(vec![
        Figure::new(format!("{name}, p50"), p50, "ms", Goal::None),
        Figure::new(format!("{name}, p99"), p99, "ms", Goal::None),
    ])
}

fn rate(setting: &Setting, mut step: impl FnMut() -> Result<()>) -> Result<f64> {
    let within = setting.round() / 2;
    let began = Instant::now();
    let mut records = 0;
    while began.elapsed() < within {
        step()?;
        records += BATCH;
    }
    Ok(records as f64 / began.elapsed().as_secs_f64())
}
