//! Text to [`Node`] trees: drives the YAML event parser, expands aliases and merge keys, refuses
//! duplicate keys, and keeps every limit, so that a hostile text costs bounded time and memory.
//!
//! One faulty document does not hide the next ones: parsing goes on at the next `---`. Documents
//! that are empty are returned as null, so that indices count as `kubectl` counts.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::node::{Entry, Node, Span, Value};
use super::scalar;

/// Longest text, in bytes. (The largest object a cluster takes is 1.5 MB.)
pub const MAX_BYTES: usize = 16 << 20;
/// Deepest nesting of mappings and sequences.
pub const MAX_DEPTH: usize = 64;
/// Most values of all documents of a text, those that aliases stand for included.
pub const MAX_NODES: usize = 1_000_000;
/// Most values that aliases may stand for.
const MAX_ALIASED_NODES: usize = 100_000;
/// Most bytes of text in what aliases stand for.
const MAX_ALIASED_BYTES: usize = 4 << 20;
/// Most faults reported for one text.
const MAX_FAULTS: usize = 20;

/// A fault of the text as YAML.
#[derive(Debug)]
pub struct Fault {
    pub code: &'static str,
    pub message: String,
    pub span: Span,
    pub help: Option<String>,
    /// An earlier place, e.g. of the first of two equal keys.
    pub first: Option<Span>,
}

/// What became of a text: its documents, and what is wrong with the others, both with the index of
/// the document.
#[derive(Debug, Default)]
pub struct Parsed {
    pub documents: Vec<(usize, Node)>,
    pub faults: Vec<(usize, Fault)>,
}

/// Reads all documents of a text.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    if text.len() > MAX_BYTES {
        let start = Span { line: 1, column: 1, ..Span::default() };
        let message = format!("{} bytes of text; at most {MAX_BYTES} are read", text.len());
        parsed.faults.push((0, limit(message, start)));
        return parsed;
    }
    // A byte order mark is not content. Spans still count from the start of the text.
    let (body, skipped) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, '\u{feff}'.len_utf8()),
        None => (text, 0),
    };
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    options.set_emit_comments(false);
    let mut builder = Builder {
        text: body,
        parser: Parser::new_from_str_with_options(body, options),
        anchors: HashMap::new(),
        stack: Vec::new(),
        done: None,
        nodes: 0,
        aliased_nodes: 0,
        aliased_bytes: 0,
        anchored_bytes: 0,
        skipped: u32::try_from(skipped).unwrap_or(0),
        refused: false,
        index: 0,
    };
    builder.run(&mut parsed);
    parsed
}

/// A collection that is still open.
struct Open {
    value: Value,
    span: Span,
    anchor: usize,
    /// Of a mapping: the key that waits for its value.
    key: Option<(Box<str>, Span, bool)>,
    /// Of a mapping: a hash set of its keys once it is large, so that looking for duplicates stays
    /// linear.
    keys: HashSet<Box<str>>,
    /// Of a mapping: values of `<<`.
    merges: Vec<Node>,
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// By anchor id of this document: the finished value. `None` while it is still open.
    anchors: HashMap<usize, Option<Node>>,
    stack: Vec<Open>,
    done: Option<Node>,
    nodes: usize,
    aliased_nodes: usize,
    aliased_bytes: usize,
    anchored_bytes: usize,
    skipped: u32,
    /// This document has a fault that is no syntax error (a duplicate key): do not return it.
    refused: bool,
    /// Of the document being read.
    index: usize,
}

