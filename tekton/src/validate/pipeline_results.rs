//! References between the tasks of a Pipeline: results, execution status, and the Pipeline's results.

use std::collections::HashSet;

use super::field_error::{FieldError, FieldErrors};
use super::text::{list, quote};
use crate::matrix::is_matrixed;
use crate::resultref::{self, looks_like_result_ref};
use crate::v1::{ParamValue, PipelineResult, PipelineSpec, PipelineTask, WhenExpression};

/// What a reference in a PipelineTask may begin with.
const PREFIXES: [&str; 6] = ["params", "tasks", "finally", "context", "workspaces", "results"];

/// All references of a value, without `$(` and `)`.
pub(crate) fn expressions(value: &ParamValue) -> Vec<&str> {
    let mut found = Vec::new();
    resultref::visit_value(value, &mut |text| found.extend(resultref::expressions(text)));
    found
}

fn when_expressions(expression: &WhenExpression) -> Vec<&str> {
    let mut found = Vec::new();
    resultref::visit_when(expression, &mut |text| found.extend(resultref::expressions(text)));
    found
}

/// The names of a list of tasks.
fn names(tasks: &[PipelineTask]) -> HashSet<&str> {
    tasks.iter().map(|task| task.name.as_str()).collect()
}

fn has_result_ref(expressions: &[&str]) -> bool {
    expressions.iter().any(|expression| looks_like_result_ref(expression))
}

/// Calls `check` with the references of each param and each `when` of a task, relative to the task.
fn check_expressions(
    task: &PipelineTask,
    mut check: impl FnMut(&[&str]) -> Vec<String>,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for param in &task.params {
        for message in check(&expressions(&param.value)) {
            let error = FieldErrors::from(FieldError::invalid(message, "value"));
            errors.also(error.via_field_key("params", &param.name));
        }
    }
    for (index, expression) in task.when.iter().enumerate() {
        for message in check(&when_expressions(expression)) {
            let error = FieldErrors::from(FieldError::invalid(message, ""));
            errors.also(error.via_field_index("when", index));
        }
    }
    errors
}

/// `$(tasks.T.status)`, `$(tasks.T.reason)` and `$(tasks.status)` are for finally tasks, about tasks
/// that exist; relative to the spec.
pub(crate) fn check_status_variables(spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, task) in spec.tasks.iter().enumerate() {
        let found = check_expressions(task, |expressions| {
            let is_wrong = !has_result_ref(expressions)
                && expressions.iter().any(|text| status_owner(text).is_some());
            let message = "pipeline tasks can not refer to execution status of any other pipeline task or aggregate status of tasks";
            is_wrong.then(|| message.to_owned()).into_iter().collect()
        });
        errors.also(found.via_field_index("tasks", index));
    }
    let names = names(&spec.tasks);
    for (index, task) in spec.finally.iter().enumerate() {
        let found = check_expressions(task, |expressions| {
            if has_result_ref(expressions) {
                return Vec::new();
            }
            expressions
                .iter()
                .filter(|expression| **expression != "tasks.status")
                .filter_map(|expression| status_owner(expression))
                .filter(|owner| !names.contains(owner))
                .map(|owner| format!("pipeline task {owner} is not defined in the pipeline"))
                .collect()
        });
        errors.also(found.via_field_index("finally", index));
    }
    errors
}

/// `T` of `tasks.T.status` and `tasks.T.reason`; what stands for it in `tasks.status` means nothing.
fn status_owner(expression: &str) -> Option<&str> {
    let rest = expression.strip_prefix("tasks.")?;
    let is_status = expression.ends_with(".status") || expression.ends_with(".reason");
    let owner = rest.strip_suffix(".status").or_else(|| rest.strip_suffix(".reason"));
    is_status.then(|| owner.unwrap_or(rest))
}

/// Finally tasks use results of tasks that exist, and not of each other; relative to the spec.
pub(crate) fn check_finally(spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.tasks.is_empty() && !spec.finally.is_empty() {
        let count = spec.finally.len();
        let what = format!("spec.tasks is empty but spec.finally has {count} tasks");
        errors.also(FieldError::invalid(what, "finally"));
    }
    let tasks = names(&spec.tasks);
    let finally = names(&spec.finally);
    for (index, task) in spec.finally.iter().enumerate() {
        let mut found = check_expressions(task, |expressions| {
            let references = expressions.iter().filter_map(|text| resultref::parse(text));
            references
                .filter_map(|reference| {
                    let of = reference.pipeline_task;
                    if finally.contains(of.as_str()) {
                        Some(format!("invalid task result reference, final task has task result reference from a final task {of}"))
                    } else if !tasks.contains(of.as_str()) {
                        Some(format!("invalid task result reference, final task has task result reference from a task {of} which is not defined in the pipeline"))
                    } else {
                        None
                    }
                })
                .collect()
        });
        if !task.run_after.is_empty() {
            let name = &task.name;
            found.also(FieldError::invalid(format!("no runAfter allowed under spec.finally, final task {name} has runAfter specified"), ""));
        }
        errors.also(found.via_field_index("finally", index));
    }
    errors
}

