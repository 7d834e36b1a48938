//! The trace of a run of this machine, sent when the run is over.

use std::path::Path;
use std::time::Duration;

use tenon_engine::RunId;
use tenon_reporter::history::Next;
use tenon_reporter::spans::{self, Destination, Exporter, Span};

use super::store;
use crate::terminal;

/// How long a user waits for a tracing backend after the run at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// Spans in one message.
const BATCH: usize = 512;

/// Sends the spans of a run to this address, or where the environment says; a failure is told and changes nothing.
pub async fn send(address: Option<&str>, state_dir: &Path, run: RunId) {
    let sent = async {
        let destination = Destination::find(address).map_err(|error| error.to_string())?;
        let Some(destination) = destination else { return Ok(()) };
        let exporter = Exporter::new(&destination).map_err(|error| error.to_string())?;
        let spans = spans_of(state_dir, run).map_err(|error| error.to_string())?;
        for batch in spans.chunks(BATCH) {
            exporter.export(batch.to_vec()).await.map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    };
    let why = match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => format!("the backend did not take them in {} s", PATIENCE.as_secs()),
    };
    terminal::note(&format!("the trace of run {run} is not complete: {why}"));
}

fn spans_of(state_dir: &Path, run: RunId) -> tenon_reporter::Result<Vec<Span>> {
    let mut reader = store(state_dir).reader(run)?;
    let mut all = Vec::new();
    while let Next::Event(stored) = reader.next(Duration::ZERO)? {
        if let Ok(event) = stored.event() {
            all.extend(spans::of(&event));
        }
    }
    Ok(all)
}
