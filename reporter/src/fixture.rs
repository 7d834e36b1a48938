//! Events for this crate's tests.

use tenon_engine::event::{Event, Kind, Output};
use tenon_engine::{RunId, Time};
use tenon_journal::output::{ChunkBuilder, Stream};

use crate::history::{Stored, encode};

/// A run's id that never changes.
pub fn run_id() -> RunId {
    "01HF7YAT00000000000000000A".parse().expect("a ULID because it is written as one")
}

/// An event of task `t`, attempt 1, at position `seq`, a second later for each position.
pub fn event(kind: Kind, seq: u64) -> Event {
    Event {
        kind,
        time: Time(1_700_000_000_000 + 1000 * seq.cast_signed()),
        seq,
        run_seq: Some(seq),
        run_id: Some(run_id()),
        namespace: Some("default".into()),
        pipeline: Some("p".into()),
        pipeline_run: Some("p-run".into()),
        task: Some("t".into()),
        task_run: Some("p-run-t".into()),
        attempt: Some(1),
        ..Event::new(kind, Time(0))
    }
}

/// Packed output.
pub fn chunk(lines: &[(i64, Stream, bool, &str)]) -> Output {
    let mut builder = ChunkBuilder::new();
    for (time, stream, partial, text) in lines {
        builder
            .push(*time, *stream, *partial, text)
            .expect("an empty chunk takes a few short lines because it has room");
    }
    let (lines, chunk) = builder.finish();
    Output { lines, chunk }
}

/// The event as it is stored.
pub fn stored(event: &Event) -> Stored {
    Stored::new(encode(event)).expect("a record that was just encoded is one")
}
