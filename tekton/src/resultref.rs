//! References to results: `$(tasks.T.results.R…)`, and which fields of a PipelineTask may hold them.
//!
//! A reference found here makes an edge of the graph. Fields that Tekton does not look at
//! (`taskRef.params`, `displayName`, `workspaces[].subPath`) make none, though they are substituted.

use crate::k8s::EnvVar;
use crate::v1::{Param, ParamValue, PipelineTask, Sidecar, Step, WhenExpression};

/// One reference to a result of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultRef {
    /// The PipelineTask that makes the result.
    pub pipeline_task: String,
    /// The result's name.
    pub result: String,
    /// `[i]` of an array result.
    pub index: Option<usize>,
    /// `.key` of an object result.
    pub property: Option<String>,
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Length of the reference that starts right after a `$(`, its `)` not counted; `None` if none does.
fn expression_length(bytes: &[u8]) -> Option<usize> {
    let name = bytes.iter().take_while(|byte| is_name_byte(**byte)).count();
    if name == 0 {
        return None;
    }
    let mut end = name;
    if bytes.get(end) == Some(&b'[') {
        let inside = &bytes[end + 1..];
        let length = if inside.first() == Some(&b'*') {
            1
        } else {
            inside.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        if length == 0 || inside.get(length) != Some(&b']') {
            return None;
        }
        end += length + 2;
    }
    (bytes.get(end) == Some(&b')')).then_some(end)
}

/// Where the next `$(` begins. Most texts have none, and are left after one fast scan for `$`.
pub(crate) fn find_open(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('$')?;
        if text.as_bytes().get(at + 1) == Some(&b'(') {
            return Some(at);
        }
        from = at + 1;
    }
}

/// All variable references in a text, without their `$(` and `)`: `params.x`, `tasks.a.results.b[0]`.
pub fn expressions(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = find_open(rest)? + 2;
            let after = &rest[start..];
            match expression_length(after.as_bytes()) {
                Some(length) => {
                    rest = &after[length + 1..];
                    return Some(&after[..length]);
                }
                None => rest = after,
            }
        }
    })
}

/// The reference inside a text that is nothing but one `$(reference)`.
pub fn exact_expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("$(")?;
    let length = expression_length(inner.as_bytes())?;
    (length + 1 == inner.len()).then(|| &inner[..length])
}

/// Whether an expression begins like a result reference, whatever follows.
pub fn looks_like_result_ref(expression: &str) -> bool {
    let parts: Vec<&str> = expression.split('.').collect();
    parts.len() >= 4 && matches!(parts[0], "tasks" | "finally") && parts[2] == "results"
}

/// Splits `name[1]` into `name` and `1`; the index is empty when there is none.
pub fn parse_result_name(name: &str) -> (&str, &str) {
    match name.strip_suffix(']').and_then(|inner| inner.split_once('[')) {
        Some((base, index)) => (base, index),
        None => (name, ""),
    }
}

/// Reads a stripped expression as a reference to a task's result; `None` when it is anything else.
pub fn parse(expression: &str) -> Option<ResultRef> {
    let rest = expression.strip_prefix("tasks.").or_else(|| expression.strip_prefix("finally."))?;
    parse_after_owner_kind(rest)
}

/// Reads `steps.S.results.R…`; the `pipeline_task` of the answer is the step's name.
pub fn parse_step(expression: &str) -> Option<ResultRef> {
    parse_after_owner_kind(expression.strip_prefix("steps.")?)
}

/// Reads `OWNER.results.NAME`, `OWNER.results.NAME[i]` or `OWNER.results.NAME.KEY`.
fn parse_after_owner_kind(rest: &str) -> Option<ResultRef> {
    let mut parts = rest.split('.');
    let owner = parts.next()?;
    if parts.next()? != "results" {
        return None;
    }
    let name = parts.next()?;
    let key = parts.next();
    if parts.next().is_some() {
        return None;
    }
    // With a key, brackets are not looked at, as in Tekton.
    let (result, index) = if key.is_some() { (name, "") } else { parse_result_name(name) };
    Some(ResultRef {
        pipeline_task: owner.to_owned(),
        result: result.to_owned(),
        // Go's Atoi gives 0 for a number that is too large, without an error here.
        index: (!index.is_empty() && index != "*").then(|| index.parse().unwrap_or(0)),
        property: key.map(str::to_owned),
    })
}

/// Calls `visit` with every text of a value in which Tekton looks for references.
pub fn visit_value<'a>(value: &'a ParamValue, visit: &mut impl FnMut(&'a str)) {
    match value {
        ParamValue::String(text) => visit(text),
        ParamValue::Array(items) => items.iter().for_each(|item| visit(item)),
        ParamValue::Object(entries) => entries.values().for_each(|item| visit(item)),
    }
}

