//! The thread that makes a spool's reports safe: one `fdatasync` for all that came meanwhile, and
//! dropping what is acknowledged.
//!
//! A full disk is waited for: nothing is told to be safe until there is room, so nothing is sent and,
//! soon, no more is taken.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tenon_journal::{Error, Journal};
use tokio::sync::watch;

use super::marks::Checkpoint;
use super::{Safe, SpoolError};

/// How soon a full disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
pub(super) enum Order {
    /// Something was appended.
    Sync,
    /// Drop the reports below `keep_from`, once the checkpoint stands.
    Drop { keep_from: u64, checkpoint: Checkpoint },
}

/// The thread's other end; dropping it ends the thread.
pub(super) struct Writer {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(
        journal: Journal,
        dir: PathBuf,
        safe: watch::Sender<Safe>,
    ) -> std::io::Result<Writer> {
        let (orders, ordered) = mpsc::channel();
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            if let Err(error) = work(&journal, &dir, &safe, &ordered) {
                safe.send_modify(|safe| safe.failed = Some(SpoolError::Failed(error.to_string())));
            }
        })?;
        Ok(Writer { orders: Some(orders), thread: Some(thread) })
    }

    /// One that has failed has said so elsewhere.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // What was said last is made safe before the directory may be opened again.
            let _ = thread.join();
        }
    }
}

fn work(
    journal: &Journal,
    dir: &std::path::Path,
    safe: &watch::Sender<Safe>,
    orders: &mpsc::Receiver<Order>,
) -> Result<(), Error> {
    let mut dropping = None;
    let mut waits_for_room = false;
    loop {
        let first = match waits_for_room {
            false => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            true => orders.recv_timeout(AGAIN),
        };
        match first {
            Ok(first) => {
                for order in std::iter::once(first).chain(orders.try_iter()) {
                    if let Order::Drop { keep_from, checkpoint } = order {
                        dropping = Some((keep_from, checkpoint));
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        match journal.sync() {
            Ok(number) => {
                waits_for_room = false;
                safe.send_modify(|safe| safe.number = number);
            }
            Err(Error::NoSpace { path }) => {
                if !waits_for_room {
                    tracing::error!(path = %path.display(), "the disk is full: steps wait for room");
                }
                waits_for_room = true;
                continue;
            }
            Err(error) => return Err(error),
        }
        if let Some((keep_from, checkpoint)) = dropping.take() {
            // Nothing is lost by keeping more than is needed.
            let dropped = checkpoint
                .write(dir)
                .map_err(|error| error.to_string())
                .and_then(|()| journal.delete_prefix(keep_from).map_err(|error| error.to_string()));
            if let Err(error) = dropped {
                tracing::warn!(%error, "acknowledged reports could not be dropped");
            }
        }
    }
}
