//! ConfigMap, Secret and ServiceAccount, and the pod template.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EnvVar, LocalObjectReference, ObjectMeta, PodSecurityContext, Volume};
use crate::object::object;

impl crate::object::Absent for ObjectMeta {
    fn is_absent(&self) -> bool {
        *self == ObjectMeta::default()
    }
}

object! {
    /// Plain configuration. `binaryData` values are base64.
    pub struct ConfigMap {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        data: BTreeMap<String, String>,
        binary_data: BTreeMap<String, String>,
        immutable: Option<bool>,
    }
}

object! {
    /// Secret values. `data` values are base64; `stringData` wins over `data`, key by key.
    ///
    /// A Secret never enters the engine's state, an event or a journal: it goes from the loader to
    /// the agent that needs it.
    pub struct Secret {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        r#type: String,
        data: BTreeMap<String, String>,
        string_data: BTreeMap<String, String>,
        immutable: Option<bool>,
    }
}

object! {
    /// Whose credentials a run uses: its `secrets` become git and registry credentials.
    pub struct ServiceAccount {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        secrets: Vec<ObjectReference>,
        image_pull_secrets: Vec<LocalObjectReference>,
        automount_service_account_token: Option<bool>,
    }
}

object! {
    /// A reference to any object.
    pub struct ObjectReference {
        kind: String,
        namespace: String,
        name: String,
        uid: String,
        api_version: String,
        resource_version: String,
        field_path: String,
    }
}

object! {
    /// Tekton's `podTemplate`. Fields without a meaning outside a cluster are carried as JSON.
    pub struct PodTemplate {
        node_selector: BTreeMap<String, String>,
        env: Vec<EnvVar>,
        tolerations: Value,
        affinity: Value,
        security_context: Option<PodSecurityContext>,
        volumes: Vec<Volume>,
        runtime_class_name: Option<String>,
        automount_service_account_token: Option<bool>,
        dns_policy: Option<String>,
        dns_config: Value,
        enable_service_links: Option<bool>,
        priority_class_name: Option<String>,
        scheduler_name: String,
        image_pull_secrets: Vec<LocalObjectReference>,
        host_aliases: Vec<HostAlias>,
        host_network: bool,
        host_users: Option<bool>,
        topology_spread_constraints: Value,
    }
}

object! {
    /// Extra lines of `/etc/hosts`.
    pub struct HostAlias {
        ip: String,
        hostnames: Vec<String>,
    }
}
