//! `pause`: holds a container (and so its network namespace) open, reaps orphans, and goes away at
//! once when told to.

use std::process::ExitCode;

use crate::sys::{self, Signals, Waited};

/// Waits for SIGTERM, SIGINT or SIGHUP.
pub fn pause() -> ExitCode {
    let signals = match Signals::take_over() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("cannot take over signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        sys::wait(&mut [Waited::new(signals.fd())], None);
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP => return ExitCode::SUCCESS,
                libc::SIGCHLD => while sys::reap().is_some() {},
                _ => {}
            }
        }
    }
}
