//! From `apiVersion` and `kind` to the type to decode.

use super::decode::{self, Decoded, Found, Mode};
use super::go::quote;
use super::node::{Node, Span, Value};
use super::suggest;
use super::v1beta1;
use crate::object::{KINDS, Object};
use crate::v1;

/// A decoded document.
pub struct DecodedObject {
    pub object: Object,
    pub api_version: String,
    pub found: Vec<Found>,
    pub v1beta1_fields: Vec<String>,
}

const TEKTON: &[&str] = &["tekton.dev/v1", "tekton.dev/v1beta1"];
const STEP_ACTION: &[&str] = &["tekton.dev/v1beta1", "tekton.dev/v1alpha1"];
const CUSTOM_RUN: &[&str] = &["tekton.dev/v1beta1"];
const CORE: &[&str] = &["v1"];

/// The versions in which a kind is accepted.
fn versions(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "Task" | "Pipeline" | "TaskRun" | "PipelineRun" => TEKTON,
        "StepAction" => STEP_ACTION,
        "CustomRun" => CUSTOM_RUN,
        "ConfigMap" | "Secret" | "PersistentVolumeClaim" | "ServiceAccount" | "LimitRange" => CORE,
        _ => return None,
    })
}

/// The items of a `kind: List`, as `kubectl get -o yaml` prints several objects; else the document
/// itself.
pub fn list_items(mut root: Node) -> Vec<Node> {
    let is_list = text(&root, "kind") == Some("List") && text(&root, "apiVersion") == Some("v1");
    if let Value::Map(entries) = &mut root.value
        && is_list
        && let Some(items) = entries.iter_mut().find(|entry| &*entry.key == "items")
        && let Value::Seq(items) = &mut items.value.value
    {
        return std::mem::take(items);
    }
    vec![root]
}

fn text<'n>(root: &'n Node, key: &str) -> Option<&'n str> {
    root.get(key).and_then(Node::as_str)
}

/// Decodes a document by its kind; `Err` when it cannot be told what it is.
pub fn decode(root: &Node) -> Result<DecodedObject, Found> {
    if root.as_map().is_none() {
        let message = "a document must be a mapping with `apiVersion`, `kind` and `metadata`";
        return Err(refuse("decode/document", message.to_owned(), "", root.span));
    }
    let kind = required(root, "kind")?;
    let api_version = required(root, "apiVersion")?;
    let versions = check_kind(root, kind, api_version)?;
    let mode = Mode {
        strict: versions != CORE,
        v1beta1: api_version == "tekton.dev/v1beta1" && versions == TEKTON,
    };
    let mut decoded = decode_kind(root, kind, mode);
    decoded.api_version = api_version.to_owned();
    Ok(decoded)
}

fn required<'n>(root: &'n Node, key: &'static str) -> Result<&'n str, Found> {
    let entry = root.entry(key);
    match entry.map(|entry| (&entry.value.value, entry.value.span)) {
        Some((Value::String(text), _)) if !text.is_empty() => Ok(text),
        Some((Value::String(_) | Value::Null, span)) => {
            Err(refuse("decode/kind", format!("`{key}` is empty"), key, span))
        }
        Some((_, span)) => {
            Err(refuse("decode/kind", format!("`{key}` must be a string"), key, span))
        }
        None => {
            let message = format!("the document has no `{key}`");
            let mut found = refuse("decode/kind", message, key, root.span);
            let keys = root.as_map().unwrap_or_default().iter().take(50);
            found.help = suggest::nearest(key, keys.map(|entry| &*entry.key))
                .map(|near| format!("did you mean `{key}` instead of `{near}`?"));
            Err(found)
        }
    }
}

