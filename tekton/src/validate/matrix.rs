//! The matrix of PipelineTasks: size, names, and how others may use the results of a fan-out.

use std::collections::{HashMap, HashSet};

use super::Context;
use super::field_error::{FieldError, FieldErrors};
use super::params::check_given_once;
use crate::flags::ApiFields;
use crate::matrix::is_matrixed;
use crate::resultref::{self, looks_like_result_ref};
use crate::v1::{Matrix, ParamValue, PipelineTask};

/// The rule for the matrices of a list of tasks, relative to the list.
pub(crate) fn check(context: Context<'_>, tasks: &[PipelineTask]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, task) in tasks.iter().enumerate() {
        if let Some(matrix) = &task.matrix {
            errors.also(check_matrix(context, task, matrix).via_index(index));
        }
    }
    errors.also(check_consumers(tasks));
    errors
}

fn check_matrix(context: Context<'_>, task: &PipelineTask, matrix: &Matrix) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if is_matrixed(Some(matrix)) {
        errors.also(context.gate("matrix", ApiFields::Beta, "matrix"));
        let count = count(matrix);
        let most = u64::from(context.flags.default_max_matrix_combinations_count);
        if count > most {
            errors.also(FieldError::new(format!("expected 0 <= {count} <= {most}"), "matrix"));
        }
        for (index, include) in matrix.include.iter().enumerate() {
            let field = format!("matrix.include[{index}].params");
            errors.also(check_given_once(&include.params).via_field(&field));
        }
        errors.also(check_given_once(&matrix.params).via_field("matrix.params"));
    }
    let included = matrix.include.iter().flat_map(|include| &include.params);
    let names: HashSet<&str> =
        matrix.params.iter().chain(included).map(|param| param.name.as_str()).collect();
    for param in task.params.iter().filter(|param| names.contains(param.name.as_str())) {
        let name = &param.name;
        let paths = [format!("matrix[{name}]"), format!("params[{name}]")];
        errors.also(FieldError::multiple_one_of([&paths[0], &paths[1]]));
    }
    errors
}

/// How many combinations Tekton's webhook counts. It counts too many for includes with several new
/// values, so this is not [`crate::matrix::count`]; and never more than Go's `int` holds.
fn count(matrix: &Matrix) -> u64 {
    const GO_MAX: u64 = i64::MAX as u64;
    if matrix.params.is_empty() {
        return matrix.include.len() as u64;
    }
    let generated = matrix
        .params
        .iter()
        .map(|param| (array_items(&param.value).len() as u64).max(1))
        .fold(1u64, |product, length| product.saturating_mul(length).min(GO_MAX));
    let values: HashMap<&str, &[String]> = matrix
        .params
        .iter()
        .map(|param| (param.name.as_str(), array_items(&param.value)))
        .collect();
    let mut added = 0;
    for include in &matrix.include {
        for param in &include.params {
            let Some(known) = values.get(param.name.as_str()) else {
                continue;
            };
            let value = param.value.as_str().unwrap_or_default();
            if known.iter().any(|item| item == value) {
                break;
            }
            added += 1;
        }
    }
    generated.saturating_add(added).min(GO_MAX)
}

fn array_items(value: &ParamValue) -> &[String] {
    match value {
        ParamValue::Array(items) => items,
        _ => &[],
    }
}

/// Results of a fan-out are used all together, `[*]`, and only if they are strings. Tekton looks at
/// params alone, stops at the first fault, and checks the types for the last user only.
fn check_consumers(tasks: &[PipelineTask]) -> FieldErrors {
    if !tasks.iter().any(|task| is_matrixed(task.matrix.as_ref())) {
        return FieldErrors::default();
    }
    let by_name: HashMap<&str, &PipelineTask> =
        tasks.iter().map(|task| (task.name.as_str(), task)).collect();
    let mut used = Vec::new();
    for param in tasks.iter().flat_map(|task| &task.params) {
        let expressions = super::pipeline_results::expressions(&param.value);
        let mut expressions =
            expressions.into_iter().filter(|text| looks_like_result_ref(text)).peekable();
        if expressions.peek().is_none() {
            continue;
        }
        let mut errors = FieldErrors::default();
        used.clear();
        for expression in expressions {
            let producer = expression.split('.').nth(1).and_then(|name| by_name.get(name));
            let Some(producer) = producer.filter(|task| is_matrixed(task.matrix.as_ref())) else {
                continue;
            };
            if !expression.ends_with("[*]") {
                errors.also(FieldError::about(format!("A matrixed pipelineTask can only be consumed in aggregate using [*] notation, but is currently set to {expression}"), []).subject(expression));
            }
            if let Some(reference) = resultref::parse(expression) {
                used.push((*producer, reference.result));
            }
        }
        if !errors.is_empty() {
            return errors;
        }
    }
    let mut errors = FieldErrors::default();
    for (producer, result) in used {
        errors.also(check_is_string(&by_name, producer, &result));
    }
    errors
}

