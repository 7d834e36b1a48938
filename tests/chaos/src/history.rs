//! What the event log says, checked against what it must say: of every run, and of every placement.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kinds::INFRAFAILED;
use crate::users::Asked;

/// So often an attempt is placed again before it is given up.
const REPLACEMENTS: u64 = 3;

/// What was found in one event log.
#[derive(Debug, Default)]
pub struct Read {
    runs: BTreeMap<String, Run>,
    last_seq: u64,
    /// Events of each kind.
    pub kinds: BTreeMap<String, usize>,
    /// TaskRuns of which a placement was lost.
    pub lost: BTreeSet<String>,
    /// Runs that ended because an attempt of theirs was lost more often than it is placed again.
    pub given_up: usize,
    /// TaskRuns with two live placements.
    pub doubled: Vec<String>,
    /// Everything else that must not be.
    pub faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Run {
    name: String,
    events: u64,
    end: Option<Value>,
    /// TaskRun to the attempt and placement that is live.
    live: BTreeMap<String, (u64, u64)>,
    /// TaskRun to the highest attempt and placement that began.
    newest: BTreeMap<String, (u64, u64)>,
    /// The attempt and placement that prints lines, and the number in its last line `line N`.
    line: ((u64, u64), u64),
    /// How often each attempt of a TaskRun was lost.
    losses: BTreeMap<(String, u64), u64>,
    /// Attempt, placement and step of each mark.
    marks: BTreeSet<String>,
}

impl Read {
    /// Reads the next event.
    pub fn event(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            self.faults.push(format!("no JSON: {}", String::from_utf8_lossy(line)));
            return;
        };
        let seq = event["seq"].as_u64().unwrap_or(0);
        if seq <= self.last_seq {
            self.faults.push(format!("event {seq} comes after {}", self.last_seq));
        }
        self.last_seq = seq;
        let kind = event["kind"].as_str().unwrap_or_default();
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        let Some(id) = event["runId"].as_str() else { return };
        let run = self.runs.entry(id.to_owned()).or_default();
        run.events += 1;
        if event["runSeq"] != run.events {
            self.faults.push(format!(
                "event {seq}: runSeq is {}, it should be {}",
                event["runSeq"], run.events
            ));
            run.events = event["runSeq"].as_u64().unwrap_or(run.events);
        }
        if run.end.is_some() {
            self.faults.push(format!("event {seq}: {kind} after the end of run {id}"));
        }
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let task_run = text("taskRun");
        let placement =
            || (event["attempt"].as_u64().unwrap_or(0), event["placement"].as_u64().unwrap_or(0));
        match kind {
            // A TaskRun of its own has no PipelineRun.
            "run-start" => {
                let name = Some(text("pipelineRun")).filter(|name| !name.is_empty());
                run.name = name.unwrap_or(task_run).to_owned();
            }
            "run-end" => {
                if !run.live.is_empty() {
                    let live = &run.live;
                    self.faults.push(format!("event {seq}: the run ends while it runs {live:?}"));
                }
                run.end = Some(event.clone());
            }
            "task-start" => {
                let placement = placement();
                if let Some(other) = run.live.insert(task_run.to_owned(), placement) {
                    self.doubled.push(format!(
                        "event {seq}: {task_run} begins as {placement:?} while {other:?} lives"
                    ));
                }
                let before = run.newest.insert(task_run.to_owned(), placement);
                if before.is_some_and(|before| before >= placement) {
                    self.doubled.push(format!(
                        "event {seq}: {task_run} begins as {placement:?} after {before:?}"
                    ));
                }
            }
            "task-end" | "task-retry" | "task-lost" => {
                run.live.remove(task_run);
                if kind == "task-lost" {
                    self.lost.insert(task_run.to_owned());
                    let attempt = (task_run.to_owned(), placement().0);
                    *run.losses.entry(attempt).or_default() += 1;
                }
            }
            "step-log" => {
                let line = text("line");
                if line.starts_with("mark ") {
                    let mark = format!("{task_run} {:?} {}", placement(), text("step"));
                    if !run.marks.insert(mark) {
                        self.doubled.push(format!("event {seq}: a step of {task_run} ran twice"));
                    }
                }
                if let Some(number) = line.strip_prefix("line ") {
                    // Another placement begins at the beginning.
                    let last = if run.line.0 == placement() { run.line.1 } else { 0 };
                    if number.parse() != Ok(last + 1) {
                        self.faults.push(format!("event {seq}: {line:?} as line {}", last + 1));
                    }
                    run.line = (placement(), number.parse().unwrap_or(last + 1));
                }
            }
            _ => {}
        }
    }

