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
    unborn + signal_all(&spaces, libc::SIGSTOP, |state| state != 'T' && state != 'Z')
}

/// Lets what the attempt in that directory runs go on.
pub fn thaw(root: &Path) {
    let (spaces, _) = spaces(&launchers::living(root));
    signal_all(&spaces, libc::SIGCONT, |state| state == 'T');
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
fn signal_all(spaces: &[PathBuf], signal: i32, which: impl Fn(char) -> bool) -> usize {
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
                && state(pid).is_some_and(&which)
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

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}
