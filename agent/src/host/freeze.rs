//! Freezing and thawing on the host: SIGSTOP and SIGCONT to every process of a container's pid name
//! space, again and again until none is left that runs.
//!
//! The launchers of an attempt are written down in its directory, for the guard is another process
//! than the agent. They themselves are not frozen: they kill their containers when the agent dies.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::owner::start_time;

/// The file with the launchers, in an attempt's directory.
const LAUNCHERS: &str = "launchers";

/// Writes down a launcher of the attempt in that directory.
pub fn write_down(root: &Path, launcher: u32) -> io::Result<()> {
    let started = start_time(launcher).unwrap_or_default();
    let mut file = File::options().create(true).append(true).open(root.join(LAUNCHERS))?;
    writeln!(file, "{launcher} {started}")
}

/// Stops, or kills, what all attempts of the agent in that directory run; says how many processes.
pub fn freeze_all(data_dir: &Path, kill: bool) -> usize {
    let pods = fs::read_dir(data_dir.join("pods")).into_iter().flatten().flatten();
    let launchers: Vec<i32> = pods.flat_map(|pod| launchers(&pod.path())).collect();
    if kill {
        launchers.iter().for_each(|&launcher| signal(launcher, libc::SIGKILL));
        return launchers.len();
    }
    signal_all(&launchers, libc::SIGSTOP, |state| state != 'T' && state != 'Z')
}

/// Lets what the attempt in that directory runs go on.
pub fn thaw(root: &Path) {
    signal_all(&launchers(root), libc::SIGCONT, |state| state == 'T');
}

/// Kills what is left of the attempt in that directory; true when nothing is.
pub fn kill(root: &Path) -> bool {
    let left = launchers(root);
    left.iter().for_each(|&launcher| signal(launcher, libc::SIGKILL));
    left.is_empty()
}

/// The launchers that still live.
fn launchers(root: &Path) -> Vec<i32> {
    let text = fs::read_to_string(root.join(LAUNCHERS)).unwrap_or_default();
    let lives = |line: &str| {
        let (launcher, started) = line.split_once(' ')?;
        let launcher: u32 = launcher.parse().ok()?;
        let lives = start_time(launcher).is_some_and(|now| now == started);
        i32::try_from(launcher).ok().filter(|_| lives)
    };
    text.lines().filter_map(lives).collect()
}

/// Signals the processes in the launchers' name spaces that are in such a state, until there are none.
fn signal_all(launchers: &[i32], number: i32, which: impl Fn(char) -> bool) -> usize {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let inside = |launcher: &i32| fs::read_link(format!("/proc/{launcher}/ns/pid_for_children"));
    let spaces: Vec<PathBuf> = launchers.iter().flat_map(inside).collect();
    let mut count = 0;
    loop {
        let mut more = 0;
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let space = fs::read_link(format!("/proc/{process}/ns/pid")).ok();
            let is_inside =
                space.is_some_and(|space| spaces.contains(&space) && own != Some(space));
            if is_inside && state(process).is_some_and(&which) {
                signal(process, number);
                more += 1;
            }
        }
        count += more;
        if more == 0 {
            return count;
        }
    }
}

fn state(process: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

fn signal(process: i32, number: i32) {
    // SAFETY: no memory is involved; the process is a launcher or inside its name space, never 0 or 1.
    if process > 1 {
        unsafe { libc::kill(process, number) };
    }
}