fn check_is_string(
    by_name: &HashMap<&str, &PipelineTask>,
    producer: &PipelineTask,
    result: &str,
) -> FieldErrors {
    // Tekton takes a taskRef's name for that of a PipelineTask, with an embedded spec at best.
    let specified = match &producer.task_ref {
        Some(reference) => by_name.get(reference.name.as_str()).copied(),
        None => Some(producer),
    };
    let results = specified
        .and_then(|task| task.task_spec.as_ref())
        .map_or(&[][..], |embedded| &embedded.task_spec.results);
    let mut errors = FieldErrors::default();
    for declared in results.iter().filter(|declared| declared.name == result) {
        if declared.r#type != "string" {
            let given = &declared.r#type;
            errors.also(FieldError::invalid(format!("Matrixed PipelineTasks emitting results must have an underlying type string, but result {result} has type {given} in pipelineTask"), ""));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    fn errors_of(tasks: &str) -> String {
        let flags = FeatureFlags::default();
        let tasks: Vec<PipelineTask> = parsed(tasks);
        shown(check(Context::new(&flags), &tasks))
    }

    #[test]
    fn matrices() {
        for (tasks, errors) in [
            (r#"[{"name":"a","matrix":{"params":[{"name":"m","value":["x","y"]}]}}]"#, ""),
            (
                r#"[{"name":"a","params":[{"name":"m"}],"matrix":{"params":[{"name":"m","value":["x"]}]}}]"#,
                "expected exactly one, got both: [0].matrix[m], [0].params[m]",
            ),
            (
                r#"[{"name":"a","matrix":{"params":[{"name":"m"},{"name":"m"}],"include":[{"params":[{"name":"i"},{"name":"i"}]}]}}]"#,
                "parameter names must be unique, the parameter \"i\" is also defined at: [0].matrix.include[0].params[1].name\nparameter names must be unique, the parameter \"m\" is also defined at: [0].matrix.params[1].name",
            ),
            (
                r#"[{"name":"a","matrix":{"params":[{"name":"m","value":["x"]}]}},{"name":"b","params":[{"name":"p","value":"$(tasks.a.results.r)"}]}]"#,
                "A matrixed pipelineTask can only be consumed in aggregate using [*] notation, but is currently set to tasks.a.results.r: ",
            ),
            (
                r#"[{"name":"a","taskSpec":{"results":[{"name":"r","type":"array"}]},"matrix":{"params":[{"name":"m","value":["x"]}]}},{"name":"b","params":[{"name":"p","value":"$(tasks.a.results.r[*])"}]}]"#,
                "invalid value: Matrixed PipelineTasks emitting results must have an underlying type string, but result r has type array in pipelineTask: ",
            ),
        ] {
            assert_eq!(errors_of(tasks), errors, "{tasks}");
        }
        let many = serde_json::to_string(&vec!["x"; 257]).unwrap();
        let tasks =
            format!(r#"[{{"name":"a","matrix":{{"params":[{{"name":"m","value":{many}}}]}}}}]"#);
        assert_eq!(errors_of(&tasks), "expected 0 <= 257 <= 256: [0].matrix");
    }

    #[test]
    fn counting() {
        for (matrix, expected) in [
            (r#"{}"#, 0),
            (r#"{"include":[{},{}]}"#, 2),
            (
                r#"{"params":[{"name":"a","value":["1","2"]},{"name":"b","value":["1","2","3"]}]}"#,
                6,
            ),
            (
                r#"{"params":[{"name":"a","value":["1"]}],"include":[{"params":[{"name":"a","value":"2"}]},{"params":[{"name":"a","value":"1"}]},{"params":[{"name":"z","value":"1"}]}]}"#,
                2,
            ),
            (r#"{"params":[{"name":"a","value":"text"},{"name":"b","value":[]}]}"#, 1),
        ] {
            assert_eq!(count(&parsed(matrix)), expected, "{matrix}");
        }
    }
}
