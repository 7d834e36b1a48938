//! How fast records get durable in the journal, beside a plain file: batches of 64 records of 300
//! bytes, a sync after each.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use tenon_journal::{Journal, Options};

use crate::Result;
use crate::figure::{Figure, Goal, median};
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
    Ok(vec![figure.beside("plain file", median(theirs))])
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
