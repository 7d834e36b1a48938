//! Bodies of requests: limits, kinds of content, and JSON with located faults.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tenon_proto::control::v1::Detail;
use tokio::time::Instant;

use super::Call;
use crate::server::fault::{Fault, Result};

/// Largest body of requests without a manifest.
const SMALL: usize = 64 << 10;

/// What a body says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON, or nothing said.
    Json,
    /// Documents as they are.
    Yaml,
}

/// How a body says what it is; `curl -d` calls everything a form.
const SAY: &str = "say what it is: -H 'content-type: application/json' (curl's --json does that)";

/// The kind of a body, by its header.
pub fn kind(headers: &HeaderMap) -> Result<Kind> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Kind::Json) };
    let text = value.to_str().unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Kind::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Kind::Yaml),
        other => {
            let message = format!("a body of type {other:?} is not understood");
            Err(Fault::new("unsupported/media-type", message)
                .hint(format!("{SAY}; of a manifest application/yaml")))
        }
    }
}

/// All of a body, up to a limit and in time.
pub async fn read(body: Body, limit: usize, deadline: Instant) -> Result<Bytes> {
    let collect = Limited::new(body, limit).collect();
    match tokio::time::timeout_at(deadline, collect).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {limit} bytes");
            Err(Fault::new("too-large/body", message))
        }
        Ok(Err(error)) => Err(Fault::new("invalid/body", format!("the body broke off: {error}"))),
        Err(_) => Err(Fault::new("deadline/body", "the body did not arrive in time")),
    }
}

/// A JSON body; nothing at all is an empty object.
pub fn json<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T> {
    match bytes.trim_ascii_start().first() {
        None => return Ok(T::default()),
        // Lists would be taken for the fields in their order.
        Some(b'[') => {
            let message = "the body is not what is wanted: a list, where an object is";
            return Err(Fault::new("invalid/field", message).hint("GET /openapi.json describes it"));
        }
        Some(_) => {}
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { "invalid/field" } else { "invalid/json" };
        let mut fault = Fault::new(code, format!("the body is not what is wanted: {error}"))
            .hint("GET /openapi.json describes it");
        fault.0.details.push(Detail {
            file: "body".to_owned(),
            line: u32::try_from(error.line()).unwrap_or(u32::MAX),
            column: u32::try_from(error.column()).unwrap_or(u32::MAX),
            code: code.to_owned(),
            message: error.to_string(),
            severity: "error".to_owned(),
            ..Detail::default()
        });
        fault
    })
}

impl Call {
    /// A small JSON body.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let body = std::mem::take(&mut self.body);
        let bytes = read(body, SMALL, self.asked.deadline).await?;
        if !bytes.is_empty() && kind(&self.parts.headers)? != Kind::Json {
            let fault = Fault::new("unsupported/media-type", "the body has to be JSON");
            return Err(fault.hint(SAY));
        }
        json(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use tenon_proto::control::v1::{CancelRunRequest, SubmitRequest};

    use super::*;

    #[test]
    fn kinds_of_content() {
        let kind = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            super::kind(&headers)
        };
        assert_eq!(kind("application/json; charset=utf-8").unwrap(), Kind::Json);
        assert_eq!(kind("Application/YAML").unwrap(), Kind::Yaml);
        assert_eq!(kind("text/html").unwrap_err().code(), "unsupported/media-type");
        assert_eq!(super::kind(&HeaderMap::new()).unwrap(), Kind::Json);
    }

    #[test]
    fn faults_in_json_are_located() {
        let fault = |text: &str| json::<SubmitRequest>(text.as_bytes()).unwrap_err();
        for (text, code) in [
            ("{\"manifest\": 7}", "invalid/field"),
            ("{\"manifst\": \"x\"}", "invalid/field"),
            ("{\"parallel\": -1}", "invalid/field"),
            ("{\"manifest\": \"x\"", "invalid/json"),
            ("[]", "invalid/field"),
            ("\"text\"", "invalid/field"),
            ("{} {}", "invalid/json"),
            ("\u{1}", "invalid/json"),
        ] {
            assert_eq!(fault(text).code(), code, "{text}");
        }
        let wrong = fault("{\n \"manifst\": \"x\"}");
        assert_eq!((wrong.0.details[0].line, &*wrong.0.details[0].file), (2, "body"));
        assert_eq!(json::<CancelRunRequest>(b" \n").unwrap(), CancelRunRequest::default());
    }

    #[tokio::test]
    async fn an_oversized_body_is_refused_before_it_is_read() {
        let late = Instant::now() + std::time::Duration::from_secs(10);
        let read = read(Body::from(vec![b' '; 11]), 10, late).await;
        assert_eq!(read.unwrap_err().code(), "too-large/body");
    }
}
