//! From a TaskRun and its Task to the Pod of one attempt.

use std::collections::BTreeMap;

use super::{Dns, Pod, check, merge, quantity, stepaction, usage, workspaces};
use crate::flags::FeatureFlags;
use crate::k8s::{PodTemplate, ResourceRequirements, ServiceAccount};
use crate::names::{pod_name, step_container};
use crate::params::task_replacements;
use crate::rejection::Rejection;
use crate::substitute::{
    Replacements, apply_to_binding, apply_to_pod_template, apply_to_step, apply_to_task_spec,
};
use crate::v1::{
    Sidecar, Step, StepActionSpec, TaskRun, TaskRunStepSpec, TaskSpec, WorkspaceBinding,
};

/// Where a step finds the credentials of annotated secrets.
const CREDENTIALS: &str = "/tekton/creds";
/// Where steps have their directories.
const STEPS: &str = "/tekton/steps";

/// What a Pod is planned from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The TaskRun, with uid; its `volumeClaimTemplate`s are named after that uid.
    pub task_run: &'a TaskRun,
    /// Its Task, resolved and defaulted, StepActions not yet inlined.
    pub task_spec: &'a TaskSpec,
    /// `$(context.task.name)`: the Task's name, or the TaskRun's for an embedded taskSpec.
    pub task_name: &'a str,
    /// The StepActions that steps refer to, defaulted, by the *index* of the step.
    pub step_actions: &'a BTreeMap<usize, StepActionSpec>,
    /// The TaskRun's ServiceAccount, if there is one.
    pub service_account: Option<&'a ServiceAccount>,
    /// How many attempts came before: `$(context.task.retry-count)`.
    pub retry_count: usize,
    /// uid of the whole run, for claims: the PipelineRun's, or the TaskRun's own.
    pub run_uid: &'a str,
    /// Flags.
    pub flags: &'a FeatureFlags,
}

/// One attempt, planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What the agent runs.
    pub pod: Pod,
    /// For `status.taskSpec`: StepActions inlined, variables applied, workspaces not yet mounted.
    pub task_spec: TaskSpec,
}

/// Why no Pod can be made: `TaskRunValidationFailed`, `InvalidParamValue`, `TaskRunResolutionFailed`,
/// `PodCreationFailed`.
pub type PlanError = Rejection;

/// Plans the Pod of one attempt of a TaskRun.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    let task_run = input.task_run;
    let mut spec = input.task_spec.clone();
    stepaction::inline(&mut spec, task_run, input.step_actions)?;
    check::check(input, &spec)?;

    let mut bindings = task_run.spec.workspaces.clone();
    workspaces::claim_templates(&mut bindings, &task_run.metadata.uid);
    let values = task_replacements(&spec.params, &task_run.spec.params);
    for binding in &mut bindings {
        apply_to_binding(binding, &values);
    }
    let volumes = workspaces::volumes(&bindings);

    apply_variables(input, &mut spec, &values);
    workspaces::declare_bound(&mut spec, &bindings);
    workspaces::apply_variables(&mut spec, &bindings, &volumes);
    let stored = spec.clone();

    if let Some(error) = usage::unknown_params(&spec) {
        return Err(creation_failed(task_run, &error));
    }
    workspaces::mount(&mut spec, &bindings, &volumes);
    let mut credentials = Replacements::new();
    credentials.set("credentials.path", CREDENTIALS);
    apply_to_task_spec(&mut spec, &credentials);

    let mut template = task_run.spec.pod_template.clone().unwrap_or_default();
    apply_to_pod_template(&mut template, &values);
    let pod = build(input, spec, template)?;
    Ok(Plan { pod, task_spec: stored })
}

/// Tekton's condition when its Pod cannot be made.
fn creation_failed(task_run: &TaskRun, error: &str) -> Rejection {
    let cause = match &task_run.spec.task_ref {
        Some(reference) => {
            format!("missing or invalid Task {}/{}", task_run.metadata.namespace, reference.name)
        }
        None => "invalid TaskSpec".to_owned(),
    };
    Rejection::new(
        "PodCreationFailed",
        format!(
            "failed to create task run pod {:?}: {error}. Maybe {cause}",
            task_run.metadata.name
        ),
    )
}

