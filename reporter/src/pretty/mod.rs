//! Events for people: log lines in the order of arrival, each with its task and step, a live block
//! on a terminal, and a summary at the end.
//!
//! This module only makes text out of events and a clock that it is given; it reads no clock and
//! writes to no terminal.

mod narrate;
mod status;
mod style;
mod summary;
mod tasks;
mod text;

use tenon_engine::Time;
use tenon_engine::event::{Event, Kind};
use tenon_journal::output;

pub use status::Size;
pub use style::{Paint, Style, status_words, task_paint};
pub use summary::value_text;
pub use text::{bytes, duration, first_line, pad, truncate, width, wrap};

use status::Block;
use tasks::Tasks;

/// Columns of tables where nobody says how wide the terminal is.
pub const DEFAULT_COLUMNS: usize = 80;

/// How a run is shown.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours.
    pub style: Style,
    /// Draw the live block; only on a terminal.
    pub live: bool,
    /// Only what went wrong, and the summary.
    pub quiet: bool,
    /// Log lines only: no remarks, no summary (for reading stored logs).
    pub logs_only: bool,
    /// Whoever shows the run tells himself why it was refused before any task ran: leave the message
    /// out, so that it is printed once.
    pub refusals_told: bool,
}

/// Shows one run.
#[derive(Debug)]
pub struct Pretty {
    options: Options,
    tasks: Tasks,
    block: Block,
    name: String,
    note: String,
    started: Option<Time>,
    /// Text that is waiting for the next frame.
    pending: String,
    ended: bool,
}

impl Pretty {
    /// Makes a display.
    pub fn new(options: Options) -> Pretty {
        Pretty {
            options,
            tasks: Tasks::default(),
            block: Block::default(),
            name: String::new(),
            note: String::new(),
            started: None,
            pending: String::new(),
            ended: false,
        }
    }

    /// Takes one event, with its packed output if it has any. `shown` is false for an event that a
    /// filter hides: it still counts for the state of its task.
    pub fn event(
        &mut self,
        event: &Event,
        chunk: &[u8],
        shown: bool,
        size: Size,
    ) -> Result<(), String> {
        self.tasks.observe(event);
        if self.started.is_none() {
            self.started = Some(event.time);
        }
        if event.kind == Kind::RunStart {
            self.name = run_name(event);
        }
        if !chunk.is_empty() {
            return self.output(event, chunk, shown);
        }
        let quiet = self.options.quiet && event.kind != Kind::RunEnd;
        if shown && !quiet && !self.options.logs_only {
            narrate::narrate(event, &self.tasks, self.options.style, &mut self.pending);
        }
        if event.kind == Kind::RunEnd {
            self.ended = true;
            if shown && !self.options.logs_only {
                if self.name.is_empty() {
                    self.name = run_name(event);
                }
                self.pending.push('\n');
                let style = self.options.style;
                let mut end = event.clone();
                if self.options.refusals_told && self.tasks.rows().is_empty() {
                    end.message = None;
                }
                summary::write(
                    &self.tasks,
                    &end,
                    &self.name,
                    style,
                    size.columns,
                    &mut self.pending,
                );
            }
        }
        Ok(())
    }

    fn output(&mut self, event: &Event, chunk: &[u8], shown: bool) -> Result<(), String> {
        let chunk = output::unpack(chunk).map_err(|error| error.to_string())?;
        let style = self.options.style;
        let label = self.tasks.row(event).map_or("", |row| &row.label);
        let prefix = narrate::prefix(event, label, style);
        let keep = chunk.len().saturating_sub(tasks::TAIL_LINES);
        for (position, line) in chunk.lines().enumerate() {
            if shown && !self.options.quiet {
                self.pending.push_str(&prefix);
                self.pending.push_str(&text::harmless(line.text, style.has_color()));
                self.pending.push('\n');
            }
            // Older lines of this chunk would be pushed out by newer ones anyway.
            if position >= keep {
                self.tasks.line(event, line.text);
            }
        }
        Ok(())
    }

    /// Notes what an attempt waits for; `total` is 0 where it is unknown.
    pub fn progress(&mut self, task_run: &str, what: &str, done: u64, total: u64) {
        let progress = match (done, total) {
            _ if what.is_empty() => None,
            (0, 0) => Some(what.to_owned()),
            (done, 0) => Some(format!("{what} {}", bytes(done))),
            (done, total) => {
                Some(format!("{what} {}% of {}", done.min(total) * 100 / total, bytes(total)))
            }
        };
        self.tasks.set_progress(task_run, progress);
    }

    /// A remark to the user, as a line of its own; saying the same again says nothing.
    pub fn note(&mut self, note: &str) {
        if note == self.note || note.is_empty() {
            return;
        }
        note.clone_into(&mut self.note);
        let text = self.options.style.paint(Paint::WARN, note);
        self.pending.push_str(&text);
        self.pending.push('\n');
    }

    /// Bytes of text that wait for a frame.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Appends what is to be written to the terminal or file now: waiting text, and the block as it
    /// is at `now`.
    pub fn frame(&mut self, now: Time, size: Size, out: &mut String) {
        if !self.options.live {
            out.push_str(&self.pending);
            self.pending.clear();
            return;
        }
        let lines = match self.started {
            Some(started) if !self.ended => {
                let style = self.options.style;
                status::lines(&self.tasks, &self.name, started, now, style, size)
            }
            _ => Vec::new(),
        };
        self.block.frame(&self.pending, &lines, size, out);
        self.pending.clear();
    }

    /// Appends what removes the block, for whoever stops showing the run before it has ended. Where
    /// only the summary is wanted, it is what is known so far.
    pub fn close(&mut self, size: Size, out: &mut String) {
        if !self.ended && self.options.quiet && !self.options.logs_only {
            let (style, columns) = (self.options.style, size.columns);
            summary::write_so_far(&self.tasks, style, columns, &mut self.pending);
        }
        self.ended = true;
        self.frame(Time(0), size, out);
    }
}

/// The name of the run that an event belongs to.
fn run_name(event: &Event) -> String {
    let name = event.pipeline_run.as_ref().or(event.task_run.as_ref());
    name.cloned().unwrap_or_else(|| run_id(event))
}

/// The id of the run that an event belongs to; empty for one that belongs to none.
fn run_id(event: &Event) -> String {
    event.run_id.map(|run| run.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
