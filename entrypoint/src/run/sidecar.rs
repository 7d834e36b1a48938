//! A sidecar: run, recorded and signalled, and nothing else.

use tenon_entrypoint::Spec;
use tenon_entrypoint::frame::{Ended, Ending, Frame};

use super::Context;
use super::command::{self, Command};
use super::supervise::{self, Limits};
use crate::sys::{self, Exit};

/// Runs it; gives the container's exit code.
pub fn run(spec: &Spec, context: &mut Context) -> i32 {
    let started_ms = sys::now_ms();
    context.record.write(&Frame::Started { time_ms: started_ms });
    let command = Command { argv: spec.argv.clone(), env: Command::environment(&spec.env) };
    let (exit_code, message) = match command::enter(spec.cwd.as_deref())
        .and_then(|()| supervise::run(&command, spec, &Limits::default(), context))
    {
        Ok(finished) => match finished.exit {
            Exit::Code(code) => (code, String::new()),
            Exit::Signal(signal) => (128 + signal, String::new()),
        },
        Err(why) => {
            let message = format!("Error executing command: {why}");
            context.record.log(&message);
            (1, message)
        }
    };
    let ending = if exit_code == 0 { Ending::Completed } else { Ending::Error };
    let ended = Ended { exit_code, ending, started_ms, message, ..Ended::default() };
    context.record.write(&Frame::Ended { time_ms: sys::now_ms(), ended });
    exit_code
}
