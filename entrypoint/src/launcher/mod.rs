//! `launch`: a container without a container engine. Makes the namespaces, and the root that steps
//! see, then becomes the entrypoint in it, as process 1 of a pid namespace.
//!
//! Two processes: the outer one only waits, passes signals on, and kills the inner one when it is told
//! to. Where the container is not to outlive the agent, it does so too when its standard input ends,
//! which is when the agent closes it or dies; else it writes the exit code down, for another agent.
//! When the inner one is dead the kernel has killed everything in the container, and all mounts are
//! gone with it. Should the outer one be killed, the inner one dies with it.

mod enter;
mod identity;
mod mounts;
mod namespaces;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use tenon_entrypoint::{KILL_SIGNAL, Launch};

pub use enter::enter;

use crate::sys::{self, Exit, Signals, Waited};

/// The exit code of a container that could not be made; why is on standard error.
const CANNOT: u8 = 125;

/// Makes the container that standard input describes; its exit code is the container's.
pub fn launch() -> ExitCode {
    match try_launch() {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(CANNOT)
        }
    }
}

fn try_launch() -> Result<u8, String> {
    // SAFETY: descriptor 0 is this program's own, and nothing else of it reads standard input.
    let mut input = unsafe { File::from(OwnedFd::from_raw_fd(0)) };
    let launch = read(&mut input)?;
    let signals = Signals::take_over().map_err(|e| format!("cannot take over signals: {e}"))?;
    // Opened before its path means another file, or none.
    let mut exit_code = launch.outlives.as_deref().map(outlive).transpose()?;
    if launch.user_namespace {
        namespaces::enter_user()?;
    }
    namespaces::enter_others()?;
    // SAFETY: there is only this thread, so the child may do whatever this process could.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", io::Error::last_os_error())),
        0 => {
            // The agent's closing is for the parent only.
            drop(input);
            Err(become_container(&launch))
        }
        child => {
            let code = keep(child, exit_code.is_none().then_some(&input), &signals);
            if let Some(file) = &mut exit_code {
                // Whoever finds nothing takes it for killed.
                let _ = file.write_all(code.to_string().as_bytes());
            }
            Ok(code)
        }
    }
}

/// What ends the agent's session is not to end the container. Opens the file for its exit code.
fn outlive(path: &str) -> Result<File, String> {
    // SAFETY: no memory is involved.
    unsafe { libc::setsid() };
    File::create(path).map_err(|e| format!("cannot write {path}: {e}"))
}

fn read(input: &mut File) -> Result<Launch, String> {
    let fail = |e: io::Error| format!("cannot read what to launch: {e}");
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(fail)?;
    let mut bytes = Vec::new();
    let length = u64::from(u32::from_le_bytes(length));
    input.take(length).read_to_end(&mut bytes).map_err(fail)?;
    Launch::decode(&bytes).map_err(|e| format!("cannot read what to launch: {e}"))
}

/// Returns only when something failed, with why.
fn become_container(launch: &Launch) -> String {
    let prepared = mounts::make(launch)
        .and_then(|()| namespaces::set_host_name(&launch.hostname))
        .and_then(|()| mounts::enter(&launch.cwd))
        .and_then(|()| mounts::seal(&launch.sealed))
        .and_then(|()| identity::become_user(launch));
    if let Err(why) = prepared {
        return why;
    }
    let Some((program, arguments)) = launch.argv.split_first() else {
        return "nothing to launch".to_owned();
    };
    // Signals stay blocked: those that come before the entrypoint is there wait for it.
    let error = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .exec();
    format!("cannot execute {program}: {error}")
}

/// Waits for the container's end. It is killed when `life` ends.
fn keep(child: i32, mut life: Option<&File>, signals: &Signals) -> u8 {
    loop {
        let mut waited = [Waited::new(signals.fd()), Waited::maybe(life.map(AsRawFd::as_raw_fd))];
        sys::wait(&mut waited, None);
        if waited[1].ready() {
            life = None;
            sys::signal_process(child, libc::SIGKILL);
        }
        while let Some(signal) = signals.next() {
            if signal != libc::SIGCHLD {
                let signal = if signal == KILL_SIGNAL { libc::SIGKILL } else { signal };
                sys::signal_process(child, signal);
                continue;
            }
            while let Some((pid, exit)) = sys::reap() {
                if pid == child {
                    return match exit {
                        Exit::Code(code) => u8::try_from(code & 0xff).unwrap_or(CANNOT),
                        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(CANNOT),
                    };
                }
            }
        }
    }
}
