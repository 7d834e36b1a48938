//! Starting the command: where `argv[0]` is found, with which environment, and what to say when it
//! cannot be started. The messages are Go's, which Tekton's users know, with a hint appended where
//! the error alone would mislead.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::sys;

/// A command whose variables are all applied.
pub struct Command {
    pub argv: Vec<String>,
    pub env: BTreeMap<OsString, OsString>,
}

impl Command {
    /// The environment that a command gets: the container's, and on top of it the spec's.
    pub fn environment(spec: &[(String, String)]) -> BTreeMap<OsString, OsString> {
        let mut env: BTreeMap<_, _> = std::env::vars_os().collect();
        for (name, value) in spec {
            env.insert(name.into(), value.into());
        }
        env
    }

    /// Starts it in a process group of its own; gives the process id, which is the group's.
    pub fn start(&self, stdout: OwnedFd, stderr: OwnedFd) -> Result<i32, String> {
        let program = self.find()?;
        let mut command = std::process::Command::new(&program);
        command.stdout(stdout).stderr(stderr).process_group(0);
        // An image without /dev/null is no reason to fail: nothing can be read from the empty pipe either.
        let stdin = match std::fs::File::open("/dev/null") {
            Ok(null) => Stdio::from(null),
            Err(_) => sys::pipe().map_or_else(|_| Stdio::null(), |(end, _)| Stdio::from(end)),
        };
        command.stdin(stdin);
        let argv = self.argv.iter().map(|argument| CString::new(argument.as_str()));
        let env = self
            .env
            .iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let zero = |_| "an argument or variable holds a zero byte".to_owned();
        let argv = argv.collect::<Result<_, _>>().map_err(zero)?;
        let env = env.collect::<Result<_, _>>().map_err(zero)?;
        let file = CString::new(program.as_os_str().as_bytes()).map_err(zero)?;
        sys::execute_in(&mut command, file, argv, env);
        let child = command.spawn().map_err(|error| explain(&program, &error))?;
        i32::try_from(child.id()).map_err(|_| "the process id is out of range".to_owned())
    }

    fn find(&self) -> Result<PathBuf, String> {
        let name = &self.argv[0];
        if name.contains('/') {
            return Ok(PathBuf::from(name));
        }
        let path = self.env.get(&OsString::from("PATH")).cloned().unwrap_or_default();
        let found = std::env::split_paths(&path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|candidate| {
                !name.is_empty() && candidate.is_file() && sys::executable(candidate)
            });
        found.ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
    }
}

/// Changes to the step's working directory, which is made when it is not there.
pub fn enter(directory: Option<&str>) -> Result<(), String> {
    let Some(directory) = directory.filter(|directory| !directory.is_empty()) else {
        return Ok(());
    };
    let fail =
        |what: &str, error: &io::Error| format!("{what} {directory}: {}", sys::describe(error));
    if !Path::new(directory).is_dir() {
        std::fs::create_dir_all(directory).map_err(|e| fail("mkdir", &e))?;
    }
    std::env::set_current_dir(directory).map_err(|e| fail("chdir", &e))
}

fn explain(program: &Path, error: &io::Error) -> String {
    let said = format!("fork/exec {}: {}", program.display(), sys::describe(error));
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT) if program.exists() => match interpreter(program) {
            Some(interpreter) => format!(" (its interpreter {interpreter} is not in the image)"),
            None => " (its dynamic loader is not in the image)".to_owned(),
        },
        Some(libc::EACCES) if program.is_dir() => " (it is a directory)".to_owned(),
        Some(libc::ENOEXEC) => {
            " (neither a program for this machine nor a script that begins with #!)".to_owned()
        }
        _ => String::new(),
    };
    said + &hint
}

/// What the first line of a script names.
fn interpreter(program: &Path) -> Option<String> {
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    line.split_whitespace().next().map(str::to_owned)
}
