//! The tree that a YAML document becomes: values with the place each was written at.
//!
//! Aliases are already expanded, so a `Node` is a plain tree; its size and depth are bounded by the
//! parser ([`super::yaml`]). Scalars are resolved by YAML 1.1's rules, as Kubernetes reads them.
//! Nothing here knows about Tekton.

/// A place in a source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: u32,
    /// Byte offset past the last byte.
    pub end: u32,
    /// Line of `start`, from 1; 0 when the place is unknown.
    pub line: u32,
    /// Column of `start` in characters, from 1.
    pub column: u32,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where. For a block collection: where its first entry begins.
    pub span: Span,
}

/// A YAML value after resolution of tags, styles and aliases.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true`, `yes`, `on`, … unquoted.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A number with a fraction or exponent, or one too large for an integer.
    Float(f64),
    /// Text.
    String(Box<str>),
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key; YAML keys that are numbers or booleans become their JSON text.
    pub key: Box<str>,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value of exactly this key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of this key as Go's JSON decoder would match it: exact case first, else any case.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let exact = entries.iter().find(|entry| &*entry.key == key);
        exact.or_else(|| entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)))
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if this is a sequence.
    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is a mapping.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Whether this is null, which Go's JSON decoder treats as absent.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}
