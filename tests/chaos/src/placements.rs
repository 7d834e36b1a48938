//! Which steps ran, and when, without asking a coordinator: from Docker's own events, or from the
//! marks that steps on this machine write into a pipe.
//!
//! Docker's events say when each container began, was frozen, went on and ended, and by its labels for
//! which placement of which attempt. Of one TaskRun no two placements may have containers that run, and
//! are not frozen, at the same time, and no container may begin twice.

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

/// Docker lets a frozen container go on when it kills it, and says so before it says that it has killed
/// it; this is how far apart the two may be, in nanoseconds.
const KILLED_WHEN_THAWED: i64 = 1_000_000_000;

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
                for event in ["start", "die", "pause", "unpause", "kill"] {
                    command.args(["--filter", &format!("event={event}")]);
                }
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

    /// Ends, and says what was found of the agents that live below `dir`. Of the TaskRuns in `lost` the
    /// coordinator knew that a placement ran no more: they may have begun again.
    pub fn finish(mut self, dir: &Path, lost: &BTreeSet<String>) -> Result<Found, Failure> {
        self.end()?;
        let text = std::fs::read_to_string(&self.file);
        let text = text.map_err(|error| format!("{}: {error}", self.file.display()))?;
        Ok(match self.recorder {
            Recorder::Pipe(..) => of_marks(&text, lost),
            Recorder::Docker(_) => of_containers(&text, dir),
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

/// Whether the thing with this owner, `agent:ID:DIRECTORY#MARK`, is of an agent that lives there or below.
fn is_below(owner: &str, dir: &Path) -> bool {
    let lives = owner.strip_prefix("agent:").and_then(|rest| rest.split_once(':'));
    let lives = lives.map(|(_, lives)| lives.rsplit_once('#').map_or(lives, |(dir, _)| dir));
    lives.is_some_and(|lives| Path::new(lives).starts_with(dir))
}

/// From Docker's events.
fn of_containers(text: &str, dir: &Path) -> Found {
    let mut found = Found::default();
    let mut placements = BTreeSet::new();
    let mut started = BTreeSet::new();
    // TaskRun to the containers of it that act: id to placement.
    let mut acting: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    // Containers that went on while others acted: when, and what is said of it if it was not for being
    // killed.
    let mut thawed: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let label = |name: &str| event["Actor"]["Attributes"][name].as_str().unwrap_or_default();
        if !is_below(label(OWNER), dir) {
            continue;
        }
        let task_run = format!("{} of {}", label(TASK_RUN), label(RUN));
        let placement = format!("{}@{}", label(ATTEMPT), label(OWNER));
        let id = event["Actor"]["ID"].as_str().unwrap_or_default().to_owned();
        let time = event["timeNano"].as_i64().unwrap_or_default();
        let live = acting.entry(task_run.clone()).or_default();
        let others = live.values().any(|other| *other != placement);
        match event["Action"].as_str().unwrap_or_default() {
            "start" => {
                if others {
                    let said = format!("{task_run}: {placement} began while others ran: {live:?}");
                    found.doubled.push(said);
                }
                if !started.insert(id.clone()) {
                    found.doubled.push(format!("{task_run}: container {id} began twice"));
                }
                placements.insert((task_run, placement.clone()));
                live.insert(id, placement);
            }
            "unpause" => {
                if others {
                    let said =
                        format!("{task_run}: {placement} went on while others ran: {live:?}");
                    thawed.insert(id.clone(), (time, said));
                }
                live.insert(id, placement);
            }
            "kill" if !["9", "SIGKILL"].contains(&label("signal")) => {}
            "kill" | "die" => {
                live.remove(&id);
                if thawed.get(&id).is_some_and(|(at, _)| time - at < KILLED_WHEN_THAWED) {
                    thawed.remove(&id);
                }
            }
            _ => {
                live.remove(&id);
            }
        }
    }
    found.doubled.extend(thawed.into_values().map(|(_, said)| said));
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

/// What the agents that live below `dir` have left: containers, networks and volumes.
pub fn leftovers(dir: &Path) -> Result<Vec<String>, Failure> {
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
        let of_ours = |line: &&str| is_below(line.splitn(3, ' ').nth(2).unwrap_or_default(), dir);
        left.extend(lines.lines().filter(of_ours).map(str::to_owned));
    }
    Ok(left)
}

/// Removes what the agents that live below `dir` have left.
pub fn clean_up(dir: &Path) {
    for line in leftovers(dir).unwrap_or_default() {
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

    #[test]
    fn what_an_agent_owns_is_found_by_where_it_lives() {
        let owner = "agent:01A:/s/a1/agents/a1#01B";
        assert!(is_below(owner, Path::new("/s")));
        assert!(is_below(owner, Path::new("/s/a1/agents/a1")));
        assert!(!is_below(owner, Path::new("/s/a1/agents/a1-1")));
        assert!(!is_below("run:01A:/s/a1", Path::new("/s")));
    }

    fn event(action: &str, id: &str, attempt: &str, agent: &str) -> Value {
        serde_json::json!({"Action": action, "timeNano": 5, "Actor": {"ID": id, "Attributes": {
            RUN: "r", TASK_RUN: "t", ATTEMPT: attempt, OWNER: format!("agent:1:/s/{agent}")}}})
    }

    fn of(events: &[Value]) -> Vec<String> {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        of_containers(&lines.join("\n"), Path::new("/s")).doubled
    }

    #[test]
    fn two_placements_that_run_at_once_are_found() {
        let (first, second) = (event("start", "a", "1.1", "x"), event("start", "b", "1.2", "y"));
        let end = event("die", "a", "1.1", "x");
        assert_eq!(of(&[first.clone(), end.clone(), second.clone()]), [""; 0]);
        assert_eq!(of(&[first.clone(), second, end.clone()]).len(), 1);
        assert_eq!(of(&[first.clone(), end.clone(), first.clone()]).len(), 1);
        assert_eq!(of(&[first.clone(), event("start", "b", "1.1", "x")]).len(), 0);
        assert_eq!(of(&[first, end, event("start", "b", "1.1", "y")]).len(), 1);
        let of_others = serde_json::json!({"Action": "start", "Actor": {"Attributes": {
            OWNER: "agent:1:/other"}}});
        assert_eq!(of(&[of_others.clone(), of_others]).len(), 0);
    }

    #[test]
    fn what_is_frozen_does_not_act_and_what_is_thawed_to_be_killed_neither() {
        let (first, second) = (event("start", "a", "1.1", "x"), event("start", "b", "1.2", "y"));
        let (frozen, thawed) = (event("pause", "a", "1.1", "x"), event("unpause", "a", "1.1", "x"));
        let story = [first, frozen, second, thawed];
        assert_eq!(of(&story[..3]).len(), 0);
        assert_eq!(of(&story).len(), 1);
        let killed = event("die", "a", "1.1", "x");
        assert_eq!(of(&[&story[..], std::slice::from_ref(&killed)].concat()).len(), 0);
        let mut late = killed;
        late["timeNano"] = (KILLED_WHEN_THAWED + 5).into();
        assert_eq!(of(&[&story[..], &[late]].concat()).len(), 1);
    }

    #[test]
    fn a_step_that_begins_twice_is_found() {
        let lost = BTreeSet::from(["lost".to_owned()]);
        let text = "start a 0\nend a 0\nstart a 1\nstart lost 0\nstart lost 0\n";
        assert!(of_marks(text, &lost).doubled.is_empty());
        assert_eq!(of_marks(&format!("{text}start a 1\n"), &lost).doubled.len(), 1);
    }
}
