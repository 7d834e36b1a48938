//! The results of a Pipeline, out of those of its tasks.

use crate::resultref::{expressions, parse_result_name};
use crate::substitute::{Kinds, Replacements};
use crate::v1::{ParamValue, PipelineResult, PipelineRunResult, TaskRunResult};

/// What a PipelineRun's results come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineResults {
    /// For `status.results`.
    pub results: Vec<PipelineRunResult>,
    /// Names of results whose references do not exist, in Tekton's order (a name may repeat): then the
    /// run fails with `CouldntGetPipelineResult`.
    pub invalid: Vec<String>,
}

impl PipelineResults {
    /// The condition of a run called `run` when some result is invalid.
    pub fn rejection(&self, run: &str) -> Option<crate::Rejection> {
        (!self.invalid.is_empty()).then(|| {
            crate::Rejection::new(
                "CouldntGetPipelineResult",
                format!(
                    "Failed to get PipelineResult from TaskRun Results for PipelineRun {run}: invalid pipelineresults {}, the referenced results don't exist",
                    crate::rejection::go_list(&self.invalid)
                ),
            )
        })
    }
}

/// The results of a Pipeline whose run ended. `results_of` answers with the results of a PipelineTask
/// (the gathered arrays of a matrixed one), `status_of` with its `$(tasks.X.status)`: `Succeeded`,
/// `Failed` or `None`.
pub fn pipeline_results<'a>(
    declared: &[PipelineResult],
    results_of: impl Fn(&str) -> Option<&'a [TaskRunResult]>,
    status_of: impl Fn(&str) -> Option<&'a str>,
) -> PipelineResults {
    let mut found = PipelineResults::default();
    let mut with = Replacements::new();
    for result in declared {
        let mut references: Vec<&str> = Vec::new();
        crate::resultref::visit_value(&result.value, &mut |text| {
            references.extend(expressions(text));
        });
        if references.is_empty() {
            continue;
        }
        let mut is_valid = true;
        for reference in references {
            match set_reference(&mut with, reference, &results_of) {
                Found::Yes => {}
                Found::NoResult { task } => {
                    is_valid = false;
                    // Of a task that did not succeed, a missing result is nobody's fault.
                    if status_of(task).is_none_or(|status| status == "Succeeded") {
                        found.invalid.push(result.name.clone());
                    }
                }
                Found::Invalid => {
                    is_valid = false;
                    found.invalid.push(result.name.clone());
                }
            }
        }
        if is_valid {
            let mut value = result.value.clone();
            with.apply_to_value(&mut value, Kinds::All);
            found.results.push(PipelineRunResult { name: result.name.clone(), value });
        }
    }
    found
}

enum Found<'r> {
    Yes,
    NoResult { task: &'r str },
    Invalid,
}

fn set_reference<'r, 'a>(
    with: &mut Replacements,
    reference: &'r str,
    results_of: impl Fn(&str) -> Option<&'a [TaskRunResult]>,
) -> Found<'r> {
    let parts: Vec<&str> = reference.split('.').collect();
    let (task, name, key) = match parts.as_slice() {
        ["tasks" | "finally", task, "results", name] => (*task, *name, None),
        ["tasks" | "finally", task, "results", name, key] => (*task, *name, Some(*key)),
        _ => return Found::Invalid,
    };
    let (name, index) = parse_result_name(name);
    let result = results_of(task).and_then(|all| all.iter().find(|r| r.name == name));
    let Some(result) = result else {
        return Found::NoResult { task };
    };
    if let Some(key) = key {
        return match &result.value {
            ParamValue::Object(entries) if entries.contains_key(key) => {
                with.set(reference, entries[key].clone());
                Found::Yes
            }
            _ => Found::Invalid,
        };
    }
    let whole = reference.strip_suffix("[*]").unwrap_or(reference);
    match &result.value {
        ParamValue::String(text) => with.set(reference, text.clone()),
        ParamValue::Array(items) if index == "*" => with.set_array(whole, items.clone()),
        // Without an index Tekton's Atoi gives 0: the first element.
        ParamValue::Array(items) => match items.get(index.parse().unwrap_or(0)) {
            Some(item) => with.set(reference, item.clone()),
            None => return Found::Invalid,
        },
        ParamValue::Object(entries) => with.set_object(whole, entries.clone()),
    }
    Found::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, value: ParamValue) -> TaskRunResult {
        TaskRunResult { name: name.into(), r#type: value.type_name().into(), value }
    }

    fn declared(value: &str) -> PipelineResult {
        PipelineResult { name: "out".into(), value: value.into(), ..PipelineResult::default() }
    }

    #[test]
    fn follows_tektons_table() {
        let produced = [
            result("s", "text".into()),
            result("a", ParamValue::Array(vec!["x".into(), "y".into()])),
            result("o", ParamValue::Object([("k".into(), "v".into())].into())),
        ];
        let value = |text: &str| {
            pipeline_results(
                &[declared(text)],
                |task| (task != "gone").then_some(&produced[..]),
                |task| Some(if task == "bad" { "Failed" } else { "Succeeded" }),
            )
        };
        for (text, expected) in [
            ("$(tasks.t.results.s)!", Some(ParamValue::from("text!"))),
            ("$(tasks.t.results.a[*])", Some(ParamValue::Array(vec!["x".into(), "y".into()]))),
            ("$(tasks.t.results.a[1])", Some("y".into())),
            ("$(tasks.t.results.o.k)", Some("v".into())),
            (
                "$(tasks.t.results.o[*])",
                Some(ParamValue::Object([("k".into(), "v".into())].into())),
            ),
            ("$(finally.t.results.s)", Some("text".into())),
            ("$(tasks.t.results.a[9])", None),
            ("$(tasks.gone.results.s)", None),
        ] {
            let found = value(text);
            assert_eq!(found.results.first().map(|r| r.value.clone()), expected, "{text}");
            assert_eq!(found.invalid.is_empty(), expected.is_some(), "{text}");
        }
        // A failed task may leave its results out.
        let found = value("$(tasks.bad.results.none)");
        assert!(found.results.is_empty() && found.invalid.is_empty());
        let found = value("$(tasks.t.results.none)");
        assert_eq!(
            found.rejection("pr").expect("a rejection").message,
            "Failed to get PipelineResult from TaskRun Results for PipelineRun pr: invalid pipelineresults [out], the referenced results don't exist"
        );
    }
}
