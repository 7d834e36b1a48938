//! Variable substitution: `$(key)` replaced in one pass over a text.
//!
//! Replaced text is not looked at again within a pass, unknown keys stay as they are, and nothing is
//! copied where nothing changes. Which fields are substituted is said by the modules below; which
//! variables exist is said by the callers, one [`Replacements`] a phase.

mod fields;
mod pipeline;
mod pod_template;
mod workspace;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

pub use fields::{apply_to_sidecar, apply_to_step, apply_to_task_spec};
pub use pipeline::{apply_to_pipeline_spec, apply_to_pipeline_task};
pub use pod_template::apply_to_pod_template;
pub use workspace::apply_to_binding;

use crate::resultref::{exact_expression, find_open};
use crate::v1::{Param, ParamValue, WhenExpression};

/// The variables of one phase: keys without `$(` and `)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements {
    strings: HashMap<String, String>,
    arrays: HashMap<String, Vec<String>>,
    objects: HashMap<String, BTreeMap<String, String>>,
    /// Length of the longest key of `strings`: bounds how far a closing `)` is looked for.
    longest: usize,
}

/// Which of the variables a field takes; Tekton differs by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kinds {
    /// Strings alone.
    Strings,
    /// Strings, and arrays that fill whole elements.
    StringsAndArrays,
    /// Objects too.
    All,
}

