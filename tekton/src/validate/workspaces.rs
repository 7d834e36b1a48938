//! Workspaces: what Tasks and Pipelines declare, what steps and PipelineTasks use, what runs bind.

use std::collections::HashSet;

use super::Context;
use super::field_error::{FieldError, FieldErrors};
use super::text::{clean_path, quote};
use crate::flags::ApiFields;
use crate::v1::{
    PipelineTask, PipelineWorkspaceDeclaration, TaskSpec, WorkspaceBinding, WorkspaceUsage,
};

/// Declared workspaces of a Task: names and mount paths differ, and no other volume is mounted
/// there; relative to the list.
pub(crate) fn check_declared(spec: &TaskSpec) -> FieldErrors {
    let template_mounts = spec.step_template.iter().flat_map(|template| &template.volume_mounts);
    let mut mount_paths: HashSet<String> = spec
        .steps
        .iter()
        .flat_map(|step| &step.volume_mounts)
        .chain(template_mounts)
        .map(|mount| clean_path(&mount.mount_path).into_owned())
        .collect();
    let mut names = HashSet::new();
    let mut errors = FieldErrors::default();
    for (index, workspace) in spec.workspaces.iter().enumerate() {
        let mut complain = |message: String, field: &str| {
            errors.also(FieldErrors::from(FieldError::new(message, field)).via_index(index));
        };
        if !names.insert(&workspace.name) {
            complain(format!("workspace name {} must be unique", quote(&workspace.name)), "name");
        }
        let mount_path = if workspace.mount_path.is_empty() {
            clean_path(&format!("/workspace/{}", workspace.name)).into_owned()
        } else {
            clean_path(&workspace.mount_path).into_owned()
        };
        if mount_paths.contains(&mount_path) {
            complain(
                format!("workspace mount path {} must be unique", quote(&mount_path)),
                "mountpath",
            );
        }
        mount_paths.insert(mount_path);
    }
    errors
}

/// Workspaces that steps and sidecars claim for themselves must be declared.
pub(crate) fn check_usages(context: Context<'_>, spec: &TaskSpec) -> FieldErrors {
    let declared: HashSet<&str> =
        spec.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    let mut errors = FieldErrors::default();
    for (index, step) in spec.steps.iter().enumerate() {
        let found = check_usage(context, &declared, &step.workspaces, "step workspaces");
        errors.also(found.via_field_index("steps", index));
    }
    for (index, sidecar) in spec.sidecars.iter().enumerate() {
        let found = check_usage(context, &declared, &sidecar.workspaces, "sidecar workspaces");
        errors.also(found.via_field_index("sidecars", index));
    }
    errors
}

fn check_usage(
    context: Context<'_>,
    declared: &HashSet<&str>,
    usages: &[WorkspaceUsage],
    feature: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !usages.is_empty() {
        errors.also(context.gate(feature, ApiFields::Beta, "workspaces"));
    }
    for (index, usage) in usages.iter().enumerate() {
        if !declared.contains(usage.name.as_str()) {
            let message = format!("undefined workspace {}", quote(&usage.name));
            let error = FieldErrors::from(FieldError::new(message, "name"));
            errors.also(error.via_field_index("workspaces", index));
        }
    }
    errors
}

/// Declared workspaces of a Pipeline have names, and different ones.
pub(crate) fn check_pipeline_declared(workspaces: &[PipelineWorkspaceDeclaration]) -> FieldErrors {
    let mut names = HashSet::new();
    let mut errors = FieldErrors::default();
    for (index, PipelineWorkspaceDeclaration { name, .. }) in workspaces.iter().enumerate() {
        let mut complain = |what: String| {
            let error = FieldErrors::from(FieldError::invalid(what, ""));
            errors.also(error.via_field_index("workspaces", index));
        };
        if name.is_empty() {
            complain(format!("workspace {index} has empty name"));
        }
        if !names.insert(name) {
            complain(format!("workspace with name {} appears more than once", quote(name)));
        }
    }
    errors
}

/// Workspaces that a PipelineTask uses: each once, and known to the Pipeline.
pub(crate) fn check_task_usage(task: &PipelineTask, known: &HashSet<&str>) -> FieldErrors {
    let mut names = HashSet::new();
    let mut errors = FieldErrors::default();
    for (index, binding) in task.workspaces.iter().enumerate() {
        let mut complain = |error: FieldError| {
            errors.also(FieldErrors::from(error).via_field_index("workspaces", index));
        };
        if !names.insert(&binding.name) {
            let name = quote(&binding.name);
            complain(FieldError::new(format!("workspace name {name} must be unique"), ""));
        }
        let wanted = if binding.workspace.is_empty() { &binding.name } else { &binding.workspace };
        if !known.contains(wanted.as_str()) {
            complain(FieldError::invalid(
                format!(
                    "pipeline task {} expects workspace with name {} but none exists in pipeline spec",
                    quote(&task.name),
                    quote(wanted)
                ),
                "",
            ));
        }
    }
    errors
}

