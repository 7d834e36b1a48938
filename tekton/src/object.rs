//! The set of kinds that a file may hold, as one type.

use serde_json::Value;

use crate::k8s::{ConfigMap, ObjectMeta, PersistentVolumeClaim, Secret, ServiceAccount};
use crate::v1::{CustomRun, Pipeline, PipelineRun, StepAction, Task, TaskRun};

/// Declares [`object!`]: a Kubernetes-shaped struct with camelCase keys, every field optional on
/// input, and absent fields left out on output (Go's `omitempty`).
macro_rules! object {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        #[allow(missing_docs, reason = "fields keep the names and meaning of Kubernetes' and Tekton's API")]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(skip_serializing_if = "crate::object::Absent::is_absent")]
                pub $field: $type,
            )*
        }
    };
}
pub(crate) use object;

/// Whether a field would be left out of Tekton's JSON (Go's `omitempty`).
pub trait Absent {
    /// True when the value is its type's empty value.
    fn is_absent(&self) -> bool;
}

impl Absent for String {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}
impl Absent for bool {
    fn is_absent(&self) -> bool {
        !*self
    }
}
impl Absent for i32 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}
impl Absent for i64 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}
impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}
impl<T> Absent for Box<T> {
    fn is_absent(&self) -> bool {
        false
    }
}
impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}
impl<K, V> Absent for std::collections::BTreeMap<K, V> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}
impl Absent for Value {
    fn is_absent(&self) -> bool {
        self.is_null()
    }
}

/// The kinds that a file may hold.
pub const KINDS: [&str; 11] = [
    "Task",
    "Pipeline",
    "TaskRun",
    "PipelineRun",
    "StepAction",
    "CustomRun",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "ServiceAccount",
    "LimitRange",
];

/// One document of a file, decoded, converted to `tekton.dev/v1` and defaulted.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `kind: Task`
    Task(Box<Task>),
    /// `kind: Pipeline`
    Pipeline(Box<Pipeline>),
    /// `kind: TaskRun`
    TaskRun(Box<TaskRun>),
    /// `kind: PipelineRun`
    PipelineRun(Box<PipelineRun>),
    /// `kind: StepAction`
    StepAction(Box<StepAction>),
    /// `kind: CustomRun`; Tenon makes them, a file may not submit them to be run.
    CustomRun(Box<CustomRun>),
    /// `kind: ConfigMap`
    ConfigMap(Box<ConfigMap>),
    /// `kind: Secret`
    Secret(Box<Secret>),
    /// `kind: PersistentVolumeClaim`
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    /// `kind: ServiceAccount`
    ServiceAccount(Box<ServiceAccount>),
    /// `kind: LimitRange`: accepted, and without effect here.
    LimitRange(Box<Value>),
}

impl Object {
    /// The object's Kubernetes kind, as written in `kind:`.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Task(_) => "Task",
            Object::Pipeline(_) => "Pipeline",
            Object::TaskRun(_) => "TaskRun",
            Object::PipelineRun(_) => "PipelineRun",
            Object::StepAction(_) => "StepAction",
            Object::CustomRun(_) => "CustomRun",
            Object::ConfigMap(_) => "ConfigMap",
            Object::Secret(_) => "Secret",
            Object::PersistentVolumeClaim(_) => "PersistentVolumeClaim",
            Object::ServiceAccount(_) => "ServiceAccount",
            Object::LimitRange(_) => "LimitRange",
        }
    }

    /// The object's metadata; a LimitRange is kept as plain JSON and has none here.
    pub fn metadata(&self) -> Option<&ObjectMeta> {
        match self {
            Object::Task(o) => Some(&o.metadata),
            Object::Pipeline(o) => Some(&o.metadata),
            Object::TaskRun(o) => Some(&o.metadata),
            Object::PipelineRun(o) => Some(&o.metadata),
            Object::StepAction(o) => Some(&o.metadata),
            Object::CustomRun(o) => Some(&o.metadata),
            Object::ConfigMap(o) => Some(&o.metadata),
            Object::Secret(o) => Some(&o.metadata),
            Object::PersistentVolumeClaim(o) => Some(&o.metadata),
            Object::ServiceAccount(o) => Some(&o.metadata),
            Object::LimitRange(_) => None,
        }
    }
}
