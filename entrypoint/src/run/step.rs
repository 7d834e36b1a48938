//! A step, from its gate to the gate of the next one. Every row of Tekton's outcome table ends
//! here; [`Outcome`] says which.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::{Ended, Ending, Frame};
use tenon_entrypoint::{Spec, When, WhenOperator};

use super::Context;
use super::command::{self, Command};
use super::credentials;
use super::gate::{self, Gate, directory_of};
use super::outcome::{Outcome, Ran};
use super::record::{RETRY, Record, has_no_room};
use super::results::Results;
use super::substitute::{StepResults, mentions_step_results};
use super::supervise::{self, Limits};
use super::usage;
use crate::sys::{self, Exit};

/// As Tekton prints it; only its length matters, for the limit on results.
const STARTED_AT: &str = "2006-01-02T15:04:05.000Z";
/// How long the files that say how a step ended wait for room on a full disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs it; gives the container's exit code.
pub fn run(mut spec: Spec, context: &mut Context) -> i32 {
    let mut env = Command::environment(&spec.env);
    let mut warnings = Vec::new();
    if let Err(why) = prepare(&spec) {
        return fail(&spec, context, sys::now_ms(), &why);
    }
    if !spec.credentials.is_empty() {
        let home = env.get(std::ffi::OsStr::new("HOME")).map(PathBuf::from);
        let places = [Some(Path::new(&spec.credentials_dir)), home.as_deref()];
        let places: Vec<&Path> =
            places.into_iter().flatten().filter(|p| !p.as_os_str().is_empty()).collect();
        warnings = credentials::write(&spec.credentials, &places);
    }

    let gate = gate::pass(&spec.wait_files, &context.signals);
    let started_ms = sys::now_ms();
    match gate {
        Ok(Gate::Open) => {}
        Ok(Gate::Failed) => {
            return never_ran(
                &spec,
                context,
                Ending::Skipped,
                1,
                "Skipping step because a previous step failed",
            );
        }
        Ok(Gate::Stopped) => {
            return never_ran(
                &spec,
                context,
                Ending::Cancelled,
                128 + libc::SIGTERM,
                "Stopped before it began",
            );
        }
        Err(why) => return fail(&spec, context, started_ms, &why),
    }
    if spec.timeout_nanos < 0 {
        return fail(&spec, context, started_ms, "negative timeout specified");
    }

    let mut when = std::mem::take(&mut spec.when);
    let mut argv = std::mem::take(&mut spec.argv);
    let needed = env.values().any(|value| mentions_step_results(value))
        || argv.iter().any(|argument| mentions_step_results(argument.as_ref()))
        || !when.is_empty();
    if needed {
        let results = StepResults { steps_dir: spec.steps_dir.as_ref() };
        if let Err(why) = results.apply(&mut env, &mut when, &mut argv) {
            warnings.push(format!("Error while substituting step results: {why}"));
        }
    }
    match allowed(&when) {
        Ok(true) => {}
        Ok(false) => {
            let message = "Step was skipped due to when expressions were evaluated to false.";
            return never_ran(&spec, context, Ending::Skipped, 0, message);
        }
        Err(why) => return fail(&spec, context, started_ms, &why),
    }

    context.record.write(&Frame::Started { time_ms: started_ms });
    for warning in warnings {
        context.record.log(&warning);
    }
    let (ran, message) = run_command(&Command { argv, env }, &spec, context);
    let mut message = message.unwrap_or_default();
    if !message.is_empty() {
        context.record.log(&message);
    }
    let outcome = Outcome::of(ran, spec.on_error);
    finish(&spec, context, outcome, started_ms, &mut message)
}

fn run_command(command: &Command, spec: &Spec, context: &mut Context) -> (Ran, Option<String>) {
    let impossible = |why: &str| (Ran::Impossible, Some(format!("Error executing command: {why}")));
    if let Err(why) = command::enter(spec.cwd.as_deref()) {
        return impossible(&why);
    }
    if command.argv.is_empty() {
        return (Ran::Ended(Exit::Code(0)), None);
    }
    let limits = Limits {
        timeout: u64::try_from(spec.timeout_nanos)
            .ok()
            .filter(|&n| n > 0)
            .map(Duration::from_nanos),
        cancel_file: spec.cancel_file.as_deref().map(Path::new),
    };
    match supervise::run(command, spec, &limits, context) {
        Err(why) => impossible(&why),
        Ok(finished) if finished.cancelled => (Ran::Cancelled, None),
        Ok(finished) if finished.timed_out => (Ran::TimedOut, None),
        Ok(finished) => match finished.copy_error {
            Some(why) if finished.exit == Exit::Code(0) => impossible(&why),
            _ => (Ran::Ended(finished.exit), None),
        },
    }
}

