//! What is printed once when a run has ended: the end of each failing step, a table of the tasks,
//! the results, and one line that says how it went.

use tenon_engine::event::{Event, Status};

use super::style::{Paint, Style, status_words};
use super::tasks::{Row, Tasks};
use super::text::{duration, first_line, harmless, pad, truncate, width};

/// Widths of the columns between the task's name and the reason.
const STATUS: usize = 13;
const DURATION: usize = 8;
const ATTEMPTS: usize = 8;

/// Appends the whole summary, `columns` wide at most. `name` is the run's.
pub fn write(
    tasks: &Tasks,
    end: &Event,
    name: &str,
    style: Style,
    columns: usize,
    out: &mut String,
) {
    for row in tasks.rows() {
        write_failure(row, style, out);
    }
    if !tasks.rows().is_empty() {
        write_table(tasks.rows(), false, style, columns, out);
    }
    for (result, value) in end.results.iter().flatten() {
        let value = value_text(value);
        let room = columns.saturating_sub(result.len() + 5);
        let value = truncate(first_line(&value), room).into_owned();
        out.push_str(&format!("  {} = {value}\n", style.paint(Paint::BOLD, result)));
    }
    if end.results.as_ref().is_some_and(|results| !results.is_empty()) {
        out.push('\n');
    }
    let (sign, word, paint) = status_words(end.status.unwrap_or(Status::Failed));
    let took =
        end.duration_ms.map(|millis| format!(" in {}", duration(millis))).unwrap_or_default();
    out.push_str(&style.paint(paint, &format!("{sign} {name} {word}{took}")));
    if end.status != Some(Status::Succeeded) {
        let reason = end.reason.as_deref().unwrap_or_default();
        let message = end.message.as_deref().unwrap_or_default();
        match (reason.is_empty(), message.is_empty()) {
            (true, true) => {}
            (false, true) => out.push_str(&format!(": {reason}")),
            (true, false) => out.push_str(&format!(": {message}")),
            (false, false) => out.push_str(&format!(": {reason}: {message}")),
        }
    }
    out.push('\n');
}

/// Appends what is known of the tasks of a run that goes on.
pub fn write_so_far(tasks: &Tasks, style: Style, columns: usize, out: &mut String) {
    if !tasks.rows().is_empty() {
        out.push('\n');
        write_table(tasks.rows(), true, style, columns, out);
    }
}

/// A value on one line.
pub fn value_text(value: &(impl serde::Serialize + ?Sized)) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn write_failure(row: &Row, style: Style, out: &mut String) {
    let bad = matches!(row.status, Some(Status::Failed | Status::Timeout | Status::InfraFailed));
    if !bad {
        return;
    }
    let Some(failure) = &row.failure else {
        write_message(row, style, out);
        return;
    };
    let title = format!("{} : {} {}", row.label, failure.step, failure.how);
    let lines = match failure.lines.len() {
        0 => ", it printed nothing".to_owned(),
        1 => ", last line:".to_owned(),
        count => format!(", last {count} lines:"),
    };
    out.push_str(&style.paint(Paint::BAD, &title));
    out.push_str(&lines);
    out.push('\n');
    for line in &failure.lines {
        out.push_str("  ");
        out.push_str(&harmless(line, style.has_color()));
        out.push('\n');
    }
    out.push('\n');
}

/// Why a task failed of which no step did: its image cannot be pulled, for example.
fn write_message(row: &Row, style: Style, out: &mut String) {
    let Some(message) = &row.message else { return };
    let lines: Vec<_> = message.lines().map(|line| harmless(line, false)).collect();
    out.push_str(&style.paint(Paint::BAD, &format!("{} failed:", row.label)));
    out.push_str(&format!("\n  {}\n\n", lines.join("\n  ")));
}

fn write_table(rows: &[Row], going_on: bool, style: Style, columns: usize, out: &mut String) {
    let fixed = 2 + 1 + STATUS + 1 + DURATION + 1 + ATTEMPTS + 2;
    let room = columns.saturating_sub(fixed).max(12);
    let longest_reason = rows.iter().map(|row| width(&why(row))).max().unwrap_or(0).max(6);
    let longest_name = rows.iter().map(|row| width(&row.label)).max().unwrap_or(0).max(4);
    // Names get what they need as long as reasons keep a third of the room.
    let name = longest_name.min(room - (room / 3).min(longest_reason));
    let reason = room - name;
    let heading = format!(
        "  {} {} {:>DURATION$} {:>ATTEMPTS$}  REASON",
        pad("TASK", name),
        pad("STATUS", STATUS),
        "DURATION",
        "ATTEMPTS"
    );
    out.push_str(&style.paint(Paint::BOLD, &heading));
    out.push('\n');
    for row in rows {
        let (sign, word, paint) = match row.status {
            Some(status) => status_words(status),
            None if going_on && row.started.is_none() => ("…", "waiting", Paint::DIM),
            None if going_on => ("▸", "running", Paint::BOLD),
            None => ("?", "unknown", Paint::WARN),
        };
        let took = match row.started {
            Some(_) => row.duration_ms.map(duration).unwrap_or_default(),
            None => "-".to_owned(),
        };
        let attempts = match row.attempt {
            0 => "-".to_owned(),
            attempt => attempt.to_string(),
        };
        let line = format!(
            "  {} {} {took:>DURATION$} {attempts:>ATTEMPTS$}  {}",
            pad(&row.label, name),
            style.paint(paint, &pad(&format!("{sign} {word}"), STATUS)),
            truncate(&why(row), reason),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
}

/// The reason of everything that did not simply succeed.
fn why(row: &Row) -> String {
    match (row.status, &row.reason, &row.message) {
        (Some(Status::Succeeded), _, _) => String::new(),
        (_, Some(reason), _) => first_line(reason).to_owned(),
        (_, None, Some(message)) => first_line(message).to_owned(),
        (None, None, None) => match (&row.progress, &row.step) {
            (Some(progress), _) => progress.clone(),
            (None, Some((step, _))) => format!("step {step}"),
            (None, None) => String::new(),
        },
        _ => String::new(),
    }
}