/// The phases before workspaces, in Tekton's order: what one phase puts in, the next may replace.
fn apply_variables(input: &PlanInput<'_>, spec: &mut TaskSpec, values: &Replacements) {
    apply_to_task_spec(spec, values);

    let metadata = &input.task_run.metadata;
    let mut contexts = Replacements::new();
    contexts.set("context.taskRun.name", metadata.name.clone());
    contexts.set("context.task.name", input.task_name);
    contexts.set("context.taskRun.namespace", metadata.namespace.clone());
    contexts.set("context.taskRun.uid", metadata.uid.clone());
    contexts.set("context.task.retry-count", input.retry_count.to_string());
    apply_to_task_spec(spec, &contexts);

    for (i, step) in spec.steps.iter_mut().enumerate() {
        let directory = format!("{STEPS}/{}", step_container(&step.name, i));
        let mut own = Replacements::new();
        for result in &step.results {
            let path = format!("{directory}/results/{}", result.name);
            set_result_path(&mut own, "step.results", &result.name, &path);
        }
        if !own.is_empty() {
            apply_to_step(step, &own);
        }
    }
    let mut results = Replacements::new();
    for result in &spec.results {
        let path = format!("/tekton/results/{}", result.name);
        set_result_path(&mut results, "results", &result.name, &path);
    }
    apply_to_task_spec(spec, &results);

    let mut exit_codes = Replacements::new();
    for (i, step) in spec.steps.iter_mut().enumerate() {
        let name = step_container(&step.name, i);
        let mut artifacts = Replacements::new();
        artifacts.set("step.artifacts.path", format!("{STEPS}/{name}/artifacts/provenance.json"));
        artifacts.set("artifacts.path", "/tekton/artifacts/provenance.json");
        apply_to_step(step, &artifacts);
        exit_codes.set(format!("steps.{name}.exitCode.path"), format!("{STEPS}/{name}/exitCode"));
    }
    apply_to_task_spec(spec, &exit_codes);
}

fn set_result_path(to: &mut Replacements, prefix: &str, name: &str, path: &str) {
    to.set(format!("{prefix}.{name}.path"), path);
    to.set(format!("{prefix}[{name:?}].path"), path);
    to.set(format!("{prefix}['{name}'].path"), path);
}

fn build(
    input: &PlanInput<'_>,
    mut spec: TaskSpec,
    template: PodTemplate,
) -> Result<Pod, Rejection> {
    let task_run = input.task_run;
    let metadata = &task_run.metadata;
    let mut steps = std::mem::take(&mut spec.steps);
    if let Some(step_template) = &spec.step_template {
        merge::merge_template(step_template, &mut steps);
    }
    override_steps(&mut steps, &task_run.spec.step_specs);
    if let Some(resources) = &task_run.spec.compute_resources {
        share_resources(&mut steps, resources);
    }
    for (i, step) in steps.iter_mut().enumerate() {
        if step.image.is_empty() {
            let error = format!("missing field(s): steps[{i}].Image");
            return Err(creation_failed(task_run, &error));
        }
        if !step.script.is_empty() {
            step.command.clear();
        }
        if step.name.is_empty() {
            step.name = format!("unnamed-{i}");
        }
        step.env.extend(template.env.iter().cloned());
    }
    let mut sidecars = std::mem::take(&mut spec.sidecars);
    override_sidecars(&mut sidecars, &task_run.spec.sidecar_specs);

    let mut volumes = spec.volumes;
    volumes.extend(template.volumes);
    for (i, volume) in volumes.iter().enumerate() {
        if volumes[..i].iter().any(|other| other.name == volume.name) {
            let error = format!(
                "translating TaskSpec to Pod: multiple volumes with same name {:?}: [{i}].name",
                volume.name
            );
            return Err(creation_failed(task_run, &error));
        }
    }

    let mut labels = metadata.labels.clone();
    labels.insert("tekton.dev/taskRun".into(), metadata.name.clone());
    labels.insert("tekton.dev/taskRunUID".into(), metadata.uid.clone());
    labels.insert("app.kubernetes.io/managed-by".into(), "tekton-pipelines".into());
    let account = input.service_account;
    let mut image_pull_secrets = template.image_pull_secrets;
    if image_pull_secrets.is_empty() {
        image_pull_secrets = account.map(|a| a.image_pull_secrets.clone()).unwrap_or_default();
    }
    Ok(Pod {
        name: pod_name(&metadata.name, input.retry_count),
        namespace: metadata.namespace.clone(),
        task_run: metadata.name.clone(),
        task_run_uid: metadata.uid.clone(),
        run_uid: input.run_uid.to_owned(),
        labels,
        annotations: metadata.annotations.clone(),
        steps,
        sidecars,
        volumes,
        results: spec
            .results
            .iter()
            .filter(|result| result.value.is_none())
            .map(|result| result.name.clone())
            .collect(),
        service_account_name: task_run.spec.service_account_name.clone(),
        credential_secrets: credential_secrets(account),
        image_pull_secrets,
        security_context: template.security_context,
        host_aliases: template.host_aliases,
        dns: dns(&template.dns_config),
        host_network: template.host_network,
        max_result_size: input.flags.max_result_size,
        timeout: task_run.spec.timeout.filter(|timeout| timeout.0 != 0),
    })
}

