//! Params: declarations, values, and the value type that results share.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::load::go_float;
use crate::object::{Absent, object};

object! {
    /// A declared param of a Task, Pipeline or StepAction.
    pub struct ParamSpec {
        name: String,
        /// `string`, `array` or `object`; empty before defaulting. Kept as text so that validation
        /// can name a wrong one.
        r#type: String,
        description: String,
        properties: BTreeMap<String, PropertySpec>,
        default: Option<ParamValue>,
        r#enum: Vec<String>,
    }
}

object! {
    /// One key of an object param or result.
    pub struct PropertySpec {
        r#type: String,
    }
}

object! {
    /// A param given by a run, a PipelineTask, a step or a resolver reference.
    pub struct Param {
        name: String,
        value: ParamValue,
    }
}

/// A param's or result's value: a string, an array of strings, or an object of strings
/// (Tekton's `ParamValue`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParamValue {
    /// A string; numbers and booleans of the input become their text.
    String(String),
    /// An array of strings.
    Array(Vec<String>),
    /// An object whose values are strings.
    Object(BTreeMap<String, String>),
}

impl Default for ParamValue {
    fn default() -> Self {
        ParamValue::String(String::new())
    }
}

impl Absent for ParamValue {
    fn is_absent(&self) -> bool {
        false
    }
}

impl From<&str> for ParamValue {
    fn from(text: &str) -> Self {
        ParamValue::String(text.to_owned())
    }
}

impl ParamValue {
    /// `string`, `array` or `object`.
    pub fn type_name(&self) -> &'static str {
        match self {
            ParamValue::String(_) => "string",
            ParamValue::Array(_) => "array",
            ParamValue::Object(_) => "object",
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ParamValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// Tekton's `ParamValue.UnmarshalJSON`: only arrays of strings and objects of strings keep
    /// their shape (null among them is an empty string); every other JSON value becomes a string
    /// holding its JSON text, as Go prints it.
    pub fn from_json(value: &Value) -> ParamValue {
        let is_text = |item: &Value| item.is_string() || item.is_null();
        let text = |item: &Value| item.as_str().unwrap_or_default().to_owned();
        match value {
            Value::String(text) => ParamValue::String(text.clone()),
            Value::Array(items) if items.iter().all(is_text) => {
                ParamValue::Array(items.iter().map(text).collect())
            }
            Value::Object(entries) if entries.values().all(is_text) => ParamValue::Object(
                entries.iter().map(|(key, item)| (key.clone(), text(item))).collect(),
            ),
            Value::Null => ParamValue::default(),
            other => ParamValue::String(escape_markup(&go_json(other))),
        }
    }
}

/// JSON as Go writes it: its floats have an exponent only where they are very small or very large.
fn go_json(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, go_float)
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_json).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("{}:{}", Value::String(key.clone()), go_json(value))
            };
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}

/// Go's JSON writer escapes what HTML would read as markup.
fn escape_markup(json: &str) -> String {
    if !json.contains(['<', '>', '&']) {
        return json.to_owned();
    }
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl Serialize for ParamValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ParamValue::String(text) => serializer.serialize_str(text),
            ParamValue::Array(items) => items.serialize(serializer),
            ParamValue::Object(entries) => entries.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ParamValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string, an array of strings or an object of strings")
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
                Ok(Value::String(v.to_owned()))
            }
            fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
                Ok(Value::String(v))
            }
            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<Value>()? {
                    items.push(item);
                }
                Ok(Value::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = serde_json::Map::new();
                while let Some((key, item)) = map.next_entry::<String, Value>()? {
                    entries.insert(key, item);
                }
                Ok(Value::Object(entries))
            }
        }
        Ok(ParamValue::from_json(&deserializer.deserialize_any(AnyValue)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_becomes_its_json_as_go_writes_it() {
        for (json, text) in [
            ("1e16", "10000000000000000"),
            ("1e21", "1e+21"),
            ("0.000001", "0.000001"),
            ("1e-7", "1e-7"),
            ("18446744073709551616", "18446744073709552000"),
            ("[1e20, 1, \"a\"]", "[100000000000000000000,1,\"a\"]"),
            ("{\"a\": {\"b\": 2.5}}", "{\"a\":{\"b\":2.5}}"),
            ("[true, \"<\"]", "[true,\"\\u003c\"]"),
        ] {
            let value: ParamValue = serde_json::from_str(json).expect("JSON");
            assert_eq!(value, ParamValue::String(text.to_owned()), "{json}");
        }
    }
}
