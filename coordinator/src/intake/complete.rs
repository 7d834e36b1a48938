//! From a run object of the documents to a submission: names and ids filled in, the request's
//! params, workspaces and timeout applied, and everything that may be referred to beside it.

use std::collections::BTreeMap;

use tenon_engine::command::{RunObject, Submission};
use tenon_engine::{RunId, trace};
use tenon_tekton::duration::GoDuration;
use tenon_tekton::k8s::ObjectMeta;
use tenon_tekton::load::Bundle;
use tenon_tekton::names::generated_name;
use tenon_tekton::object::Object;
use tenon_tekton::v1::{ParamSpec, PipelineRun, TaskRun, TimeoutFields};

use super::error::{Error, Result};
use super::{Chance, Front, Prepared, Remark, Request, params, workspaces};
use crate::materials::Materials;

/// Makes the submissions of the chosen runs, in order.
pub(super) fn complete(
    request: &Request,
    bundle: &Bundle,
    chosen: Vec<Object>,
    chance: &mut Chance<'_>,
    remark: &mut dyn FnMut(Remark),
) -> Result<Vec<Prepared>> {
    let timeout = match &request.timeout {
        Some(text) => Some(GoDuration::parse(text).map_err(|message| {
            let message = format!("{}: {message}", request.front.timeout(text));
            Error::request("timeout", "invalid/timeout", message)
                .hint(request.front.timeout_example())
        })?),
        None => None,
    };
    let mut prepared = Vec::new();
    for object in chosen {
        let run_id = chance.run_id();
        let mut run = match object {
            Object::PipelineRun(mut run) => {
                fill_in(request, run_id, "PipelineRun", &mut run.metadata, chance);
                adjust_pipeline_run(request, bundle, timeout, &mut run, remark)?;
                RunObject::PipelineRun(run)
            }
            Object::TaskRun(mut run) => {
                fill_in(request, run_id, "TaskRun", &mut run.metadata, chance);
                adjust_task_run(request, bundle, timeout, &mut run, remark)?;
                RunObject::TaskRun(run)
            }
            other => return Err(Error::Internal(format!("a {} cannot be run", other.kind()))),
        };
        if let Some(traceparent) = &request.traceparent {
            trace::continue_trace(&mut run, traceparent);
        }
        prepared.push(Prepared {
            submission: submission(request, bundle, run_id, run),
            materials: materials(bundle),
        });
    }
    Ok(prepared)
}

fn submission(request: &Request, bundle: &Bundle, run_id: RunId, run: RunObject) -> Submission {
    Submission {
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
        flags: request.flags.clone(),
        parallel: request.parallel,
        rerun: None,
        can_be_released: request.front == Front::Api,
    }
}

fn materials(bundle: &Bundle) -> Materials {
    Materials {
        config_maps: named(bundle, |object| match object {
            Object::ConfigMap(map) => Some((**map).clone()),
            _ => None,
        }),
        secrets: named(bundle, |object| match object {
            Object::Secret(secret) => Some((**secret).clone()),
            _ => None,
        }),
    }
}

/// What an API server would fill in.
fn fill_in(
    request: &Request,
    run_id: RunId,
    kind: &str,
    metadata: &mut ObjectMeta,
    chance: &mut Chance<'_>,
) {
    if metadata.name.is_empty() {
        metadata.name = generated_name(&metadata.generate_name, (chance.random)());
    }
    if metadata.namespace.is_empty() {
        metadata.namespace.clone_from(&request.namespace);
    }
    metadata.uid = run_id.object_uid(kind, &metadata.name);
    metadata.creation_timestamp = Some(chance.now.to_seconds_string());
}

fn adjust_pipeline_run(
    request: &Request,
    bundle: &Bundle,
    timeout: Option<GoDuration>,
    run: &mut PipelineRun,
    remark: &mut dyn FnMut(Remark),
) -> Result<()> {
    let reference = run.spec.pipeline_ref.as_ref().map(|reference| reference.name.as_str());
    let declared: Option<&[ParamSpec]> =
        match reference.and_then(|name| bundle.find("Pipeline", name)) {
            Some(document) => match &document.object {
                Object::Pipeline(pipeline) => Some(&pipeline.spec.params),
                _ => None,
            },
            None => None,
        };
    params::apply(request, declared, &mut run.spec.params, remark)?;
    workspaces::apply(request, bundle, &mut run.spec.workspaces)?;
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
    request: &Request,
    bundle: &Bundle,
    timeout: Option<GoDuration>,
    run: &mut TaskRun,
    remark: &mut dyn FnMut(Remark),
) -> Result<()> {
    let reference = run.spec.task_ref.as_ref().map(|reference| reference.name.as_str());
    let declared: Option<&[ParamSpec]> = match reference.and_then(|name| bundle.find("Task", name))
    {
        Some(document) => match &document.object {
            Object::Task(task) => Some(&task.spec.params),
            _ => None,
        },
        None => None,
    };
    params::apply(request, declared, &mut run.spec.params, remark)?;
    workspaces::apply(request, bundle, &mut run.spec.workspaces)?;
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
