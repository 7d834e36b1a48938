//! Every document of the conformance tests and the examples survives being stored and moved: what a
//! submission holds, and what a run makes of it.

use std::path::Path;

use tenon_tekton::Object;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Source, load};

use super::sim::*;
use crate::command::RunObject;
use crate::{Command, RunId, Submission};

/// The submissions that a file stands for: one for each run in it.
fn submissions(path: &Path) -> Vec<Submission> {
    let text = std::fs::read_to_string(path).expect("a file");
    let source = Source { name: path.display().to_string(), text: text.into() };
    let loaded = load(&[source], &FeatureFlags::default());
    let objects: Vec<&Object> = loaded.bundle.documents.iter().map(|d| &d.object).collect();
    let mut base = None;
    let mut runs = Vec::new();
    for object in &objects {
        match object {
            Object::PipelineRun(run) => runs.push(RunObject::PipelineRun(run.clone())),
            Object::TaskRun(run) => runs.push(RunObject::TaskRun(run.clone())),
            _ => {}
        }
    }
    let all = runs.into_iter().enumerate().map(|(number, run)| {
        let base = base.get_or_insert_with(|| with_references(&objects));
        let run_id = RunId(ulid::Ulid(number as u128 + 7));
        let mut submission = Submission { run_id, run, ..base.clone() };
        let metadata = match &mut submission.run {
            RunObject::PipelineRun(run) => &mut run.metadata,
            RunObject::TaskRun(run) => &mut run.metadata,
        };
        if metadata.name.is_empty() {
            metadata.name = run_id.generated_name(&metadata.generate_name);
        }
        submission
    });
    all.collect()
}

fn with_references(objects: &[&Object]) -> Submission {
    let mut base = task_run(serde_json::json!({}));
    for object in objects {
        match object {
            Object::Task(task) => {
                base.tasks.insert(task.metadata.name.clone(), (**task).clone());
            }
            Object::Pipeline(pipeline) => {
                base.pipelines.insert(pipeline.metadata.name.clone(), (**pipeline).clone());
            }
            Object::StepAction(action) => {
                base.step_actions.insert(action.metadata.name.clone(), (**action).clone());
            }
            _ => {}
        }
    }
    base
}

#[test]
fn every_document_survives_being_stored_and_moved() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut runs = 0;
    for folder in ["tests/conformance", "examples"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            println!("{}", path.display());
            for submission in submissions(&path) {
                let time = crate::Time(5);
                let command = Command::Submit { time, submission: Box::new(submission.clone()) };
                let stored = serde_json::to_string(&command).expect("JSON");
                let read: Command = serde_json::from_str(&stored).expect("a command");
                assert_eq!(read, command);
                let mut sim = Sim::moving(submission);
                sim.finish();
                runs += 1;
            }
        }
    }
    assert!(runs > 60, "{runs} runs");
}
