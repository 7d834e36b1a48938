//! What coordinators and agents tell of themselves while they run: a line each on stderr.

use clap::ValueEnum;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What went wrong
    Error,
    /// What may go wrong too
    Warn,
    /// What was done, too
    Info,
    /// What helps to find a fault, too
    Debug,
    /// Everything
    Trace,
}

/// From now on. The libraries below Tenon tell warnings at most: the rest of what they say is about themselves.
pub fn begin(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let who = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("tenon", level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    // There is one already in a process that is both: that will do.
    let _ = tracing_subscriber::registry().with(lines).with(who).try_init();
}
