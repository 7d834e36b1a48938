//! Why a request was not done, in the one form that both protocols give to clients.

use std::borrow::Cow;

use tenon_proto::control::v1::{Detail, Error as Wire};
use tenon_tekton::load::{Diagnostic, Severity};

use crate::intake;

/// Result of everything that a client asked for.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// A request that was not done. The part of the code before the slash decides about the HTTP status
/// and the gRPC code.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{} [{}]", .0.message, .0.code)]
pub struct Fault(pub Box<Wire>);

impl Fault {
    /// A fault with a stable code and a text for people.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Fault {
        Fault(Box::new(Wire {
            code: code.into().into_owned(),
            message: message.into(),
            ..Wire::default()
        }))
    }

    /// Likewise, with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.0.hint = hint.into();
        self
    }

    /// Likewise, with the field of the request that is at fault.
    pub fn field(mut self, field: &str) -> Fault {
        self.0.details.push(Detail {
            field: field.to_owned(),
            code: self.0.code.clone(),
            message: self.0.message.clone(),
            severity: "error".to_owned(),
            hint: self.0.hint.clone(),
            ..Detail::default()
        });
        self
    }

    /// Likewise, with the place of the leader.
    pub fn leader(mut self, url: impl Into<String>) -> Fault {
        self.0.leader_url = url.into();
        self
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// There is no such run.
    pub fn no_such_run(run: impl std::fmt::Display) -> Fault {
        Fault::new("not-found/run", format!("there is no run {run}"))
    }

    /// Time is up, and nothing better is known.
    pub fn deadline() -> Fault {
        Fault::new(
            "deadline/exceeded",
            "the request was not done in time; it may still take effect: repeat it (with the same \
             idempotency key, if it submits a run)",
        )
    }

    /// A fault of Tenon itself or of its disk; details are in the node's log.
    pub fn internal(error: impl std::fmt::Display) -> Fault {
        Fault::new("internal/fault", error.to_string())
    }

    /// The HTTP status of [`Fault::code`].
    pub fn http_status(&self) -> axum::http::StatusCode {
        use axum::http::StatusCode;
        let code = self.code();
        match code.split('/').next().unwrap_or_default() {
            "invalid" if code == "invalid/method" => StatusCode::METHOD_NOT_ALLOWED,
            "invalid" => StatusCode::BAD_REQUEST,
            "not-found" => StatusCode::NOT_FOUND,
            "conflict" => StatusCode::CONFLICT,
            "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "overloaded" => StatusCode::TOO_MANY_REQUESTS,
            "gone" => StatusCode::GONE,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "deadline" => StatusCode::GATEWAY_TIMEOUT,
            "denied" => StatusCode::FORBIDDEN,
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "unsupported" if code == "unsupported/media-type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported" => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Fault> for tonic::Status {
    fn from(fault: Fault) -> tonic::Status {
        tenon_proto::status::to_status(&fault.0)
    }
}

impl From<intake::Error> for Fault {
    fn from(error: intake::Error) -> Fault {
        let fault = Fault::new(error.code(), error.to_string());
        match error {
            intake::Error::Documents(found) => {
                let mut fault =
                    fault.hint("`tenon validate` shows the same with the lines at fault");
                let (errors, first) = {
                    let mut errors = found.iter().filter(|it| it.severity == Severity::Error);
                    let first = errors.next().map(|it| it.message.clone());
                    (usize::from(first.is_some()) + errors.count(), first.unwrap_or_default())
                };
                fault.0.message = match errors {
                    1 => first,
                    _ => format!("{errors} errors in the documents; the first: {first}"),
                };
                fault.0.details = found.iter().map(detail).collect();
                fault
            }
            intake::Error::Request { field, hint, .. } => {
                fault.hint(hint.unwrap_or_default()).field(field)
            }
            _ => fault,
        }
    }
}

/// A located fault of a document.
pub(super) fn detail(found: &Diagnostic) -> Detail {
    Detail {
        file: found.source.name.clone(),
        line: found.span.line,
        column: found.span.column,
        field: found.path.clone(),
        code: found.code.to_owned(),
        message: match found.details.is_empty() {
            true => found.message.clone(),
            false => format!("{}\n{}", found.message, found.details),
        },
        severity: match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
        .to_owned(),
        hint: found.help.clone().unwrap_or_default(),
    }
}
