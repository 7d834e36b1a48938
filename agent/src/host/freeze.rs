//! Freezing and thawing on the host: SIGSTOP and SIGCONT to every process of a container's pid name
//! space, again and again until none is left that runs.
//!
//! The launchers themselves are not frozen: they do nothing but wait for their containers, and kill
//! them when they are told to.

use std::fs;
use std::path::{Path, PathBuf};

use tenon_entrypoint::KILL_SIGNAL;

use super::launchers;
use super::process::Process;

/// Stops, or kills, what all attempts of the agent in that directory run; says how many processes, and
/// counts what is about to be.
pub fn freeze_all(data_dir: &Path, kill: bool) -> usize {
    let pods = fs::read_dir(data_dir.join("pods")).into_iter().flatten().flatten();
    let launchers: Vec<Process> = pods.flat_map(|pod| launchers::living(&pod.path())).collect();
    if kill {
        launchers.iter().for_each(|launcher| launcher.signal(KILL_SIGNAL));
        return launchers.len();
    }
    let (spaces, unborn) = spaces(&launchers);
    unborn + signal_all(&spaces, libc::SIGSTOP, State::moves)
}

/// Lets what the attempt in that directory runs go on.
pub fn thaw(root: &Path) {
    let (spaces, _) = spaces(&launchers::living(root));
    signal_all(&spaces, libc::SIGCONT, State::is_stopped);
}

/// The pid name spaces of the launchers' containers, and how many have none yet.
fn spaces(launchers: &[Process]) -> (Vec<PathBuf>, usize) {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let (mut spaces, mut unborn) = (Vec::new(), 0);
    for launcher in launchers {
        let space = fs::read_link(format!("/proc/{}/ns/pid_for_children", launcher.pid())).ok();
        // One that lives now had its number to itself when it was looked at.
        match space.filter(|space| Some(space) != own.as_ref()) {
            _ if launcher.is_over() => {}
            Some(space) => spaces.push(space),
            None => unborn += 1,
        }
    }
    (spaces, unborn)
}

/// Signals the processes in those name spaces that are in such a state, until there are none.
fn signal_all(spaces: &[PathBuf], signal: i32, which: impl Fn(&State) -> bool) -> usize {
    let mut count = 0;
    loop {
        let mut more = 0;
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let is_inside = || {
                let space = fs::read_link(format!("/proc/{pid}/ns/pid"));
                space.is_ok_and(|space| spaces.contains(&space))
            };
            if is_inside()
                && State::of(pid).is_some_and(|state| which(&state))
                && let Some(process) = Process::check(pid, is_inside)
            {
                process.signal(signal);
                more += 1;
            }
        }
        count += more;
        if more == 0 {
            return count;
        }
    }
}

/// What a process does.
#[derive(Debug)]
struct State {
    /// As `/proc` has it: `T` is stopped, `Z` and `X` are dead, `D` sleeps and cannot be woken.
    letter: char,
    /// It is about to stop.
    stops: bool,
}

impl State {
    fn of(pid: u32) -> Option<State> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let pending = u64::from_str_radix(field("ShdPnd:")?.trim(), 16).ok()?;
        let stops = pending >> (libc::SIGSTOP - 1) & 1 == 1;
        Some(State { letter: field("State:")?.trim().chars().next()?, stops })
    }

    /// One that sleeps in the kernel does nothing of its own before it stops. It may do so for ever: a
    /// shell that has called `vfork` waits there for a child that is stopped.
    fn moves(&self) -> bool {
        match self.letter {
            'T' | 'Z' | 'X' => false,
            'D' => !self.stops,
            _ => true,
        }
    }

    fn is_stopped(&self) -> bool {
        match self.letter {
            'T' => true,
            'Z' | 'X' => false,
            _ => self.stops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_in_vfork_for_a_stopped_child_does_not_move_and_is_thawed() {
        // SAFETY: the children call nothing but what a child of a process with threads may.
        let parent = unsafe {
            match libc::fork() {
                0 => {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    // It waits until its child ends, and shares nothing with it.
                    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
                    if libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) == 0 {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        libc::pause();
                    }
                    libc::_exit(0)
                }
                child => u32::try_from(child).unwrap(),
            }
        };
        let until = |what: &str, holds: &dyn Fn() -> bool| {
            let began = std::time::Instant::now();
            while !holds() {
                assert!(began.elapsed().as_secs() < 20, "{what}: {:?}", State::of(parent));
                std::thread::yield_now();
            }
        };
        let children = || fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        until("the child", &|| !children().unwrap().is_empty());
        until("the wait", &|| State::of(parent).unwrap().letter == 'D');
        let child: u32 = children().unwrap().trim().parse().unwrap();
        let process = |pid| Process::check(pid, || true).unwrap();
        for pid in [child, parent] {
            process(pid).signal(libc::SIGSTOP);
            until("nothing to move", &|| !State::of(pid).unwrap().moves());
            assert!(State::of(pid).unwrap().is_stopped());
        }
        assert_eq!(State::of(parent).unwrap().letter, 'D');
        for pid in [child, parent] {
            process(pid).signal(libc::SIGCONT);
            until("it to be thawed", &|| !State::of(pid).unwrap().is_stopped());
        }
        process(child).signal(libc::SIGKILL);
        // SAFETY: no status is asked for.
        let waited = unsafe { libc::waitpid(parent.cast_signed(), std::ptr::null_mut(), 0) };
        assert_eq!(waited, parent.cast_signed());
    }
}
