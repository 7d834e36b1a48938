//! How [`save`](crate::save) and [`restore`](crate::restore) go about their work, and their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{Error, Result};

/// How many directories may lie in each other: each costs an open file while it is worked on.
pub(crate) const MAX_DEPTH: usize = 512;

/// How to go about a save or a restore.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that read, compress, ask the store and write. They also wait for the store, so more than the processors
    /// is right where the store is far away. Each holds some 16 MiB.
    pub threads: usize,
    /// A save asks again for all chunks that it relies on when it was begun, or has last done so, so long ago: a store may
    /// forget what nobody asks for.
    pub ask_again: Duration,
    /// Set to true, it ends the work soon, with [`Error::Cancelled`].
    pub cancel: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Options {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Options {
            threads: (processors * 2).clamp(4, 32),
            ask_again: Duration::from_secs(1200),
            cancel: Arc::default(),
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}
