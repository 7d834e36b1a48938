//! What a container is made of: environment, probes, security, resources.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::object;

object! {
    /// One environment variable; `value` and `valueFrom` exclude each other.
    pub struct EnvVar {
        name: String,
        value: String,
        value_from: Option<EnvVarSource>,
    }
}

object! {
    /// Where a variable's value comes from.
    pub struct EnvVarSource {
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        config_map_key_ref: Option<KeySelector>,
        secret_key_ref: Option<KeySelector>,
        file_key_ref: Value,
    }
}

object! {
    /// A field of the pod, such as `metadata.name`.
    pub struct ObjectFieldSelector {
        api_version: String,
        field_path: String,
    }
}

object! {
    /// A resource of the container, such as `limits.cpu`.
    pub struct ResourceFieldSelector {
        container_name: String,
        resource: String,
        divisor: Value,
    }
}

object! {
    /// One key of a ConfigMap or Secret.
    pub struct KeySelector {
        name: String,
        key: String,
        optional: Option<bool>,
    }
}

object! {
    /// All keys of a ConfigMap or Secret as variables.
    pub struct EnvFromSource {
        prefix: String,
        config_map_ref: Option<EnvSource>,
        secret_ref: Option<EnvSource>,
    }
}

object! {
    /// A ConfigMap or Secret by name.
    pub struct EnvSource {
        name: String,
        optional: Option<bool>,
    }
}

object! {
    /// `requests` and `limits`: resource name → quantity. `claims` is a cluster's affair.
    pub struct ResourceRequirements {
        limits: BTreeMap<String, Quantity>,
        requests: BTreeMap<String, Quantity>,
        claims: Value,
    }
}

impl crate::object::Absent for ResourceRequirements {
    fn is_absent(&self) -> bool {
        *self == ResourceRequirements::default()
    }
}

/// A Kubernetes quantity (`100m`, `64Mi`, `2`), as text. Numbers in YAML become their text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quantity(pub String);

impl crate::object::Absent for Quantity {
    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

object! {
    /// Where a volume appears in a container.
    pub struct VolumeMount {
        name: String,
        read_only: bool,
        recursive_read_only: Option<String>,
        mount_path: String,
        sub_path: String,
        mount_propagation: Option<String>,
        sub_path_expr: String,
    }
}

object! {
    /// A raw block device in a container.
    pub struct VolumeDevice {
        name: String,
        device_path: String,
    }
}

object! {
    /// A port of a sidecar: information only, steps and sidecars share one network.
    pub struct ContainerPort {
        name: String,
        host_port: i32,
        container_port: i32,
        protocol: String,
        host_ip: String,
    }
}

object! {
    /// A liveness, readiness or startup probe. Times are seconds.
    pub struct Probe {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        grpc: Option<GrpcAction>,
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        termination_grace_period_seconds: Option<i64>,
    }
}

object! {
    /// A command run in the container; exit 0 is healthy.
    pub struct ExecAction {
        command: Vec<String>,
    }
}

object! {
    /// A GET; 200–399 is healthy.
    pub struct HttpGetAction {
        path: String,
        port: Option<IntOrString>,
        host: String,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    }
}

object! {
    /// One header of a probe's request.
    pub struct HttpHeader {
        name: String,
        value: String,
    }
}

object! {
    /// A TCP connect.
    pub struct TcpSocketAction {
        port: Option<IntOrString>,
        host: String,
    }
}

object! {
    /// A `grpc.health.v1` check.
    pub struct GrpcAction {
        port: i32,
        service: Option<String>,
    }
}

/// A port by number or by the name of a declared port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// The number itself.
    Int(i32),
    /// A name, or a number as text.
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    /// Asks for a newtype of this name, for which the loader gives a number or a text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = IntOrString;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an integer or a string")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(E::custom)
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(value.to_owned()))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<IntOrString, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
        deserializer.deserialize_newtype_struct("IntOrString", Either)
    }
}

object! {
    /// Hooks of a sidecar.
    pub struct Lifecycle {
        post_start: Option<LifecycleHandler>,
        pre_stop: Option<LifecycleHandler>,
        stop_signal: Option<String>,
    }
}

object! {
    /// What a hook does.
    pub struct LifecycleHandler {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        sleep: Value,
    }
}

object! {
    /// A container's security settings.
    pub struct SecurityContext {
        capabilities: Option<Capabilities>,
        privileged: Option<bool>,
        se_linux_options: Value,
        windows_options: Value,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        read_only_root_filesystem: Option<bool>,
        allow_privilege_escalation: Option<bool>,
        proc_mount: Option<String>,
        seccomp_profile: Value,
        app_armor_profile: Value,
    }
}

object! {
    /// Linux capabilities to add and drop.
    pub struct Capabilities {
        add: Vec<String>,
        drop: Vec<String>,
    }
}

object! {
    /// The security settings of all containers of a pod.
    pub struct PodSecurityContext {
        se_linux_options: Value,
        windows_options: Value,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: Option<String>,
        fs_group: Option<i64>,
        sysctls: Value,
        fs_group_change_policy: Option<String>,
        seccomp_profile: Value,
        app_armor_profile: Value,
        se_linux_change_policy: Option<String>,
    }
}