/// All `when` expressions hold.
fn allowed(when: &[When]) -> Result<bool, String> {
    for when in when {
        if !when.cel.is_empty() {
            return Err(format!(
                "the CEL expression {} cannot be evaluated: a step's when has no CEL here",
                when.cel
            ));
        }
        let found = when.values.contains(&when.input);
        if found != (when.operator == WhenOperator::In) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare(spec: &Spec) -> Result<(), String> {
    let Some(metadata) = spec.metadata_dir.as_deref() else {
        return Ok(());
    };
    for name in ["results", "artifacts"] {
        let path = Path::new(metadata).join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o777)
            .create(&path)
            .map_err(|e| format!("mkdir {}: {}", path.display(), sys::describe(&e)))?;
    }
    Ok(())
}

/// A step that cannot run: exit code 1, never ignored.
fn fail(spec: &Spec, context: &mut Context, started_ms: i64, why: &str) -> i32 {
    let mut message = format!("Error executing command: {why}");
    context.record.write(&Frame::Started { time_ms: started_ms });
    context.record.log(&message);
    finish(spec, context, Outcome::of(Ran::Impossible, spec.on_error), started_ms, &mut message)
}

/// A step whose turn never came: nothing is read and nothing is logged, its end says why.
fn never_ran(spec: &Spec, context: &mut Context, ending: Ending, exit_code: i32, why: &str) -> i32 {
    let goes_on = exit_code == 0;
    let now = sys::now_ms();
    let ended =
        Ended { exit_code, ending, started_ms: now, message: why.to_owned(), ..Ended::default() };
    if goes_on {
        write_exit_code(spec, "0", &context.record).unwrap_or_else(|why| context.record.log(&why));
    }
    context.record.write(&Frame::Ended { time_ms: now, ended });
    open_next_gate(spec, goes_on, &context.record)
        .unwrap_or_else(|why| eprintln!("tenon-entrypoint: {why}"));
    exit_code
}

/// Leaves what a step leaves behind, in the promised order.
fn finish(
    spec: &Spec,
    context: &mut Context,
    outcome: Outcome,
    started_ms: i64,
    message: &mut String,
) -> i32 {
    let Outcome {
        mut ending,
        goes_on,
        exit_code_file,
        mut shown_exit_code,
        mut container_exit_code,
    } = outcome;
    let mut spoil = |why: String, record: &mut super::Record| {
        record.log(&why);
        if !matches!(ending, Ending::TimeoutExceeded | Ending::Cancelled) {
            ending = Ending::Error;
        }
        shown_exit_code = 1;
        container_exit_code = 1;
        *message = why;
    };
    if let Some(code) = &exit_code_file
        && let Err(why) = write_exit_code(spec, code, &context.record)
    {
        spoil(why, &mut context.record);
    }
    let mut internal = vec![("StartedAt", STARTED_AT)];
    match outcome.ending {
        Ending::TimeoutExceeded => internal.push(("Reason", "TimeoutExceeded")),
        Ending::Cancelled => internal.push(("Reason", "Cancelled")),
        Ending::Continued => {
            internal.push(("ExitCode", exit_code_file.as_deref().unwrap_or_default()));
        }
        _ => {}
    }
    let (results, failure) = Results::read(spec, &internal);
    if let Some(failure) = failure {
        spoil(failure.message(), &mut context.record);
    }
    let ended = Ended {
        exit_code: shown_exit_code,
        ending,
        started_ms,
        task_results: results.task,
        step_results: results.step,
        message: std::mem::take(message),
        usage: usage::usage(spec.own_cgroup),
    };
    context.record.write(&Frame::Ended { time_ms: sys::now_ms(), ended });
    if let Err(why) = open_next_gate(spec, goes_on, &context.record) {
        eprintln!("tenon-entrypoint: {why}");
        return 1;
    }
    container_exit_code
}

fn write_exit_code(spec: &Spec, code: &str, record: &Record) -> Result<(), String> {
    match &spec.metadata_dir {
        Some(directory) => write_file(&Path::new(directory).join("exitCode"), code, record),
        None => Ok(()),
    }
}

fn open_next_gate(spec: &Spec, goes_on: bool, record: &Record) -> Result<(), String> {
    match &spec.post_file {
        Some(file) if goes_on => write_file(Path::new(file), "", record),
        Some(file) => write_file(&PathBuf::from(format!("{file}.err")), "", record),
        None => Ok(()),
    }
}

/// Like any output, these files wait for room on the disk; but once a step has ended nobody gives it
/// up any more, so not for ever.
fn write_file(path: &Path, contents: &str, record: &Record) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o777).create(directory_of(path))?;
        File::create(path)?.write_all(contents.as_bytes())
    };
    loop {
        match write() {
            Ok(()) => return Ok(()),
            Err(error) if has_no_room(&error) && Instant::now() < until => {
                record.touch();
                sys::idle(RETRY);
            }
            Err(error) => {
                return Err(format!("Creating {:?}: {}", path.display(), sys::describe(&error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(input: &str, operator: WhenOperator, values: &[&str]) -> When {
        When {
            input: input.into(),
            operator,
            values: values.iter().map(ToString::to_string).collect(),
            cel: String::new(),
        }
    }

    #[test]
    fn a_step_runs_when_all_expressions_hold() {
        use WhenOperator::{In, NotIn};
        let cases: &[(&[When], bool)] = &[
            (&[], true),
            (&[when("a", In, &["a", "b"])], true),
            (&[when("a", In, &["b"])], false),
            (&[when("a", In, &[])], false),
            (&[when("a", NotIn, &["b"])], true),
            (&[when("a", NotIn, &["a"])], false),
            (&[when("a", In, &["a"]), when("a", NotIn, &["a"])], false),
        ];
        for (when, want) in cases {
            assert_eq!(allowed(when), Ok(*want), "{when:?}");
        }
        let cel = When { cel: "'a' == 'a'".into(), ..When::default() };
        assert!(allowed(&[cel]).unwrap_err().contains("CEL"));
    }
}
