//! What JSON says more naturally than the message that it becomes.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The value of a param: text as it is; a list or an object as its JSON text.
pub(crate) fn text_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        value @ (Value::Array(_) | Value::Object(_)) => Ok(value.to_string()),
        other => Err(D::Error::custom(format!(
            "a param is a string, a list of strings or an object of strings, not {other}: put it in \
             quotes"
        ))),
    }
}

pub(crate) fn text_or_json_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "array", "object"],
        "items": {"type": "string"},
        "additionalProperties": {"type": "string"},
    })
}

#[cfg(test)]
mod tests {
    use crate::control::v1::ParamValue;

    #[test]
    fn params_are_written_as_tekton_writes_them() {
        let value = |text: &str| {
            let text = format!("{{\"name\":\"p\",\"value\":{text}}}");
            serde_json::from_str::<ParamValue>(&text).map(|param| param.value)
        };
        assert_eq!(value("\"main\"").unwrap(), "main");
        assert_eq!(value("[\"a\",\"b\"]").unwrap(), "[\"a\",\"b\"]");
        assert_eq!(value("{\"k\":\"v\"}").unwrap(), "{\"k\":\"v\"}");
        assert!(value("7").unwrap_err().to_string().contains("put it in quotes"));
        assert!(value("null").is_err());
    }
}
