//! The thread that writes the Raft log: as many writes as have come, then one sync for all of them.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use tenon_consensus::{Compaction, LogWriter, Write};

use super::raft_thread::RaftInput;
use crate::error::Result;
use crate::server::Metrics;

/// At most so many writes share a sync.
const WRITES: usize = 256;

/// What the log is to do.
pub enum LogInput {
    /// Make this durable.
    Write(Write),
    /// Drop what is no longer needed.
    Compact(Compaction),
    /// End.
    Stop,
}

/// Works until it is told to stop. An error of the disk ends the node: it must not acknowledge what
/// it could not store.
pub fn run(
    mut log: LogWriter,
    inbox: &Receiver<LogInput>,
    raft: &Sender<RaftInput>,
    metrics: &Metrics,
) -> Result<()> {
    while let Ok(first) = inbox.recv() {
        let mut stop = false;
        let mut last = None;
        let mut compactions = Vec::new();
        for input in std::iter::once(first).chain(inbox.try_iter().take(WRITES)) {
            match input {
                LogInput::Write(write) => {
                    log.write(&write)?;
                    last = Some(write.number);
                }
                LogInput::Compact(compaction) => compactions.push(compaction),
                LogInput::Stop => {
                    stop = true;
                    break;
                }
            }
        }
        if let Some(number) = last {
            let began = Instant::now();
            log.sync()?;
            metrics.log_sync.observe(began.elapsed().as_secs_f64());
            // Its receiver is gone only when the node is ending.
            let _ = raft.send(RaftInput::Persisted(number));
        }
        for compaction in compactions {
            log.compact(&compaction)?;
        }
        if stop {
            break;
        }
    }
    Ok(())
}
