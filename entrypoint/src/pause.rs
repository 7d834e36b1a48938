//! `pause`: holds a container (and so its network namespace) open, reaps orphans, and goes away at
//! once when told to. `pause SECONDS` also goes away by itself, once it was told for so long by nobody
//! that it is needed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::sys::{self, Signals, Waited};

/// What tells it that it is needed.
pub const NEEDED: libc::c_int = libc::SIGUSR1;

/// Waits for SIGTERM, SIGINT or SIGHUP, or until nobody has sent [`NEEDED`] for `idle`.
pub fn pause(idle: Option<Duration>) -> ExitCode {
    let signals = match Signals::take_over() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("cannot take over signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut needed = Instant::now();
    loop {
        let left = idle.map(|idle| idle.saturating_sub(needed.elapsed()));
        let mut signalled = [Waited::new(signals.fd())];
        sys::wait(&mut signalled, left);
        if left == Some(Duration::ZERO) && !signalled[0].ready() {
            return ExitCode::SUCCESS;
        }
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP => return ExitCode::SUCCESS,
                NEEDED => needed = Instant::now(),
                libc::SIGCHLD => while sys::reap().is_some() {},
                _ => {}
            }
        }
    }
}
