//! The variables of a PipelineTask at the moment it is about to start.
//!
//! Order: [`apply_statuses`] (finally tasks), [`apply_results`], `when` is evaluated by the caller, then
//! [`propagate_results`] into the resolved spec and [`apply_task_contexts`]; [`crate::taskrun::build`]
//! makes the TaskRuns.

use std::collections::BTreeMap;

use crate::resultref;
use crate::substitute::{Kinds, Replacements};
use crate::v1::{Param, PipelineTask, TaskSpec};

/// Lengths that a PipelineTask may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskContext {
    /// `$(tasks.T.matrix.length)`: how many TaskRuns each matrixed task has.
    pub matrix_lengths: BTreeMap<String, usize>,
    /// `$(tasks.T.matrix.R.length)`: how many of them wrote a result, by task and result.
    pub result_lengths: BTreeMap<(String, String), usize>,
}

fn apply_to_fields(task: &mut PipelineTask, with: &Replacements, kinds: Kinds) {
    with.apply_to_params(&mut task.params, kinds);
    with.apply_to_when(&mut task.when, kinds);
    if let Some(reference) = &mut task.task_ref {
        with.apply_to_params(&mut reference.params, kinds);
        with.apply_to(&mut reference.name);
    }
    with.apply_to(&mut task.display_name);
}

/// Applies result values ([`crate::results::replacements`]).
pub fn apply_results(task: &mut PipelineTask, with: &Replacements) {
    if with.is_empty() {
        return;
    }
    apply_to_fields(task, with, Kinds::All);
    if let Some(matrix) = &mut task.matrix {
        with.apply_to_params(&mut matrix.params, Kinds::StringsAndArrays);
        for include in &mut matrix.include {
            with.apply_to_params(&mut include.params, Kinds::Strings);
        }
    }
    for workspace in &mut task.workspaces {
        with.apply_to(&mut workspace.sub_path);
    }
}

/// Applies `$(tasks.X.status)`, `$(tasks.X.reason)` and `$(tasks.status)` to a finally task. `statuses`
/// maps a DAG task to status and reason; `aggregate` is `Succeeded`, `Failed`, `Completed` or `None`.
pub fn apply_statuses<'a>(
    task: &mut PipelineTask,
    statuses: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
    aggregate: &str,
) {
    let mut with = Replacements::new();
    for (name, status, reason) in statuses {
        with.set(format!("tasks.{name}.status"), status);
        with.set(format!("tasks.{name}.reason"), reason);
    }
    with.set("tasks.status", aggregate);
    apply_to_fields(task, &with, Kinds::Strings);
}

/// Applies `$(context.pipelineTask.retries)` and the matrix lengths that the task's own params ask for.
pub fn apply_task_contexts(task: &mut PipelineTask, context: &TaskContext) {
    let mut with = Replacements::new();
    with.set("context.pipelineTask.retries", task.retries.to_string());
    // Tekton knows only the lengths that some entry of `params` refers to, and applies those everywhere.
    for param in &task.params {
        resultref::visit_value(&param.value, &mut |text| {
            for expression in resultref::expressions(text) {
                let parts: Vec<&str> = expression.split('.').collect();
                match parts.as_slice() {
                    ["tasks", name, "matrix", "length"] => {
                        if let Some(length) = context.matrix_lengths.get(*name) {
                            with.set(expression, length.to_string());
                        }
                    }
                    ["tasks", name, "matrix", result, "length"] => {
                        let key = ((*name).to_owned(), (*result).to_owned());
                        let length = context.result_lengths.get(&key).copied().unwrap_or(0);
                        if context.matrix_lengths.contains_key(*name) {
                            with.set(expression, length.to_string());
                        }
                    }
                    _ => {}
                }
            }
        });
    }
    with.apply_to_params(&mut task.params, Kinds::All);
    if let Some(matrix) = &mut task.matrix {
        with.apply_to_params(&mut matrix.params, Kinds::All);
        for include in &mut matrix.include {
            with.apply_to_params(&mut include.params, Kinds::All);
        }
    }
    with.apply_to(&mut task.display_name);
}

/// The dotted forms of results.
fn result_variables<'a>(
    finished: impl IntoIterator<Item = (&'a str, &'a [crate::v1::TaskRunResult])>,
) -> Replacements {
    use crate::v1::ParamValue;
    let mut with = Replacements::new();
    for (task, results) in finished {
        for result in results {
            let key = format!("tasks.{task}.results.{}", result.name);
            match &result.value {
                ParamValue::String(text) => with.set(key, text.clone()),
                ParamValue::Array(items) => with.set_array(key, items.clone()),
                ParamValue::Object(entries) => {
                    for (name, item) in entries {
                        with.set(format!("{key}.{name}"), item.clone());
                    }
                }
            }
        }
    }
    with
}

