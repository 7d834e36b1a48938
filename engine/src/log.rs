//! Numbering of events: `seq` over all runs, `runSeq` within one. Every event passes through here,
//! so both are strictly increasing and `runSeq` has no gap (invariant 3).

use serde::{Deserialize, Serialize};

use crate::event::{Event, Kind};
use crate::{RunId, Time, TraceContext};

/// The events of one command, with the number that the next one gets.
#[derive(Debug)]
pub(crate) struct Log {
    next_seq: u64,
    events: Vec<Event>,
}

impl Log {
    pub(crate) fn starting_at(next_seq: u64) -> Self {
        Log { next_seq, events: Vec::new() }
    }

    /// Numbers the event and keeps it. Output claims one number for each of its lines.
    pub(crate) fn push(&mut self, header: &mut Header, mut event: Event) {
        let numbers = event.output.as_ref().map_or(1, |output| u64::from(output.lines.max(1)));
        event.seq = self.next_seq;
        event.run_seq = Some(header.next_run_seq);
        self.next_seq += numbers;
        header.next_run_seq += numbers;
        self.events.push(event);
    }

    /// The next `seq`, and the events.
    pub(crate) fn finish(self) -> (u64, Vec<Event>) {
        (self.next_seq, self.events)
    }
}

/// What all events of a run have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) run: RunId,
    pub(crate) namespace: String,
    pub(crate) pipeline: Option<String>,
    pub(crate) pipeline_run: Option<String>,
    pub(crate) trace: TraceContext,
    next_run_seq: u64,
}

impl Header {
    pub(crate) fn new(run: RunId, trace: TraceContext) -> Self {
        Header {
            run,
            namespace: String::new(),
            pipeline: None,
            pipeline_run: None,
            trace,
            next_run_seq: 1,
        }
    }

    /// An event of this run, not yet numbered.
    pub(crate) fn event(&self, kind: Kind, time: Time) -> Event {
        Event {
            run_id: Some(self.run),
            namespace: Some(self.namespace.clone()),
            pipeline: self.pipeline.clone(),
            pipeline_run: self.pipeline_run.clone(),
            trace_id: Some(self.trace.trace_id.clone()),
            trace_flags: (!self.trace.sampled).then(|| "00".to_owned()),
            ..Event::new(kind, time)
        }
    }
}

/// An owned text, or nothing for an empty one: empty keys are left out of events.
pub(crate) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
