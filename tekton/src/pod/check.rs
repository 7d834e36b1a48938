//! What Tekton checks of a TaskRun before it makes a Pod, in its order and words.

use std::collections::BTreeSet;

use super::plan::PlanInput;
use super::quantity;
use crate::k8s::Volume;
use crate::params::check;
use crate::rejection::Rejection;
use crate::v1::{StepTemplate, TaskRun, TaskSpec, WorkspaceBinding, WorkspaceDeclaration};

fn failed(message: impl std::fmt::Display) -> Rejection {
    Rejection::user("TaskRunValidationFailed", message)
}

/// All checks of the resolved Task with its StepActions inlined.
pub(super) fn check(input: &PlanInput<'_>, spec: &TaskSpec) -> Result<(), Rejection> {
    let run = &input.task_run.spec;
    check_requests(spec)?;
    check::task_params(&spec.params, &run.params, None).map_err(|error| {
        failed(format!("invalid input params for task {}: {error}", input.task_name))
    })?;
    if input.flags.enable_param_enum {
        check::enums(&spec.params, &run.params)
            .map_err(|error| Rejection::user("InvalidParamValue", error))?;
    }
    check::array_indexes(&spec.params, &run.params, texts(spec)).map_err(failed)?;
    check_bindings(input.task_run, &spec.workspaces)?;
    check_one_claim(&run.workspaces)?;
    check_overrides(input.task_run, spec)
}

fn check_requests(spec: &TaskSpec) -> Result<(), Rejection> {
    let template = spec.step_template.as_ref().map(|t| &t.compute_resources);
    for step in &spec.steps {
        for (name, request) in &step.compute_resources.requests {
            let limit = step
                .compute_resources
                .limits
                .get(name)
                .or_else(|| template.and_then(|t| t.limits.get(name)));
            let Some(limit) = limit else { continue };
            let (Some(request_size), Some(limit_size)) =
                (quantity::parse(request), quantity::parse(limit))
            else {
                continue;
            };
            if request_size > limit_size {
                return Err(failed(format!(
                    "invalid request resource value: {} must be less or equal to limit {}",
                    request.0, limit.0
                )));
            }
        }
    }
    Ok(())
}

fn check_bindings(task_run: &TaskRun, declared: &[WorkspaceDeclaration]) -> Result<(), Rejection> {
    let bound = &task_run.spec.workspaces;
    for declaration in declared {
        if !declaration.optional && !bound.iter().any(|b| b.name == declaration.name) {
            return Err(failed(format!(
                "declared workspace {:?} is required but has not been bound",
                declaration.name
            )));
        }
    }
    // An embedded taskSpec need not declare what is bound to it.
    if task_run.spec.task_spec.is_none() {
        for binding in bound {
            if !declared.iter().any(|d| d.name == binding.name) {
                return Err(failed(format!(
                    "workspace binding {:?} does not match any declared workspace",
                    binding.name
                )));
            }
        }
    }
    Ok(())
}

fn check_one_claim(bindings: &[WorkspaceBinding]) -> Result<(), Rejection> {
    let mut claims = BTreeSet::new();
    for binding in bindings {
        if let Some(claim) = &binding.persistent_volume_claim {
            claims.insert(claim.claim_name.as_str());
        }
        if binding.volume_claim_template.is_some() {
            claims.insert(binding.name.as_str());
        }
    }
    if claims.len() > 1 {
        return Err(failed("more than one PersistentVolumeClaim is bound"));
    }
    Ok(())
}

fn check_overrides(task_run: &TaskRun, spec: &TaskSpec) -> Result<(), Rejection> {
    let steps = task_run
        .spec
        .step_specs
        .iter()
        .filter(|over| !spec.steps.iter().any(|step| step.name == over.name))
        .map(|over| format!("invalid StepOverride: No Step named {}", over.name));
    let sidecars = task_run
        .spec
        .sidecar_specs
        .iter()
        .filter(|over| !spec.sidecars.iter().any(|s| s.name == over.name))
        .map(|over| format!("invalid SidecarOverride: No Sidecar named {}", over.name));
    let errors: Vec<String> = steps.chain(sidecars).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(failed(errors.join("\n")))
}

/// The texts of a Task in which Tekton looks for `$(params.a[0])`.
fn texts(spec: &TaskSpec) -> Vec<&str> {
    let mut texts: Vec<&str> = Vec::new();
    macro_rules! container {
        ($c:expr) => {
            texts.extend([&*$c.image, &*$c.image_pull_policy, &*$c.working_dir]);
            texts.extend($c.args.iter().chain(&$c.command).map(String::as_str));
            for variable in &$c.env {
                texts.push(&variable.value);
                if let Some(source) = &variable.value_from {
                    for selector in
                        [&source.secret_key_ref, &source.config_map_key_ref].into_iter().flatten()
                    {
                        texts.extend([&*selector.name, &*selector.key]);
                    }
                }
            }
            for source in &$c.env_from {
                texts.push(&source.prefix);
                for reference in [&source.config_map_ref, &source.secret_ref].into_iter().flatten()
                {
                    texts.push(&reference.name);
                }
            }
            for mount in &$c.volume_mounts {
                texts.extend([&*mount.name, &*mount.mount_path, &*mount.sub_path]);
            }
        };
    }
    for step in &spec.steps {
        texts.extend([&*step.script, &*step.name]);
        container!(step);
    }
    if let Some(template) = &spec.step_template {
        let template: &StepTemplate = template;
        container!(template);
    }
    for sidecar in &spec.sidecars {
        texts.extend([&*sidecar.script, &*sidecar.name]);
        container!(sidecar);
    }
    spec.volumes.iter().for_each(|volume| volume_texts(volume, &mut texts));
    texts.extend(spec.workspaces.iter().map(|w| w.mount_path.as_str()));
    texts
}

fn volume_texts<'a>(volume: &'a Volume, texts: &mut Vec<&'a str>) {
    texts.push(&volume.name);
    if let Some(source) = &volume.config_map {
        texts.push(&source.name);
        texts.extend(source.items.iter().flat_map(|item| [&*item.key, &*item.path]));
    }
    if let Some(source) = &volume.secret {
        texts.push(&source.secret_name);
        texts.extend(source.items.iter().flat_map(|item| [&*item.key, &*item.path]));
    }
    if let Some(source) = &volume.persistent_volume_claim {
        texts.push(&source.claim_name);
    }
    if let Some(source) = &volume.csi {
        texts.extend(source.volume_attributes.values().map(String::as_str));
    }
}
