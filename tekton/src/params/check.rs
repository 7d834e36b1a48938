//! Whether params fit their declarations, in Tekton's words.
//!
//! Each check returns the bare text; the level (TaskRun, PipelineRun) adds its reason and its prefix.

use std::collections::{BTreeMap, BTreeSet};

use crate::rejection::{go_list, go_map};
use crate::resultref::expressions;
use crate::v1::{Matrix, Param, ParamSpec, ParamValue};

/// Declared params without a default that are not among `provided`, in declared order.
pub fn missing<'a>(
    specs: &'a [ParamSpec],
    provided: impl IntoIterator<Item = &'a Param>,
) -> Vec<&'a str> {
    let names: BTreeSet<&str> = provided.into_iter().map(|p| p.name.as_str()).collect();
    specs
        .iter()
        .filter(|spec| spec.default.is_none() && !names.contains(spec.name.as_str()))
        .map(|spec| spec.name.as_str())
        .collect()
}

/// Params of another type than declared, in given order, for a PipelineRun.
pub fn mismatched<'a>(specs: &[ParamSpec], params: &'a [Param]) -> Vec<&'a str> {
    params
        .iter()
        .filter(|param| {
            specs
                .iter()
                .rfind(|spec| spec.name == param.name)
                .is_some_and(|spec| declared_type(spec) != param.value.type_name())
        })
        .map(|param| param.name.as_str())
        .collect()
}

/// The type of a declared param: a string where nothing is said.
pub(crate) fn declared_type(spec: &ParamSpec) -> &str {
    if spec.r#type.is_empty() { "string" } else { &spec.r#type }
}

/// Object params that lack keys which their declaration's properties require: name → missing keys.
/// A param that is neither given nor has an object default is not looked at.
pub fn missing_keys(specs: &[ParamSpec], params: &[Param]) -> BTreeMap<String, Vec<String>> {
    let mut missing = BTreeMap::new();
    for spec in specs.iter().filter(|spec| declared_type(spec) == "object") {
        let mut provided: Option<BTreeSet<&str>> = None;
        let values = spec
            .default
            .iter()
            .chain(params.iter().filter(|param| param.name == spec.name).map(|param| &param.value));
        for value in values {
            if let ParamValue::Object(entries) = value
                && !entries.is_empty()
            {
                provided.get_or_insert_default().extend(entries.keys().map(String::as_str));
            }
        }
        let Some(provided) = provided else { continue };
        let lacking: Vec<String> = spec
            .properties
            .keys()
            .filter(|key| !provided.contains(key.as_str()))
            .cloned()
            .collect();
        if !lacking.is_empty() {
            missing.insert(spec.name.clone(), lacking);
        }
    }
    missing
}

/// Whether a Task's params are all there and of the right type; the text is Tekton's, after
/// `invalid input params for task T: `.
pub fn task_params(
    specs: &[ParamSpec],
    params: &[Param],
    matrix: Option<&Matrix>,
) -> Result<(), String> {
    let matrix_params = || {
        matrix.into_iter().flat_map(|matrix| {
            matrix.params.iter().chain(matrix.include.iter().flat_map(|include| &include.params))
        })
    };
    if specs.is_empty() {
        return Ok(());
    }
    let missing = missing(specs, params.iter().chain(matrix_params()));
    if !missing.is_empty() {
        return Err(format!(
            "missing values for these params which have no default values: {}",
            go_list(missing)
        ));
    }
    let type_of = |name: &str| specs.iter().rfind(|spec| spec.name == name).map(declared_type);
    let wrong = params
        .iter()
        .filter(|param| match type_of(&param.name) {
            None => false,
            // A whole array or object may still come out of a variable.
            Some("array" | "object") if is_reference(&param.value) => false,
            Some(declared) => declared != param.value.type_name(),
        })
        .chain(
            matrix_params()
                .filter(|param| type_of(&param.name).is_some_and(|declared| declared != "string")),
        )
        .map(|param| param.name.as_str());
    let wrong: Vec<&str> = wrong.collect();
    if !wrong.is_empty() {
        return Err(format!("param types don't match the user-specified type: {}", go_list(wrong)));
    }
    let lacking = missing_keys(specs, params);
    if !lacking.is_empty() {
        return Err(format!(
            "missing keys for these params which are required in ParamSpec's properties {}",
            go_map(&lacking)
        ));
    }
    Ok(())
}

fn is_reference(value: &ParamValue) -> bool {
    value.as_str().is_some_and(|text| expressions(text).next().is_some())
}

/// Whether string params keep to their declared `enum`.
pub fn enums(specs: &[ParamSpec], params: &[Param]) -> Result<(), String> {
    for param in params {
        let Some(value) = param.value.as_str().filter(|value| !value.is_empty()) else {
            continue;
        };
        let Some(spec) =
            specs.iter().rfind(|spec| spec.name == param.name && !spec.r#enum.is_empty())
        else {
            continue;
        };
        if !spec.r#enum.iter().any(|allowed| allowed == value) {
            return Err(format!("param `{}` value: {value} is not in the enum list", param.name));
        }
    }
    Ok(())
}

/// The `$(params.NAME[i])` of a text, with name and index; quoted names too.
fn index_references(text: &str) -> impl Iterator<Item = (&str, &str, usize)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find("$(params")?;
            let found = &rest[start..];
            rest = &found["$(params".len()..];
            let Some(end) = found.find(')') else { continue };
            let whole = &found[..=end];
            let inner = &found["$(params".len()..end];
            let Some((name, index)) = inner.strip_suffix(']').and_then(|i| i.rsplit_once('['))
            else {
                continue;
            };
            let Ok(index) = index.parse::<usize>() else {
                continue;
            };
            let name = if let Some(name) = name.strip_prefix('.') {
                name
            } else if let Some(name) = name.strip_prefix("[\"").and_then(|n| n.strip_suffix("\"]"))
            {
                name
            } else if let Some(name) = name.strip_prefix("['").and_then(|n| n.strip_suffix("']")) {
                name
            } else {
                continue;
            };
            return Some((whole, name, index));
        }
    })
}

/// Whether the texts index arrays within their bounds. `texts` are those of the Task or Pipeline in
/// which Tekton looks for `$(params.a[0])`.
pub fn array_indexes<'a>(
    specs: &[ParamSpec],
    params: &[Param],
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<(), String> {
    let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| declared_type(spec) == "array") {
        if let Some(ParamValue::Array(items)) = &spec.default {
            lengths.insert(&spec.name, items.len());
        }
    }
    for param in params {
        if let ParamValue::Array(items) = &param.value {
            lengths.insert(&param.name, items.len());
        }
    }
    if lengths.is_empty() {
        return Ok(());
    }
    let mut outside = BTreeSet::new();
    for text in texts {
        for (whole, name, index) in index_references(text) {
            if lengths.get(name).is_some_and(|length| index >= *length) {
                outside.insert(whole);
            }
        }
    }
    if outside.is_empty() {
        return Ok(());
    }
    Err(format!("non-existent param references:{}", go_list(outside)))
}
