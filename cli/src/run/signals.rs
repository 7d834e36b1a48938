//! Ctrl-C: once cancels and runs `finally`, twice stops now, three times gives up waiting.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// The signals that end a run, counted.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    seen: u32,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Cancel the run; its `finally` tasks still run.
    Cancel,
    /// Kill what runs, and start nothing more.
    Stop,
    /// Leave at once.
    Leave,
}

impl Signals {
    /// Starts to listen.
    pub fn listen() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Environment, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            seen: 0,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
        self.seen += 1;
        wish(self.seen)
    }

    /// Whether any signal has come: then no further run is started.
    pub fn any(&self) -> bool {
        self.seen > 0
    }
}

fn wish(seen: u32) -> Wish {
    match seen {
        0 | 1 => Wish::Cancel,
        2 => Wish::Stop,
        _ => Wish::Leave,
    }
}

impl Wish {
    /// What is told to the user.
    pub fn text(self) -> &'static str {
        match self {
            Wish::Stop => "stopping everything now; Ctrl-C again leaves without waiting",
            Wish::Cancel => {
                "cancelling, finally tasks still run; Ctrl-C again stops everything now"
            }
            Wish::Leave => "leaving; the next `tenon run` cleans up",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_is_harder_than_the_one_before() {
        assert_eq!(wish(1), Wish::Cancel);
        assert_eq!(wish(2), Wish::Stop);
        assert_eq!(wish(3), Wish::Leave);
    }
}
