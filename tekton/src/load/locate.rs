//! From a field path, as Tekton's messages name fields, to the place in the document.
//!
//! Messages name fields loosely: in any case, without a part of the way, by name instead of index,
//! with v1's names for a v1beta1 document. What cannot be found is shown at the nearest part that
//! can.

use super::node::{Entry, Node, Span, Value};

/// Names that v1 and v1beta1 have for the same thing: (v1, v1beta1).
const OTHER_NAMES: [(&str, &str); 7] = [
    ("computeResources", "resources"),
    ("stepSpecs", "stepOverrides"),
    ("sidecarSpecs", "sidecarOverrides"),
    ("serviceAccountName", "taskServiceAccountName"),
    ("podTemplate", "taskPodTemplate"),
    ("pipeline", "timeout"),
    ("timeouts", "timeout"),
];

/// See [`super::Document::locate`].
pub(super) fn locate(root: &Node, field_path: &str) -> Span {
    let mut place = Place { node: root, key: None };
    for step in steps(field_path) {
        match step {
            Step::Name(name) => match find(place.node, name) {
                Some(entry) => place = Place::of(entry),
                // v1's `taskRunTemplate.x` is v1beta1's `x`.
                None if name == "taskRunTemplate" => {}
                None => break,
            },
            Step::Bracket(inside) => match item(place.node, inside) {
                Some(next) => place = next,
                None => break,
            },
        }
    }
    place.span()
}

/// A value, and the entry that holds it, if a mapping does.
#[derive(Clone, Copy)]
struct Place<'n> {
    node: &'n Node,
    key: Option<Span>,
}

impl<'n> Place<'n> {
    fn of(entry: &'n Entry) -> Self {
        Place { node: &entry.value, key: Some(entry.key_span) }
    }

    /// Scalars are shown themselves, collections by their key.
    fn span(self) -> Span {
        match (&self.node.value, self.key) {
            (Value::Map(_) | Value::Seq(_) | Value::Null, Some(key)) => key,
            _ => self.node.span,
        }
    }
}

enum Step<'p> {
    Name(&'p str),
    Bracket(&'p str),
}

/// `spec.tasks[0].params[url]` as steps. A bracket may hold dots.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let mut rest = path.trim();
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('.');
        if let Some(inside) = rest.strip_prefix('[') {
            let (inside, after) = inside.split_once(']').unwrap_or((inside, ""));
            rest = after;
            return Some(Step::Bracket(inside));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        (!name.is_empty()).then_some(Step::Name(name))
    })
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Entry> {
    node.entry(name).or_else(|| {
        let mut others = OTHER_NAMES.iter().filter(|(new, _)| *new == name);
        others.find_map(|(_, old)| node.entry(old))
    })
}

/// The item of this index, the entry of this key, or the item whose `name` is this.
fn item<'n>(node: &'n Node, inside: &str) -> Option<Place<'n>> {
    match &node.value {
        Value::Seq(items) => {
            let index: Option<usize> = inside.parse().ok();
            let by_index = index.and_then(|index| items.get(index));
            let by_name = || items.iter().find(|item| is_named(item, inside));
            let node = by_index.or_else(by_name)?;
            Some(Place { node, key: None })
        }
        Value::Map(_) => node.entry(inside).map(Place::of),
        _ => None,
    }
}

fn is_named(item: &Node, name: &str) -> bool {
    ["name", "pipelineTaskName"]
        .iter()
        .any(|key| item.get(key).and_then(Node::as_str) == Some(name))
        || item.as_str() == Some(name)
}
