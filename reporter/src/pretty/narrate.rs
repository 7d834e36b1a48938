//! One event as one line for people, other than step output.

use tenon_engine::event::{Event, Kind, Status};

use super::style::{Paint, Style, status_words, task_paint};
use super::tasks::Tasks;
use super::text::{duration, harmless};

/// `[task : step] `, in the task's colour.
pub fn prefix(event: &Event, label: &str, style: Style) -> String {
    let task = event.task.as_deref().unwrap_or_default();
    let label = if label.is_empty() { task } else { label };
    let text = match &event.step {
        Some(step) => format!("[{label} : {step}]"),
        None => format!("[{label}]"),
    };
    format!("{} ", style.paint(task_paint(task), &text))
}

/// Appends the line of `event`; nothing for events that tell people nothing new.
pub fn narrate(event: &Event, tasks: &Tasks, style: Style, out: &mut String) {
    let Some(text) = text(event, style) else {
        return;
    };
    let of_run = matches!(event.kind, Kind::RunStart | Kind::RunEnd);
    if !of_run && (event.task.is_some() || event.task_run.is_some()) {
        let label = tasks.row(event).map_or("", |row| &row.label);
        out.push_str(&prefix(event, label, style));
    }
    out.push_str(&text);
    out.push('\n');
}

fn text(event: &Event, style: Style) -> Option<String> {
    let text = match event.kind {
        Kind::RunStart => {
            let name = super::run_name(event);
            let what = match &event.pipeline {
                Some(pipeline) if *pipeline != name => format!(" ({pipeline})"),
                _ => String::new(),
            };
            let id = style.paint(Paint::DIM, &format!("run {}", super::run_id(event)));
            format!("{}{what}  {id}", style.paint(Paint::BOLD, &name))
        }
        Kind::RunQueued => style.paint(Paint::DIM, &format!("waits: {}", why(event)?)),
        Kind::TaskQueued => {
            let message = event.message.as_deref().map(|message| harmless(message, false));
            let why = message.map(|message| format!(": {message}")).unwrap_or_default();
            style.paint(Paint::DIM, &format!("waits for an agent{why}"))
        }
        Kind::AgentUp | Kind::AgentDown | Kind::LeaderChange => fleet(event, style),
        Kind::TaskStart => {
            let again = match (event.attempt.unwrap_or(1), event.placement.unwrap_or(1)) {
                (1, 1) => String::new(),
                (attempt, 1) => format!(", attempt {attempt}"),
                (attempt, placement) => format!(", attempt {attempt}, placement {placement}"),
            };
            let named = event.display_name.as_ref().map(|name| format!(": {name}"));
            style.paint(Paint::DIM, &format!("started{again}{}", named.unwrap_or_default()))
        }
        Kind::TaskRetry => {
            let attempt = event.attempt.unwrap_or(1);
            let why = why(event).map(|why| format!(" ({why})")).unwrap_or_default();
            style.paint(Paint::WARN, &format!("↻ attempt {attempt} failed{why}, trying again"))
        }
        Kind::TaskLost => {
            let why = why(event).map(|why| format!(" ({why})")).unwrap_or_default();
            style.paint(Paint::WARN, &format!("lost{why}, placing it again"))
        }
        Kind::TaskEnd | Kind::TaskSkip => {
            let fallback = match event.kind {
                Kind::TaskSkip => Status::Skipped,
                _ => Status::Failed,
            };
            let status = event.status.unwrap_or(fallback);
            let (sign, word, paint) = status_words(status);
            let took = match event.duration_ms {
                Some(millis) if event.kind == Kind::TaskEnd => format!(" in {}", duration(millis)),
                _ => String::new(),
            };
            let why = match status {
                Status::Succeeded => None,
                _ => why(event),
            };
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("{}{why}", style.paint(paint, &format!("{sign} {word}{took}")))
        }
        Kind::StepEnd => step_end(event, style)?,
        Kind::SidecarEnd => match event.exit_code {
            Some(code) if code != 0 && event.status == Some(Status::Failed) => {
                style.paint(Paint::WARN, &format!("sidecar ended with exit code {code}"))
            }
            _ => return None,
        },
        Kind::ResolverEnd if event.status != Some(Status::Succeeded) => {
            format!("{}{}", style.paint(Paint::BAD, "✗ not resolved: "), why(event)?)
        }
        Kind::Error => style.paint(Paint::BAD, &why(event)?),
        Kind::Debug => style.paint(Paint::DIM, &why(event)?),
        _ => return None,
    };
    Some(text)
}

/// What happened to the fleet, in which no task took part.
fn fleet(event: &Event, style: Style) -> String {
    let agent = harmless(event.agent.as_deref().unwrap_or("?"), false);
    let why = why(event).map(|why| format!(" ({why})")).unwrap_or_default();
    match event.kind {
        Kind::AgentUp => style.paint(Paint::DIM, &format!("agent {agent} is up{why}")),
        Kind::AgentDown => style.paint(Paint::WARN, &format!("agent {agent} is down{why}")),
        _ => {
            let node = harmless(event.node.as_deref().unwrap_or("?"), false);
            let term = event.term.map(|term| format!(" in term {term}")).unwrap_or_default();
            style.paint(Paint::DIM, &format!("coordinator {node} leads{term}{why}"))
        }
    }
}

fn step_end(event: &Event, style: Style) -> Option<String> {
    let code = event.exit_code.unwrap_or(0);
    match event.status {
        Some(Status::Failed) => {
            let text = match code {
                0 => "✗ failed".to_owned(),
                code => format!("✗ exit code {code}"),
            };
            let message = event.message.as_ref().map(|message| format!(": {message}"));
            Some(style.paint(Paint::BAD, &text) + &message.unwrap_or_default())
        }
        Some(Status::Timeout) => Some(style.paint(Paint::BAD, "✗ ran into its timeout")),
        Some(Status::Succeeded) if code != 0 => {
            Some(style.paint(Paint::WARN, &format!("exit code {code}, continuing")))
        }
        _ => None,
    }
}

/// Reason and message, as much of them as there is.
fn why(event: &Event) -> Option<String> {
    let message = event.message.as_ref().map(|message| {
        let lines: Vec<_> = message.lines().map(|line| harmless(line, false)).collect();
        lines.join("\n    ")
    });
    match (&event.reason, message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (Some(reason), None) => Some(reason.clone()),
        (None, message) => message,
    }
}
