//! Which steps ran, and when, without asking a coordinator: from Docker's own events, or from the
//! marks that steps on this machine write into a pipe.
//!
//! Docker's events say when each container began and ended, and by its labels for which placement of
//! which attempt. Of one TaskRun no two placements may have containers that run at the same time, and
//! no container may begin twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::network::{output, pipe, run};
use crate::processes::dies_with_us;
use crate::{Backend, Failure};

/// Which labels the agent gives to its containers.
const OWNER: &str = "tenon.owner";
const RUN: &str = "tenon.run";
const TASK_RUN: &str = "tenon.taskrun";
const ATTEMPT: &str = "tenon.attempt";

/// What ends the marks.
const LAST_MARK: &str = "that was all";

/// What is written while the cluster works.
pub struct Placements {
    file: PathBuf,
    recorder: Recorder,
}

enum Recorder {
    /// `docker events`.
    Docker(Child),
    /// A named pipe, which steps can write to although the machine is read-only for them; and who
    /// reads it.
    Pipe(PathBuf, Option<JoinHandle<std::io::Result<()>>>),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Each TaskRun that ran twice at the same time, or again without a reason.
    pub doubled: Vec<String>,
    /// Placements (Docker) or steps (host) that began.
    pub began: usize,
}

impl Placements {
    /// Begins to record.
    pub fn record(backend: Backend, dir: &Path) -> Result<Placements, Failure> {
        let file = dir.join("placements");
        let failed = |error| format!("{}: {error}", file.display());
        let mut out = File::create(&file).map_err(failed)?;
        let recorder = match backend {
            Backend::Host => {
                // Not in a directory that steps have one of their own of.
                let pipe = pipe(std::process::id());
                run("mkfifo", &["-m", "666", &pipe.display().to_string()])?;
                // Opened both ways, so that it has no end.
                let marks =
                    OpenOptions::new().read(true).write(true).open(&pipe).map_err(failed)?;
                let reader = std::thread::spawn(move || {
                    for line in BufReader::new(marks).lines() {
                        let line = line?;
                        if line == LAST_MARK {
                            break;
                        }
                        writeln!(out, "{line}")?;
                    }
                    Ok(())
                });
                Recorder::Pipe(pipe, Some(reader))
            }
            Backend::Docker => {
                let mut command = Command::new("docker");
                command.args(["events", "--format", "{{json .}}", "--filter", "type=container"]);
                command.args(["--filter", "event=start", "--filter", "event=die"]);
                command.args(["--filter", &format!("label={RUN}")]);
                command.stdin(Stdio::null()).stdout(out);
                dies_with_us(&mut command);
                let child =
                    command.spawn().map_err(|error| format!("cannot run docker: {error}"))?;
                Recorder::Docker(child)
            }
        };
        Ok(Placements { file, recorder })
    }

    /// Where steps leave their marks, if they can reach it.
    pub fn marks(&self) -> Option<String> {
        match &self.recorder {
            Recorder::Docker(_) => None,
            Recorder::Pipe(pipe, _) => Some(pipe.display().to_string()),
        }
    }

    /// Ends, and says what was found of the agents with these process ids. Of the TaskRuns in `lost`
    /// the coordinator knew that a placement ran no more: they may have begun again.
    pub fn finish(mut self, agents: &[u32], lost: &BTreeSet<String>) -> Result<Found, Failure> {
        self.end()?;
        let text = std::fs::read_to_string(&self.file);
        let text = text.map_err(|error| format!("{}: {error}", self.file.display()))?;
        Ok(match self.recorder {
            Recorder::Pipe(..) => of_marks(&text, lost),
            Recorder::Docker(_) => of_containers(&text, agents),
        })
    }

