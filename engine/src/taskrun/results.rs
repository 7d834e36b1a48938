//! Results of a finished attempt: what its steps left in files, typed and checked by the language.

use serde::Serialize;
use tenon_tekton::results::{StepOutput, TaskResults, task_results};

use super::{StepProgress, TaskRunState};

/// The results of the current attempt, so far as its steps have ended.
pub(super) fn collect(task_run: &TaskRunState) -> TaskResults {
    let attempt = &task_run.attempt;
    let spec = match &attempt.task_spec {
        Some(spec) => spec,
        None => &task_run.resolved.spec,
    };
    let outputs = attempt.steps.iter().enumerate().map(|(index, step)| {
        let named = spec.steps.get(index).map_or("", |step| &step.name);
        output_of(named, step)
    });
    task_results(spec, &outputs.collect::<Vec<_>>())
}

fn output_of(name: &str, step: &StepProgress) -> StepOutput {
    let (task_results, step_results) = match &step.end {
        Some((_, end)) => (end.task_results.clone(), end.step_results.clone()),
        None => Default::default(),
    };
    StepOutput { step: name.to_owned(), task_results, step_results }
}

/// The termination message that Tekton leaves in `terminated.message`: the results that existed when
/// the step ended, sorted by key. Empty without any.
pub(super) fn termination_message(step: &StepProgress) -> String {
    let Some((_, end)) = &step.end else {
        return String::new();
    };
    let task = end.task_results.iter().map(|result| (result, 1));
    let own = end.step_results.iter().map(|result| (result, 4));
    let mut entries: Vec<_> = task.chain(own).collect();
    if entries.is_empty() {
        return String::new();
    }
    entries.sort_by_key(|((name, _), _)| *name);
    let entries: Vec<Entry<'_>> =
        entries.into_iter().map(|((key, value), r#type)| Entry { key, value, r#type }).collect();
    serde_json::to_string(&entries).unwrap_or_default()
}

/// One entry of a termination message, keys in Tekton's order.
#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    value: &'a str,
    r#type: u8,
}