/// Results of a Pipeline are made of results of its tasks; relative to the spec.
pub(crate) fn check_results(spec: &PipelineSpec) -> FieldErrors {
    let tasks = names(&spec.tasks);
    let finally = names(&spec.finally);
    let mut errors = FieldErrors::default();
    for (index, PipelineResult { value, .. }) in spec.results.iter().enumerate() {
        let mut complain = |what: String| {
            let error = FieldErrors::from(FieldError::invalid(what, "value"));
            errors.also(error.via_field_index("results", index));
        };
        let found = expressions(value);
        if found.is_empty() {
            complain("expected pipeline results to be task result expressions but no expressions were found".into());
        }
        if !has_result_ref(&found) {
            complain("expected pipeline results to be task result expressions but an invalid expressions was found".into());
        }
        let wanted: Vec<&str> =
            found.into_iter().filter(|text| looks_like_result_ref(text)).collect();
        let understood: Vec<&str> =
            wanted.iter().copied().filter(|text| resultref::parse(text).is_some()).collect();
        if wanted.len() != understood.len() {
            complain(format!(
                "expected all of the expressions {} to be result expressions but only {} were",
                list(wanted),
                list(understood)
            ));
        }
        if !names_existing_tasks(value.as_str().unwrap_or_default(), &tasks, &finally) {
            complain("referencing a nonexistent task".into());
        }
    }
    errors
}

/// Whether each piece of a result's text, cut at `$`, begins with a result of a task that exists.
fn names_existing_tasks(text: &str, tasks: &HashSet<&str>, finally: &HashSet<&str>) -> bool {
    text.split('$').filter(|piece| !piece.is_empty()).all(|piece| {
        let Some(expression) = piece.strip_prefix('(') else {
            return false;
        };
        let Some(reference) = resultref::parse(expression.strip_suffix(')').unwrap_or(expression))
        else {
            return false;
        };
        let owner = reference.pipeline_task.as_str();
        (!expression.starts_with("tasks") || tasks.contains(owner))
            && (!expression.starts_with("finally") || finally.contains(owner))
    })
}

/// Results of child Pipelines cannot be used; relative to the spec.
pub(crate) fn check_child_pipelines(spec: &PipelineSpec) -> FieldErrors {
    let children: HashSet<&str> = spec
        .tasks
        .iter()
        .filter(|task| task.pipeline_ref.is_some() || task.pipeline_spec.is_some())
        .map(|task| task.name.as_str())
        .collect();
    let mut errors = FieldErrors::default();
    if children.is_empty() {
        return errors;
    }
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        for (index, task) in tasks.iter().enumerate() {
            for reference in resultref::result_refs(task) {
                let of = reference.pipeline_task;
                if children.contains(of.as_str()) {
                    let error = FieldErrors::from(FieldError::invalid(
                        format!(
                            "result reference to pipelineTask {} is not supported: referenced task uses pipelineRef or pipelineSpec and result propagation from child Pipelines is not yet implemented",
                            quote(&of)
                        ),
                        "",
                    ));
                    errors.also(error.via_field_index(field, index));
                }
            }
        }
    }
    errors
}

/// Every reference in params, matrix and `when` begins with something that exists; relative to the
/// owner of `field`.
pub(crate) fn check_prefixes(tasks: &[PipelineTask], field: &str) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, task) in tasks.iter().enumerate() {
        let mut found = check_expressions(task, wrong_prefixes);
        if let Some(matrix) = task.matrix.as_ref().filter(|matrix| is_matrixed(Some(matrix))) {
            let check = |value: &ParamValue| {
                let mut errors = FieldErrors::default();
                for message in wrong_prefixes(&expressions(value)) {
                    errors.also(FieldError::invalid(message, "value"));
                }
                errors
            };
            for param in &matrix.params {
                found.also(check(&param.value).via_field_key("matrix.params", &param.name));
            }
            for (at, include) in matrix.include.iter().enumerate() {
                for param in &include.params {
                    let wrong = check(&param.value).via_field_key("params", &param.name);
                    found.also(wrong.via_field_index("matrix.include", at));
                }
            }
        }
        errors.also(found.via_field_index(field, index));
    }
    errors
}

