//! `tenon events`: lines of the contract, as they are or shortened for people.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Show, follow};
use tenon_reporter::history::{Store, Stored};
use tenon_reporter::json::Lines;
use tenon_reporter::pretty::{Paint, Style, pad, truncate};

use crate::args::{EventsArgs, EventsOutput};
use crate::exit::{Exit, Failure};
use crate::logs::kinds;
use crate::terminal;

/// `tenon events` of a run of this machine.
pub fn events(args: &EventsArgs, state_dir: &Path) -> Result<Exit, Failure> {
    let store = Store::new(state_dir);
    let run = store.find(args.run.as_deref().unwrap_or("latest"))?;
    let filter = Filter {
        kinds: kinds(&args.kind)?,
        task: args.task.clone(),
        step: args.step.clone(),
        since: args.since,
    };
    let mut reader = store.reader(run.id)?;
    let mut show = Short { lines: Lines::new(), pretty: Pretty::new(args.output) };
    follow(&mut reader, &filter, &mut show, &mut std::io::stdout(), args.follow)?;
    Ok(Exit::Success)
}

/// Lines as they would be printed, then shortened if they are for people.
struct Short {
    lines: Lines,
    pretty: Pretty,
}

impl Show for Short {
    fn event(&mut self, stored: &Stored, filter: &Filter, out: &mut Vec<u8>) -> Result<(), String> {
        let mut lines = Vec::new();
        self.lines.event(stored, filter, &mut lines)?;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.pretty.line(line, out);
        }
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(200)
    }
}

/// One line for each event.
pub struct Pretty {
    output: EventsOutput,
    style: Style,
    columns: usize,
}

impl Pretty {
    /// For stdout as it is now.
    pub fn new(output: EventsOutput) -> Pretty {
        let style = terminal::stdout_style();
        Pretty { output, style, columns: terminal::size().columns }
    }

    /// Appends what is printed for a line of the contract.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        match (self.output, serde_json::from_slice::<Value>(line)) {
            (EventsOutput::Pretty, Ok(event)) => {
                out.extend_from_slice(self.short(&event).as_bytes());
            }
            // What is no JSON is shown, not hidden.
            _ => out.extend_from_slice(line),
        }
        out.push(b'\n');
    }

    fn short(&self, event: &Value) -> String {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let kind = text("kind");
        let time = text("time").get(11..19).unwrap_or_default();
        let place: Vec<&str> = ["pipelineRun", "taskRun", "step"]
            .into_iter()
            .map(text)
            .filter(|part| !part.is_empty())
            .collect();
        // A TaskRun's name begins with its run's.
        let place = match place[..] {
            [run, task, ..] if task.starts_with(run) => place[1..].join("/"),
            _ => place.join("/"),
        };
        let mut words = Vec::new();
        for key in ["status", "reason", "agent", "node", "line", "message"] {
            // Agents are named where they come and go; elsewhere they are noise.
            let shown = key != "agent" || kind.starts_with("agent-") || kind == "task-start";
            if shown && !text(key).is_empty() {
                words.push(text(key));
            }
        }
        let head =
            format!("{time} {:>7} {} ", event["seq"].as_u64().unwrap_or_default(), pad(kind, 13));
        let tail =
            [place.as_str(), &words.join(" ")].join(if place.is_empty() { "" } else { "  " });
        let width = self.columns.saturating_sub(head.chars().count()).max(20);
        let paint = match text("status") {
            "" => None,
            "succeeded" => Some(Paint::GOOD),
            "skipped" | "not-run" => Some(Paint::DIM),
            _ => Some(Paint::BAD),
        };
        // Only what is for a person is cut to the width of a screen.
        let tail = tail.replace(|c: char| c.is_control(), " ");
        let tail = truncate(&tail, width);
        match paint {
            Some(paint) => head + &self.style.paint(paint, &tail),
            None => head + &tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lines_fit_the_screen() {
        let pretty = Pretty { output: EventsOutput::Pretty, style: Style::new(false), columns: 60 };
        let event = serde_json::json!({
            "kind": "task-end", "time": "2026-01-01T10:20:30.123Z", "seq": 42, "runSeq": 7,
            "pipelineRun": "r", "taskRun": "r-t", "status": "failed", "reason": "Failed",
            "agent": "a1", "message": "x".repeat(200),
        });
        let line = pretty.short(&event);
        assert!(
            line.starts_with("10:20:30      42 task-end      r-t  failed Failed xxx"),
            "{line}"
        );
        assert!(line.chars().count() <= 60, "{line}");
    }

    #[test]
    fn json_is_as_it_is() {
        let mut out = Vec::new();
        Pretty::new(EventsOutput::Json).line(b"{\"kind\":\"x\"}", &mut out);
        assert_eq!(out, b"{\"kind\":\"x\"}\n");
    }
}