/// Calls `visit` with `input`, `cel` and every value of a `when` expression.
pub fn visit_when<'a>(when: &'a WhenExpression, visit: &mut impl FnMut(&'a str)) {
    visit(&when.input);
    visit(&when.cel);
    when.values.iter().for_each(|value| visit(value));
}

fn visit_env<'a>(env: &'a [EnvVar], visit: &mut impl FnMut(&'a str)) {
    for variable in env {
        visit(&variable.value);
        if let Some(source) = &variable.value_from {
            for selector in
                [&source.secret_key_ref, &source.config_map_key_ref].into_iter().flatten()
            {
                visit(&selector.key);
                visit(&selector.name);
            }
        }
    }
}

fn visit_step<'a>(step: &'a Step, visit: &mut impl FnMut(&'a str)) {
    visit(&step.name);
    visit(&step.image);
    visit(&step.image_pull_policy);
    visit(&step.script);
    visit(&step.working_dir);
    step.command.iter().for_each(|text| visit(text));
    step.args.iter().for_each(|text| visit(text));
    visit_env(&step.env, visit);
}

fn visit_sidecar<'a>(sidecar: &'a Sidecar, visit: &mut impl FnMut(&'a str)) {
    visit(&sidecar.name);
    visit(&sidecar.image);
    visit(&sidecar.image_pull_policy);
    visit(&sidecar.script);
    visit(&sidecar.working_dir);
    sidecar.command.iter().for_each(|text| visit(text));
    sidecar.args.iter().for_each(|text| visit(text));
    visit_env(&sidecar.env, visit);
}

/// Every param of a PipelineTask: its own, then the matrix', then those of `include`.
pub fn all_params(task: &PipelineTask) -> impl Iterator<Item = &Param> {
    let matrix = task.matrix.iter().flat_map(|matrix| {
        matrix.params.iter().chain(matrix.include.iter().flat_map(|include| include.params.iter()))
    });
    task.params.iter().chain(matrix)
}

/// Calls `visit` with every text of a PipelineTask in which a result reference makes an edge.
pub fn visit_task<'a>(task: &'a PipelineTask, visit: &mut impl FnMut(&'a str)) {
    for param in all_params(task) {
        visit_value(&param.value, visit);
    }
    for when in &task.when {
        visit_when(when, visit);
    }
    if let Some(embedded) = &task.task_spec {
        for step in &embedded.task_spec.steps {
            visit_step(step, visit);
        }
        for sidecar in &embedded.task_spec.sidecars {
            visit_sidecar(sidecar, visit);
        }
    }
}

/// The result references of a text.
pub fn in_text(text: &str) -> impl Iterator<Item = ResultRef> {
    expressions(text).filter_map(parse)
}

/// The result references of a value.
pub fn in_value(value: &ParamValue) -> Vec<ResultRef> {
    let mut refs = Vec::new();
    visit_value(value, &mut |text| refs.extend(in_text(text)));
    refs
}

/// All references of a PipelineTask to results, in Tekton's order, repeated ones too.
pub fn result_refs(task: &PipelineTask) -> Vec<ResultRef> {
    let mut refs = Vec::new();
    visit_task(task, &mut |text| refs.extend(in_text(text)));
    refs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_references_as_tekton_does() {
        for (text, found) in [
            ("$(tasks.a.results.b)", vec!["tasks.a.results.b"]),
            ("x $(a) $(b[0]) $(c[*]) y", vec!["a", "b[0]", "c[*]"]),
            ("$(a b) $(date)", vec!["date"]),
            ("$($(params.x))", vec!["params.x"]),
            ("$(params[\"x\"]) $(", vec![]),
            ("$(a[]) $(a[x])", vec![]),
        ] {
            assert_eq!(expressions(text).collect::<Vec<_>>(), found, "{text}");
        }
    }

    #[test]
    fn parses_result_references() {
        let reference = |task: &str, result: &str, index, property: Option<&str>| {
            Some(ResultRef {
                pipeline_task: task.into(),
                result: result.into(),
                index,
                property: property.map(str::to_owned),
            })
        };
        for (text, expected) in [
            ("tasks.a.results.b", reference("a", "b", None, None)),
            ("tasks.a.results.b[*]", reference("a", "b", None, None)),
            ("tasks.a.results.b[12]", reference("a", "b", Some(12), None)),
            ("tasks.a.results.b.key", reference("a", "b", None, Some("key"))),
            ("finally.a.results.b", reference("a", "b", None, None)),
            ("tasks.a.results.b.c.d", None),
            ("tasks.a.status", None),
            ("tasks.a.matrix.length", None),
            ("steps.a.results.b", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse_step("steps.a.results.b"), reference("a", "b", None, None));
    }
}
