//! The results of a finished TaskRun, out of what its steps left in their files.

use std::collections::BTreeMap;

use crate::rejection::{Rejection, go_map};
use crate::resultref::{exact_expression, parse_step};
use crate::v1::{ParamValue, TaskRunResult, TaskSpec};

/// What one step left: raw file contents by result name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOutput {
    /// The step's name as the Task has it; empty for an unnamed step.
    pub step: String,
    /// Files of /tekton/results that existed when the step ended.
    pub task_results: BTreeMap<String, String>,
    /// Files of the step's own results.
    pub step_results: BTreeMap<String, String>,
}

/// The typed results of a TaskRun.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskResults {
    /// For `status.results`: each name once, where it was first seen, with its last value.
    pub results: Vec<TaskRunResult>,
    /// For `status.steps[].results`, a list for each of the given steps.
    pub step_results: Vec<Vec<TaskRunResult>>,
    /// Set when a result does not fit its declaration: the TaskRun fails for it, even if it succeeded.
    pub rejection: Option<Rejection>,
}

fn typed(name: &str, raw: &str, declared: Option<&str>) -> TaskRunResult {
    let value = if declared == Some("string") {
        ParamValue::String(raw.to_owned())
    } else {
        from_text(raw)
    };
    TaskRunResult { name: name.to_owned(), r#type: value.type_name().to_owned(), value }
}

/// Tekton's `ParamValue.UnmarshalJSON` on a file's text: what is not an array or an object of strings
/// is a string; a JSON string loses its quotes.
fn from_text(raw: &str) -> ParamValue {
    match raw.as_bytes().first() {
        Some(b'[') => {
            if let Ok(items) = serde_json::from_str::<Vec<Option<String>>>(raw) {
                let items = items.into_iter().map(Option::unwrap_or_default);
                return ParamValue::Array(items.collect());
            }
        }
        Some(b'{') => {
            if let Ok(entries) = serde_json::from_str::<BTreeMap<String, Option<String>>>(raw) {
                let entries =
                    entries.into_iter().map(|(key, item)| (key, item.unwrap_or_default()));
                return ParamValue::Object(entries.collect());
            }
        }
        _ => {}
    }
    match serde_json::from_str::<Option<String>>(raw) {
        Ok(text) => ParamValue::String(text.unwrap_or_default()),
        Err(_) => ParamValue::String(raw.to_owned()),
    }
}

fn declared_type(r#type: &str) -> &str {
    if r#type.is_empty() { "string" } else { r#type }
}

/// The results of a TaskRun whose steps ended; `spec` is the Task with StepActions inlined.
pub fn task_results(spec: &TaskSpec, steps: &[StepOutput]) -> TaskResults {
    let mut all: Vec<TaskRunResult> = Vec::new();
    let mut step_results = Vec::with_capacity(steps.len());
    let mut add = |result: TaskRunResult| match all.iter_mut().find(|r| r.name == result.name) {
        Some(existing) => *existing = result,
        None => all.push(result),
    };
    for (i, output) in steps.iter().enumerate() {
        for (name, raw) in &output.task_results {
            let declared = spec.results.iter().rfind(|result| result.name == *name);
            add(typed(name, raw, declared.map(|r| declared_type(&r.r#type))));
        }
        let own = spec.steps.get(i);
        let own_results: Vec<TaskRunResult> = output
            .step_results
            .iter()
            .map(|(name, raw)| {
                let declared = own.and_then(|s| s.results.iter().rfind(|r| r.name == *name));
                typed(name, raw, declared.map(|r| declared_type(&r.r#type)))
            })
            .collect();
        if !output.step.is_empty() {
            for result in &own_results {
                // As in Tekton, the last task result that wants a step result gets it.
                let wanted = spec.results.iter().rfind(|task_result| {
                    let expression = task_result
                        .value
                        .as_ref()
                        .and_then(ParamValue::as_str)
                        .and_then(exact_expression);
                    expression.and_then(parse_step).is_some_and(|reference| {
                        reference.pipeline_task == output.step && reference.result == result.name
                    })
                });
                if let Some(task_result) = wanted {
                    add(TaskRunResult { name: task_result.name.clone(), ..result.clone() });
                }
            }
        }
        step_results.push(own_results);
    }
    let rejection = check(spec, &mut all);
    TaskResults { results: all, step_results, rejection }
}

/// Compares with the declarations; results of a wrong type are taken out.
fn check(spec: &TaskSpec, results: &mut Vec<TaskRunResult>) -> Option<Rejection> {
    let declared = |name: &str| spec.results.iter().rfind(|result| result.name == name);
    let mut mismatched = Vec::new();
    results.retain(|result| {
        let Some(declaration) = declared(&result.name) else {
            return true;
        };
        let wanted = declared_type(&declaration.r#type);
        if wanted == result.r#type {
            return true;
        }
        mismatched.push(format!(
            " \"{}\": task result is expected to be \"{wanted}\" type but was initialized to a different type \"{}\"",
            result.name, result.r#type
        ));
        false
    });
    if !mismatched.is_empty() {
        mismatched.sort();
        return Some(Rejection::new(
            "TaskRunValidationFailed",
            format!(
                "Provided results don't match declared results; may be invalid JSON or missing result declaration: {}",
                mismatched.join(",")
            ),
        ));
    }
    let mut lacking = BTreeMap::new();
    for result in results.iter() {
        if let (ParamValue::Object(entries), Some(declaration)) =
            (&result.value, declared(&result.name))
            && !entries.is_empty()
        {
            let keys: Vec<String> = declaration
                .properties
                .keys()
                .filter(|key| !entries.contains_key(*key))
                .cloned()
                .collect();
            if !keys.is_empty() {
                lacking.insert(result.name.clone(), keys);
            }
        }
    }
    (!lacking.is_empty()).then(|| {
        Rejection::new(
            "TaskRunValidationFailed",
            format!(
                "missing keys for these results which are required in TaskResult's properties {}",
                go_map(&lacking)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> TaskSpec {
        serde_json::from_value(json).expect("a TaskSpec")
    }

    fn output(step: &str, task: &[(&str, &str)], own: &[(&str, &str)]) -> StepOutput {
        let map = |entries: &[(&str, &str)]| {
            entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        StepOutput { step: step.into(), task_results: map(task), step_results: map(own) }
    }

    #[test]
    fn strings_are_kept_as_they_are_and_the_last_step_wins() {
        let spec = spec(serde_json::json!({
            "results": [{"name": "a", "type": "string"}, {"name": "l", "type": "array"}],
            "steps": [{}, {}],
        }));
        let found = task_results(
            &spec,
            &[
                output("", &[("a", "1\n"), ("l", "[\"x\"]\n")], &[]),
                output("", &[("a", "[2]\n")], &[]),
            ],
        );
        assert_eq!(found.rejection, None);
        let shown: Vec<_> = found.results.iter().map(|r| (&*r.name, &r.value)).collect();
        assert_eq!(
            shown,
            [("a", &ParamValue::from("[2]\n")), ("l", &ParamValue::Array(vec!["x".into()]))]
        );
    }

    #[test]
    fn wrong_types_and_missing_keys_fail_the_task() {
        let array =
            spec(serde_json::json!({"results": [{"name": "r", "type": "array"}], "steps": [{}]}));
        let found = task_results(&array, &[output("", &[("r", "oops")], &[])]);
        assert_eq!(
            found.rejection.expect("a rejection").message,
            "Provided results don't match declared results; may be invalid JSON or missing result declaration:  \"r\": task result is expected to be \"array\" type but was initialized to a different type \"string\""
        );
        assert!(found.results.is_empty());
        let object = spec(serde_json::json!({
            "results": [{"name": "r", "type": "object", "properties": {"k": {"type": "string"}, "j": {}}}],
            "steps": [{}],
        }));
        let found = task_results(&object, &[output("", &[("r", "{\"j\":\"1\"}")], &[])]);
        assert_eq!(
            found.rejection.expect("a rejection").message,
            "missing keys for these results which are required in TaskResult's properties map[r:[k]]"
        );
    }

    #[test]
    fn a_task_result_can_be_a_steps() {
        let spec = spec(serde_json::json!({
            "results": [{"name": "out", "type": "string", "value": "$(steps.s.results.r)"}],
            "steps": [{"name": "s", "results": [{"name": "r", "type": "string"}]}],
        }));
        let found = task_results(&spec, &[output("s", &[], &[("r", "v")])]);
        assert_eq!(found.results[0].name, "out");
        assert_eq!(found.results[0].value, "v".into());
        assert_eq!(found.step_results[0][0].name, "r");
    }
}
