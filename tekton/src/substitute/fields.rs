//! The fields of a TaskSpec that are substituted, and no others.
//!
//! Not substituted, as in Tekton: step timeouts, result names, security contexts, resources, ports and
//! probes.

use super::{Kinds, Replacements};
use crate::k8s::{EnvFromSource, EnvVar, KeyToPath, Volume, VolumeMount};
use crate::v1::{Sidecar, Step, StepTemplate, TaskSpec};

/// The fields that steps, sidecars and the stepTemplate share.
struct Container<'a> {
    image: &'a mut String,
    image_pull_policy: &'a mut String,
    command: &'a mut Vec<String>,
    args: &'a mut Vec<String>,
    working_dir: &'a mut String,
    env: &'a mut [EnvVar],
    env_from: &'a mut [EnvFromSource],
    volume_mounts: &'a mut [VolumeMount],
}

macro_rules! container {
    ($of:expr) => {
        Container {
            image: &mut $of.image,
            image_pull_policy: &mut $of.image_pull_policy,
            command: &mut $of.command,
            args: &mut $of.args,
            working_dir: &mut $of.working_dir,
            env: &mut $of.env,
            env_from: &mut $of.env_from,
            volume_mounts: &mut $of.volume_mounts,
        }
    };
}

fn apply_to_container(container: Container<'_>, with: &Replacements) {
    with.apply_to(container.image);
    with.apply_to(container.image_pull_policy);
    with.apply_to_list(container.command);
    with.apply_to_list(container.args);
    with.apply_to(container.working_dir);
    for variable in container.env {
        with.apply_to(&mut variable.value);
        if let Some(source) = &mut variable.value_from {
            for selector in
                [&mut source.secret_key_ref, &mut source.config_map_key_ref].into_iter().flatten()
            {
                with.apply_to(&mut selector.name);
                with.apply_to(&mut selector.key);
            }
        }
    }
    for source in container.env_from {
        with.apply_to(&mut source.prefix);
        for reference in [&mut source.config_map_ref, &mut source.secret_ref].into_iter().flatten()
        {
            with.apply_to(&mut reference.name);
        }
    }
    for mount in container.volume_mounts {
        with.apply_to(&mut mount.name);
        with.apply_to(&mut mount.mount_path);
        with.apply_to(&mut mount.sub_path);
    }
}

/// Replaces in a step; its `params` (for a StepAction) are left to [`apply_to_task_spec`].
pub fn apply_to_step(step: &mut Step, with: &Replacements) {
    with.apply_to(&mut step.script);
    with.apply_to(&mut step.on_error);
    for stream in [&mut step.stdout_config, &mut step.stderr_config].into_iter().flatten() {
        with.apply_to(&mut stream.path);
    }
    with.apply_to_when(&mut step.when, Kinds::All);
    with.apply_to(&mut step.name);
    apply_to_container(container!(step), with);
}

/// Replaces in a sidecar.
pub fn apply_to_sidecar(sidecar: &mut Sidecar, with: &Replacements) {
    with.apply_to(&mut sidecar.script);
    with.apply_to(&mut sidecar.name);
    apply_to_container(container!(sidecar), with);
}

fn apply_to_template(template: &mut StepTemplate, with: &Replacements) {
    apply_to_container(container!(template), with);
}

fn apply_to_items(items: &mut [KeyToPath], with: &Replacements) {
    for item in items {
        with.apply_to(&mut item.key);
        with.apply_to(&mut item.path);
    }
}

/// Replaces in a volume of a Task or podTemplate.
pub(super) fn apply_to_volume(volume: &mut Volume, with: &Replacements) {
    with.apply_to(&mut volume.name);
    if let Some(source) = &mut volume.config_map {
        with.apply_to(&mut source.name);
        apply_to_items(&mut source.items, with);
    }
    if let Some(source) = &mut volume.secret {
        with.apply_to(&mut source.secret_name);
        apply_to_items(&mut source.items, with);
    }
    if let Some(source) = &mut volume.persistent_volume_claim {
        with.apply_to(&mut source.claim_name);
    }
    for source in volume.projected.iter_mut().flat_map(|p| &mut p.sources) {
        if let Some(config_map) = &mut source.config_map {
            with.apply_to(&mut config_map.name);
        }
        if let Some(secret) = &mut source.secret {
            with.apply_to(&mut secret.name);
        }
        if let Some(token) = &mut source.service_account_token {
            with.apply_to(&mut token.audience);
        }
    }
    if let Some(source) = &mut volume.csi {
        if let Some(secret) = &mut source.node_publish_secret_ref {
            with.apply_to(&mut secret.name);
        }
        for value in source.volume_attributes.values_mut() {
            with.apply_to(value);
        }
    }
}

/// Replaces in every field of a TaskSpec that Tekton substitutes.
pub fn apply_to_task_spec(spec: &mut TaskSpec, with: &Replacements) {
    if with.is_empty() {
        return;
    }
    for step in &mut spec.steps {
        with.apply_to_params(&mut step.params, Kinds::All);
        apply_to_step(step, with);
    }
    if let Some(template) = &mut spec.step_template {
        apply_to_template(template, with);
    }
    for volume in &mut spec.volumes {
        apply_to_volume(volume, with);
    }
    for workspace in &mut spec.workspaces {
        with.apply_to(&mut workspace.mount_path);
    }
    for sidecar in &mut spec.sidecars {
        apply_to_sidecar(sidecar, with);
    }
}
