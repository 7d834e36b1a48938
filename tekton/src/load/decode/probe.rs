//! Finds out the Go name of a list's element type, for Go's message about what is no list.

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Fault;
use crate::load::go;

/// Asks the element's `Deserialize` what it wants, and gives no elements. The text is the answer,
/// the other the Go package of Tekton's types.
pub(super) struct ElementProbe<'p>(pub(super) &'p mut String, pub(super) &'static str);

impl<'de> SeqAccess<'de> for ElementProbe<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        // Always an error, of no interest: the probe has what it wants.
        let _ = seed.deserialize(TypeProbe(self.0, self.1));
        Ok(None)
    }
}

struct TypeProbe<'p>(&'p mut String, &'static str);

impl TypeProbe<'_> {
    fn is<T>(self, go_type: &str) -> Result<T, Fault> {
        go_type.clone_into(self.0);
        Err(Fault(String::new()))
    }
}

impl<'de> Deserializer<'de> for TypeProbe<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
        self.is("interface {}")
    }

    fn deserialize_string<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
        self.is("string")
    }

    fn deserialize_i64<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
        self.is("int64")
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Fault> {
        let go_type = go::qualified(name, self.1);
        self.is(&go_type)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
