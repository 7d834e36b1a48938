//! `/v1/events` and `/v1/runs/{id}/events`: one JSON object a line, or Server-Sent Events.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tenon_proto::control::v1::SubscribeRequest;

use super::{Call, content};
use crate::server::batch::seq_of;
use crate::server::fault::{Fault, Result};
use crate::server::subscription::{Next, Subscription};

/// How the lines are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Ndjson,
    Sse,
}

pub async fn all(mut call: Call) -> Result<Response> {
    let run = call.query.text("run")?;
    stream_of(call, run).await
}

pub async fn of_run(mut call: Call) -> Result<Response> {
    let run = call.path.remove("id").unwrap_or_default();
    stream_of(call, run).await
}

async fn stream_of(mut call: Call, run: String) -> Result<Response> {
    let format = format(&mut call)?;
    let last_id = last_event_id(&call)?;
    let query = &mut call.query;
    let request = SubscribeRequest {
        // A browser that reconnects repeats the URL, and says in the header how far it was.
        since: last_id.or(query.number("since")?).unwrap_or_default(),
        follow: query.flag("follow")?.unwrap_or(format == Format::Sse),
        run,
        namespace: query.text("namespace")?,
        kinds: query.list("kind"),
        tasks: query.list("task"),
        steps: query.list("step"),
    };
    let may_be_over = !request.follow || !request.run.is_empty();
    let mut subscription = call.api.subscribe(request, &call.asked).await?;
    let mut first = None;
    if last_id.is_some() && format == Format::Sse && may_be_over {
        first = Some(subscription.next_at_once().await?);
        if first == Some(Next::End) {
            // The one answer on which a browser does not come back.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let body = Body::from_stream(pieces(subscription, first, format));
    let mut response = match format {
        Format::Ndjson => content("application/x-ndjson", body),
        Format::Sse => content("text/event-stream", body),
    };
    // Proxies that buffer would hold back what is to be seen now.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

fn format(call: &mut Call) -> Result<Format> {
    match call.query.optional("format")?.as_deref() {
        Some("ndjson") => return Ok(Format::Ndjson),
        Some("sse") => return Ok(Format::Sse),
        Some(other) => {
            let message = format!("there is no format {other:?} of events");
            return Err(Fault::new("invalid/format", message)
                .hint("ndjson or sse")
                .field("format"));
        }
        None => {}
    }
    let accept = call.parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    match accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        true => Ok(Format::Sse),
        false => Ok(Format::Ndjson),
    }
}

fn last_event_id(call: &Call) -> Result<Option<u64>> {
    let Some(value) = call.parts.headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|_| {
        let message = format!("Last-Event-ID: {text:?} is no seq");
        Fault::new("invalid/last-event-id", message)
    })
}

fn pieces(
    subscription: Subscription,
    first: Option<Next>,
    format: Format,
) -> impl futures_util::Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    let state = Some((subscription, first));
    stream::unfold(state, move |state| async move {
        let (mut subscription, mut first) = state?;
        loop {
            let next = match first.take() {
                Some(next) => Ok(next),
                None => subscription.next().await,
            };
            let piece = match next {
                Ok(Next::Batch(batch)) => match format {
                    Format::Ndjson => batch.text,
                    Format::Sse => sse(&batch.text),
                },
                Ok(Next::Idle(_)) => match format {
                    // Nothing may be put between lines of a stream of JSON objects.
                    Format::Ndjson => continue,
                    Format::Sse => Bytes::from_static(b": alive\n\n"),
                },
                Ok(Next::End) => match format {
                    Format::Ndjson => return None,
                    Format::Sse => {
                        return Some((Ok(Bytes::from_static(b"event: end\ndata: {}\n\n")), None));
                    }
                },
                Err(fault) => return Some((Ok(last_word(&fault, format)), None)),
            };
            return Some((Ok(piece), Some((subscription, first))));
        }
    })
}

/// Lines as Server-Sent Events: each with its `seq` as the id.
fn sse(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Some(seq) = seq_of(line) {
            out.extend_from_slice(format!("id: {seq}\n").as_bytes());
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

/// Why a stream ends before its end. Not an event: it has no `seq`, and is not stored.
fn last_word(fault: &Fault, format: Format) -> Bytes {
    let error = serde_json::to_string(&*fault.0).unwrap_or_default();
    match format {
        Format::Ndjson => format!("{{\"kind\":\"stream-error\",\"error\":{error}}}\n").into(),
        Format::Sse => format!("event: error\ndata: {error}\n\n").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_event_with_its_seq() {
        let text = b"{\"kind\":\"run-start\",\"time\":\"t\",\"seq\":7,\"runSeq\":1}\n\
                     {\"kind\":\"step-log\",\"time\":\"t\",\"seq\":8,\"line\":\"\\\"seq\\\":9\"}\n";
        let sse = sse(text);
        let sse = std::str::from_utf8(&sse).unwrap();
        let events: Vec<&str> = sse.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 2);
        assert!(events[0].starts_with("id: 7\ndata: {\"kind\":\"run-start\""), "{sse}");
        assert!(events[1].starts_with("id: 8\ndata: "), "{sse}");
    }

    #[test]
    fn the_last_word_is_one_line() {
        let fault = Fault::new("overloaded/slow-subscriber", "too\nslow");
        let line = last_word(&fault, Format::Ndjson);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["error"]["code"], "overloaded/slow-subscriber");
        let sse = last_word(&fault, Format::Sse);
        assert!(sse.starts_with(b"event: error\ndata: {"));
    }
}