impl<'a> Builder<'a> {
    fn run(&mut self, parsed: &mut Parsed) {
        loop {
            let event = match self.parser.next_event() {
                None | Some(Ok((Event::StreamEnd, _))) => return,
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    parsed.faults.push((self.index, self.syntax(&error)));
                    if !self.recover(parsed) {
                        return;
                    }
                    self.index += 1;
                    continue;
                }
            };
            let (event, span) = event;
            let span = self.span(&span);
            let outcome = match event {
                Event::DocumentStart(..) => {
                    self.start_document();
                    Ok(())
                }
                Event::DocumentEnd => {
                    let node = self.done.take();
                    if let Some(node) = node.filter(|_| !self.refused) {
                        parsed.documents.push((self.index, node));
                    }
                    self.index += 1;
                    Ok(())
                }
                event => self.node_event(event, span, parsed),
            };
            if let Err(fault) = outcome {
                let fatal = fault.code == "yaml/limit";
                parsed.faults.push((self.index, fault));
                if fatal || !self.recover(parsed) {
                    return;
                }
                self.index += 1;
            }
        }
    }

    /// Leaves the faulty document; false when there is no other, or enough was said.
    fn recover(&mut self, parsed: &mut Parsed) -> bool {
        self.start_document();
        parsed.faults.len() < MAX_FAULTS && self.parser.proceed_next_document().unwrap_or(false)
    }

    fn start_document(&mut self) {
        self.anchors.clear();
        self.stack.clear();
        self.done = None;
        self.refused = false;
    }

    fn node_event(
        &mut self,
        event: Event<'a>,
        span: Span,
        parsed: &mut Parsed,
    ) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { value: self.scalar(&text, style, tag.as_deref(), span)?, span };
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                self.remember(anchor, &node)?;
                self.add(node, merge, parsed)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Value::Seq(Vec::new()), span, anchor),
            Event::MappingStart(_, anchor, _) => self.open(Value::Map(Vec::new()), span, anchor),
            Event::SequenceEnd | Event::MappingEnd => self.close(parsed),
            Event::Alias(id) => {
                let node = self.expand(id, span)?;
                self.add(node, false, parsed)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, value: Value, span: Span, anchor: usize) -> Result<(), Fault> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Open {
            value,
            span,
            anchor,
            key: None,
            keys: HashSet::new(),
            merges: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self, parsed: &mut Parsed) -> Result<(), Fault> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let mut value = open.value;
        if let Value::Map(entries) = &mut value
            && !open.merges.is_empty()
        {
            merge_into(entries, open.merges)?;
        }
        // The end of a block collection is where the next thing starts: its last child is nearer.
        let end = match &value {
            Value::Seq(items) => items.last().map(|item| item.span.end),
            Value::Map(entries) => entries.last().map(|entry| entry.value.span.end),
            _ => None,
        };
        let mut span = match &value {
            Value::Map(entries) if self.byte(open.span) != Some(b'{') => {
                entries.first().map_or(open.span, |first| first.key_span)
            }
            _ => open.span,
        };
        span.end = span.end.max(end.unwrap_or(span.end));
        let node = Node { value, span };
        self.remember(open.anchor, &node)?;
        self.add(node, false, parsed)
    }

    fn byte(&self, span: Span) -> Option<u8> {
        let at = span.start.checked_sub(self.skipped)?;
        self.text.as_bytes().get(at as usize).copied()
    }

    /// Puts a finished value where it belongs: into the open collection, or as the document.
    fn add(&mut self, node: Node, merge: bool, parsed: &mut Parsed) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the text holds more than {MAX_NODES} values");
            return Err(limit(message, node.span));
        }
        let Some(open) = self.stack.last_mut() else {
            self.done = Some(node);
            return Ok(());
        };
        match &mut open.value {
            Value::Seq(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => {
                    let span = node.span;
                    open.key = Some((key_text(node.value, span)?, span, merge));
                }
                Some((_, _, true)) => open.merges.push(node),
                Some((key, key_span, false)) => {
                    if is_duplicate(entries, &mut open.keys, &key) {
                        self.refused = true;
                        if parsed.faults.len() < MAX_FAULTS {
                            let first = entries.iter().find(|entry| entry.key == key);
                            let message = format!("key {key:?} is already set in this mapping");
                            let fault = Fault {
                                first: first.map(|entry| entry.key_span),
                                ..fault("yaml/duplicate-key", message, key_span)
                            };
                            parsed.faults.push((self.index, fault));
                        }
                    }
                    entries.push(Entry { key, key_span, value: node });
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Keeps a copy of an anchored value. Anchors may nest, so copies count as values too.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Fault> {
        if anchor == 0 {
            return Ok(());
        }
        let size = measure(node);
        self.nodes += size.nodes;
        self.anchored_bytes += size.bytes;
        if self.anchored_bytes > MAX_BYTES {
            return Err(limit(
                "the anchored values of the text are too large".to_owned(),
                node.span,
            ));
        }
        self.anchors.insert(anchor, Some(node.clone()));
        Ok(())
    }

    fn expand(&mut self, id: usize, span: Span) -> Result<Node, Fault> {
        let Some(Some(node)) = self.anchors.get(&id) else {
            return Err(fault(
                "yaml/alias",
                "this alias stands inside of what it refers to".to_owned(),
                span,
            ));
        };
        let depth_left = MAX_DEPTH.saturating_sub(self.stack.len());
        let size = measure(node);
        self.aliased_nodes += size.nodes;
        self.aliased_bytes += size.bytes;
        self.nodes += size.nodes;
        if size.depth > depth_left {
            return Err(too_deep(span));
        }
        if self.aliased_nodes > MAX_ALIASED_NODES || self.aliased_bytes > MAX_ALIASED_BYTES {
            let mut fault = limit("aliases make this document too large".to_owned(), span);
            fault.help = Some(format!(
                "all aliases together may stand for at most {MAX_ALIASED_NODES} values and {MAX_ALIASED_BYTES} bytes"
            ));
            return Err(fault);
        }
        // The copy keeps the places of the original: that is where a fault must be mended.
        Ok(node.clone())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Value, Fault> {
        let core = tag.and_then(Tag::core_suffix);
        let value = match (core, style) {
            (None, ScalarStyle::Plain) if tag.is_none() => scalar::resolve(text),
            (None | Some("str"), _) => Ok(Value::String(text.into())),
            (Some(name), _) => scalar::resolve_as(name, text),
        };
        value.map_err(|message| fault("yaml/scalar", message, span))
    }

    fn span(&self, span: &granit_parser::Span) -> Span {
        let offset = |marker: &Marker| {
            let bytes = marker.byte_offset().unwrap_or_default();
            u32::try_from(bytes).unwrap_or(u32::MAX) + self.skipped
        };
        Span {
            start: offset(&span.start),
            end: offset(&span.end),
            line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
        }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let marker = *error.marker();
        let span = self.span(&granit_parser::Span::empty(marker));
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return too_deep(span);
        }
        let before = self.text.get(..(span.start - self.skipped) as usize);
        let before = before.unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let indentation = &line[..line.len() - line.trim_start().len()];
        let help = indentation
            .contains('\t')
            .then(|| "YAML does not allow tabs as indentation; use spaces".to_owned());
        let mut fault = fault("yaml/syntax", error.info(), span);
        fault.help = help;
        fault
    }
}

fn fault(code: &'static str, message: String, span: Span) -> Fault {
    Fault { code, message, span, help: None, first: None }
}

fn limit(message: String, span: Span) -> Fault {
    fault("yaml/limit", message, span)
}

fn too_deep(span: Span) -> Fault {
    limit(format!("the document is nested more than {MAX_DEPTH} levels deep"), span)
}

#[derive(Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// How many values, bytes of text and levels a tree has.
fn measure(node: &Node) -> Size {
    let mut size = Size { nodes: 1, ..Size::default() };
    let mut add = |child: &Node, key_bytes: usize| {
        let child = measure(child);
        size.nodes += child.nodes;
        size.bytes += child.bytes + key_bytes;
        size.depth = size.depth.max(child.depth + 1);
    };
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| add(item, 0)),
        Value::Map(entries) => entries.iter().for_each(|entry| add(&entry.value, entry.key.len())),
        Value::String(text) => size.bytes = text.len(),
        _ => {}
    }
    size
}

