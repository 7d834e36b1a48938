//! Values for the result references of a PipelineTask, out of the tasks that made them.

use std::collections::BTreeSet;

use crate::resultref::{ResultRef, result_refs};
use crate::substitute::Replacements;
use crate::v1::{ParamValue, PipelineTask, TaskRunResult};

/// A PipelineTask that others refer to, as far as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Producer<'a> {
    /// Whether it succeeded or failed; a skipped or running task has not.
    pub finished: bool,
    /// Whether it fans out, so that its results are gathered into arrays.
    pub matrixed: bool,
    /// Its TaskRuns: name and results.
    pub runs: Vec<(&'a str, &'a [TaskRunResult])>,
}

/// A reference and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedRef {
    /// What was referred to.
    pub reference: ResultRef,
    /// The whole result; an index or key is applied by the variables made of it.
    pub value: ParamValue,
    /// Name of the TaskRun that it came from; of a matrix, the first by name.
    pub task_run: String,
}

/// A reference without a value. The texts are Tekton's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingResult {
    /// No such task.
    #[error("could not find task {:?} referenced by result", .reference.pipeline_task)]
    NoTask {
        /// The reference.
        reference: ResultRef,
    },
    /// The task neither succeeded nor failed.
    #[error("task {:?} referenced by result was not finished", .reference.pipeline_task)]
    NotFinished {
        /// The reference.
        reference: ResultRef,
    },
    /// The task ended without writing the result.
    #[error("Invalid task result reference: Could not find result with name {} for pipeline task {}", .reference.result, .reference.pipeline_task)]
    NoResult {
        /// The reference.
        reference: ResultRef,
    },
    /// The result is an array, and too short.
    #[error("array Result Index {} for Task {} Result {} is out of bound of size {size}", .reference.index.unwrap_or_default(), .reference.pipeline_task, .reference.result)]
    OutOfBounds {
        /// The reference.
        reference: ResultRef,
        /// How long it is.
        size: usize,
    },
}

impl MissingResult {
    /// The reference that has no value.
    pub fn reference(&self) -> &ResultRef {
        match self {
            MissingResult::NoTask { reference }
            | MissingResult::NotFinished { reference }
            | MissingResult::NoResult { reference }
            | MissingResult::OutOfBounds { reference, .. } => reference,
        }
    }

    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            MissingResult::NoTask { .. } => "result/no-task",
            MissingResult::NotFinished { .. } => "result/not-finished",
            MissingResult::NoResult { .. } => "result/missing",
            MissingResult::OutOfBounds { .. } => "result/out-of-bounds",
        }
    }
}

/// The gathered values of a result of a matrixed task: TaskRuns by name *as text* (`-10` before `-2`),
/// those that did not write it left out.
pub fn matrix_values(runs: &[(&str, &[TaskRunResult])], result: &str) -> Vec<String> {
    let mut sorted: Vec<_> = runs.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    sorted
        .into_iter()
        .flat_map(|(_, results)| results.iter())
        .filter(|candidate| candidate.name == result)
        .map(|found| found.value.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Values for all result references of a task, each once; the first reference without a value is the
/// error. `producer` answers by PipelineTask name.
pub fn resolve<'a>(
    task: &PipelineTask,
    producer: impl Fn(&str) -> Option<Producer<'a>>,
) -> Result<Vec<ResolvedRef>, MissingResult> {
    let mut resolved = Vec::new();
    let mut seen = BTreeSet::new();
    for reference in result_refs(task) {
        if !seen.insert(reference.clone()) {
            continue;
        }
        let Some(from) = producer(&reference.pipeline_task) else {
            return Err(MissingResult::NoTask { reference });
        };
        if !from.finished {
            return Err(MissingResult::NotFinished { reference });
        }
        let first = from.runs.iter().min_by_key(|(name, _)| *name);
        let found = if from.matrixed {
            let values = matrix_values(&from.runs, &reference.result);
            (!values.is_empty()).then_some(ParamValue::Array(values))
        } else {
            from.runs
                .first()
                .and_then(|(_, results)| results.iter().find(|r| r.name == reference.result))
                .map(|result| result.value.clone())
        };
        let Some(value) = found else {
            return Err(MissingResult::NoResult { reference });
        };
        if let (ParamValue::Array(items), Some(index)) = (&value, reference.index)
            && index >= items.len()
        {
            let size = items.len();
            return Err(MissingResult::OutOfBounds { reference, size });
        }
        resolved.push(ResolvedRef {
            task_run: first.map(|(name, _)| (*name).to_owned()).unwrap_or_default(),
            reference,
            value,
        });
    }
    Ok(resolved)
}

/// The variables of resolved references, in all forms that Tekton accepts.
pub fn replacements<'a>(resolved: impl IntoIterator<Item = &'a ResolvedRef>) -> Replacements {
    let mut all = Replacements::new();
    for ResolvedRef { reference, value, .. } in resolved {
        set_result(&mut all, &reference.pipeline_task, &reference.result, value);
    }
    all
}

