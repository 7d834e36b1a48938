//! Workspaces: declarations, bindings and usages.

use crate::k8s::{
    ConfigMapVolumeSource, CsiVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, SecretVolumeSource,
};
use crate::object::object;

object! {
    /// What a Task says it needs.
    pub struct WorkspaceDeclaration {
        name: String,
        description: String,
        mount_path: String,
        read_only: bool,
        optional: bool,
    }
}

object! {
    /// What a run gives: exactly one source.
    pub struct WorkspaceBinding {
        name: String,
        sub_path: String,
        volume_claim_template: Option<PersistentVolumeClaim>,
        persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
        empty_dir: Option<EmptyDirVolumeSource>,
        config_map: Option<ConfigMapVolumeSource>,
        secret: Option<SecretVolumeSource>,
        projected: Option<ProjectedVolumeSource>,
        csi: Option<CsiVolumeSource>,
    }
}

object! {
    /// What a Pipeline says it needs.
    pub struct PipelineWorkspaceDeclaration {
        name: String,
        description: String,
        optional: bool,
    }
}

object! {
    /// Which pipeline workspace a PipelineTask's workspace is; an empty `workspace` means the same name.
    pub struct WorkspacePipelineTaskBinding {
        name: String,
        workspace: String,
        sub_path: String,
    }
}

object! {
    /// A step's or sidecar's claim to a workspace: the others lose it (isolation).
    pub struct WorkspaceUsage {
        name: String,
        mount_path: String,
    }
}
