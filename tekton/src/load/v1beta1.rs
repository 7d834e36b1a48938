//! `tekton.dev/v1beta1` as it differs from `v1`: which fields it names otherwise, which it has that
//! v1 dropped, and the moves that are more than a rename.
//!
//! Nothing behind the loader knows v1beta1. What was renamed or dropped is listed in
//! [`super::Document::v1beta1_fields`], for the rules that only v1beta1 has.

use std::borrow::Cow;

use super::node::{Entry, Node, Value};

/// What a key of a v1beta1 struct is in v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Nothing special: look at v1's fields.
    Same,
    /// This field of v1.
    Renamed(&'static str),
    /// Known to v1beta1; v1 has nothing like it.
    Dropped,
    /// A field of v1 that v1beta1 does not know.
    Unknown,
}

/// struct, v1beta1's field, v1's field (empty: dropped)
const FIELDS: [(&str, &str, &str); 42] = [
    ("Step", "resources", "computeResources"),
    ("Step", "ports", ""),
    ("Step", "livenessProbe", ""),
    ("Step", "readinessProbe", ""),
    ("Step", "startupProbe", ""),
    ("Step", "lifecycle", ""),
    ("Step", "terminationMessagePath", ""),
    ("Step", "terminationMessagePolicy", ""),
    ("Step", "stdin", ""),
    ("Step", "stdinOnce", ""),
    ("Step", "tty", ""),
    ("StepTemplate", "resources", "computeResources"),
    ("StepTemplate", "name", ""),
    ("StepTemplate", "ports", ""),
    ("StepTemplate", "livenessProbe", ""),
    ("StepTemplate", "readinessProbe", ""),
    ("StepTemplate", "startupProbe", ""),
    ("StepTemplate", "lifecycle", ""),
    ("StepTemplate", "terminationMessagePath", ""),
    ("StepTemplate", "terminationMessagePolicy", ""),
    ("StepTemplate", "stdin", ""),
    ("StepTemplate", "stdinOnce", ""),
    ("StepTemplate", "tty", ""),
    ("Sidecar", "resources", "computeResources"),
    ("TaskRunStepSpec", "resources", "computeResources"),
    ("TaskSpec", "resources", ""),
    ("EmbeddedTaskKeys", "resources", ""),
    ("PipelineSpec", "resources", ""),
    ("PipelineTask", "resources", ""),
    ("TaskRef", "bundle", ""),
    ("PipelineRef", "bundle", ""),
    ("TaskRunSpec", "resources", ""),
    ("TaskRunSpec", "stepOverrides", "stepSpecs"),
    ("TaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
    ("PipelineRunSpec", "resources", ""),
    ("PipelineRunSpec", "timeout", "timeouts"),
    ("PipelineRunSpec", "serviceAccountName", "taskRunTemplate"),
    ("PipelineRunSpec", "podTemplate", "taskRunTemplate"),
    ("PipelineTaskRunSpec", "taskServiceAccountName", "serviceAccountName"),
    ("PipelineTaskRunSpec", "taskPodTemplate", "podTemplate"),
    ("PipelineTaskRunSpec", "stepOverrides", "stepSpecs"),
    ("PipelineTaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
];

/// What `key` of the v1beta1 form of `owner` is in v1.
pub fn field(owner: &str, key: &str) -> Field {
    for (name, old, new) in FIELDS {
        if name != owner {
            continue;
        }
        if old.eq_ignore_ascii_case(key) {
            return match (owner, new) {
                (_, "") => Field::Dropped,
                // Moved by `rearrange` before.
                ("PipelineRunSpec", _) => Field::Same,
                (_, new) => Field::Renamed(new),
            };
        }
        let has_both = matches!(new, "timeouts" | "taskRunTemplate");
        if !has_both && new.eq_ignore_ascii_case(key) {
            return Field::Unknown;
        }
    }
    Field::Same
}

/// What to write in a v1 document instead of a field of v1beta1.
pub fn hint_for_v1beta1_field(owner: &str, key: &str) -> Option<&'static str> {
    Some(match (owner, key) {
        ("Step" | "StepTemplate" | "Sidecar" | "TaskRunStepSpec", "resources") => {
            "in tekton.dev/v1 this is `computeResources`"
        }
        ("TaskRunSpec" | "PipelineTaskRunSpec", "stepOverrides") => {
            "in tekton.dev/v1 this is `stepSpecs`"
        }
        ("TaskRunSpec" | "PipelineTaskRunSpec", "sidecarOverrides") => {
            "in tekton.dev/v1 this is `sidecarSpecs`"
        }
        ("PipelineTaskRunSpec", "taskServiceAccountName") => {
            "in tekton.dev/v1 this is `serviceAccountName`"
        }
        ("PipelineTaskRunSpec", "taskPodTemplate") => "in tekton.dev/v1 this is `podTemplate`",
        ("PipelineRunSpec", "timeout") => "in tekton.dev/v1 this is `timeouts.pipeline`",
        ("PipelineRunSpec", "serviceAccountName") => {
            "in tekton.dev/v1 this is `taskRunTemplate.serviceAccountName`"
        }
        ("PipelineRunSpec", "podTemplate") => {
            "in tekton.dev/v1 this is `taskRunTemplate.podTemplate`"
        }
        ("TaskRef" | "PipelineRef", "bundle") => {
            "in tekton.dev/v1 this is `resolver: bundles` with `params`"
        }
        ("PipelineTask", "conditions") => "Conditions were replaced by `when`",
        (
            "TaskSpec" | "EmbeddedTaskKeys" | "PipelineSpec" | "PipelineTask" | "TaskRunSpec"
            | "PipelineRunSpec",
            "resources",
        ) => "PipelineResources were removed from Tekton; use params, results and workspaces",
        _ => return None,
    })
}

/// What to write in a v1beta1 document instead of a field of v1.
pub fn hint_for_v1_field(owner: &str, key: &str) -> Option<&'static str> {
    Some(match (owner, key) {
        (_, "computeResources") => "in tekton.dev/v1beta1 this is `resources`",
        (_, "stepSpecs") => "in tekton.dev/v1beta1 this is `stepOverrides`",
        (_, "sidecarSpecs") => "in tekton.dev/v1beta1 this is `sidecarOverrides`",
        ("PipelineRunSpec", "taskRunTemplate") => {
            "in tekton.dev/v1beta1 these are `serviceAccountName` and `podTemplate`"
        }
        _ => return None,
    })
}