    fn end(&mut self) -> Result<(), Failure> {
        match &mut self.recorder {
            Recorder::Docker(child) => {
                // It has no end of its own.
                let _ = child.kill();
                let _ = child.wait();
            }
            Recorder::Pipe(pipe, reader) => {
                let Some(reader) = reader.take() else { return Ok(()) };
                let ended = OpenOptions::new().append(true).open(&*pipe);
                ended
                    .and_then(|mut pipe| writeln!(pipe, "{LAST_MARK}"))
                    .and_then(|()| reader.join().unwrap_or(Ok(())))
                    .and_then(|()| std::fs::remove_file(pipe))
                    .map_err(|error| format!("the marks: {error}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Placements {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

/// From lines `start TASKRUN RETRY`.
fn of_marks(text: &str, lost: &BTreeSet<String>) -> Found {
    let mut found = Found::default();
    let mut began: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(attempt) = line.strip_prefix("start ") {
            *began.entry(attempt).or_default() += 1;
            found.began += 1;
        }
    }
    for (attempt, times) in began {
        let task_run = attempt.split(' ').next().unwrap_or_default();
        if times > 1 && !lost.contains(task_run) {
            found.doubled.push(format!("{attempt} began {times} times"));
        }
    }
    found
}

/// From Docker's events.
fn of_containers(text: &str, agents: &[u32]) -> Found {
    let mut found = Found::default();
    let mut placements = BTreeSet::new();
    let mut started = BTreeSet::new();
    // TaskRun to the containers of it that run: id to placement.
    let mut running: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let label = |name: &str| event["Actor"]["Attributes"][name].as_str().unwrap_or_default();
        let pid = label(OWNER).split('/').nth(2).and_then(|pid| pid.parse().ok());
        if !pid.is_some_and(|pid| agents.contains(&pid)) {
            continue;
        }
        let task_run = format!("{} of {}", label(TASK_RUN), label(RUN));
        let placement = format!("{}@{}", label(ATTEMPT), label(OWNER));
        let id = event["Actor"]["ID"].as_str().unwrap_or_default().to_owned();
        let live = running.entry(task_run.clone()).or_default();
        if event["Action"] != "start" {
            live.remove(&id);
            continue;
        }
        if live.values().any(|other| *other != placement) {
            found.doubled.push(format!("{task_run}: {placement} began while others ran: {live:?}"));
        }
        if !started.insert(id.clone()) {
            found.doubled.push(format!("{task_run}: container {id} began twice"));
        }
        placements.insert((task_run, placement.clone()));
        live.insert(id, placement);
    }
    found.began = placements.len();
    // One placement is one agent's: nobody else has an attempt of that number.
    let mut owners: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (task_run, placement) in &placements {
        let (attempt, owner) = placement.split_once('@').unwrap_or((placement, ""));
        let first = *owners.entry((task_run, attempt)).or_insert(owner);
        if first != owner {
            found.doubled.push(format!("{task_run}: {attempt} ran on two agents"));
        }
    }
    found
}

/// What the agents with these process ids have left: containers, networks and volumes.
pub fn leftovers(agents: &[u32]) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    let filter = format!("label={OWNER}");
    let owner = format!("{{{{.Label \"{OWNER}\"}}}}");
    for (what, list) in [
        ("container", &["ps", "--all"][..]),
        ("network", &["network", "ls"][..]),
        ("volume", &["volume", "ls"][..]),
    ] {
        let id = if what == "volume" { "{{.Name}}" } else { "{{.ID}}" };
        let format = format!("{what} {id} {owner}");
        let lines =
            output("docker", &[list, &["--filter", &filter, "--format", &format]].concat())?;
        let of_ours = |line: &&str| {
            let owner = line.rsplit(' ').next().unwrap_or_default();
            let pid = owner.split('/').nth(2).and_then(|pid| pid.parse().ok());
            pid.is_some_and(|pid| agents.contains(&pid))
        };
        left.extend(lines.lines().filter(of_ours).map(str::to_owned));
    }
    Ok(left)
}

/// Removes what the agents with these process ids have left, after a failure.
pub fn clean_up(agents: &[u32]) {
    for line in leftovers(agents).unwrap_or_default() {
        let mut words = line.split(' ');
        if let (Some(what), Some(id)) = (words.next(), words.next()) {
            let force = if what == "network" { &[][..] } else { &["--force"][..] };
            // What another start of an agent has removed meanwhile is gone too.
            let _ = output("docker", &[&[what, "rm"], force, &[id]].concat());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn event(action: &str, id: &str, attempt: &str, pid: u32) -> String {
        serde_json::json!({"Action": action, "Actor": {"ID": id, "Attributes": {
            RUN: "r", TASK_RUN: "t", ATTEMPT: attempt, OWNER: format!("boot/1/{pid}/2")}}})
        .to_string()
    }

    fn of(events: &[String]) -> Vec<String> {
        of_containers(&events.join("\n"), &[7, 8]).doubled
    }

    #[test]
    fn two_placements_that_run_at_once_are_found() {
        let (first, second) = (event("start", "a", "1.1", 7), event("start", "b", "1.2", 8));
        let end = event("die", "a", "1.1", 7);
        assert_eq!(of(&[first.clone(), end.clone(), second.clone()]), [""; 0]);
        assert_eq!(of(&[first.clone(), second, end.clone()]).len(), 1);
        assert_eq!(of(&[first.clone(), end.clone(), first.clone()]).len(), 1);
        assert_eq!(of(&[first.clone(), event("start", "b", "1.1", 7)]).len(), 0);
        assert_eq!(of(&[first.clone(), end, event("start", "b", "1.1", 8)]).len(), 1);
        assert_eq!(of(&[first, event("start", "b", "1.2", 9)]).len(), 0, "somebody else's");
    }

    #[test]
    fn a_step_that_begins_twice_is_found() {
        let lost = BTreeSet::from(["lost".to_owned()]);
        let text = "start a 0\nend a 0\nstart a 1\nstart lost 0\nstart lost 0\n";
        assert!(of_marks(text, &lost).doubled.is_empty());
        assert_eq!(of_marks(&format!("{text}start a 1\n"), &lost).doubled.len(), 1);
    }
}
