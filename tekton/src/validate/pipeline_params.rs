//! References from PipelineTasks to the Pipeline's params: in their params, matrix and `when`.

use super::field_error::FieldErrors;
use super::params::{Scope, check_given_once};
use super::variables::{
    PARAMS, has_references, is_isolated_whole, not_isolated, prohibited, unknown,
};
use crate::v1::{Matrix, Param, ParamValue, PipelineTask, WhenExpression};

/// Checks all tasks, relative to the list, against the declared params.
pub(crate) fn check_usage(tasks: &[PipelineTask], scope: &Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, task) in tasks.iter().enumerate() {
        let mut found = check_given_once(&task.params).via_field("params");
        for param in &task.params {
            found.also(check_param(param, scope));
        }
        if let Some(matrix) = &task.matrix {
            found.also(check_matrix(matrix, scope));
        }
        for (index, expression) in task.when.iter().enumerate() {
            found.also(check_when(expression, scope).via_field_index("when", index));
        }
        errors.also(found.via_index(index));
    }
    errors
}

fn check_param(param: &Param, scope: &Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    match &param.value {
        ParamValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                errors.also(check_array_item(item, scope).via_field_index("value", index));
            }
        }
        ParamValue::Object(entries) => {
            for (key, value) in entries {
                errors.also(check_string(value, scope).via_field_key("properties", key));
            }
        }
        // All of an array or object may be passed on, if it exists.
        ParamValue::String(text) if is_isolated_whole(text, PARAMS) => {
            errors.also(unknown(text, PARAMS, false, |name| scope.has(name)));
        }
        ParamValue::String(text) => errors.also(check_string(text, scope)),
    }
    errors.via_field_key("params", &param.name)
}

fn check_matrix(matrix: &Matrix, scope: &Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for include in &matrix.include {
        for (index, param) in include.params.iter().enumerate() {
            let found = check_string(param.value.as_str().unwrap_or_default(), scope);
            errors.also(found.via_field_index("matrix.include.params", index));
        }
    }
    for param in &matrix.params {
        let ParamValue::Array(items) = &param.value else {
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let found = check_array_item(item, scope).via_field_index("value", index);
            errors.also(found.via_field_key("matrix.params", &param.name));
        }
    }
    errors
}

fn check_when(expression: &WhenExpression, scope: &Scope<'_>) -> FieldErrors {
    let mut errors = check_string(&expression.input, scope).via_field("input");
    for value in &expression.values {
        let name = value.strip_prefix("$(params.").unwrap_or(value);
        let name = name.strip_suffix("[*])").unwrap_or(name);
        let found = if scope.has_array(name) {
            check_array_item(value, scope)
        } else {
            check_string(value, scope)
        };
        errors.also(found.via_field("values"));
    }
    errors
}

/// A text that must stay one string.
fn check_string(text: &str, scope: &Scope<'_>) -> FieldErrors {
    if !has_references(text) {
        return FieldErrors::default();
    }
    let mut errors = check_declared(text, scope);
    errors.also(prohibited(text, PARAMS, |name| scope.has_array(name)));
    errors
}

/// An item of an array, which a whole array may replace.
fn check_array_item(text: &str, scope: &Scope<'_>) -> FieldErrors {
    if !has_references(text) {
        return FieldErrors::default();
    }
    let mut errors = check_declared(text, scope);
    errors.also(not_isolated(text, PARAMS, |name| scope.has_array(name)));
    errors
}

fn check_declared(text: &str, scope: &Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::from(unknown(text, PARAMS, false, |name| scope.has(name)));
    errors.also(scope.check_object_keys(text, false, true));
    errors.also(scope.check_no_whole_object(text));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ParamSpec;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn references_in_tasks() {
        let params: Vec<ParamSpec> = parsed(
            r#"[{"name":"s","type":"string"},{"name":"a","type":"array"},{"name":"o","type":"object","properties":{"k":{"type":"string"}}}]"#,
        );
        let scope = Scope::new(&params);
        for (task, errors) in [
            (r#"{"params":[{"name":"p","value":"$(params.s) $(params.o.k) $(params.a[0])"}]}"#, ""),
            (
                r#"{"params":[{"name":"p","value":"$(params.a[*])"},{"name":"q","value":"$(params.o[*])"}]}"#,
                "",
            ),
            (
                r#"{"params":[{"name":"p","value":"$(params.a)"}]}"#,
                "variable type invalid in \"$(params.a)\": [0].params[p]",
            ),
            (
                r#"{"params":[{"name":"p","value":"$(params.nope[*])"}]}"#,
                "non-existent variable in \"$(params.nope[*])\": [0].params[p]",
            ),
            (
                r#"{"params":[{"name":"p","value":["$(params.a[*])","x$(params.a[*])"]}]}"#,
                "variable is not properly isolated in \"x$(params.a[*])\": [0].params[p].value[1]",
            ),
            (
                r#"{"params":[{"name":"p","value":{"k":"$(params.o.x)"}}]}"#,
                "non-existent variable in \"$(params.o.x)\": [0].params[p].properties[k]",
            ),
            (
                r#"{"params":[{"name":"p","value":"x $(params.o[*])"}]}"#,
                "variable type invalid in \"x $(params.o[*])\": [0].params[p]",
            ),
            (
                r#"{"when":[{"input":"$(params.a[*])","operator":"in","values":["$(params.a[*])","$(params.nope)"]}]}"#,
                "non-existent variable in \"$(params.nope)\": [0].when[0].values\nvariable type invalid in \"$(params.a[*])\": [0].when[0].input",
            ),
            (
                r#"{"matrix":{"params":[{"name":"m","value":["$(params.nope)"]}],"include":[{"params":[{"name":"i","value":"$(params.nope)"}]}]}}"#,
                "non-existent variable in \"$(params.nope)\": [0].matrix.include.params[0], [0].matrix.params[m].value[0]",
            ),
        ] {
            let task: PipelineTask = parsed(task);
            assert_eq!(shown(check_usage(&[task], &scope)), errors);
        }
    }
}
