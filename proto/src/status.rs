//! An [`Error`] of the control API as a gRPC status, and back.
//!
//! The status carries the whole error in its details, in the form that gRPC tools can show
//! (`google.rpc.Status`), and its code, hint and leader once more as metadata.

use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::control::v1::Error;

/// The metadata key that carries [`Error::code`].
pub const CODE_KEY: &str = "tenon-code";
/// The metadata key that carries [`Error::hint`], where there is one.
pub const HINT_KEY: &str = "tenon-hint";
/// The metadata key that carries [`Error::leader_url`], where it is known.
pub const LEADER_KEY: &str = "tenon-leader";

const TYPE_URL: &str = "type.googleapis.com/tenon.control.v1.Error";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The gRPC code that belongs to one of our codes, by the part before its slash.
pub fn grpc_code(code: &str) -> Code {
    match code.split('/').next().unwrap_or_default() {
        "invalid" => Code::InvalidArgument,
        "not-found" => Code::NotFound,
        "conflict" => match code {
            "conflict/idempotency-key" | "conflict/exists" => Code::AlreadyExists,
            _ => Code::FailedPrecondition,
        },
        "too-large" => Code::ResourceExhausted,
        "overloaded" => Code::ResourceExhausted,
        "gone" => Code::OutOfRange,
        "unavailable" => Code::Unavailable,
        "deadline" => Code::DeadlineExceeded,
        "unauthenticated" => Code::Unauthenticated,
        "denied" | "peer" => Code::PermissionDenied,
        "unsupported" => Code::Unimplemented,
        _ => Code::Internal,
    }
}

/// The status that carries an error.
pub fn to_status(error: &Error) -> Status {
    let code = grpc_code(&error.code);
    let details = RpcStatus {
        code: code as i32,
        message: error.message.clone(),
        details: vec![Any { type_url: TYPE_URL.to_owned(), value: error.encode_to_vec() }],
    };
    let mut status =
        Status::with_details(code, error.message.clone(), details.encode_to_vec().into());
    let keys = [(CODE_KEY, &error.code), (HINT_KEY, &error.hint), (LEADER_KEY, &error.leader_url)];
    for (key, value) in keys {
        if !value.is_empty()
            && let Ok(value) = MetadataValue::try_from(value)
        {
            status.metadata_mut().insert(key, value);
        }
    }
    status
}

/// The error that a status carries. Of a status that is not ours, the nearest that can be said.
pub fn from_status(status: &Status) -> Error {
    let carried = RpcStatus::decode(status.details())
        .ok()
        .and_then(|rpc| rpc.details.into_iter().find(|any| any.type_url == TYPE_URL))
        .and_then(|any| Error::decode(&any.value[..]).ok());
    carried.unwrap_or_else(|| Error {
        code: match status.code() {
            Code::Unavailable => "unavailable/transport",
            Code::DeadlineExceeded => "deadline/exceeded",
            Code::Cancelled => "unavailable/cancelled",
            Code::InvalidArgument => "invalid/request",
            Code::NotFound => "not-found/method",
            Code::OutOfRange | Code::ResourceExhausted => "too-large/message",
            Code::Unimplemented => "unsupported/method",
            _ => "internal/transport",
        }
        .to_owned(),
        message: status.message().to_owned(),
        ..Error::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_its_travel() {
        let error = Error {
            code: "conflict/idempotency-key".to_owned(),
            message: "another request".to_owned(),
            hint: "use a new key".to_owned(),
            leader_url: "http://127.0.0.1:1".to_owned(),
            ..Error::default()
        };
        let status = to_status(&error);
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(status.metadata().get(CODE_KEY).unwrap(), "conflict/idempotency-key");
        assert_eq!(from_status(&status), error);
    }

    #[test]
    fn a_foreign_status_is_understood_as_far_as_possible() {
        let error = from_status(&Status::unavailable("no route"));
        assert_eq!((&*error.code, &*error.message), ("unavailable/transport", "no route"));
    }
}
