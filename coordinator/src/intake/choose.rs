//! Which runs there are in the documents, or which one is made for a Pipeline or Task.
//!
//! A run that is made is written as text and goes through the loader like every other, so that it
//! is defaulted and checked the same way.

use tenon_tekton::load::{Bundle, Source};
use tenon_tekton::object::Object;

use super::documents::{Input, check};
use super::error::{Error, Result};
use super::{Front, Remark, Request, did_you_mean, refuse};

/// What runs, in order. A run that had to be made is added to `bundle`.
pub(super) fn choose(
    request: &Request,
    bundle: &mut Bundle,
    remark: &mut dyn FnMut(Remark),
) -> Result<Vec<Object>> {
    let made = match (&request.pipeline, &request.task) {
        (Some(_), Some(_)) => {
            let message = "both a Pipeline and a Task are chosen".to_owned();
            return Err(Error::request("task", "invalid/choice", message));
        }
        (Some(name), None) => Some(("Pipeline", name.clone())),
        (None, Some(name)) => Some(("Task", name.clone())),
        (None, None) => None,
    };
    if let Some((kind, name)) = made {
        if bundle.find(kind, &name).is_none() {
            return Err(missing(bundle, kind, &name));
        }
        return Ok(vec![make(request, bundle, kind, &name)?]);
    }
    let mut runs: Vec<Object> = bundle
        .documents
        .iter()
        .filter(|document| matches!(document.object, Object::PipelineRun(_) | Object::TaskRun(_)))
        .map(|document| document.object.clone())
        .collect();
    if let Some(wanted) = request.run {
        if wanted >= runs.len() {
            let message = format!(
                "run {wanted} is wanted, counted from 0, but the documents hold {} run objects",
                runs.len()
            );
            return Err(Error::request("run", "invalid/choice", message));
        }
        return Ok(vec![runs.swap_remove(wanted)]);
    }
    if !runs.is_empty() {
        return Ok(runs);
    }
    let (pipelines, tasks) = (Input::names(bundle, "Pipeline"), Input::names(bundle, "Task"));
    let (kind, name) = match (&pipelines[..], &tasks[..]) {
        // Tasks beside the only Pipeline are its parts.
        ([name], _) => ("Pipeline", name),
        ([], [name]) => ("Task", name),
        ([], []) => return Err(Error::NothingToRun),
        ([], tasks) => return Err(ambiguous(request.front, "Task", tasks)),
        (pipelines, _) => return Err(ambiguous(request.front, "Pipeline", pipelines)),
    };
    remark(Remark::Note(format!("no run object in the files: running {kind} \"{name}\"")));
    Ok(vec![make(request, bundle, kind, name)?])
}

fn ambiguous(front: Front, kind: &str, names: &[String]) -> Error {
    let message = format!(
        "the files hold no PipelineRun or TaskRun, and {} {kind}s: {}",
        names.len(),
        names.join(", ")
    );
    let field = if kind == "Pipeline" { "pipeline" } else { "task" };
    Error::request(field, "invalid/ambiguous", message).hint(front.choose(kind, &names[0]))
}

fn missing(bundle: &Bundle, kind: &str, name: &str) -> Error {
    let names = Input::names(bundle, kind);
    let field = if kind == "Pipeline" { "pipeline" } else { "task" };
    let message = format!("no {kind} \"{name}\" in the files");
    let error = Error::request(field, "invalid/no-such-document", message);
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    match did_you_mean(name, &known) {
        Some(help) => error.hint(help),
        None if names.is_empty() => error.hint(format!("the files define no {kind} at all")),
        None => error.hint(format!("they define: {}", names.join(", "))),
    }
}

/// Makes a run of a Pipeline or Task.
fn make(request: &Request, bundle: &mut Bundle, kind: &str, name: &str) -> Result<Object> {
    let reference = match kind {
        "Pipeline" => "pipelineRef",
        _ => "taskRef",
    };
    // Names of objects are at most 63 long; room is left for what the generator adds.
    let prefix = &name[..name.floor_char_boundary(52)];
    let object = serde_json::json!({
        "apiVersion": "tekton.dev/v1",
        "kind": format!("{kind}Run"),
        "metadata": {"generateName": format!("{prefix}-run-")},
        "spec": {reference: {"name": name}},
    });
    let source = Source { name: "<command line>".to_owned(), text: object.to_string().into() };
    let mut sources = request.sources.clone();
    sources.push(source);
    let input = check(&sources, &request.flags);
    // Its warnings were given before the run was made.
    refuse(&input)?;
    *bundle = input.bundle;
    match bundle.documents.last() {
        Some(document) => Ok(document.object.clone()),
        None => Err(Error::Internal("the run that was made did not load".to_owned())),
    }
}