/// Applies the results of *all* finished tasks to a task's resolved spec: a script may use
/// `$(tasks.T.results.R)` without a param. Pass every result so far as `(task, results)`.
pub fn propagate_results<'a>(
    spec: &mut TaskSpec,
    finished: impl IntoIterator<Item = (&'a str, &'a [crate::v1::TaskRunResult])>,
) {
    let with = result_variables(finished);
    crate::substitute::apply_to_task_spec(spec, &with);
}

/// Applies string and object results of finished tasks to the run's workspace bindings.
pub fn apply_results_to_bindings<'a>(
    bindings: &mut [crate::v1::WorkspaceBinding],
    finished: impl IntoIterator<Item = (&'a str, &'a [crate::v1::TaskRunResult])>,
) {
    if bindings.is_empty() {
        return;
    }
    let with = result_variables(finished);
    for binding in bindings {
        crate::substitute::apply_to_binding(binding, &with);
    }
}

/// The `displayName` of a child for `childReferences`: the task's, or the names of the matrix includes
/// that fit the child's params.
pub fn display_name(task: &PipelineTask, params: &[Param]) -> String {
    let mut with = Replacements::new();
    for param in params {
        if let Some(text) = param.value.as_str() {
            with.set(format!("params.{}", param.name), text);
        }
    }
    let fits = |include: &&crate::v1::IncludeParams| {
        !include.name.is_empty()
            && include.params.iter().all(|wanted| {
                with.get(&format!("params.{}", wanted.name))
                    .is_some_and(|value| wanted.value.as_str().is_none_or(|text| text == value))
            })
    };
    let named: Vec<String> = task
        .matrix
        .iter()
        .flat_map(|matrix| &matrix.include)
        .filter(fits)
        .map(|include| with.apply(&include.name).into_owned())
        .collect();
    if named.is_empty() {
        with.apply(&task.display_name).into_owned()
    } else {
        named.join(" ").trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ParamValue, TaskRunResult};
    use serde_json::json;

    fn task(value: serde_json::Value) -> PipelineTask {
        serde_json::from_value(value).expect("a PipelineTask")
    }

    fn value(task: &PipelineTask) -> &str {
        task.params[0].value.as_str().unwrap_or_default()
    }

    #[test]
    fn statuses_and_lengths_are_filled_in() {
        let mut last = task(
            json!({"name": "f", "retries": 2, "displayName": "after $(tasks.a.status)",
            "params": [{"name": "p", "value": "$(tasks.a.status) $(tasks.a.reason) $(tasks.status) $(tasks.b.status)"}]}),
        );
        apply_statuses(&mut last, [("a", "Failed", "StepFailed")], "Failed");
        assert_eq!(value(&last), "Failed StepFailed Failed $(tasks.b.status)");
        assert_eq!(last.display_name, "after Failed");

        let context = TaskContext {
            matrix_lengths: [("m".to_owned(), 3)].into(),
            result_lengths: [(("m".to_owned(), "r".to_owned()), 2)].into(),
        };
        let mut counting = task(
            json!({"name": "c", "retries": 2, "params": [{"name": "p", "value":
            "$(tasks.m.matrix.length) $(tasks.m.matrix.r.length) $(context.pipelineTask.retries)"}]}),
        );
        apply_task_contexts(&mut counting, &context);
        assert_eq!(value(&counting), "3 2 2");
    }

    #[test]
    fn results_reach_scripts_without_a_param() {
        let results = [
            TaskRunResult { name: "s".into(), value: "x".into(), ..TaskRunResult::default() },
            TaskRunResult {
                name: "a".into(),
                value: ParamValue::Array(vec!["1".into(), "2".into()]),
                ..TaskRunResult::default()
            },
        ];
        let mut spec: TaskSpec = serde_json::from_value(json!({"steps": [
            {"script": "echo $(tasks.t.results.s)", "args": ["$(tasks.t.results.a[*])"]}]}))
        .expect("a TaskSpec");
        propagate_results(&mut spec, [("t", &results[..])]);
        assert_eq!(spec.steps[0].script, "echo x");
        assert_eq!(spec.steps[0].args, ["1", "2"]);
    }

    #[test]
    fn includes_name_their_children() {
        let matrixed = task(json!({"name": "m", "displayName": "build $(params.os)", "matrix": {
            "params": [{"name": "os", "value": ["linux", "mac"]}],
            "include": [{"name": "penguin on $(params.os)", "params": [{"name": "os", "value": "linux"}]}]}}));
        let of =
            |os: &str| display_name(&matrixed, &[Param { name: "os".into(), value: os.into() }]);
        assert_eq!(of("linux"), "penguin on linux");
        assert_eq!(of("mac"), "build mac");
    }
}
