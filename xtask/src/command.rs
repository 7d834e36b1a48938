//! Running other programs, and saying so.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What went wrong, for people.
pub type Failure = String;

/// Something that is in order or not.
pub type Check = fn() -> Result<(), Failure>;

/// The top of the repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo builds, and where everything else that may be thrown away lives.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from)
}

/// A command that runs at the top of the repository.
pub fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(top());
    command
}

/// The cargo that runs us.
pub fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = command(&cargo, args);
    // Set for us by `cargo run`; a nested cargo would take them for the caller's wish.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command with our own standard streams; an error unless it succeeds.
pub fn run(mut command: Command) -> Result<(), Failure> {
    let shown = shown(&command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` failed ({status})")),
        Err(error) => Err(format!("cannot run `{shown}`: {error}")),
    }
}

/// Runs a command and returns what it printed; an error with what it said on standard error unless it succeeds.
pub fn output(mut command: Command) -> Result<String, Failure> {
    let shown = shown(&command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = said.trim().lines().rev().take(15).collect();
    Err(format!(
        "`{shown}` failed ({}): {}",
        output.status,
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    ))
}

/// Runs a command, shows its output as it comes, and gives every line to `look`. Says whether it succeeded.
pub fn stream(mut command: Command, mut look: impl FnMut(&str)) -> Result<bool, Failure> {
    let shown = shown(&command);
    let (reader, writer) =
        std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    let second = writer.try_clone().map_err(|error| format!("cannot share a pipe: {error}"))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let mut child = command.spawn().map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    // The command holds our ends of the pipe: it must go, or the pipe never ends.
    drop(command);
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        look(text.trim_end());
        line.clear();
    }
    let status = child.wait().map_err(|error| format!("cannot wait for `{shown}`: {error}"))?;
    Ok(status.success())
}

/// Whether a program of this name can be run.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

/// The command as root: itself, or through sudo.
pub fn as_root(program: &str, args: &[&str]) -> Command {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if root {
        command(program, args)
    } else {
        command("sudo", std::iter::once(&program).chain(args))
    }
}

/// Says what begins now; the returned time is for [`done`].
pub fn begin(what: &str) -> Instant {
    println!("==> {what}");
    Instant::now()
}

/// Says that it is done and how long it took.
pub fn done(what: &str, since: Instant) {
    println!("    {what}: {:.1} s", since.elapsed().as_secs_f64());
}

/// Asks before something is installed. Without a terminal there is nobody to ask.
pub fn confirm(ask: bool, what: &str) -> Result<(), Failure> {
    if !ask {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(format!("{what} is needed; run again with --yes to allow it"));
    }
    print!("{what} is needed. Go on? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(format!("{what} was declined"))
    }
}