fn check_kind(
    root: &Node,
    kind: &str,
    api_version: &str,
) -> Result<&'static [&'static str], Found> {
    let no_match =
        || format!("no matches for kind {} in version {}", quote(kind), quote(api_version));
    let span = |key| root.get(key).map_or(root.span, |node| node.span);
    let Some(versions) = versions(kind) else {
        let mut found = refuse("decode/kind", no_match(), "kind", span("kind"));
        let accepted = format!("accepted kinds: {}", KINDS.join(", "));
        found.help = Some(match suggest::nearest(kind, KINDS.into_iter()) {
            Some(near) => format!("did you mean `{near}`? {accepted}"),
            None => accepted,
        });
        return Err(found);
    };
    if !versions.contains(&api_version) {
        let mut found = refuse("decode/api-version", no_match(), "apiVersion", span("apiVersion"));
        let are = if versions.len() == 1 { "is" } else { "are" };
        found.help = Some(format!("the apiVersions of a {kind} {are} {}", versions.join(" and ")));
        return Err(found);
    }
    Ok(versions)
}

fn decode_kind(root: &Node, kind: &str, mode: Mode) -> DecodedObject {
    match kind {
        "Task" => tekton(root, mode, |task: v1::Task| {
            Object::Task(Box::new(v1::Task { api_version: "tekton.dev/v1".to_owned(), ..task }))
        }),
        "Pipeline" => tekton(root, mode, |pipeline: v1::Pipeline| {
            Object::Pipeline(Box::new(v1::Pipeline {
                api_version: "tekton.dev/v1".to_owned(),
                ..pipeline
            }))
        }),
        "TaskRun" => tekton(root, mode, |run: v1::TaskRun| {
            Object::TaskRun(Box::new(v1::TaskRun {
                api_version: "tekton.dev/v1".to_owned(),
                ..run
            }))
        }),
        "PipelineRun" => pipeline_run(root, mode),
        "StepAction" => plain(root, mode, Object::StepAction),
        "CustomRun" => plain(root, mode, Object::CustomRun),
        "ConfigMap" => plain(root, mode, Object::ConfigMap),
        "Secret" => plain(root, mode, Object::Secret),
        "PersistentVolumeClaim" => plain(root, mode, Object::PersistentVolumeClaim),
        "ServiceAccount" => plain(root, mode, Object::ServiceAccount),
        _ => plain(root, mode, Object::LimitRange),
    }
}

fn tekton<'de, T: serde::Deserialize<'de> + Default>(
    root: &'de Node,
    mode: Mode,
    wrap: impl FnOnce(T) -> Object,
) -> DecodedObject {
    let Decoded { value, found, v1beta1_fields } = decode::decode(root, mode);
    DecodedObject { object: wrap(value), api_version: String::new(), found, v1beta1_fields }
}

fn plain<'de, T: serde::Deserialize<'de> + Default>(
    root: &'de Node,
    mode: Mode,
    wrap: impl FnOnce(Box<T>) -> Object,
) -> DecodedObject {
    tekton(root, mode, |value: T| wrap(Box::new(value)))
}

fn pipeline_run(root: &Node, mode: Mode) -> DecodedObject {
    let wrap = |run: v1::PipelineRun| {
        Object::PipelineRun(Box::new(v1::PipelineRun {
            api_version: "tekton.dev/v1".to_owned(),
            ..run
        }))
    };
    if !mode.v1beta1 {
        return tekton(root, mode, wrap);
    }
    let (moved, paths) = v1beta1::rearrange(root);
    let mut decoded = tekton(&moved, mode, wrap);
    decoded.v1beta1_fields.extend(paths);
    decoded.v1beta1_fields.sort();
    let spec = root.get("spec");
    if let Some(entry) = spec.and_then(|spec| spec.entry("taskRunTemplate")) {
        let message = format!("json: unknown field {}", quote(&entry.key));
        let path = format!("spec.{}", entry.key);
        let mut found = refuse("decode/unknown-field", message, &path, entry.key_span);
        found.aborts = false;
        found.help =
            v1beta1::hint_for_v1_field("PipelineRunSpec", "taskRunTemplate").map(str::to_owned);
        decoded.found.push(found);
    }
    decoded
}

fn refuse(code: &'static str, message: String, path: &str, span: Span) -> Found {
    Found { code, message, path: path.to_owned(), span, help: None, aborts: true, warning: false }
}
