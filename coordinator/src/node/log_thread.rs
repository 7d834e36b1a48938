//! The thread that writes the Raft log: as many writes as have come, then one sync for all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tenon_consensus::{Compaction, LogWriter, Write};

use super::raft_thread::RaftInput;
use super::standing::Standing;
use crate::error::Result;
use crate::server::Metrics;

/// At most so many writes share a sync.
const WRITES: usize = 256;
/// Between looks at the size of the log.
const MEASURE: Duration = Duration::from_secs(1);

/// What the log is to do.
pub enum LogInput {
    /// Make this durable.
    Write(Write),
    /// Drop what is no longer needed.
    Compact(Compaction),
    /// End.
    Stop,
}

/// The thread's state. The simulator calls [`LogThread::take`] and [`LogThread::sync`] from its
/// schedule.
pub struct LogThread {
    log: LogWriter,
    raft: Sender<RaftInput>,
    metrics: Arc<Metrics>,
    standing: Arc<Standing>,
    measured: Option<Instant>,
    /// The last write that is not synced.
    last: Option<u64>,
    compactions: Vec<Compaction>,
}

impl LogThread {
    /// Nothing has happened yet.
    pub fn new(
        log: LogWriter,
        raft: Sender<RaftInput>,
        metrics: Arc<Metrics>,
        standing: Arc<Standing>,
    ) -> LogThread {
        LogThread {
            log,
            raft,
            metrics,
            standing,
            measured: None,
            last: None,
            compactions: Vec::new(),
        }
    }

    /// Works until it is told to stop. An error of the disk ends the node: it must not acknowledge
    /// what it could not store.
    pub fn run(mut self, inbox: &Receiver<LogInput>) -> Result<()> {
        while let Ok(first) = inbox.recv() {
            let mut goes_on = true;
            for input in std::iter::once(first).chain(inbox.try_iter().take(WRITES)) {
                goes_on = self.take(input)?;
                if !goes_on {
                    break;
                }
            }
            self.sync()?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Writes what has come, without making it durable. False when this was the end.
    pub fn take(&mut self, input: LogInput) -> Result<bool> {
        match input {
            LogInput::Write(write) => {
                self.log.write(&write)?;
                self.last = Some(write.number);
            }
            LogInput::Compact(compaction) => self.compactions.push(compaction),
            LogInput::Stop => return Ok(false),
        }
        Ok(true)
    }

    /// Makes everything durable that was written, says so, and then drops what is not needed.
    pub fn sync(&mut self) -> Result<()> {
        if let Some(number) = self.last.take() {
            let began = Instant::now();
            self.log.sync()?;
            self.metrics.log_sync.observe(began.elapsed().as_secs_f64());
            // Its receiver is gone only when the node is ending.
            let _ = self.raft.send(RaftInput::Persisted(number));
        }
        for compaction in self.compactions.drain(..) {
            self.log.compact(&compaction)?;
        }
        if self.measured.is_none_or(|measured| measured.elapsed() > MEASURE) {
            self.measured = Some(Instant::now());
            self.standing.log_bytes.store(self.log.disk_bytes(), Ordering::Relaxed);
        }
        Ok(())
    }
}
