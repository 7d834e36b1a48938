//! Where spans go: OpenTelemetry's environment variables, and what a user says before them.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use super::export::ExportError;

/// Where an OTLP backend takes spans over HTTP, below its address.
const TRACES_PATH: &str = "/v1/traces";

/// Who says how spans travel; the first that is there.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub(super) url: String,
    pub(super) protocol: Protocol,
}

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

impl Destination {
    /// The backend at `address`, else the one that the environment names. `None` where there is neither, or where
    /// the environment turns the SDK off and no address is given.
    pub fn find(address: Option<&str>) -> Result<Option<Destination>, ExportError> {
        Destination::among(address, |name| std::env::var(name).ok())
    }

    fn among(
        address: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Destination>, ExportError> {
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        let is_off =
            variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let named = |name| variable(name).filter(|_| !is_off);
        let (url, is_of_traces) = if let Some(address) = address {
            (address.to_owned(), false)
        } else if let Some(url) = named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            (url, true)
        } else if let Some(url) = named("OTEL_EXPORTER_OTLP_ENDPOINT") {
            (url, false)
        } else {
            return Ok(None);
        };
        let protocol = PROTOCOLS.iter().find_map(|name| Some((name, variable(name)?)));
        let protocol = match protocol {
            None => Protocol::Grpc,
            Some((_, text)) if text == "grpc" => Protocol::Grpc,
            Some((_, text)) if text == "http/protobuf" => Protocol::Http,
            Some((name, other)) => {
                let why = format!("{name} is {other:?}, and not grpc or http/protobuf");
                return Err(ExportError::new(&url, why));
            }
        };
        let url = match protocol {
            // The address is the backend's; only the one of traces is said as it is.
            Protocol::Http if !is_of_traces => {
                let base = url.trim_end_matches('/');
                format!("{}{TRACES_PATH}", base.strip_suffix(TRACES_PATH).unwrap_or(base))
            }
            _ => url,
        };
        Ok(Some(Destination { url, protocol }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: Option<&str>, variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match Destination::among(address, variable) {
            Ok(Some(Destination { url, protocol })) => format!("{protocol:?} {url}"),
            Ok(None) => "nowhere".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_variables_mean_what_the_specification_says() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/otlp/");
        const TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/path");
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        const OFF: (&str, &str) = ("OTEL_SDK_DISABLED", "TRUE");
        let flag = Some("http://flag:4318");
        assert_eq!(found(None, &[]), "nowhere");
        assert_eq!(found(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), "nowhere");
        assert_eq!(found(None, &[ALL, TRACES, OFF]), "nowhere");
        assert_eq!(found(None, &[ALL]), "Grpc http://all:4318/otlp/");
        assert_eq!(found(None, &[ALL, HTTP]), "Http http://all:4318/otlp/v1/traces");
        assert_eq!(found(None, &[ALL, TRACES, HTTP]), "Http http://traces/path");
        assert_eq!(found(flag, &[ALL, TRACES, OFF]), "Grpc http://flag:4318");
        assert_eq!(found(flag, &[ALL, TRACES, HTTP]), "Http http://flag:4318/v1/traces");
        assert_eq!(found(Some("http://a/v1/traces"), &[HTTP]), "Http http://a/v1/traces");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(found(flag, &[of_traces, HTTP]), "Grpc http://flag:4318");
        assert_eq!(
            found(flag, &[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"), HTTP]),
            "cannot send spans to http://flag:4318: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is \"http/json\", \
             and not grpc or http/protobuf"
        );
    }
}
