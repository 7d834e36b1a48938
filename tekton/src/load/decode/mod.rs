//! From a [`Node`] tree to typed objects, as Go's JSON decoder with `DisallowUnknownFields` does it
//! in Tekton's webhook: keys match in any case, null is absent, and faults have Go's own words.
//!
//! Go stops at its first fault; this decoder notes it, puts an empty value in its place, and goes
//! on. Faults are noted in Go's order (keys sorted), so the first one is Go's.

mod fields;
mod path;
mod probe;

use std::cell::RefCell;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
    value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

use self::fields::Fields;
use self::path::Path;
use self::probe::ElementProbe;
use super::node::{Entry, Node, Span, Value};
use super::{go, scalar};
use crate::duration::GoDuration;

/// How to treat what the types do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Unknown fields are errors (Tekton's own kinds), not warnings (Kubernetes' kinds).
    pub strict: bool,
    /// Accept v1beta1's fields, and rename or drop them.
    pub v1beta1: bool,
}

/// A fault found while decoding.
#[derive(Debug)]
pub struct Found {
    pub code: &'static str,
    pub message: String,
    pub path: String,
    pub span: Span,
    pub help: Option<String>,
    /// Go gives up at this one at once; others it remembers and goes on.
    pub aborts: bool,
    pub warning: bool,
}

/// What decoding gave.
pub struct Decoded<T> {
    pub value: T,
    /// In Go's order.
    pub found: Vec<Found>,
    /// Paths of the v1beta1 fields that were renamed or dropped.
    pub v1beta1_fields: Vec<String>,
}

/// Decodes a tree; always gives a value, which is of use only if nothing was found.
pub fn decode<'de, T: serde::Deserialize<'de> + Default>(
    root: &'de Node,
    mode: Mode,
) -> Decoded<T> {
    let context = Context { mode, found: RefCell::default(), v1beta1_fields: RefCell::default() };
    let decoder = Decoder { node: root, path: &Path::Root, owner: "", context: &context };
    let value = T::deserialize(decoder).unwrap_or_else(|error: Fault| {
        // Only a hand-written `Deserialize` can end here.
        context.found.borrow_mut().push(Found {
            code: "decode/value",
            message: error.0,
            path: String::new(),
            span: root.span,
            help: None,
            aborts: true,
            warning: false,
        });
        T::default()
    });
    let mut v1beta1_fields = context.v1beta1_fields.into_inner();
    v1beta1_fields.sort();
    Decoded { value, found: context.found.into_inner(), v1beta1_fields }
}

/// More faults than this of one document are not told.
const MAX_FOUND: usize = 100;

struct Context {
    mode: Mode,
    found: RefCell<Vec<Found>>,
    v1beta1_fields: RefCell<Vec<String>>,
}

impl Context {
    /// Whether a further fault would be told. The one that Go gives up at always is.
    fn wants(&self, aborts: bool) -> bool {
        let found = self.found.borrow();
        found.len() < MAX_FOUND || aborts && !found.iter().any(|found| found.aborts)
    }
}

/// serde's error type here; faults of the input are noted instead.
#[derive(Debug)]
struct Fault(String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Fault(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Decoder<'de, 'c> {
    node: &'de Node,
    path: &'c Path<'c>,
    /// Name of the struct that the value is (somewhere) in.
    owner: &'static str,
    context: &'c Context,
}

impl Decoder<'_, '_> {
    fn note(&self, code: &'static str, message: String, aborts: bool) {
        if !self.context.wants(aborts) {
            return;
        }
        self.context.found.borrow_mut().push(Found {
            code,
            message,
            path: self.path.shown(),
            span: self.node.span,
            help: None,
            aborts,
            warning: false,
        });
    }

    /// Notes Go's `json: cannot unmarshal …`.
    fn mismatch(&self, go_type: &str) {
        let what = match &self.node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Float(value) if go_type.starts_with("int") => {
                format!("number {}", scalar::go_float(*value))
            }
            Value::Int(value) if go_type.starts_with("int") => format!("number {value}"),
            Value::Uint(value) if go_type.starts_with("int") => format!("number {value}"),
            Value::Int(_) | Value::Uint(_) | Value::Float(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Seq(_) => "array".to_owned(),
            Value::Map(_) => "object".to_owned(),
        };
        let message = if self.owner.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {go_type}")
        } else {
            format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {go_type}",
                go::struct_name(self.owner),
                self.path.go()
            )
        };
        self.note("decode/type", message, false);
    }

    fn package(&self) -> &'static str {
        if self.context.mode.v1beta1 { "v1beta1" } else { "v1" }
    }

    fn integer(&self, go_type: &str, low: i64, high: i64) -> i64 {
        let value = match self.node.value {
            Value::Null => Some(0),
            Value::Int(value) => Some(value),
            Value::Float(value) => whole(value),
            _ => None,
        };
        value.filter(|value| (low..=high).contains(value)).unwrap_or_else(|| {
            self.mismatch(go_type);
            0
        })
    }

    /// The JSON text of a scalar, as Kubernetes' quantity reader gets it.
    fn scalar_text(&self) -> Option<String> {
        match &self.node.value {
            Value::String(text) => Some(text.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Uint(value) => Some(value.to_string()),
            Value::Float(value) => Some(scalar::go_float(*value)),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null => Some(String::new()),
            Value::Seq(_) | Value::Map(_) => None,
        }
    }

    fn quantity(&self) -> String {
        let text = self.scalar_text();
        let read = match &text {
            Some(_) if self.node.is_null() => Ok(()),
            Some(text) => go::check_quantity(text.trim()),
            None => Err(go::QUANTITY_FORMAT),
        };
        if let Err(message) = read {
            self.note("decode/quantity", message.to_owned(), true);
        }
        text.unwrap_or_default()
    }

    fn duration(&self) -> &str {
        match &self.node.value {
            Value::String(text) => match GoDuration::parse(text) {
                Ok(_) => text,
                Err(message) => {
                    self.note("decode/duration", message, true);
                    "0s"
                }
            },
            Value::Null => "0s",
            _ => {
                self.mismatch("string");
                "0s"
            }
        }
    }
}