fn wrong_prefixes(expressions: &[&str]) -> Vec<String> {
    let has_wrong_prefix =
        |expression: &&&str| !PREFIXES.contains(&expression.split('.').next().unwrap_or_default());
    expressions
        .iter()
        .filter(has_wrong_prefix)
        .map(|expression| {
            let shown = quote(&format!("$({expression})"));
            format!("invalid variable reference {shown}, must start with a valid prefix: params, tasks, finally, context, workspaces, or results; if you meant a shell variable, use ${{VAR}} instead")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::tests::{parsed, shown};

    fn spec(json: &str) -> PipelineSpec {
        parsed(json)
    }

    #[test]
    fn status_variables() {
        for (json, errors) in [
            (
                r#"{"tasks":[{"name":"a","params":[{"name":"p","value":"$(tasks.status)"}],"when":[{"input":"$(tasks.b.reason)"}]}]}"#,
                "invalid value: pipeline tasks can not refer to execution status of any other pipeline task or aggregate status of tasks: tasks[0].params[p].value, tasks[0].when[0]",
            ),
            (
                r#"{"tasks":[{"name":"a"}],"finally":[{"name":"f","params":[{"name":"p","value":"$(tasks.a.status) $(tasks.ghost.reason) $(tasks.status)"}]}]}"#,
                "invalid value: pipeline task ghost is not defined in the pipeline: finally[0].params[p].value",
            ),
        ] {
            assert_eq!(shown(check_status_variables(&spec(json))), errors);
        }
    }

    #[test]
    fn finally_tasks() {
        for (json, errors) in [
            (
                r#"{"finally":[{"name":"f"}]}"#,
                "invalid value: spec.tasks is empty but spec.finally has 1 tasks: finally",
            ),
            (
                r#"{"tasks":[{"name":"a"}],"finally":[{"name":"f","runAfter":["a"],"params":[{"name":"p","value":"$(tasks.f.results.r) $(tasks.a.results.r) $(tasks.b.results.r)"}]}]}"#,
                "invalid value: invalid task result reference, final task has task result reference from a final task f: finally[0].params[p].value\ninvalid value: invalid task result reference, final task has task result reference from a task b which is not defined in the pipeline: finally[0].params[p].value\ninvalid value: no runAfter allowed under spec.finally, final task f has runAfter specified: finally[0]",
            ),
        ] {
            assert_eq!(shown(check_finally(&spec(json))), errors);
        }
    }

    #[test]
    fn results() {
        for (value, errors) in [
            (r#""$(tasks.a.results.r)""#, ""),
            (r#"["$(tasks.ghost.results.r)"]"#, ""),
            (r#""$(tasks.a.results.r) - $(finally.f.results.r)""#, ""),
            (
                r#""$(tasks.ghost.results.r)""#,
                "invalid value: referencing a nonexistent task: results[0].value",
            ),
            (
                r#""$(params.x)""#,
                "invalid value: expected pipeline results to be task result expressions but an invalid expressions was found: results[0].value\ninvalid value: referencing a nonexistent task: results[0].value",
            ),
            (
                r#""""#,
                "invalid value: expected pipeline results to be task result expressions but an invalid expressions was found: results[0].value\ninvalid value: expected pipeline results to be task result expressions but no expressions were found: results[0].value",
            ),
        ] {
            let json = format!(
                r#"{{"tasks":[{{"name":"a"}}],"finally":[{{"name":"f"}}],"results":[{{"name":"x","value":{value}}}]}}"#
            );
            assert_eq!(shown(check_results(&spec(&json))), errors, "{value}");
        }
    }

    #[test]
    fn prefixes() {
        let tasks: Vec<PipelineTask> = parsed(
            r#"[{"name":"a","params":[{"name":"p","value":"$(FOO)"}],"matrix":{"params":[{"name":"m","value":["$(BAR.x)"]}]}}]"#,
        );
        let found = shown(check_prefixes(&tasks, "tasks"));
        let lines: Vec<&str> = found.lines().collect();
        assert!(lines[0].starts_with("invalid value: invalid variable reference \"$(BAR.x)\", must start with a valid prefix: params,"));
        assert!(lines[0].ends_with("use ${VAR} instead: tasks[0].matrix.params[m].value"));
        assert!(lines[1].ends_with("use ${VAR} instead: tasks[0].params[p].value"));
    }
}
