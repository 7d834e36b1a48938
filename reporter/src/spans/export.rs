//! Sends spans to an OpenTelemetry backend.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use super::destination::{Destination, Protocol};
use super::{Span, Value};

/// How long one attempt to send may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Spans could not be sent; they may be sent again.
#[derive(Debug, thiserror::Error)]
#[error("cannot send spans to {endpoint}: {why}")]
pub struct ExportError {
    /// Where they were to go.
    pub endpoint: String,
    /// What went wrong.
    pub why: String,
}

impl ExportError {
    pub(super) fn new(endpoint: &str, why: String) -> ExportError {
        ExportError { endpoint: endpoint.to_owned(), why }
    }
}

/// Sends spans to one backend.
#[derive(Debug)]
pub struct Exporter {
    endpoint: String,
    inner: SpanExporter,
    scope: InstrumentationScope,
}

impl Exporter {
    /// Sends to this backend. Headers, compression and certificates come from OpenTelemetry's own environment
    /// variables. Connects when it first sends; must be made inside a Tokio runtime.
    pub fn new(destination: &Destination) -> Result<Exporter, ExportError> {
        let Destination { url, protocol } = destination;
        let builder = SpanExporter::builder();
        let built = match protocol {
            Protocol::Grpc => builder.with_tonic().with_endpoint(url).with_timeout(TIMEOUT).build(),
            Protocol::Http => {
                // reqwest comes without cryptography of its own; it does no harm if somebody else was first.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let http =
                    builder.with_http().with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
                http.with_endpoint(url).with_timeout(TIMEOUT).build()
            }
        };
        let mut inner = built.map_err(|error| ExportError::new(url, error.to_string()))?;
        let version = env!("CARGO_PKG_VERSION");
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("tenon");
        }
        let resource = resource.with_attribute(KeyValue::new("service.version", version));
        inner.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("tenon").with_version(version).build();
        Ok(Exporter { endpoint: url.clone(), inner, scope })
    }

    /// Sends spans, and waits until the backend has taken them.
    pub async fn export(&self, spans: Vec<Span>) -> Result<(), ExportError> {
        let batch = spans.into_iter().filter_map(|span| self.data(span)).collect();
        let sent = self.inner.export(batch).await;
        sent.map_err(|error| ExportError::new(&self.endpoint, error.to_string()))
    }

    /// A span as the SDK has it; `None` if its ids are none.
    fn data(&self, span: Span) -> Option<SpanData> {
        let context = |span_id: &str, is_remote| {
            let trace = TraceId::from_hex(&span.trace_id).ok()?;
            let span_id = SpanId::from_hex(span_id).ok()?;
            let state = TraceState::default();
            Some(SpanContext::new(trace, span_id, TraceFlags::SAMPLED, is_remote, state))
        };
        let parent = span.parent.as_deref().map(SpanId::from_hex).transpose().ok()?;
        let link = span.follows.as_deref().and_then(|follows| context(follows, false));
        let mut links = SpanLinks::default();
        links.links.extend(link.map(|link| Link::new(link, Vec::new(), 0)));
        let attribute = |(name, value): (String, Value)| match value {
            Value::Text(text) => KeyValue::new(name, text),
            Value::Number(number) => KeyValue::new(name, number),
            Value::Decimal(number) => KeyValue::new(name, number),
        };
        Some(SpanData {
            span_context: context(&span.span_id, false)?,
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: span.parent_is_remote,
            span_kind: SpanKind::Internal,
            name: Cow::Owned(span.name),
            start_time: system_time(span.start.0),
            end_time: system_time(span.end.0),
            attributes: span.attributes.into_iter().map(attribute).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: match span.error {
                Some(why) => Status::error(why),
                None => Status::Ok,
            },
            instrumentation_scope: self.scope.clone(),
        })
    }
}

fn system_time(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