/// Kubernetes' `dnsConfig`.
fn dns(config: &serde_json::Value) -> Dns {
    let list = |value: &serde_json::Value| -> Vec<serde_json::Value> {
        value.as_array().cloned().unwrap_or_default()
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let option = |option: serde_json::Value| {
        let name = text(&option["name"])?;
        Some(match text(&option["value"]).filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name,
        })
    };
    Dns {
        nameservers: list(&config["nameservers"]).iter().filter_map(text).collect(),
        searches: list(&config["searches"]).iter().filter_map(text).collect(),
        options: list(&config["options"]).into_iter().filter_map(option).collect(),
    }
}

fn credential_secrets(account: Option<&ServiceAccount>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for secret in account.into_iter().flat_map(|a| &a.secrets) {
        if !secret.name.is_empty() && !names.contains(&secret.name) {
            names.push(secret.name.clone());
        }
    }
    names
}

fn override_steps(steps: &mut [Step], overrides: &[TaskRunStepSpec]) {
    for step in steps {
        if let Some(over) = overrides.iter().rfind(|over| over.name == step.name) {
            let base =
                std::mem::replace(&mut step.compute_resources, over.compute_resources.clone());
            merge::merge_resources(&mut step.compute_resources, &base);
        }
    }
}

fn override_sidecars(sidecars: &mut [Sidecar], overrides: &[TaskRunStepSpec]) {
    for sidecar in sidecars {
        if let Some(over) = overrides.iter().rfind(|over| over.name == sidecar.name) {
            let base =
                std::mem::replace(&mut sidecar.compute_resources, over.compute_resources.clone());
            merge::merge_resources(&mut sidecar.compute_resources, &base);
        }
    }
}

/// Task-level resources: each step may use all of the limits, and asks for its share of the requests.
fn share_resources(steps: &mut [Step], resources: &ResourceRequirements) {
    if resources.requests.is_empty() && resources.limits.is_empty() {
        return;
    }
    let count = steps.len();
    for step in steps {
        let own = &mut step.compute_resources;
        let asked = if own.requests.is_empty() && resources.requests.is_empty() {
            &resources.limits
        } else {
            &resources.requests
        };
        own.requests = asked
            .iter()
            .map(|(name, whole)| (name.clone(), quantity::share(name, whole, count)))
            .collect();
        own.limits.clone_from(&resources.limits);
    }
}

/// Names of the claims that a TaskRun's bindings use, so that tasks which share one can be placed on one
/// agent.
pub fn claims(task_run: &TaskRun) -> Vec<String> {
    let mut bindings: Vec<WorkspaceBinding> = task_run.spec.workspaces.clone();
    workspaces::claim_templates(&mut bindings, &task_run.metadata.uid);
    let mut names: Vec<String> = bindings
        .into_iter()
        .filter_map(|binding| Some(binding.persistent_volume_claim?.claim_name))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
