//! The fields of requests, parsed and checked. Every fault names its field.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tenon_engine::command::CancelMode;
use tenon_engine::{Kind, RunId, Time};

use super::control_plane::Cancel;
use super::fault::{Fault, Result};

/// Longest idempotency key.
const KEY: usize = 128;
/// Longest text for people in a request.
const MESSAGE: usize = 4096;

/// A run's id.
pub fn run_id(text: &str) -> Result<RunId> {
    text.parse().map_err(|_| {
        Fault::new("invalid/run-id", format!("{text:?} is no run id"))
            .hint("a run id is a ULID: 26 letters and digits, such as 01JD3ZQ2T9F8V6K4M1N7P5R3S0")
            .field("id")
    })
}

/// A client's name for a request. `None` where it gave none.
pub fn key(text: Option<&str>) -> Result<Option<&str>> {
    match text {
        None => Ok(None),
        Some(text) => {
            let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            if text.is_empty() || text.len() > KEY || !plain {
                let message = format!("an idempotency key has 1 to {KEY} visible ASCII characters");
                return Err(Fault::new("invalid/idempotency-key", message).field("idempotencyKey"));
            }
            Ok(Some(text))
        }
    }
}

/// A namespace, as Kubernetes names them; `default` where there is none.
pub fn namespace(text: &str) -> Result<&str> {
    if text.is_empty() {
        return Ok("default");
    }
    match is_label(text) {
        true => Ok(text),
        false => {
            let message = format!("{text:?} is no name of a namespace");
            Err(Fault::new("invalid/namespace", message)
                .hint("at most 63 lower-case letters, digits and dashes, no dash at either end")
                .field("namespace"))
        }
    }
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A point in time; `None` where the text is empty.
pub fn time(field: &str, text: &str) -> Result<Option<Time>> {
    if text.is_empty() {
        return Ok(None);
    }
    let text_in: StrDeserializer<'_, ValueError> = text.into_deserializer();
    match Time::deserialize(text_in) {
        Ok(time) => Ok(Some(time)),
        Err(_) => Err(Fault::new("invalid/time", format!("{text:?} is no RFC 3339 time"))
            .hint("for example 2026-11-22T05:23:09Z")
            .field(field)),
    }
}

/// How a run is to be ended.
pub fn cancel(mode: &str, now: bool, message: &str) -> Result<Cancel> {
    let mode = match mode {
        "" | "Cancelled" => CancelMode::Cancelled,
        "CancelledRunFinally" => CancelMode::CancelledRunFinally,
        "StoppedRunFinally" => CancelMode::StoppedRunFinally,
        other => {
            return Err(Fault::new("invalid/mode", format!("there is no way {other:?} to cancel"))
                .hint("one of Cancelled, CancelledRunFinally, StoppedRunFinally")
                .field("mode"));
        }
    };
    if now && mode != CancelMode::Cancelled {
        let message = "`now` kills `finally` tasks too, so it goes with mode Cancelled only";
        return Err(Fault::new("invalid/mode", message).field("now"));
    }
    if message.len() > MESSAGE {
        let text = format!("the message is longer than {MESSAGE} bytes");
        return Err(Fault::new("too-large/message", text).field("message"));
    }
    Ok(Cancel { mode, now, message: message.to_owned() })
}

/// Kinds of events.
pub fn kinds(names: &[String]) -> Result<Vec<Kind>> {
    let parse = |name: &String| {
        tenon_reporter::filter::parse_kind(name).ok_or_else(|| {
            Fault::new("invalid/kind", format!("there is no kind {name:?} of events"))
                .hint("such as run-end, task-start or step-log")
                .field("kinds")
        })
    };
    names.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_refused_with_its_field() {
        let field = |fault: Fault| (fault.code().to_owned(), fault.0.details[0].field.clone());
        let cases = [
            (run_id("x").unwrap_err(), "invalid/run-id", "id"),
            (run_id("../../etc/passwd").unwrap_err(), "invalid/run-id", "id"),
            (key(Some("")).unwrap_err(), "invalid/idempotency-key", "idempotencyKey"),
            (key(Some("a b")).unwrap_err(), "invalid/idempotency-key", "idempotencyKey"),
            (key(Some(&"a".repeat(129))).unwrap_err(), "invalid/idempotency-key", "idempotencyKey"),
            (namespace("A").unwrap_err(), "invalid/namespace", "namespace"),
            (namespace("-a").unwrap_err(), "invalid/namespace", "namespace"),
            (time("since", "yesterday").unwrap_err(), "invalid/time", "since"),
            (cancel("Paused", false, "").unwrap_err(), "invalid/mode", "mode"),
            (cancel("StoppedRunFinally", true, "").unwrap_err(), "invalid/mode", "now"),
            (kinds(&["step".to_owned()]).unwrap_err(), "invalid/kind", "kinds"),
        ];
        for (fault, code, name) in cases {
            assert_eq!(field(fault), (code.to_owned(), name.to_owned()));
        }
    }

    #[test]
    fn what_is_well_formed_is_understood() {
        assert_eq!(namespace("").unwrap(), "default");
        assert_eq!(time("since", "1970-01-01T00:00:01Z").unwrap(), Some(Time(1000)));
        assert_eq!(time("since", "").unwrap(), None);
        assert_eq!(cancel("", true, "").unwrap().mode, CancelMode::Cancelled);
        assert_eq!(kinds(&["step-log".to_owned()]).unwrap(), [Kind::StepLog]);
    }
}
