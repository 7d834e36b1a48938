//! The OpenTelemetry trace that a run belongs to: its own, or the one of whoever submitted it.
//!
//! The submitter's context is an annotation of the run, as in Tekton: `tekton.dev/pipelinerunSpanContext`
//! or `tekton.dev/taskrunSpanContext` with a JSON object that has a W3C `traceparent`. All ids are
//! derived from the run's identity, so that a failover or an agent's restart goes on with the same trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, RunId, RunObject};

/// Tekton's annotation of a PipelineRun.
const PIPELINE_RUN: &str = "tekton.dev/pipelinerunSpanContext";
/// Tekton's annotation of a TaskRun.
const TASK_RUN: &str = "tekton.dev/taskrunSpanContext";

/// Where a run stands in its trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace: 32 hex digits.
    pub trace_id: String,
    /// The submitter's span, above the run's: 16 hex digits.
    pub parent: Option<String>,
    /// Whether the submitter records its trace.
    pub sampled: bool,
}

impl TraceContext {
    /// A trace of the run's own.
    pub fn own(run: RunId) -> TraceContext {
        TraceContext { trace_id: run.trace_id(), parent: None, sampled: true }
    }

    /// The trace that a run is to be in: the one that its annotation names, if that is well formed.
    pub fn of(id: RunId, run: &RunObject) -> TraceContext {
        let metadata = run.metadata();
        let given = metadata.annotations.get(annotation(run));
        given.and_then(|text| TraceContext::parse(text)).unwrap_or_else(|| TraceContext::own(id))
    }

    /// A W3C `traceparent` (Trace Context, section 3.2), or a JSON object with one. `None` for what is
    /// not well formed: a trace is never worth refusing a run for.
    pub fn parse(text: &str) -> Option<TraceContext> {
        let carrier: BTreeMap<String, String>;
        let text = if text.trim_start().starts_with('{') {
            carrier = serde_json::from_str(text).ok()?;
            carrier.get("traceparent")?
        } else {
            text
        };
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            text.len() == length && text.bytes().all(digit)
        };
        let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
        // A later version may have more parts; the first one has just these.
        let shape = version != "ff" && (version != "00" || parts.next().is_none());
        let well_formed =
            shape && hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        (well_formed && !zero(trace) && !zero(span)).then(|| TraceContext {
            trace_id: trace.to_owned(),
            parent: Some(span.to_owned()),
            sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
        })
    }

    /// The `traceparent` that names this span as the parent.
    pub fn traceparent(&self, span: &str) -> String {
        format!("00-{}-{span}-{:02x}", self.trace_id, u8::from(self.sampled))
    }
}

/// Has a run continue the submitter's trace, unless its annotation names one already.
pub fn continue_trace(run: &mut RunObject, traceparent: &str) {
    if TraceContext::parse(traceparent).is_none() {
        return;
    }
    let key = annotation(run).to_owned();
    let carrier = BTreeMap::from([("traceparent", traceparent.trim())]);
    let value =
        serde_json::to_string(&carrier).expect("a map of strings to strings is always valid JSON");
    run.metadata_mut().annotations.entry(key).or_insert(value);
}

fn annotation(run: &RunObject) -> &'static str {
    match run {
        RunObject::PipelineRun(_) => PIPELINE_RUN,
        RunObject::TaskRun(_) => TASK_RUN,
    }
}

impl AttemptId {
    /// `TRACEPARENT` of a container, as `step-<name>` or `sidecar-<name>`.
    pub fn traceparent(&self, context: &TraceContext, container: &str) -> String {
        context.traceparent(&self.container_span_id(container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_context_is_taken_as_text_or_as_a_carrier() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let context = TraceContext::parse(&text).unwrap();
        assert_eq!((&*context.trace_id, context.sampled), (TRACE, true));
        assert_eq!(context.parent.as_deref(), Some(SPAN));
        assert_eq!(TraceContext::parse(&format!("{{\"traceparent\":\"{text}\"}}")), Some(context));
        let unsampled = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-00")).unwrap();
        assert_eq!(unsampled.traceparent(SPAN), format!("00-{TRACE}-{SPAN}-00"));
        // What a later version adds is left out.
        assert!(TraceContext::parse(&format!("01-{TRACE}-{SPAN}-01-more")).is_some());
    }

    #[test]
    fn what_is_not_well_formed_is_no_context() {
        let zeros = "0".repeat(32);
        for text in [
            "",
            "{}",
            "{\"traceparent\":1}",
            "00",
            &format!("00-{TRACE}-{SPAN}"),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("00-{zeros}-{SPAN}-01"),
            &format!("00-{TRACE}-{}-01", &zeros[..16]),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}-{SPAN}-0g"),
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
