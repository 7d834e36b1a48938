//! What an agent still has to tell: numbered reports until they are acknowledged, and notes.
//!
//! A report keeps its number for ever, and a new session sends everything that is unacknowledged
//! again, in order: so the coordinator can drop what it has, and misses nothing. It sends and waits
//! for nothing; where reports are kept is [`crate::spool`]'s.

use std::collections::VecDeque;

use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, Hello, Progress, Reports, agent_message::Message as Says, report,
};

use crate::record::Marked;
use crate::spool::{Spool, SpoolError};

/// Reports and their bytes that go in one message at most.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 << 10;
/// Notes that wait for a session. They are for a person, who would not read more.
const NOTES: usize = 256;

/// The queue of one agent.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// The first message of a session, until it is sent.
    hello: Option<Hello>,
    /// The other side listens to more than that.
    welcome: bool,
    /// It takes several reports in one message.
    batches: bool,
    pub(crate) spool: Spool,
    notes: VecDeque<Progress>,
}

impl Outgoing {
    pub(crate) fn new(spool: Spool) -> Outgoing {
        Outgoing { spool, ..Outgoing::default() }
    }

    /// Numbers a report and keeps it.
    pub(crate) fn report(
        &mut self,
        attempt: AttemptId,
        time_ms: i64,
        what: report::What,
        marked: Option<Marked>,
    ) -> u64 {
        self.spool.push(attempt, time_ms, what, marked)
    }

    /// Keeps a note until it is sent; the oldest go when there are too many.
    pub(crate) fn note(&mut self, note: Progress) {
        if self.notes.len() >= NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    /// A session begins: after this hello everything unacknowledged is to be sent again, once it
    /// is [`Outgoing::welcome`].
    pub(crate) fn begin(&mut self, hello: Hello) {
        self.hello = Some(hello);
        self.welcome = false;
        self.batches = false;
        self.spool.rewind();
    }

    /// The other side listens, and takes `batches` of reports or only one at a time.
    pub(crate) fn welcome(&mut self, batches: bool) {
        self.welcome = true;
        self.batches = batches;
    }

    /// What is to be sent next.
    pub(crate) fn next(&mut self) -> Result<Option<AgentMessage>, SpoolError> {
        let message = if let Some(hello) = self.hello.take() {
            Says::Hello(hello)
        } else if !self.welcome {
            return Ok(None);
        } else if let Some(note) = self.notes.pop_front() {
            Says::Progress(note)
        } else {
            let most = if self.batches { BATCH } else { 1 };
            let mut batch = self.spool.next(most, BATCH_BYTES)?;
            match batch.len() {
                0 => return Ok(None),
                1 => Says::Report(batch.remove(0)),
                _ => Says::Reports(Reports { reports: batch }),
            }
        };
        Ok(Some(AgentMessage { message: Some(message) }))
    }

    /// Whether anything is to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        let more = || !self.notes.is_empty() || self.spool.is_waiting();
        self.hello.is_some() || self.welcome && more()
    }

    /// Whether a passing remark may be sent: nobody else waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.welcome && !self.is_waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_proto::agent::v1::{Output, Started};

    fn queue(reports: u64) -> Outgoing {
        let mut queue = Outgoing::default();
        queue.welcome(false);
        for _ in 0..reports {
            queue.report(AttemptId::default(), 0, report::What::Started(Started {}), None);
        }
        queue
    }

    fn again(queue: &mut Outgoing) {
        queue.begin(Hello::default());
        assert!(matches!(queue.next().unwrap().unwrap().message, Some(Says::Hello(_))));
        assert!(queue.next().unwrap().is_none() && !queue.is_waiting(), "nobody listens yet");
        queue.welcome(false);
    }

    fn numbers(queue: &mut Outgoing) -> Vec<u64> {
        let messages = std::iter::from_fn(|| queue.next().unwrap());
        let reports = messages.flat_map(|message| match message.message {
            Some(Says::Report(report)) => vec![report],
            Some(Says::Reports(batch)) => batch.reports,
            _ => Vec::new(),
        });
        reports.map(|report| report.number).collect()
    }

    #[test]
    fn a_new_session_repeats_numbers_and_leaves_out_none() {
        let mut queue = queue(5);
        assert_eq!(numbers(&mut queue), [1, 2, 3, 4, 5]);
        queue.spool.acknowledge(2);
        assert!(!queue.is_waiting());
        again(&mut queue);
        assert_eq!(numbers(&mut queue), [3, 4, 5]);
        queue.report(AttemptId::default(), 0, report::What::Started(Started {}), None);
        assert_eq!(numbers(&mut queue), [6]);
        queue.spool.acknowledge(u64::MAX);
        assert!(queue.spool.is_empty() && numbers(&mut queue).is_empty());
    }

    #[test]
    fn what_was_acknowledged_before_it_was_sent_again_is_not_sent() {
        let mut queue = queue(4);
        numbers(&mut queue);
        again(&mut queue);
        assert!(queue.next().unwrap().is_some());
        queue.spool.acknowledge(3);
        assert_eq!(numbers(&mut queue), [4]);
    }

    #[test]
    fn batches_are_bounded_and_in_order() {
        let mut queue = queue(300);
        queue.welcome(true);
        let Some(Says::Reports(first)) = queue.next().unwrap().unwrap().message else {
            panic!("several wait");
        };
        assert_eq!(first.reports.len(), BATCH);
        assert_eq!(numbers(&mut queue), (129..=300).collect::<Vec<u64>>());
    }

    #[test]
    fn there_is_room_again_once_enough_is_acknowledged() {
        let mut queue = Outgoing::default();
        let mut count = 0;
        while queue.spool.has_room() {
            let output = Output { chunk: vec![0; 1 << 20], ..Output::default() };
            queue.report(AttemptId::default(), 0, report::What::Output(output), None);
            count += 1;
        }
        assert_eq!(count, 32);
        queue.spool.acknowledge(1);
        assert!(queue.spool.has_room());
    }

    #[test]
    fn notes_go_first_and_are_bounded() {
        let mut queue = queue(1);
        for number in 0..NOTES + 1 {
            queue.note(Progress { what: number.to_string(), ..Progress::default() });
        }
        let Some(Says::Progress(first)) = queue.next().unwrap().and_then(|message| message.message)
        else {
            panic!("a note comes first");
        };
        assert_eq!(first.what, "1");
        assert_eq!(numbers(&mut queue), [1]);
    }
}