/// A run's binding names exactly one source, and the source names what it needs.
pub(crate) fn check_binding(binding: &WorkspaceBinding) -> Option<FieldError> {
    const SOURCES: [&str; 5] =
        ["persistentvolumeclaim", "volumeclaimtemplate", "emptydir", "configmap", "secret"];
    if *binding == WorkspaceBinding::default() {
        return Some(FieldError::missing(""));
    }
    let WorkspaceBinding {
        volume_claim_template,
        persistent_volume_claim,
        empty_dir,
        config_map,
        secret,
        projected,
        csi,
        ..
    } = binding;
    let given = [
        volume_claim_template.is_some(),
        persistent_volume_claim.is_some(),
        empty_dir.is_some(),
        config_map.is_some(),
        secret.is_some(),
        projected.is_some(),
        csi.is_some(),
    ];
    match given.iter().filter(|is_given| **is_given).count() {
        0 => return Some(FieldError::missing_one_of(SOURCES)),
        1 => {}
        _ => return Some(FieldError::multiple_one_of(SOURCES)),
    }
    let lacks = |is_lacking: bool, field: &'static str| is_lacking.then_some(field);
    let lacking = None
        .or_else(|| {
            let claim = persistent_volume_claim.as_ref()?;
            lacks(claim.claim_name.is_empty(), "persistentvolumeclaim.claimname")
        })
        .or_else(|| lacks(config_map.as_ref()?.name.is_empty(), "configmap.name"))
        .or_else(|| lacks(secret.as_ref()?.secret_name.is_empty(), "secret.secretName"))
        .or_else(|| lacks(projected.as_ref()?.sources.is_empty(), "projected.sources"))
        .or_else(|| lacks(csi.as_ref()?.driver.is_empty(), "csi.driver"));
    lacking.map(FieldError::missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn declarations() {
        let spec: TaskSpec = parsed(
            r#"{"steps":[{"volumeMounts":[{"name":"v","mountPath":"/data/"}]}],
                "workspaces":[{"name":"w"},{"name":"w"},{"name":"x","mountPath":"/data"}]}"#,
        );
        assert_eq!(
            shown(check_declared(&spec)),
            "workspace mount path \"/data\" must be unique: [2].mountpath\nworkspace mount path \"/workspace/w\" must be unique: [1].mountpath\nworkspace name \"w\" must be unique: [1].name"
        );
        let declared: Vec<PipelineWorkspaceDeclaration> =
            parsed(r#"[{"name":""},{"name":"a"},{"name":"a"}]"#);
        assert_eq!(
            shown(check_pipeline_declared(&declared)),
            "invalid value: workspace 0 has empty name: workspaces[0]\ninvalid value: workspace with name \"a\" appears more than once: workspaces[2]"
        );
    }

    #[test]
    fn usages() {
        let flags = FeatureFlags::default();
        let spec: TaskSpec = parsed(
            r#"{"steps":[{"workspaces":[{"name":"a"},{"name":"b"}]}],"sidecars":[{"workspaces":[{"name":"c"}]}],"workspaces":[{"name":"a"}]}"#,
        );
        assert_eq!(
            shown(check_usages(Context::new(&flags), &spec)),
            "undefined workspace \"b\": steps[0].workspaces[1].name\nundefined workspace \"c\": sidecars[0].workspaces[0].name"
        );
        let task: PipelineTask =
            parsed(r#"{"name":"t","workspaces":[{"name":"a"},{"name":"a","workspace":"z"}]}"#);
        assert_eq!(
            shown(check_task_usage(&task, &HashSet::from(["a"]))),
            "invalid value: pipeline task \"t\" expects workspace with name \"z\" but none exists in pipeline spec: workspaces[1]\nworkspace name \"a\" must be unique: workspaces[1]"
        );
    }

    #[test]
    fn bindings() {
        for (binding, error) in [
            (r#"{"name":"w","emptyDir":{}}"#, ""),
            (r#"{}"#, "missing field(s): "),
            (
                r#"{"name":"w"}"#,
                "expected exactly one, got neither: configmap, emptydir, persistentvolumeclaim, secret, volumeclaimtemplate",
            ),
            (
                r#"{"name":"w","emptyDir":{},"secret":{"secretName":"s"}}"#,
                "expected exactly one, got both: configmap, emptydir, persistentvolumeclaim, secret, volumeclaimtemplate",
            ),
            (
                r#"{"name":"w","persistentVolumeClaim":{}}"#,
                "missing field(s): persistentvolumeclaim.claimname",
            ),
            (r#"{"name":"w","configMap":{}}"#, "missing field(s): configmap.name"),
            (r#"{"name":"w","secret":{}}"#, "missing field(s): secret.secretName"),
            (r#"{"name":"w","projected":{}}"#, "missing field(s): projected.sources"),
            (r#"{"name":"w","csi":{}}"#, "missing field(s): csi.driver"),
        ] {
            let binding: WorkspaceBinding = parsed(binding);
            assert_eq!(shown(check_binding(&binding).into()), error);
        }
    }
}