    /// How many placements were lost.
    pub fn losses(&self) -> u64 {
        self.runs.values().flat_map(|run| run.losses.values()).sum()
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Compares what was read with what was asked: gives the acknowledged submissions that are lost.
    pub fn compare(&mut self, asked: &[Asked]) -> Vec<String> {
        let mut lost = Vec::new();
        let mut ids: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, run) in &self.runs {
            ids.entry(&run.name).or_default().push(id);
        }
        for (name, ids) in &ids {
            if ids.len() > 1 {
                self.doubled.push(format!("{name} is several runs: {ids:?}"));
            }
        }
        for asked in asked {
            let Some(id) = &asked.run else { continue };
            let Some(run) = self.runs.get(id) else {
                lost.push(format!("{} ({id}) was acknowledged and has no event", asked.name));
                continue;
            };
            let told = |fault: String| format!("{} ({id}): {fault}", asked.name);
            let Some(end) = &run.end else {
                self.faults.push(told("it has no end".to_owned()));
                continue;
            };
            // An attempt that is lost too often ends its run: one of these was given up rightly.
            let often = run.losses.values().any(|times| *times >= REPLACEMENTS);
            if end["status"] == INFRAFAILED && often {
                self.given_up += 1;
                continue;
            }
            if end["status"] != asked.expect.status {
                self.faults.push(told(format!(
                    "it ended as {}, {}: {}; it should be {}",
                    end["status"], end["reason"], end["message"], asked.expect.status
                )));
            }
            if let Some(results) =
                asked.expect.results.as_ref().filter(|all| **all != end["results"])
            {
                let fault = format!("its results are {}, not {results}", end["results"]);
                self.faults.push(told(fault));
            }
            if let Some(lines) = asked.expect.lines.filter(|lines| *lines != run.line.1) {
                self.faults.push(told(format!("{} of {lines} lines", run.line.1)));
            }
        }
        lost
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::kinds::Expect;
    use serde_json::json;

    fn read(events: &[Value]) -> Read {
        let mut read = Read::default();
        for (index, event) in events.iter().enumerate() {
            let mut event = event.clone();
            for (key, value) in
                [("seq", json!(index + 1)), ("runSeq", json!(index + 1)), ("runId", json!("R"))]
            {
                event.as_object_mut().unwrap().entry(key).or_insert(value);
            }
            read.event(event.to_string().as_bytes());
        }
        read
    }

    fn task(kind: &str, attempt: u64, placement: u64) -> Value {
        json!({"kind": kind, "taskRun": "t", "attempt": attempt, "placement": placement})
    }

    #[test]
    fn a_run_as_it_should_be_has_no_fault() {
        let start = json!({"kind": "run-start", "pipelineRun": "n"});
        let end = json!({"kind": "run-end", "status": "succeeded"});
        let events = [
            start,
            task("task-start", 1, 1),
            task("task-lost", 1, 1),
            task("task-start", 1, 2),
            task("task-end", 1, 2),
            end,
        ];
        let mut read = read(&events);
        let asked = Asked {
            name: "n".into(),
            expect: Expect { status: "succeeded", results: None, lines: None },
            request: Default::default(),
            run: Some("R".into()),
            ended: None,
        };
        assert_eq!(read.compare(std::slice::from_ref(&asked)), [""; 0]);
        assert!(read.faults.is_empty() && read.doubled.is_empty(), "{read:?}");
        let other = Asked { run: Some("S".into()), ..asked };
        assert_eq!(read.compare(&[other]).len(), 1);
    }

    #[test]
    fn what_must_not_be_is_found() {
        let twice = read(&[task("task-start", 1, 1), task("task-start", 1, 2)]);
        assert_eq!(twice.doubled.len(), 1);
        let again =
            read(&[task("task-start", 1, 1), task("task-lost", 1, 1), task("task-start", 1, 1)]);
        assert_eq!(again.doubled.len(), 1);
        let end = json!({"kind": "run-end"});
        assert_eq!(read(&[end.clone(), json!({"kind": "step-log"})]).faults.len(), 1);
        assert_eq!(read(&[task("task-start", 1, 1), end]).faults.len(), 1);
        assert_eq!(read(&[json!({"kind": "x", "runSeq": 2})]).faults.len(), 1);
        assert_eq!(read(&[json!({"kind": "x", "seq": 0})]).faults.len(), 1);
        let mark = json!({"kind": "step-log", "taskRun": "t", "line": "mark 1", "step": "s"});
        assert_eq!(read(&[mark.clone(), mark]).doubled.len(), 1);
        let line = |number: u64, placement: u64| json!({"kind": "step-log", "line": format!("line {number}"), "placement": placement});
        assert_eq!(read(&[line(1, 1), line(2, 1), line(1, 2), line(2, 2)]).faults.len(), 0);
        assert_eq!(read(&[line(1, 1), line(3, 1)]).faults.len(), 1);
        assert_eq!(read(&[line(1, 1), line(2, 2)]).faults.len(), 1);
    }
}
