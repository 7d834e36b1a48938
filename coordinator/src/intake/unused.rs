//! Params and workspaces of the command line that nothing in a run asks for: probably misspelt. Of a
//! Pipeline or Task with a name, the intake remarks on params itself.

use serde_json::Value;
use tenon_coordinator::intake::{Prepared, Request, did_you_mean};
use tenon_engine::command::{RunObject, Submission};

/// A remark for each that no run knows.
pub fn unused(request: &Request, prepared: &[Prepared]) -> Vec<String> {
    let params: Vec<Asked> = prepared.iter().map(|run| params(&run.submission)).collect();
    let workspaces: Vec<Asked> = prepared.iter().map(|run| workspaces(&run.submission)).collect();
    let mut remarks = Vec::new();
    let mut all: Vec<(&str, &str, &str, &[Asked])> = Vec::new();
    all.extend(request.params.iter().map(|(name, _)| ("-p", "param", name.as_str(), &params[..])));
    let bound = request.workspaces.iter();
    all.extend(bound.map(|(name, _)| ("-w", "workspace", name.as_str(), &workspaces[..])));
    for (flag, what, name, runs) in all {
        if runs.iter().any(|run| run.knows(name)) {
            continue;
        }
        let declared: Vec<&str> =
            runs.iter().flat_map(|run| &run.declared).map(String::as_str).collect();
        let help = did_you_mean(name, &declared).map(|help| format!("; {help}"));
        let help = help.unwrap_or_default();
        let remark = format!("{flag} {name}: no such {what} is declared{help}");
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
    remarks
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
