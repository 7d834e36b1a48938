//! How fast stored output becomes JSON lines: `cargo run --release -p tenon-reporter --example unfold`.

use std::time::Instant;

use tenon_engine::event::{Event, Output};
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_reporter::history::{Stored, encode};
use tenon_reporter::json::Lines;

const LINES: u32 = 1_000_000;
const PER_CHUNK: u32 = 600;

fn main() {
    let header = r#"{"kind":"step-log","time":"2026-01-02T03:04:05.678Z","seq":1,"runSeq":1,"runId":"01HF7YAT00000000000000000A","namespace":"default","task":"t","taskRun":"t-run","attempt":1,"step":"s"}"#;
    let mut event: Event =
        serde_json::from_str(header).expect("an event because it is written as one");
    let text = "x".repeat(100);
    let mut builder = ChunkBuilder::new();
    let mut records = Vec::new();
    for line in 0..LINES {
        builder
            .push(1_700_000_000_000 + i64::from(line / 100), Stream::Stdout, false, &text)
            .expect("a chunk takes 600 lines of 100 bytes because it takes 8 MiB");
        if builder.lines() == PER_CHUNK || line + 1 == LINES {
            let (lines, chunk) = builder.finish();
            event.output = Some(Output { lines, chunk });
            records.push(Stored::new(encode(&event)).expect("what was encoded is a record"));
        }
    }
    let start = Instant::now();
    let mut lines = Lines::new();
    let (mut out, mut bytes) = (Vec::new(), 0);
    for record in &records {
        out.clear();
        lines.write(record, 0, &mut out).expect("the record is whole");
        bytes += out.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} lines/s, {:.0} MB/s", f64::from(LINES) / seconds, bytes as f64 / seconds / 1e6);
}
