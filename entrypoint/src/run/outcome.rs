//! What a step's end means: the row of Tekton's outcome table, as a pure function.

use tenon_entrypoint::OnError;
use tenon_entrypoint::frame::Ending;

use crate::sys::Exit;

/// How running the command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It ended by itself, or by a signal from elsewhere.
    Ended(Exit),
    /// Killed by the step's timeout.
    TimedOut,
    /// Killed by the cancel file.
    Cancelled,
    /// It could not be run, or not as the step asks.
    Impossible,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub ending: Ending,
    /// Whether the next steps may run: the post file without `.err`.
    pub goes_on: bool,
    /// What the `exitCode` file says, when it is written.
    pub exit_code_file: Option<String>,
    /// The exit code that people see.
    pub shown_exit_code: i32,
    /// The exit code of the container.
    pub container_exit_code: i32,
}

impl Outcome {
    /// Timeout and cancellation come before `onError`: a step that ran out of time always fails.
    pub fn of(ran: Ran, on_error: OnError) -> Self {
        let failed = |ending, exit_code| Self {
            ending,
            goes_on: false,
            exit_code_file: None,
            shown_exit_code: exit_code,
            container_exit_code: exit_code,
        };
        match ran {
            Ran::Cancelled => Self {
                exit_code_file: Some("killed".to_owned()),
                ..failed(Ending::Cancelled, libc::SIGKILL)
            },
            Ran::TimedOut => failed(Ending::TimeoutExceeded, 1),
            Ran::Impossible => failed(Ending::Error, 1),
            Ran::Ended(Exit::Code(0)) => Self {
                ending: Ending::Completed,
                goes_on: true,
                exit_code_file: Some("0".to_owned()),
                shown_exit_code: 0,
                container_exit_code: 0,
            },
            Ran::Ended(exit) => {
                // Go says -1 for a process that a signal killed; as an exit status that is 255.
                let code = match exit {
                    Exit::Code(code) => code,
                    Exit::Signal(_) => -1,
                };
                match on_error {
                    OnError::StopAndFail => failed(Ending::Error, code & 0xff),
                    OnError::Continue => Self {
                        ending: Ending::Continued,
                        goes_on: true,
                        exit_code_file: Some(code.to_string()),
                        shown_exit_code: code,
                        container_exit_code: 0,
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_table() {
        use OnError::{Continue, StopAndFail};
        use Ran::{Cancelled, Ended, Impossible, TimedOut};
        // ran, onError, ending, goes on, exitCode file, shown, container
        let table = [
            (Ended(Exit::Code(0)), StopAndFail, Ending::Completed, true, Some("0"), 0, 0),
            (Ended(Exit::Code(0)), Continue, Ending::Completed, true, Some("0"), 0, 0),
            (Ended(Exit::Code(7)), StopAndFail, Ending::Error, false, None, 7, 7),
            (Ended(Exit::Code(7)), Continue, Ending::Continued, true, Some("7"), 7, 0),
            (Ended(Exit::Signal(9)), StopAndFail, Ending::Error, false, None, 255, 255),
            (Ended(Exit::Signal(9)), Continue, Ending::Continued, true, Some("-1"), -1, 0),
            (TimedOut, StopAndFail, Ending::TimeoutExceeded, false, None, 1, 1),
            (TimedOut, Continue, Ending::TimeoutExceeded, false, None, 1, 1),
            (Cancelled, Continue, Ending::Cancelled, false, Some("killed"), 9, 9),
            (Impossible, StopAndFail, Ending::Error, false, None, 1, 1),
            (Impossible, Continue, Ending::Error, false, None, 1, 1),
        ];
        for (ran, on_error, ending, goes_on, file, shown, container) in table {
            let want = Outcome {
                ending,
                goes_on,
                exit_code_file: file.map(str::to_owned),
                shown_exit_code: shown,
                container_exit_code: container,
            };
            assert_eq!(Outcome::of(ran, on_error), want, "{ran:?} {on_error:?}");
        }
    }
}
