//! What the command line asks the operating system about its terminal, and quiet writing to stdout.

use std::io::{self, IsTerminal, Write};

use tenon_engine::Time;
use tenon_reporter::pretty::{DEFAULT_COLUMNS, Size, Style, wrap};

use crate::exit::{Exit, Failure};

/// Colours of stdout.
pub fn stdout_style() -> Style {
    Style::from_env(io::stdout().is_terminal(), |name| std::env::var_os(name))
}

/// Colours of stderr.
pub fn stderr_style() -> Style {
    Style::from_env(io::stderr().is_terminal(), |name| std::env::var_os(name))
}

/// Whether a live display makes sense on stdout.
pub fn stdout_is_live() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The size of stdout's terminal; `COLUMNS` and 80 where it is none.
pub fn size() -> Size {
    // SAFETY: winsize is plain data, for which all zeroes is a value; the call fills it or fails.
    let found = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let done = libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size);
        (done == 0 && size.ws_col > 0).then_some(size)
    };
    match found {
        Some(size) => {
            Size { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row).max(1) }
        }
        None => Size {
            columns: std::env::var("COLUMNS")
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|columns| (20..=1000).contains(columns))
                .unwrap_or(DEFAULT_COLUMNS),
            rows: 24,
        },
    }
}

/// `text` below something else: indented, and on a terminal wrapped between its words. Whoever reads a
/// pipe looks for whole sentences.
pub fn below(text: &str, indent: usize) -> String {
    let columns = match io::stdout().is_terminal() {
        true => size().columns.saturating_sub(indent).max(20),
        false => usize::MAX,
    };
    let blanks = " ".repeat(indent);
    wrap(text, columns).into_iter().map(|line| format!("{blanks}{line}\n")).collect()
}

/// The time now.
pub fn now() -> Time {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Writes a command's answer to stdout. A reader that has gone (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes()).map(|_| ())
}

/// Writes bytes to stdout at once; false when nobody reads them any more.
pub fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(Exit::Environment, format!("cannot write to stdout: {error}")))
        }
    }
}

/// Prints a remark on stderr, with who makes it.
pub fn note(text: &str) {
    remark(&format!("tenon: {text}"));
}

/// Prints a line on stderr.
pub fn remark(text: &str) {
    // A remark that cannot be shown is not worth failing for.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A value as pretty JSON with a final line break.
pub fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot write JSON: {error}")))
}
