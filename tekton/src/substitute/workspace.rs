//! The fields of a workspace binding that are substituted.

use super::Replacements;
use crate::k8s::KeyToPath;
use crate::v1::WorkspaceBinding;

fn apply_to_items(items: &mut [KeyToPath], with: &Replacements) {
    for item in items {
        with.apply_to(&mut item.key);
        with.apply_to(&mut item.path);
    }
}

/// Replaces in a binding of a TaskRun or PipelineRun.
pub fn apply_to_binding(binding: &mut WorkspaceBinding, with: &Replacements) {
    with.apply_to(&mut binding.sub_path);
    if let Some(claim) = &mut binding.persistent_volume_claim {
        with.apply_to(&mut claim.claim_name);
    }
    if let Some(source) = &mut binding.config_map {
        with.apply_to(&mut source.name);
        apply_to_items(&mut source.items, with);
    }
    if let Some(source) = &mut binding.secret {
        with.apply_to(&mut source.secret_name);
        apply_to_items(&mut source.items, with);
    }
    for source in binding.projected.iter_mut().flat_map(|p| &mut p.sources) {
        if let Some(config_map) = &mut source.config_map {
            with.apply_to(&mut config_map.name);
            apply_to_items(&mut config_map.items, with);
        }
        if let Some(secret) = &mut source.secret {
            with.apply_to(&mut secret.name);
            apply_to_items(&mut secret.items, with);
        }
    }
    if let Some(source) = &mut binding.csi {
        with.apply_to(&mut source.driver);
        if let Some(secret) = &mut source.node_publish_secret_ref {
            with.apply_to(&mut secret.name);
        }
    }
}