/// A PipelineRun's tree with the fields moved that v1 has elsewhere, and the paths of what was moved: `timeout`, `serviceAccountName` and `podTemplate`.
pub fn rearrange(root: &Node) -> (Cow<'_, Node>, Vec<String>) {
    const MOVED: [(&str, &str, &str); 3] = [
        ("timeout", "timeouts", "pipeline"),
        ("serviceAccountName", "taskRunTemplate", "serviceAccountName"),
        ("podTemplate", "taskRunTemplate", "podTemplate"),
    ];
    let spec = root.entry("spec").and_then(|entry| entry.value.as_map());
    let has_any = spec.is_some_and(|entries| {
        let moved = |entry: &Entry| MOVED.iter().any(|(old, ..)| is_key(entry, old));
        entries.iter().any(moved)
    });
    if !has_any {
        return (Cow::Borrowed(root), Vec::new());
    }
    let mut root = root.clone();
    let mut paths = Vec::new();
    let spec = match &mut root.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| is_key(entry, "spec")),
        _ => None,
    };
    if let Some(Entry { value: Node { value: Value::Map(entries), .. }, .. }) = spec {
        for (old, parent, new) in MOVED {
            let Some(at) = entries.iter().position(|entry| is_key(entry, old)) else {
                continue;
            };
            let moved = entries.remove(at);
            paths.push(format!("spec.{}", moved.key));
            if moved.value.is_null() {
                continue;
            }
            let child = Entry { key: new.into(), ..moved.clone() };
            match entries.iter_mut().find(|entry| is_key(entry, parent)) {
                Some(Entry { value, .. }) if parent == "taskRunTemplate" => {
                    if let Value::Map(children) = &mut value.value {
                        children.push(child);
                    }
                }
                // `timeout` beside `timeouts`: validation refuses the two together; the conversion
                // lets `timeout` win.
                Some(Entry { value, .. }) => value.value = Value::Map(vec![child]),
                None => entries.push(Entry {
                    key: parent.into(),
                    key_span: moved.key_span,
                    value: Node { value: Value::Map(vec![child]), span: moved.value.span },
                }),
            }
        }
    }
    (Cow::Owned(root), paths)
}

fn is_key(entry: &Entry, key: &str) -> bool {
    entry.key.eq_ignore_ascii_case(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_renamed_dropped_or_unknown() {
        assert_eq!(field("Step", "resources"), Field::Renamed("computeResources"));
        assert_eq!(field("Step", "computeResources"), Field::Unknown);
        assert_eq!(field("Step", "TTY"), Field::Dropped);
        assert_eq!(field("Step", "image"), Field::Same);
        assert_eq!(field("TaskRunSpec", "computeResources"), Field::Same);
        assert_eq!(field("PipelineRunSpec", "timeouts"), Field::Same);
    }
}
