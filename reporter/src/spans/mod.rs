//! From events to OpenTelemetry spans: run → task → attempt → step.
//!
//! An event that ends something says all that its span needs (when, how long, how, which ids), so that
//! a span is a function of one event: whoever follows the event log from anywhere makes the same spans
//! with the same ids, also after a failover. Names of attributes are those of OpenTelemetry's semantic
//! conventions for CI/CD where they have one.

mod destination;
mod export;

use tenon_engine::event::Status;
use tenon_engine::{AttemptId, Event, Kind, Time};

pub use destination::Destination;
pub use export::{ExportError, Exporter};

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace: 32 hex digits.
    pub trace_id: String,
    /// Its id: 16 hex digits.
    pub span_id: String,
    /// The span above it.
    pub parent: Option<String>,
    /// The span above is of another program.
    pub parent_is_remote: bool,
    /// The placement of the same attempt that was lost before.
    pub follows: Option<String>,
    /// What people see in the trace.
    pub name: String,
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// What is known of it.
    pub attributes: Vec<(String, Value)>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A number that is no whole one.
    Decimal(f64),
}

/// The spans that end with an event; none for an event that ends nothing, or whose trace the submitter
/// does not record.
pub fn of(event: &Event) -> Vec<Span> {
    if event.trace_flags.is_some() {
        return Vec::new();
    }
    let span = match event.kind {
        Kind::RunEnd => run(event),
        Kind::TaskEnd => return task(event).into_iter().chain(attempt(event)).collect(),
        Kind::TaskRetry | Kind::TaskLost => attempt(event),
        Kind::StepEnd if event.status != Some(Status::NotRun) => container(event, "step"),
        Kind::SidecarEnd => container(event, "sidecar"),
        _ => None,
    };
    span.into_iter().collect()
}

fn run(event: &Event) -> Option<Span> {
    let name = event.pipeline.as_ref().or(event.task.as_ref()).or(event.pipeline_run.as_ref());
    let mut span = Span::new(event, event.span_id.clone()?, event.duration_ms)?;
    span.name = name.cloned().unwrap_or_else(|| "run".to_owned());
    span.parent = event.parent_span_id.clone();
    span.parent_is_remote = span.parent.is_some();
    span.text("cicd.pipeline.name", name);
    span.text("tenon.pipeline_run", event.pipeline_run.as_ref());
    span.text("cicd.pipeline.result", event.status.map(result));
    Some(span)
}

fn task(event: &Event) -> Option<Span> {
    let run = event.run_id?;
    let task_run = event.task_run.as_ref()?;
    let duration = event.task_duration_ms.or(event.duration_ms);
    let mut span = Span::new(event, run.task_span_id(task_run), duration)?;
    span.name = event.task.clone().unwrap_or_else(|| task_run.clone());
    span.parent = Some(run.span_id());
    span.of_task(event);
    span.text("cicd.pipeline.task.run.result", event.status.map(result));
    for (name, value) in event.matrix.iter().flat_map(|cell| &cell.params) {
        let value = match serde_json::to_value(value) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => continue,
        };
        span.text(&format!("tenon.matrix.{name}"), Some(value));
    }
    Some(span)
}

fn attempt(event: &Event) -> Option<Span> {
    let id = attempt_id(event)?;
    // One that never reached an agent has no time of its own.
    event.agent.as_ref()?;
    let mut span = Span::new(event, id.span_id(), event.duration_ms)?;
    span.name = format!("attempt {}", id.attempt);
    span.parent = Some(id.run.task_span_id(&id.task_run));
    span.follows = (id.placement > 1)
        .then(|| AttemptId { placement: id.placement - 1, ..id.clone() }.span_id());
    span.of_task(event);
    span.of_attempt(event);
    if event.kind != Kind::TaskEnd && span.error.is_none() {
        span.error = Some(event.message.clone().unwrap_or_default());
    }
    Some(span)
}

fn container(event: &Event, kind: &str) -> Option<Span> {
    let id = attempt_id(event)?;
    let name = event.step.as_ref()?;
    let mut span = Span::new(event, event.span_id.clone()?, event.duration_ms)?;
    span.name.clone_from(name);
    span.parent = Some(id.span_id());
    span.of_task(event);
    span.of_attempt(event);
    span.text(&format!("tenon.{kind}"), Some(name));
    if let Some(code) = event.exit_code {
        span.attributes.push(("process.exit.code".to_owned(), Value::Number(code.into())));
    }
    Some(span)
}

fn attempt_id(event: &Event) -> Option<AttemptId> {
    Some(AttemptId {
        run: event.run_id?,
        task_run: event.task_run.clone()?,
        attempt: event.attempt?,
        placement: event.placement?,
    })
}

/// The conventions' word for how something ended.
fn result(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "success",
        Status::Failed => "failure",
        Status::InfraFailed => "error",
        Status::Skipped | Status::NotRun => "skip",
        Status::Timeout => "timeout",
        Status::Cancelled => "cancellation",
    }
}

impl Span {
    fn new(event: &Event, span_id: String, duration_ms: Option<i64>) -> Option<Span> {
        let failed = matches!(
            event.status,
            Some(Status::Failed | Status::InfraFailed | Status::Timeout | Status::Cancelled)
        );
        let message = event.message.as_ref().or(event.reason.as_ref());
        let mut span = Span {
            trace_id: event.trace_id.clone()?,
            span_id,
            parent: None,
            parent_is_remote: false,
            follows: None,
            name: String::new(),
            start: event.time.plus_millis(-duration_ms.unwrap_or(0)),
            end: event.time,
            attributes: Vec::new(),
            error: failed.then(|| message.cloned().unwrap_or_default()),
        };
        span.text("cicd.pipeline.run.id", event.run_id);
        span.text("tenon.namespace", event.namespace.as_ref());
        span.text("tenon.reason", event.reason.as_ref());
        if failed || matches!(event.kind, Kind::TaskLost) {
            span.text("error.type", event.reason.as_ref());
        }
        Some(span)
    }

    fn of_task(&mut self, event: &Event) {
        self.text("cicd.pipeline.task.name", event.task.as_ref());
        self.text("cicd.pipeline.task.run.id", event.task_run.as_ref());
    }

    fn of_attempt(&mut self, event: &Event) {
        self.text("cicd.worker.name", event.agent.as_ref());
        let numbers = [("tenon.attempt", event.attempt), ("tenon.placement", event.placement)];
        for (name, number) in numbers {
            let number = number.map(|number| (name.to_owned(), Value::Number(number.into())));
            self.attributes.extend(number);
        }
        let Some(usage) = &event.usage else { return };
        if let Some(micros) = usage.cpu_micros {
            let seconds = Value::Decimal(micros as f64 / 1e6);
            self.attributes.push(("tenon.usage.cpu_seconds".to_owned(), seconds));
        }
        let bytes = [
            ("tenon.usage.memory_peak_bytes", usage.memory_peak_bytes),
            ("tenon.usage.io_read_bytes", usage.io_read_bytes),
            ("tenon.usage.io_write_bytes", usage.io_write_bytes),
        ];
        for (name, bytes) in bytes {
            let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
            let known = bytes.map(|bytes| (name.to_owned(), Value::Number(bytes)));
            self.attributes.extend(known);
        }
    }

    fn text(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.attributes.push((name.to_owned(), Value::Text(value.to_string())));
        }
    }
}

#[cfg(test)]
mod tests;
