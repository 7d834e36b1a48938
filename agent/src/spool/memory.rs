//! Reports in memory, for an agent that ends with whom it tells.

use std::collections::VecDeque;

use prost::Message;
use tenon_proto::agent::v1::Report;

use crate::record::Marked;

/// Bytes of unacknowledged reports above which steps are slowed down.
const LIMIT: usize = 32 << 20;

/// See [`super::Spool`].
#[derive(Debug, Default)]
pub(crate) struct MemorySpool {
    /// Unacknowledged, by number without a gap, each with its size.
    reports: VecDeque<(Report, usize)>,
    /// How many of them were handed out.
    sent: usize,
    bytes: usize,
    last_number: u64,
}

impl MemorySpool {
    pub fn push(&mut self, report: impl FnOnce(u64) -> Report, marked: Option<&Marked>) -> u64 {
        self.last_number += 1;
        let report = report(self.last_number);
        let bytes = report.encoded_len();
        self.bytes += bytes;
        self.reports.push_back((report, bytes));
        // Nobody will go on after this process.
        if let Some(marked) = marked {
            marked.keep();
        }
        self.last_number
    }

    pub fn acknowledge(&mut self, number: u64) {
        while let Some((report, bytes)) = self.reports.front() {
            if report.number > number {
                break;
            }
            self.bytes -= bytes;
            self.sent = self.sent.saturating_sub(1);
            self.reports.pop_front();
        }
    }

    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    pub fn next(&mut self, most: usize, most_bytes: usize) -> Vec<Report> {
        let mut batch: Vec<Report> = Vec::new();
        let mut bytes = 0;
        while batch.len() < most
            && let Some((report, size)) = self.reports.get(self.sent)
            && (batch.is_empty() || bytes + size <= most_bytes)
        {
            bytes += size;
            self.sent += 1;
            batch.push(report.clone());
        }
        batch
    }

    pub fn is_waiting(&self) -> bool {
        self.sent < self.reports.len()
    }

    pub fn has_room(&self) -> bool {
        self.bytes < LIMIT
    }

    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }
}
