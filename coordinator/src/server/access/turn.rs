//! When a connection writes.
//!
//! Requests that are answered at the same moment are to be answered with one write: a write costs more than the rest of
//! a small answer. But Tokio runs a task that another one wakes right after that one, so the connection's would write
//! after each answer. Here it lets the tasks go first that are ready now, and then writes what all of them have left.

use std::task::{Context, Poll};

/// Whose turn it is. A connection reads first and then writes, each time its task runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// The others', before anything is written.
    #[default]
    Others,
    /// The others had it.
    Due,
    /// The connection's: it writes all it has.
    Own,
}

impl Turn {
    /// The connection reads: its task runs anew.
    pub(super) fn reads(&mut self) {
        if *self == Turn::Own {
            *self = Turn::Others;
        }
    }

    /// Whether the connection may write. If not, its task runs again behind those that are ready.
    pub(super) fn writes(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Turn::Others => {
                *self = Turn::Due;
                // A task that wakes itself goes to the end of the queue.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Due | Turn::Own => {
                *self = Turn::Own;
                Poll::Ready(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn the_first_write_waits_for_one_turn_and_the_others_follow_it() {
        let mut context = Context::from_waker(Waker::noop());
        let mut turn = Turn::default();
        for _ in 0..2 {
            turn.reads();
            assert!(turn.writes(&mut context).is_pending());
            turn.reads();
            assert!(turn.writes(&mut context).is_ready());
            assert!(turn.writes(&mut context).is_ready());
        }
        // One that does not read in between goes on writing.
        assert!(turn.writes(&mut context).is_ready());
    }
}
