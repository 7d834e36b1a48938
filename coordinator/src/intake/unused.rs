//! Params and workspaces of a request that nothing in its runs asks for: probably misspelt. Params of a Pipeline or Task
//! with a name are remarked on where they are applied ([`super::params`]).

use serde_json::Value;
use tenon_engine::command::{RunObject, Submission};

use super::{Prepared, Remark, Request, did_you_mean};

/// A remark for each that no run knows.
pub(super) fn remark_on(request: &Request, prepared: &[Prepared], remark: &mut dyn FnMut(Remark)) {
    let of_runs = |asked: fn(&Submission) -> Asked| -> Vec<Asked> {
        prepared.iter().map(|run| asked(&run.submission)).collect()
    };
    let mut notes: Vec<String> = Vec::new();
    let mut look = |runs: &[Asked], what: &str, name: &str, given: String| {
        if runs.iter().any(|run| run.knows(name)) {
            return;
        }
        let declared: Vec<&str> =
            runs.iter().flat_map(|run| &run.declared).map(String::as_str).collect();
        let help = did_you_mean(name, &declared).map(|help| format!("; {help}"));
        let note = format!("{given}: no such {what} is declared{}", help.unwrap_or_default());
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    let runs = of_runs(params);
    for (name, _) in &request.params {
        look(&runs, "param", name, request.front.param(name));
    }
    let runs = of_runs(workspaces);
    for (name, source) in &request.workspaces {
        look(&runs, "workspace", name, request.front.workspace(name, source));
    }
    notes.into_iter().for_each(|note| remark(Remark::Note(note)));
}

/// What a run asks for.
#[derive(Default)]
struct Asked {
    declared: Vec<String>,
    /// What stands inside of it may use what is declared nowhere.
    spec: Option<Value>,
    /// How that would look, before the name.
    uses: &'static [&'static str],
    /// It is not known here.
    anything: bool,
}

impl Asked {
    fn knows(&self, name: &str) -> bool {
        self.anything
            || self.declared.iter().any(|declared| declared == name)
            || self.spec.as_ref().is_some_and(|spec| self.mentions(spec, name))
    }

    fn mentions(&self, value: &Value, name: &str) -> bool {
        match value {
            Value::String(text) => self.uses.iter().any(|before| {
                text.match_indices(before).any(|(at, _)| {
                    let rest = text[at + before.len()..].strip_prefix(name);
                    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    rest.is_some_and(|rest| !rest.starts_with(goes_on))
                })
            }),
            Value::Array(items) => items.iter().any(|item| self.mentions(item, name)),
            Value::Object(entries) => entries.iter().any(|(key, value)| {
                key == "workspace" && value == name || self.mentions(value, name)
            }),
            _ => false,
        }
    }
}

fn params(submission: &Submission) -> Asked {
    let uses = &["params.", "params[\"", "params['"];
    let (declared, spec) = match &submission.run {
        RunObject::PipelineRun(run) => match &run.spec.pipeline_spec {
            Some(spec) => (&spec.params, serde_json::to_value(spec).ok()),
            None => return Asked { anything: true, ..Asked::default() },
        },
        RunObject::TaskRun(run) => match &run.spec.task_spec {
            Some(spec) => (&spec.params, serde_json::to_value(spec).ok()),
            None => return Asked { anything: true, ..Asked::default() },
        },
    };
    let declared = declared.iter().map(|spec| spec.name.clone()).collect();
    Asked { declared, spec, uses, anything: false }
}

fn workspaces(submission: &Submission) -> Asked {
    let uses = &["workspaces."];
    let anything = || Asked { anything: true, ..Asked::default() };
    match &submission.run {
        RunObject::PipelineRun(run) => {
            let by_name = run.spec.pipeline_ref.as_ref();
            let by_name = by_name.and_then(|by| submission.pipelines.get(&by.name));
            let spec = run.spec.pipeline_spec.as_ref().or(by_name.map(|found| &found.spec));
            let Some(spec) = spec else { return anything() };
            let declared = spec.workspaces.iter().map(|one| one.name.clone()).collect();
            Asked { declared, spec: serde_json::to_value(spec).ok(), uses, anything: false }
        }
        RunObject::TaskRun(run) => {
            let by_name = run.spec.task_ref.as_ref();
            let by_name = by_name.and_then(|by| submission.tasks.get(&by.name));
            let spec = run.spec.task_spec.as_ref().or(by_name.map(|found| &found.spec));
            let Some(spec) = spec else { return anything() };
            let declared = spec.workspaces.iter().map(|one| one.name.clone()).collect();
            Asked { declared, spec: serde_json::to_value(spec).ok(), uses, anything: false }
        }
    }
}
