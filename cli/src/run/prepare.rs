//! From a run object of the files to a submission: names and ids filled in, the command line's
//! params, workspaces and timeout applied, and everything that may be referred to beside it.

use std::collections::BTreeMap;

use tenon_coordinator::Materials;
use tenon_engine::command::{RunObject, Submission};
use tenon_tekton::duration::GoDuration;
use tenon_tekton::k8s::ObjectMeta;
use tenon_tekton::load::Bundle;
use tenon_tekton::names::generated_name;
use tenon_tekton::object::Object;
use tenon_tekton::v1::{ParamSpec, PipelineRun, TaskRun, TimeoutFields};

use super::choose::Chosen;
use super::{Settings, new_run_id, params, random, workspaces};
use crate::exit::{Exit, Failure};
use crate::terminal;

/// A run that is ready to be submitted.
pub struct Prepared {
    /// What runs.
    pub submission: Submission,
    /// Secrets and ConfigMaps; never part of the submission.
    pub materials: Materials,
}

/// Makes the submissions of all runs, in order.
pub fn prepare(
    settings: &Settings,
    bundle: &Bundle,
    chosen: &[Chosen],
) -> Result<Vec<Prepared>, Failure> {
    let timeout = match &settings.args.timeout {
        Some(text) => Some(GoDuration::parse(text).map_err(|message| {
            Failure::new(Exit::Usage, format!("--timeout {text}: {message}"))
                .hint("for example --timeout 90s or --timeout 1h30m")
        })?),
        None => None,
    };
    let mut prepared = Vec::new();
    for chosen in chosen {
        let run_id = new_run_id();
        let run = match &chosen.object {
            Object::PipelineRun(run) => {
                let mut run = run.clone();
                complete(settings, run_id, "PipelineRun", &mut run.metadata);
                adjust_pipeline_run(settings, bundle, timeout, &mut run)?;
                RunObject::PipelineRun(run)
            }
            Object::TaskRun(run) => {
                let mut run = run.clone();
                complete(settings, run_id, "TaskRun", &mut run.metadata);
                adjust_task_run(settings, bundle, timeout, &mut run)?;
                RunObject::TaskRun(run)
            }
            other => {
                let message = format!("a {} cannot be run", other.kind());
                return Err(Failure::new(Exit::Internal, message));
            }
        };
        prepared.push(Prepared {
            submission: Submission {
                run_id,
                run,
                tasks: named(bundle, |object| match object {
                    Object::Task(task) => Some((**task).clone()),
                    _ => None,
                }),
                pipelines: named(bundle, |object| match object {
                    Object::Pipeline(pipeline) => Some((**pipeline).clone()),
                    _ => None,
                }),
                step_actions: named(bundle, |object| match object {
                    Object::StepAction(action) => Some((**action).clone()),
                    _ => None,
                }),
                service_accounts: named(bundle, |object| match object {
                    Object::ServiceAccount(account) => Some((**account).clone()),
                    _ => None,
                }),
                flags: settings.flags.clone(),
                parallel: settings.args.parallel,
            },
            materials: Materials {
                config_maps: named(bundle, |object| match object {
                    Object::ConfigMap(map) => Some((**map).clone()),
                    _ => None,
                }),
                secrets: named(bundle, |object| match object {
                    Object::Secret(secret) => Some((**secret).clone()),
                    _ => None,
                }),
            },
        });
    }
    Ok(prepared)
}

/// What an API server would fill in.
fn complete(
    settings: &Settings,
    run_id: tenon_engine::RunId,
    kind: &str,
    metadata: &mut ObjectMeta,
) {
    if metadata.name.is_empty() {
        metadata.name = generated_name(&metadata.generate_name, random());
    }
    if metadata.namespace.is_empty() {
        metadata.namespace.clone_from(&settings.args.namespace);
    }
    metadata.uid = run_id.object_uid(kind, &metadata.name);
    metadata.creation_timestamp = Some(terminal::now().to_seconds_string());
}

fn adjust_pipeline_run(
    settings: &Settings,
    bundle: &Bundle,
    timeout: Option<GoDuration>,
    run: &mut PipelineRun,
) -> Result<(), Failure> {
    let reference = run.spec.pipeline_ref.as_ref().map(|reference| reference.name.as_str());
    let declared: Option<&[ParamSpec]> =
        match reference.and_then(|name| bundle.find("Pipeline", name)) {
            Some(document) => match &document.object {
                Object::Pipeline(pipeline) => Some(&pipeline.spec.params),
                _ => None,
            },
            None => None,
        };
    params::apply(&settings.args.param, declared, &mut run.spec.params)?;
    workspaces::apply(&settings.args.workspace, bundle, &mut run.spec.workspaces)?;
    if let Some(timeout) = timeout {
        let before = run.spec.timeouts.take().unwrap_or_default();
        // Parts may not be longer than the whole; those that are follow from it again.
        let fits = |part: &GoDuration| timeout.0 == 0 || part.0 != 0 && part.0 <= timeout.0;
        run.spec.timeouts = Some(TimeoutFields {
            pipeline: Some(timeout),
            tasks: before.tasks.filter(fits),
            finally: before.finally.filter(fits),
        });
    }
    Ok(())
}

fn adjust_task_run(
    settings: &Settings,
    bundle: &Bundle,
    timeout: Option<GoDuration>,
    run: &mut TaskRun,
) -> Result<(), Failure> {
    let reference = run.spec.task_ref.as_ref().map(|reference| reference.name.as_str());
    let declared: Option<&[ParamSpec]> = match reference.and_then(|name| bundle.find("Task", name))
    {
        Some(document) => match &document.object {
            Object::Task(task) => Some(&task.spec.params),
            _ => None,
        },
        None => None,
    };
    params::apply(&settings.args.param, declared, &mut run.spec.params)?;
    workspaces::apply(&settings.args.workspace, bundle, &mut run.spec.workspaces)?;
    if timeout.is_some() {
        run.spec.timeout = timeout;
    }
    Ok(())
}

/// The objects of one kind, by name.
fn named<T>(bundle: &Bundle, pick: impl Fn(&Object) -> Option<T>) -> BTreeMap<String, T> {
    bundle
        .documents
        .iter()
        .filter_map(|document| Some((document.name().to_owned(), pick(&document.object)?)))
        .collect()
}
