//! Which runs there are in the files, or which one is made for a Pipeline or Task.
//!
//! A run that is made is written as text and goes through the loader like every other, so that it
//! is defaulted and checked the same way.

use tenon_tekton::load::{Bundle, Source};
use tenon_tekton::object::Object;

use super::{Settings, names};
use crate::config::did_you_mean;
use crate::exit::{Exit, Failure};
use crate::{input, terminal};

/// A PipelineRun or TaskRun that is to run.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The object as loaded.
    pub object: Object,
}

/// What runs, in order. A run that had to be made is added to `bundle`.
pub fn choose(
    settings: &Settings,
    sources: &[Source],
    bundle: &mut Bundle,
) -> Result<Vec<Chosen>, Failure> {
    let args = &settings.args;
    let made = match (&args.pipeline, &args.task) {
        (Some(name), _) => Some(("Pipeline", name.clone())),
        (None, Some(name)) => Some(("Task", name.clone())),
        (None, None) => None,
    };
    if let Some((kind, name)) = made {
        if bundle.find(kind, &name).is_none() {
            return Err(missing(bundle, kind, &name));
        }
        return make(settings, sources, bundle, kind, &name);
    }
    let runs: Vec<Chosen> = bundle
        .documents
        .iter()
        .filter(|document| matches!(document.object, Object::PipelineRun(_) | Object::TaskRun(_)))
        .map(|document| Chosen { object: document.object.clone() })
        .collect();
    if !runs.is_empty() {
        return Ok(runs);
    }
    let (pipelines, tasks) = (names(bundle, "Pipeline"), names(bundle, "Task"));
    match (&pipelines[..], &tasks[..]) {
        // Tasks beside the only Pipeline are its parts.
        ([name], _) => {
            terminal::note(&format!("no run object in the files: running Pipeline \"{name}\""));
            make(settings, sources, bundle, "Pipeline", &name.clone())
        }
        ([], [name]) => {
            terminal::note(&format!("no run object in the files: running Task \"{name}\""));
            make(settings, sources, bundle, "Task", &name.clone())
        }
        ([], []) => Err(Failure::new(
            Exit::Validation,
            "the files hold no PipelineRun, TaskRun, Pipeline or Task: nothing to run",
        )),
        ([], tasks) => Err(ambiguous("Task", "--task", tasks)),
        (pipelines, _) => Err(ambiguous("Pipeline", "--pipeline", pipelines)),
    }
}

fn ambiguous(kind: &str, flag: &str, names: &[String]) -> Failure {
    let message = format!(
        "the files hold no PipelineRun or TaskRun, and {} {kind}s: {}",
        names.len(),
        names.join(", ")
    );
    Failure::new(Exit::Usage, message).hint(format!("choose one: {flag} {}", names[0]))
}

fn missing(bundle: &Bundle, kind: &str, name: &str) -> Failure {
    let names = names(bundle, kind);
    let failure = Failure::new(Exit::Usage, format!("no {kind} \"{name}\" in the files"));
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    match did_you_mean(name, &known) {
        Some(help) => failure.hint(help),
        None if names.is_empty() => failure.hint(format!("the files define no {kind} at all")),
        None => failure.hint(format!("they define: {}", names.join(", "))),
    }
}

/// Makes a run of a Pipeline or Task.
fn make(
    settings: &Settings,
    sources: &[Source],
    bundle: &mut Bundle,
    kind: &str,
    name: &str,
) -> Result<Vec<Chosen>, Failure> {
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
    let mut sources = sources.to_vec();
    sources.push(source);
    let input = input::check(&sources, &settings.flags)?;
    input::refuse(&input)?;
    *bundle = input.bundle;
    let made = bundle.documents.last().map(|document| document.object.clone());
    match made {
        Some(object) => Ok(vec![Chosen { object }]),
        None => Err(Failure::new(Exit::Internal, "the run that was made did not load")),
    }
}
