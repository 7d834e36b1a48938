//! The live block below the log lines of a terminal: what runs, for how long, and what it waits
//! for.
//!
//! A frame is one write: it goes up over the old block, writes new log lines over it, and draws the
//! block anew below them. Rows never wrap, so the block has as many rows as lines; after the
//! terminal was made narrower the old rows are counted as the terminal has wrapped them.

use std::fmt::Write;

use tenon_engine::Time;
use tenon_engine::event::Status;

use super::style::{Paint, Style, task_paint};
use super::tasks::{Row, Tasks};
use super::text::{duration, truncate, width};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// How long one picture of the spinner stays.
const FRAME_MS: i64 = 100;
/// Most tasks that are shown, on a terminal that has room for them.
const MOST_ROWS: usize = 8;

/// The terminal: columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// The block as it stands on the terminal.
#[derive(Clone, Debug, Default)]
pub struct Block {
    drawn: Vec<Drawn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Drawn {
    text: String,
    columns: usize,
}

impl Block {
    /// Appends what brings the terminal from the old block to `logs` and the new block `lines`
    /// below them. Without `lines` the block is removed.
    pub fn frame(&mut self, logs: &str, lines: &[(String, usize)], size: Size, out: &mut String) {
        let unchanged = self.drawn.len() == lines.len()
            && self.drawn.iter().zip(lines).all(|(drawn, line)| drawn.text == line.0);
        if logs.is_empty() && unchanged {
            return;
        }
        // Terminals that know it show the frame at once; others ignore it.
        out.push_str("\x1b[?2026h");
        let up: usize =
            self.drawn.iter().map(|line| line.columns.div_ceil(size.columns.max(1)).max(1)).sum();
        if up > 0 {
            let _ = write!(out, "\r\x1b[{up}A");
        }
        if up > 0 && !logs.is_empty() {
            out.push_str("\x1b[J");
        }
        out.push_str(logs);
        for (text, _) in lines {
            out.push_str(text);
            // Overwriting and clearing the rest flickers less than clearing first.
            out.push_str("\x1b[K\n");
        }
        if logs.is_empty() && lines.len() < up {
            out.push_str("\x1b[J");
        }
        out.push_str("\x1b[?2026l");
        self.drawn = lines
            .iter()
            .map(|(text, columns)| Drawn { text: text.clone(), columns: *columns })
            .collect();
    }
}

/// The lines of the block, each with its width. `name` is the run's.
pub fn lines(
    tasks: &Tasks,
    name: &str,
    started: Time,
    now: Time,
    style: Style,
    size: Size,
) -> Vec<(String, usize)> {
    // One column is left free: writing in the last one wraps on some terminals.
    let columns = size.columns.saturating_sub(1);
    let spinner = SPINNER[(now.0.max(0) / FRAME_MS % 10) as usize];
    let running: Vec<&Row> = tasks.rows().iter().filter(|row| row.status.is_none()).collect();
    let count = |wanted: &[Status]| {
        let is = |row: &&Row| row.status.is_some_and(|status| wanted.contains(&status));
        tasks.rows().iter().filter(is).count()
    };
    let done = count(&[Status::Succeeded]);
    let bad = count(&[Status::Failed, Status::Timeout, Status::InfraFailed, Status::Cancelled]);
    let mut head =
        format!("{} · {} running · {done} done", duration(now.0 - started.0), running.len());
    if bad > 0 {
        let _ = write!(head, " · {bad} failed");
    }
    let mut line = Line::new(columns);
    line.add(style, Paint::GOOD, spinner);
    line.add(style, Paint::BOLD, &format!(" {name} "));
    line.add(style, Paint::DIM, &head);
    let mut lines = vec![line.done()];
    let room = MOST_ROWS.min(size.rows.saturating_sub(3));
    let shown = match running.len() <= room {
        true => running.len(),
        false => room.saturating_sub(1),
    };
    let label = running.iter().take(shown).map(|row| width(&row.label)).max().unwrap_or(0);
    for row in running.iter().take(shown) {
        let (what, since) = match (&row.progress, &row.step) {
            (Some(progress), _) => (progress.as_str(), row.started),
            (None, Some((step, since))) => (step.as_str(), Some(*since)),
            (None, None) => ("preparing", row.started),
        };
        let mut line = Line::new(columns);
        line.add(style, task_paint(&row.task), &format!("  {}", row.label));
        line.add(style, Paint::DIM, &" ".repeat(label - width(&row.label) + 2));
        let since = since.map(|since| duration(now.0 - since.0)).unwrap_or_default();
        let room = columns.saturating_sub(label + 4 + since.len() + 2);
        line.add(style, Paint::BOLD, &truncate(what, room.max(8)));
        line.add(style, Paint::DIM, &format!("  {since}"));
        lines.push(line.done());
    }
    if shown < running.len() {
        let mut line = Line::new(columns);
        line.add(style, Paint::DIM, &format!("  … and {} more", running.len() - shown));
        lines.push(line.done());
    }
    lines
}

/// A line in colours that knows how wide it is and never gets wider than it may.
struct Line {
    text: String,
    used: usize,
    room: usize,
}

impl Line {
    fn new(room: usize) -> Line {
        Line { text: String::new(), used: 0, room }
    }

    fn add(&mut self, style: Style, paint: Paint, text: &str) {
        let text = truncate(text, self.room - self.used);
        self.used += width(&text);
        self.text.push_str(&style.paint(paint, &text));
    }

    fn done(self) -> (String, usize) {
        (self.text, self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 10, rows: 5 };

    fn frame(block: &mut Block, logs: &str, lines: &[&str], size: Size) -> String {
        let lines: Vec<(String, usize)> =
            lines.iter().map(|l| ((*l).to_owned(), width(l))).collect();
        let mut out = String::new();
        block.frame(logs, &lines, size, &mut out);
        out.replace("\x1b[?2026h", "<").replace("\x1b[?2026l", ">").replace('\x1b', "^")
    }

    #[test]
    fn frames_are_exact() {
        let mut block = Block::default();
        assert_eq!(frame(&mut block, "", &["a", "b"], SIZE), "<a^[K\nb^[K\n>");
        assert_eq!(frame(&mut block, "", &["a", "b"], SIZE), "", "nothing has changed");
        assert_eq!(frame(&mut block, "log\n", &["a", "b"], SIZE), "<\r^[2A^[Jlog\na^[K\nb^[K\n>");
        assert_eq!(frame(&mut block, "", &["a"], SIZE), "<\r^[2Aa^[K\n^[J>");
        assert_eq!(frame(&mut block, "", &[], SIZE), "<\r^[1A^[J>");
    }

    #[test]
    fn a_narrower_terminal_has_wrapped_the_old_rows() {
        let mut block = Block::default();
        frame(&mut block, "", &["123456789"], SIZE);
        let narrow = Size { columns: 4, rows: 5 };
        assert_eq!(frame(&mut block, "", &["123"], narrow), "<\r^[3A123^[K\n^[J>");
    }
}