impl Replacements {
    /// No variable.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a string variable.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        self.longest = self.longest.max(key.len());
        self.strings.insert(key, value.into());
    }

    /// Sets an array variable.
    pub fn set_array(&mut self, key: impl Into<String>, items: Vec<String>) {
        self.arrays.insert(key.into(), items);
    }

    /// Sets an object variable.
    pub fn set_object(&mut self, key: impl Into<String>, entries: BTreeMap<String, String>) {
        self.objects.insert(key.into(), entries);
    }

    /// A string variable's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.strings.get(key).map(String::as_str)
    }

    /// An array variable's value.
    pub fn get_array(&self, key: &str) -> Option<&[String]> {
        self.arrays.get(key).map(Vec::as_slice)
    }

    /// An object variable's value.
    pub fn get_object(&self, key: &str) -> Option<&BTreeMap<String, String>> {
        self.objects.get(key)
    }

    /// The keys of the string variables, in no particular order.
    pub fn string_keys(&self) -> impl Iterator<Item = &str> {
        self.strings.keys().map(String::as_str)
    }

    /// The keys of the array variables, in no particular order.
    pub fn array_keys(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// Whether there is no variable at all.
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty() && self.arrays.is_empty() && self.objects.is_empty()
    }

    /// Takes over all variables of another, which win; objects are merged key by key.
    pub fn extend(&mut self, other: Replacements) {
        self.longest = self.longest.max(other.longest);
        self.strings.extend(other.strings);
        self.arrays.extend(other.arrays);
        for (key, entries) in other.objects {
            self.objects.entry(key).or_default().extend(entries);
        }
    }

    /// The text with every known `$(key)` replaced.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.strings.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut replaced: Option<String> = None;
        // `text[..copied]` is already in `replaced`; `at` is where to look next.
        let (mut copied, mut at) = (0, 0);
        while let Some(offset) = find_open(&text[at..]) {
            let start = at + offset;
            let inner = &text[start + 2..];
            at = start + 2;
            let window = &inner.as_bytes()[..inner.len().min(self.longest + 1)];
            let Some(length) = window.iter().position(|byte| *byte == b')') else {
                continue;
            };
            if let Some(value) = self.strings.get(&inner[..length]) {
                let output = replaced.get_or_insert_with(|| String::with_capacity(text.len()));
                output.push_str(&text[copied..start]);
                output.push_str(value);
                at = start + 2 + length + 1;
                copied = at;
            }
        }
        match replaced {
            None => Cow::Borrowed(text),
            Some(mut output) => {
                output.push_str(&text[copied..]);
                Cow::Owned(output)
            }
        }
    }

    /// [`Self::apply`] in place.
    pub fn apply_to(&self, text: &mut String) {
        if let Cow::Owned(replaced) = self.apply(text) {
            *text = replaced;
        }
    }

    /// The array that an element is wholly a reference to: `$(key)` or `$(key[*])`.
    fn whole_array(&self, element: &str) -> Option<&[String]> {
        if self.arrays.is_empty() {
            return None;
        }
        let key = element.strip_prefix("$(")?.strip_suffix(')')?;
        let key_without_star = key.strip_suffix("[*]").unwrap_or(key);
        self.arrays.get(key).or_else(|| self.arrays.get(key_without_star)).map(Vec::as_slice)
    }

    /// Replaces in each element; an element that is wholly an array becomes its elements.
    pub fn apply_to_list(&self, list: &mut Vec<String>) {
        if list.iter().any(|item| self.whole_array(item).is_some()) {
            *list = list
                .drain(..)
                .flat_map(|mut item| match self.whole_array(&item) {
                    Some(items) => items.to_vec(),
                    None => {
                        self.apply_to(&mut item);
                        vec![item]
                    }
                })
                .collect();
        } else {
            list.iter_mut().for_each(|item| self.apply_to(item));
        }
    }

    /// Replaces in a value. A string that is exactly one reference to an array or object becomes one.
    pub fn apply_to_value(&self, value: &mut ParamValue, kinds: Kinds) {
        match value {
            ParamValue::Array(items) if kinds >= Kinds::StringsAndArrays => {
                self.apply_to_list(items);
            }
            ParamValue::Array(items) => items.iter_mut().for_each(|item| self.apply_to(item)),
            ParamValue::Object(entries) => {
                entries.values_mut().for_each(|item| self.apply_to(item));
            }
            ParamValue::String(text) => {
                let Some(expression) = exact_expression(text) else {
                    self.apply_to(text);
                    return;
                };
                let key = expression.strip_suffix("[*]").unwrap_or(expression);
                if kinds == Kinds::All
                    && let Some(entries) = self.objects.get(key)
                {
                    *value = ParamValue::Object(entries.clone());
                } else if kinds >= Kinds::StringsAndArrays
                    && let Some(items) = self.arrays.get(key)
                {
                    *value = ParamValue::Array(items.clone());
                } else {
                    self.apply_to(text);
                }
            }
        }
    }

    /// Replaces in the values of params.
    pub fn apply_to_params(&self, params: &mut [Param], kinds: Kinds) {
        for param in params {
            self.apply_to_value(&mut param.value, kinds);
        }
    }

    /// Whether Tekton takes a `when` text for a reference to an array it knows.
    fn names_array(&self, text: &str) -> bool {
        if self.arrays.is_empty() {
            return false;
        }
        // Tekton strips these ends independently, so a bare `x` counts where a param x is an array.
        let name = text.strip_prefix("$(params.").unwrap_or(text);
        let name = name.strip_suffix("[*])").unwrap_or(name);
        let key = text.strip_prefix("$(").unwrap_or(text);
        let key = key.strip_suffix(')').unwrap_or(key);
        let key = key.strip_suffix("[*]").unwrap_or(key);
        self.arrays.contains_key(key) || self.arrays.contains_key(&format!("params.{name}"))
    }

    /// Replaces in `when` expressions: an array as `input` becomes its JSON text, as a value its elements.
    pub fn apply_to_when(&self, expressions: &mut [WhenExpression], kinds: Kinds) {
        let arrays = kinds >= Kinds::StringsAndArrays;
        for when in expressions {
            if arrays && self.names_array(&when.input) {
                let mut items = vec![std::mem::take(&mut when.input)];
                self.apply_to_list(&mut items);
                when.input = go_json_array(&items);
            } else {
                self.apply_to(&mut when.input);
            }
            self.apply_to(&mut when.cel);
            if arrays && when.values.iter().any(|value| self.names_array(value)) {
                self.apply_to_list(&mut when.values);
            } else {
                when.values.iter_mut().for_each(|value| self.apply_to(value));
            }
        }
    }
}

/// A JSON array as Go writes it: no spaces, and `<`, `>`, `&` escaped.
fn go_json_array(items: &[String]) -> String {
    let json = serde_json::Value::from(items.to_vec()).to_string();
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests;