fn set_result(all: &mut Replacements, task: &str, result: &str, value: &ParamValue) {
    // The bracket forms follow `results` without a dot.
    let keys = [
        format!("tasks.{task}.results.{result}"),
        format!("tasks.{task}.results[{result:?}]"),
        format!("tasks.{task}.results['{result}']"),
    ];
    for (form, key) in keys.into_iter().enumerate() {
        match value {
            ParamValue::String(text) => all.set(key, text.clone()),
            ParamValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    all.set(format!("{key}[{i}]"), item.clone());
                }
                all.set_array(key, items.clone());
            }
            ParamValue::Object(entries) => {
                for (name, item) in entries {
                    let element = match form {
                        0 => format!("{key}.{name}"),
                        _ => format!("{key}[{name}]"),
                    };
                    all.set(element, item.clone());
                }
                all.set_object(key, entries.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, value: ParamValue) -> TaskRunResult {
        TaskRunResult { name: name.into(), r#type: value.type_name().into(), value }
    }

    fn task(value: &str) -> PipelineTask {
        let param = crate::v1::Param { name: "p".into(), value: value.into() };
        PipelineTask { params: vec![param], ..PipelineTask::default() }
    }

    #[test]
    fn values_come_from_finished_tasks() {
        let results = [
            result("s", "x".into()),
            result("a", ParamValue::Array(vec!["1".into()])),
            result("o", ParamValue::Object([("k".into(), "v".into())].into())),
        ];
        let producer = |name: &str| match name {
            "t" => Some(Producer { finished: true, matrixed: false, runs: vec![("tr", &results)] }),
            "running" => Some(Producer::default()),
            _ => None,
        };
        for (value, expected) in [
            ("$(tasks.t.results.s)-$(tasks.t.results.a[0])", Ok("x-1".into())),
            ("$(tasks.t.results.a[*])", Ok(ParamValue::Array(vec!["1".into()]))),
            ("$(tasks.t.results.a)", Ok(ParamValue::Array(vec!["1".into()]))),
            ("$(tasks.t.results.o.k)", Ok("v".into())),
            ("$(tasks.gone.results.s)", Err("could not find task \"gone\" referenced by result")),
            (
                "$(tasks.running.results.s)",
                Err("task \"running\" referenced by result was not finished"),
            ),
            (
                "$(tasks.t.results.none)",
                Err(
                    "Invalid task result reference: Could not find result with name none for pipeline task t",
                ),
            ),
            (
                "$(tasks.t.results.a[3])",
                Err("array Result Index 3 for Task t Result a is out of bound of size 1"),
            ),
        ] {
            let mut task = task(value);
            let found = resolve(&task, producer).map(|resolved| {
                crate::pipelinerun::apply_results(&mut task, &replacements(&resolved));
                task.params[0].value.clone()
            });
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn a_matrix_is_gathered_by_name_as_text() {
        let values: Vec<[TaskRunResult; 1]> =
            (0..11).map(|i| [result("r", i.to_string().as_str().into())]).collect();
        let names: Vec<String> = (0..11).map(|i| format!("tr-{i}")).collect();
        let mut runs: Vec<(&str, &[TaskRunResult])> =
            names.iter().map(String::as_str).zip(values.iter().map(|v| &v[..])).collect();
        // One that wrote nothing is left out.
        runs[3].1 = &[];
        let gathered = matrix_values(&runs, "r");
        assert_eq!(gathered, ["0", "1", "10", "2", "4", "5", "6", "7", "8", "9"]);
    }
}
