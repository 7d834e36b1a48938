//! A mapping as a struct: which field each key means, in Go's order, and what to say of a key that
//! means none.

use serde::de::{DeserializeSeed, Error as _, MapAccess, value::StrDeserializer};

use super::path::Path;
use super::{Decoder, Fault, Found};
use crate::load::node::Entry;
use crate::load::v1beta1::{self, Field};
use crate::load::{go, suggest};

/// The entries of a mapping that is a struct: matched to its fields, sorted as Go meets them.
pub(super) struct Fields<'de, 'c> {
    parent: Decoder<'de, 'c>,
    name: &'static str,
    fields: &'static [&'static str],
    entries: std::vec::IntoIter<(Match, &'de Entry)>,
    current: Option<(&'static str, &'de Entry)>,
}

/// What a key of a mapping is to the struct.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Field(&'static str),
    Unknown,
    /// Known, and without a place in v1.
    Dropped,
}

impl<'de, 'c> Fields<'de, 'c> {
    pub(super) fn new(
        parent: Decoder<'de, 'c>,
        name: &'static str,
        fields: &'static [&'static str],
        entries: &'de [Entry],
    ) -> Self {
        let mut matched: Vec<(Match, &'de Entry)> = entries
            .iter()
            .map(|entry| (match_field(&parent, name, fields, entry), entry))
            .filter(|(found, entry)| !matches!(found, Match::Field(_)) || !entry.value.is_null())
            .collect();
        matched.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        // Of two spellings of one field the last one counts, as in Go.
        let mut seen: Vec<&str> = Vec::new();
        matched.reverse();
        matched.retain(|(found, _)| match found {
            Match::Field(field) if seen.contains(field) => false,
            Match::Field(field) => {
                seen.push(field);
                true
            }
            Match::Unknown | Match::Dropped => true,
        });
        matched.reverse();
        Fields { parent, name, fields, entries: matched.into_iter(), current: None }
    }
}

fn match_field(
    parent: &Decoder<'_, '_>,
    name: &'static str,
    fields: &'static [&'static str],
    entry: &Entry,
) -> Match {
    let key = &*entry.key;
    if matches!(parent.path, Path::Root) && key == "status" {
        // The status belongs to whoever runs the object; Kubernetes drops it from what is submitted.
        return Match::Dropped;
    }
    if parent.context.mode.v1beta1 {
        let found = match v1beta1::field(name, key) {
            Field::Same => None,
            Field::Renamed(field) => Some(Match::Field(field)),
            Field::Dropped => Some(Match::Dropped),
            Field::Unknown => return Match::Unknown,
        };
        if let Some(found) = found {
            let path = Path::Field(parent.path, key).shown();
            parent.context.v1beta1_fields.borrow_mut().push(path);
            return found;
        }
    }
    let exact = fields.iter().find(|field| **field == key);
    let field = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key)));
    field.map_or(Match::Unknown, |field| Match::Field(field))
}

fn unknown_field(parent: &Decoder<'_, '_>, name: &str, fields: &[&str], entry: &Entry) {
    if !parent.context.wants(false) {
        return;
    }
    let mode = parent.context.mode;
    let key = &*entry.key;
    let help = if mode.v1beta1 {
        v1beta1::hint_for_v1_field(name, key)
    } else {
        v1beta1::hint_for_v1beta1_field(name, key)
    };
    let help = help.map(str::to_owned).or_else(|| {
        suggest::nearest(key, fields.iter().copied())
            .map(|field| format!("did you mean `{field}`?"))
    });
    parent.context.found.borrow_mut().push(Found {
        code: "decode/unknown-field",
        message: format!("json: unknown field {}", go::quote(key)),
        path: Path::Field(parent.path, key).shown(),
        span: entry.key_span,
        help,
        aborts: false,
        warning: !mode.strict,
    });
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        for (found, entry) in self.entries.by_ref() {
            match found {
                Match::Field(field) => {
                    self.current = Some((field, entry));
                    return seed.deserialize(StrDeserializer::new(field)).map(Some);
                }
                Match::Unknown => unknown_field(&self.parent, self.name, self.fields, entry),
                Match::Dropped => {}
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((field, entry)) = self.current else {
            return Err(Fault::custom("a value before its key"));
        };
        let is_renamed = !field.eq_ignore_ascii_case(&entry.key);
        let shown = if is_renamed { &*entry.key } else { field };
        seed.deserialize(Decoder {
            node: &entry.value,
            path: &Path::Field(self.parent.path, shown),
            owner: self.name,
            ..self.parent
        })
    }
}