/// A float without a fraction as the integer that its JSON text reads as.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

impl<'de> Deserializer<'de> for Decoder<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Uint(value) => visitor.visit_u64(*value),
            Value::Float(value) => match whole(*value) {
                Some(value) => visitor.visit_i64(value),
                None => visitor.visit_f64(*value),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Seq(items) => visitor.visit_seq(Items::new(self, items)),
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Null => visitor.visit_bool(false),
            _ => {
                self.mismatch("bool");
                visitor.visit_bool(false)
            }
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let go_type = go::int_type(self.owner, self.path.field());
        let value = self.integer(go_type, i32::MIN.into(), i32::MAX.into());
        visitor.visit_i64(value)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i64(self.integer("int64", i64::MIN, i64::MAX))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Null => visitor.visit_borrowed_str(""),
            _ => {
                self.mismatch(&go::string_type(self.owner, self.path.field(), self.package()));
                visitor.visit_borrowed_str("")
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            "GoDuration" => visitor.visit_newtype_struct(StrDeserializer::new(self.duration())),
            "Quantity" => visitor.visit_newtype_struct(StrDeserializer::new(&self.quantity())),
            "IntOrString" => match self.node.value {
                Value::String(_) | Value::Null => self.deserialize_str(visitor),
                _ => self.deserialize_i32(visitor),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Seq(items) => visitor.visit_seq(Items::new(self, items)),
            Value::Null => visitor.visit_seq(Items::new(self, &[])),
            _ => {
                let mut element = String::new();
                let value = visitor.visit_seq(ElementProbe(&mut element, self.package()))?;
                self.mismatch(&go::list_type(self.path.field(), &element, self.package()));
                Ok(value)
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries)),
            Value::Null => visitor.visit_map(Entries::new(self, &[])),
            _ => {
                self.mismatch(&go::map_type(self.path.field(), self.package()));
                visitor.visit_map(Entries::new(self, &[]))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                self.mismatch(&go::qualified(name, self.package()));
                &[]
            }
        };
        visitor.visit_map(Fields::new(self, name, fields, entries))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier
    }
}

/// The items of a sequence.
struct Items<'de, 'c> {
    parent: Decoder<'de, 'c>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de, 'c> Items<'de, 'c> {
    fn new(parent: Decoder<'de, 'c>, items: &'de [Node]) -> Self {
        Items { parent, items: items.iter().enumerate() }
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(Decoder {
            node,
            path: &Path::Index(self.parent.path, index),
            ..self.parent
        })
        .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map whose keys are data.
struct Entries<'de, 'c> {
    parent: Decoder<'de, 'c>,
    entries: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de, 'c> Entries<'de, 'c> {
    fn new(parent: Decoder<'de, 'c>, entries: &'de [Entry]) -> Self {
        Entries { parent, entries: entries.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        match self.current {
            None => Ok(None),
            Some(entry) => {
                let key = serde::de::value::BorrowedStrDeserializer::new(&entry.key);
                seed.deserialize(key).map(Some)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.current else {
            return Err(Fault::custom("a value before its key"));
        };
        seed.deserialize(Decoder {
            node: &entry.value,
            path: &Path::Key(self.parent.path, &entry.key),
            ..self.parent
        })
    }
}
