//! Volumes and their sources.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ObjectMeta, Quantity, ResourceRequirements};
use crate::object::object;

object! {
    /// A named volume. Without any source it is an emptyDir.
    pub struct Volume {
        name: String,
        host_path: Option<HostPathVolumeSource>,
        empty_dir: Option<EmptyDirVolumeSource>,
        secret: Option<SecretVolumeSource>,
        persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
        config_map: Option<ConfigMapVolumeSource>,
        projected: Option<ProjectedVolumeSource>,
        csi: Option<CsiVolumeSource>,
        downward_api: Option<DownwardApiVolumeSource>,
        ephemeral: Option<EphemeralVolumeSource>,
        image: Value,
        nfs: Value,
        iscsi: Value,
        fc: Value,
        cephfs: Value,
        rbd: Value,
        flex_volume: Value,
        flocker: Value,
        cinder: Value,
        glusterfs: Value,
        git_repo: Value,
        gce_persistent_disk: Value,
        aws_elastic_block_store: Value,
        azure_disk: Value,
        azure_file: Value,
        vsphere_volume: Value,
        quobyte: Value,
        photon_persistent_disk: Value,
        portworx_volume: Value,
        scale_io: Value,
        storageos: Value,
    }
}

object! {
    /// A path of the machine that runs the step.
    pub struct HostPathVolumeSource {
        path: String,
        r#type: Option<String>,
    }
}

object! {
    /// A fresh directory for each TaskRun; `medium: Memory` is a tmpfs.
    pub struct EmptyDirVolumeSource {
        medium: String,
        size_limit: Option<Quantity>,
    }
}

object! {
    /// A Secret's keys as files.
    pub struct SecretVolumeSource {
        secret_name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: Option<bool>,
    }
}

object! {
    /// A ConfigMap's keys as files.
    pub struct ConfigMapVolumeSource {
        name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: Option<bool>,
    }
}

object! {
    /// One key and the path of its file, relative to the mount.
    pub struct KeyToPath {
        key: String,
        path: String,
        mode: Option<i32>,
    }
}

object! {
    /// A claim by name; `$(workspaces.x.claim)` is this name.
    pub struct PersistentVolumeClaimVolumeSource {
        claim_name: String,
        read_only: bool,
    }
}

object! {
    /// Several sources in one directory.
    pub struct ProjectedVolumeSource {
        sources: Vec<VolumeProjection>,
        default_mode: Option<i32>,
    }
}

object! {
    /// One source of a projected volume.
    pub struct VolumeProjection {
        secret: Option<SecretProjection>,
        config_map: Option<ConfigMapProjection>,
        downward_api: Option<DownwardApiVolumeSource>,
        service_account_token: Option<ServiceAccountTokenProjection>,
        cluster_trust_bundle: Value,
        pod_certificate: Value,
    }
}

object! {
    /// A Secret inside a projected volume.
    pub struct SecretProjection {
        name: String,
        items: Vec<KeyToPath>,
        optional: Option<bool>,
    }
}

object! {
    /// A ConfigMap inside a projected volume.
    pub struct ConfigMapProjection {
        name: String,
        items: Vec<KeyToPath>,
        optional: Option<bool>,
    }
}

object! {
    /// A token of the service account: only a cluster can give one.
    pub struct ServiceAccountTokenProjection {
        audience: String,
        expiration_seconds: Option<i64>,
        path: String,
    }
}

object! {
    /// Fields of the pod as files.
    pub struct DownwardApiVolumeSource {
        items: Value,
        default_mode: Option<i32>,
    }
}

object! {
    /// A volume of a CSI driver: only a cluster has drivers.
    pub struct CsiVolumeSource {
        driver: String,
        read_only: Option<bool>,
        fs_type: Option<String>,
        volume_attributes: BTreeMap<String, String>,
        node_publish_secret_ref: Option<LocalObjectReference>,
    }
}

object! {
    /// A claim that lives as long as the pod.
    pub struct EphemeralVolumeSource {
        volume_claim_template: Option<PersistentVolumeClaim>,
    }
}

object! {
    /// A request for storage that outlives a TaskRun. Here: a directory that the tasks share.
    pub struct PersistentVolumeClaim {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: PersistentVolumeClaimSpec,
        status: Value,
    }
}

object! {
    /// What is asked for; only `resources.requests.storage` is read here.
    pub struct PersistentVolumeClaimSpec {
        access_modes: Vec<String>,
        selector: Value,
        resources: ResourceRequirements,
        volume_name: String,
        storage_class_name: Option<String>,
        volume_mode: Option<String>,
        data_source: Value,
        data_source_ref: Value,
        volume_attributes_class_name: Option<String>,
    }
}

impl crate::object::Absent for PersistentVolumeClaimSpec {
    fn is_absent(&self) -> bool {
        *self == PersistentVolumeClaimSpec::default()
    }
}

object! {
    /// An object of the same namespace, by name.
    pub struct LocalObjectReference {
        name: String,
    }
}
