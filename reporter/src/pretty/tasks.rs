//! What a display must remember of a run's tasks: names as they are shown, state, timing, and the
//! last lines of each step. Fed with every event, also with those that a filter hides.

use std::collections::{BTreeMap, VecDeque};

use super::summary::value_text;
use tenon_engine::Time;
use tenon_engine::event::{Event, Kind, MatrixCell, Status};

use super::text::truncate;

/// How many lines of a failing step are repeated at the end.
pub const TAIL_LINES: usize = 10;
/// Longest part of such a line that is kept, in bytes of text.
const TAIL_LINE: usize = 1000;
/// Widest label of a task, in columns.
const LABEL: usize = 48;

/// One row: a TaskRun, or a task that never became one.
#[derive(Clone, Debug)]
pub struct Row {
    /// `build`, or `build(os=linux,v=1)`.
    pub label: String,
    /// The PipelineTask, for the colour.
    pub task: String,
    /// When its first attempt began.
    pub started: Option<Time>,
    /// How it ended.
    pub status: Option<Status>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// The latest attempt.
    pub attempt: u32,
    /// Why.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// The step that runs, and since when.
    pub step: Option<(String, Time)>,
    /// What it waits for: `pulling busybox`, and how far that is.
    pub progress: Option<String>,
    /// The step that failed last.
    pub failure: Option<Failure>,
    tails: BTreeMap<String, VecDeque<String>>,
}

/// The end of a step that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its name.
    pub step: String,
    /// `ended with exit code 1`, or what else ended it.
    pub how: String,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// All rows of a run, in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    rows: Vec<Row>,
    by_name: BTreeMap<String, usize>,
}

impl Tasks {
    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row that an event belongs to.
    pub fn row(&self, event: &Event) -> Option<&Row> {
        self.by_name.get(key(event)?).map(|index| &self.rows[*index])
    }

    /// The row of a TaskRun, to note what it waits for.
    pub fn set_progress(&mut self, task_run: &str, progress: Option<String>) {
        if let Some(index) = self.by_name.get(task_run) {
            self.rows[*index].progress = progress;
        }
    }

    /// Remembers a line of output.
    pub fn line(&mut self, event: &Event, line: &str) {
        let Some(step) = event.step.clone() else {
            return;
        };
        let Some(row) = self.row_mut(event) else {
            return;
        };
        let tail = row.tails.entry(step).or_default();
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line[..line.floor_char_boundary(TAIL_LINE)].to_owned());
    }

    /// Takes an event into account.
    pub fn observe(&mut self, event: &Event) {
        // Those of a TaskRun of its own name a task, too.
        if matches!(event.kind, Kind::RunQueued | Kind::RunStart | Kind::RunEnd) {
            return;
        }
        let Some(row) = self.row_mut(event) else {
            return;
        };
        match event.kind {
            Kind::TaskQueued => {
                row.progress = Some("waits for an agent".to_owned());
            }
            Kind::TaskStart => {
                row.progress = None;
                row.attempt = event.attempt.unwrap_or(1);
                row.started.get_or_insert(event.time);
                row.status = None;
            }
            Kind::TaskRetry | Kind::TaskLost => {
                row.step = None;
                row.tails.clear();
                row.reason.clone_from(&event.reason);
            }
            Kind::TaskEnd | Kind::TaskSkip => {
                row.attempt = event.attempt.unwrap_or(row.attempt);
                row.status = Some(event.status.unwrap_or(Status::Skipped));
                row.duration_ms = match row.started {
                    Some(started) => Some(event.time.0 - started.0),
                    None => event.duration_ms,
                };
                row.reason.clone_from(&event.reason);
                row.message.clone_from(&event.message);
                row.step = None;
                row.progress = None;
                row.tails.clear();
            }
            Kind::StepStart => {
                row.progress = None;
                row.step = event.step.clone().map(|step| (step, event.time));
            }
            Kind::StepEnd => {
                let step = event.step.clone().unwrap_or_default();
                let lines = row.tails.remove(&step).unwrap_or_default();
                let ran = row.step.as_ref().is_some_and(|(name, _)| *name == step);
                if ran {
                    row.step = None;
                }
                let failed = matches!(event.status, Some(Status::Failed | Status::Timeout));
                let how = match event.status {
                    Some(Status::Timeout) => "ran into its timeout".to_owned(),
                    _ => format!("ended with exit code {}", event.exit_code.unwrap_or(0)),
                };
                if failed && (ran || !lines.is_empty()) {
                    row.failure = Some(Failure { step, how, lines: lines.into() });
                }
            }
            _ => {}
        }
    }

    fn row_mut(&mut self, event: &Event) -> Option<&mut Row> {
        let key = key(event)?;
        let index = match self.by_name.get(key) {
            Some(index) => *index,
            None => {
                let task = event.task.clone().unwrap_or_else(|| key.to_owned());
                let label = label(&task, event.matrix.as_ref());
                self.by_name.insert(key.to_owned(), self.rows.len());
                self.rows.push(Row {
                    label,
                    task,
                    started: None,
                    status: None,
                    duration_ms: None,
                    attempt: 0,
                    reason: None,
                    message: None,
                    step: None,
                    progress: None,
                    failure: None,
                    tails: BTreeMap::new(),
                });
                self.rows.len() - 1
            }
        };
        Some(&mut self.rows[index])
    }
}

/// What tells rows apart: the TaskRun, or the task where there is none.
fn key(event: &Event) -> Option<&str> {
    event.task_run.as_deref().or(event.task.as_deref())
}

/// The name of a task as it is shown: matrix rows with their params.
pub fn label(task: &str, matrix: Option<&MatrixCell>) -> String {
    let Some(cell) = matrix else {
        return truncate(task, LABEL).into_owned();
    };
    let params: Vec<String> =
        cell.params.iter().map(|(name, value)| format!("{name}={}", value_text(value))).collect();
    let room = LABEL.saturating_sub(task.len() + 2).max(8);
    let mut params = params.join(",");
    // Rows of one matrix must stay distinct, also where their params are too long to show.
    if params.is_empty() || super::text::width(&params) > room {
        let number = format!("#{}", cell.index);
        let room = room.saturating_sub(number.len() + 1);
        params = match params.is_empty() {
            true => number,
            false => format!("{number} {}", truncate(&params, room)),
        };
    }
    format!("{task}({params})")
}
