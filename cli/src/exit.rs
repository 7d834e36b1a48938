//! Exit codes (docs/events.md), and the one kind of error that the command line knows.
//!
//! A [`Failure`] is printed once, by `main`, on stderr.

use std::fmt;

/// What `tenon` exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything went well.
    Success = 0,
    /// A fault of Tenon itself.
    Internal = 1,
    /// The command line or the config file makes no sense.
    Usage = 2,
    /// The machine cannot do it.
    Environment = 3,
    /// The input is not valid.
    Validation = 4,
    /// A task failed.
    TaskFailed = 5,
    /// A timeout.
    Timeout = 6,
    /// Cancelled.
    Cancelled = 130,
}

impl Exit {
    /// The exit with this code, as a cluster says how a run ended.
    pub fn of_code(code: i32) -> Option<Exit> {
        let all = [
            Exit::Success,
            Exit::Internal,
            Exit::Usage,
            Exit::Environment,
            Exit::Validation,
            Exit::TaskFailed,
            Exit::Timeout,
            Exit::Cancelled,
        ];
        all.into_iter().find(|exit| *exit as i32 == code)
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// What to exit with.
    pub exit: Exit,
    /// What, where, why; empty if everything has been said.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The message already says that it is an error, and where.
    pub located: bool,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { exit, message: message.to_string(), hint: None, located: false }
    }

    /// A failure whose message is a diagnostic with its place.
    pub fn located(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { located: true, ..Failure::new(exit, message) }
    }

    /// A failure of which everything has been said already.
    pub fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// Likewise, with what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Failure {
        self.hint = Some(hint.to_string());
        self
    }
}

impl From<tenon_coordinator::intake::Error> for Failure {
    fn from(error: tenon_coordinator::intake::Error) -> Failure {
        use tenon_coordinator::intake::Error;
        match error {
            Error::Documents(diagnostics) => crate::input::refused(&diagnostics),
            Error::Request { message, hint, .. } => {
                Failure { hint, ..Failure::new(Exit::Usage, message) }
            }
            Error::NothingToRun => Failure::new(Exit::Validation, error),
            other => Failure::new(Exit::Internal, other),
        }
    }
}

impl From<tenon_reporter::Error> for Failure {
    fn from(error: tenon_reporter::Error) -> Failure {
        use tenon_reporter::Error;
        let exit = match &error {
            Error::NotFound(_) | Error::Empty(_) | Error::Ambiguous { .. } => Exit::Usage,
            Error::Io { .. } | Error::Busy(_) => Exit::Environment,
            _ => Exit::Internal,
        };
        let hint = match &error {
            Error::NotFound(_) | Error::Ambiguous { .. } => {
                Some("`tenon runs list` shows all runs")
            }
            Error::Empty(_) => Some("`tenon run` makes one; --state-dir says where to look"),
            Error::Io { action, .. } if *action != "read" => Some(
                "is the state directory writable and the disk not full? --state-dir chooses another",
            ),
            _ => None,
        };
        let failure = Failure::new(exit, format!("{error} [{}]", error.code()));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
