//! Bound workspaces as volumes, variables and mounts.
//!
//! A workspace that any step or sidecar lists is for those alone (isolation); every other one is for all
//! steps, through the stepTemplate, and for all sidecars.

use std::collections::BTreeMap;

use crate::k8s::{PersistentVolumeClaimVolumeSource, Volume, VolumeMount};
use crate::names::{claim_name, workspace_volume_name};
use crate::substitute::{Replacements, apply_to_sidecar, apply_to_step, apply_to_task_spec};
use crate::v1::{TaskSpec, WorkspaceBinding, WorkspaceDeclaration, WorkspaceUsage};

/// Makes templates claims, named after the object that owns them.
pub fn claim_templates(bindings: &mut [WorkspaceBinding], owner_uid: &str) {
    for binding in bindings {
        if let Some(template) = binding.volume_claim_template.take() {
            *binding = WorkspaceBinding {
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name(&template, &binding.name, owner_uid),
                    ..PersistentVolumeClaimVolumeSource::default()
                }),
                name: std::mem::take(&mut binding.name),
                sub_path: std::mem::take(&mut binding.sub_path),
                ..WorkspaceBinding::default()
            };
        }
    }
}

/// A volume for each binding, by workspace name; one claim bound twice is one volume.
pub(super) fn volumes(bindings: &[WorkspaceBinding]) -> BTreeMap<String, Volume> {
    let mut of_workspace: BTreeMap<String, Volume> = BTreeMap::new();
    let mut of_claim: BTreeMap<&str, Volume> = BTreeMap::new();
    let mut used = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let name = workspace_volume_name(&binding.name, &used);
        used.push(name.clone());
        let volume = Volume {
            name,
            persistent_volume_claim: binding.persistent_volume_claim.clone(),
            empty_dir: binding.empty_dir.clone(),
            config_map: binding.config_map.clone(),
            secret: binding.secret.clone(),
            projected: binding.projected.clone(),
            csi: binding.csi.clone(),
            ..Volume::default()
        };
        let volume = match &binding.persistent_volume_claim {
            Some(claim) => of_claim.entry(&claim.claim_name).or_insert(volume).clone(),
            None => volume,
        };
        of_workspace.insert(binding.name.clone(), volume);
    }
    of_workspace
}

/// Declares bound workspaces that the Task does not: an embedded taskSpec may use them by name.
pub(super) fn declare_bound(spec: &mut TaskSpec, bindings: &[WorkspaceBinding]) {
    for binding in bindings {
        if !spec.workspaces.iter().any(|w| w.name == binding.name) {
            spec.workspaces.push(WorkspaceDeclaration {
                name: binding.name.clone(),
                ..WorkspaceDeclaration::default()
            });
        }
    }
}

fn mount_path(declaration: &WorkspaceDeclaration) -> String {
    match declaration.mount_path.as_str() {
        "" => format!("/workspace/{}", declaration.name),
        path => path.to_owned(),
    }
}

fn own_mount_path<'a>(usages: &'a [WorkspaceUsage], workspace: &str) -> Option<&'a str> {
    usages
        .iter()
        .find(|usage| usage.name == workspace && !usage.mount_path.is_empty())
        .map(|usage| usage.mount_path.as_str())
}

/// Applies `$(workspaces.W.path|bound|claim|volume)`.
pub(super) fn apply_variables(
    spec: &mut TaskSpec,
    bindings: &[WorkspaceBinding],
    volumes: &BTreeMap<String, Volume>,
) {
    let mut with = Replacements::new();
    for declaration in &spec.workspaces.clone() {
        let name = &declaration.name;
        let variable = format!("workspaces.{name}.path");
        let is_bound = bindings.iter().any(|binding| binding.name == *name);
        if declaration.optional && !is_bound {
            with.set(format!("workspaces.{name}.bound"), "false");
            with.set(variable, "");
            continue;
        }
        with.set(format!("workspaces.{name}.bound"), "true");
        let path = |path: &str| {
            let mut with = Replacements::new();
            with.set(variable.clone(), path);
            with
        };
        for step in &mut spec.steps {
            if let Some(own) = own_mount_path(&step.workspaces, name).map(path) {
                apply_to_step(step, &own);
            }
        }
        for sidecar in &mut spec.sidecars {
            if let Some(own) = own_mount_path(&sidecar.workspaces, name).map(path) {
                apply_to_sidecar(sidecar, &own);
            }
        }
        apply_to_task_spec(spec, &path(&mount_path(declaration)));
    }
    for (name, volume) in volumes {
        with.set(format!("workspaces.{name}.volume"), volume.name.clone());
    }
    for binding in bindings {
        let claim = binding.persistent_volume_claim.as_ref();
        with.set(
            format!("workspaces.{}.claim", binding.name),
            claim.map_or("", |claim| claim.claim_name.as_str()),
        );
    }
    apply_to_task_spec(spec, &with);
}

/// Adds the volumes and mounts.
pub(super) fn mount(
    spec: &mut TaskSpec,
    bindings: &[WorkspaceBinding],
    volumes: &BTreeMap<String, Volume>,
) {
    if bindings.is_empty() {
        return;
    }
    declare_bound(spec, bindings);
    let usages = |spec: &TaskSpec, name: &str| {
        let of_steps = spec.steps.iter().flat_map(|step| &step.workspaces);
        let of_sidecars = spec.sidecars.iter().flat_map(|sidecar| &sidecar.workspaces);
        of_steps.chain(of_sidecars).any(|usage| usage.name == name)
    };
    for binding in bindings {
        let declared = spec.workspaces.iter().find(|w| w.name == binding.name);
        let (Some(declaration), Some(volume)) = (declared, volumes.get(&binding.name)) else {
            continue;
        };
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: mount_path(declaration),
            sub_path: binding.sub_path.clone(),
            read_only: declaration.read_only,
            ..VolumeMount::default()
        };
        if usages(spec, &binding.name) {
            for step in &mut spec.steps {
                isolated(&step.workspaces, &binding.name, &mount, &mut step.volume_mounts);
            }
            for sidecar in &mut spec.sidecars {
                isolated(&sidecar.workspaces, &binding.name, &mount, &mut sidecar.volume_mounts);
            }
        } else {
            for sidecar in &mut spec.sidecars {
                let mounts = &mut sidecar.volume_mounts;
                if !mounts.iter().any(|own| own.mount_path == mount.mount_path) {
                    mounts.push(mount.clone());
                }
            }
            let template = spec.step_template.get_or_insert_default();
            template.volume_mounts.push(mount);
        }
        if !spec.volumes.iter().any(|known| known.name == volume.name) {
            spec.volumes.push(volume.clone());
        }
    }
}

fn isolated(
    usages: &[WorkspaceUsage],
    workspace: &str,
    mount: &VolumeMount,
    to: &mut Vec<VolumeMount>,
) {
    let Some(usage) = usages.iter().find(|usage| usage.name == workspace) else {
        return;
    };
    let mut own = mount.clone();
    if !usage.mount_path.is_empty() {
        own.mount_path.clone_from(&usage.mount_path);
    }
    to.push(own);
}