/// Whether the mapping has this key already; remembers the key if the mapping is large.
fn is_duplicate(entries: &[Entry], keys: &mut HashSet<Box<str>>, key: &str) -> bool {
    const SMALL: usize = 16;
    if entries.len() < SMALL {
        return entries.iter().any(|entry| &*entry.key == key);
    }
    if keys.is_empty() {
        keys.extend(entries.iter().map(|entry| entry.key.clone()));
    }
    !keys.insert(key.into())
}

/// The JSON key that Kubernetes makes of a YAML key.
fn key_text(key: Value, span: Span) -> Result<Box<str>, Fault> {
    match key {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Int(value) => Ok(value.to_string().into()),
        Value::Uint(value) => Ok(value.to_string().into()),
        Value::Float(value) => Ok(scalar::go_float(value).into()),
        Value::Null | Value::Seq(_) | Value::Map(_) => {
            Err(fault("yaml/key", "a key must be text".to_owned(), span))
        }
    }
}

/// YAML 1.1's merge key: adds the entries of the mappings, or lists of mappings, whose keys are not
/// there already.
fn merge_into(entries: &mut Vec<Entry>, merges: Vec<Node>) -> Result<(), Fault> {
    let mut present: HashSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mappings = merges.into_iter().flat_map(|merge| match merge.value {
        Value::Seq(items) => items,
        _ => vec![merge],
    });
    for mapping in mappings {
        let Value::Map(merged) = mapping.value else {
            let message = "map merge requires map or sequence of maps as the value";
            return Err(fault("yaml/merge", message.to_owned(), mapping.span));
        };
        for entry in merged {
            if present.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}
