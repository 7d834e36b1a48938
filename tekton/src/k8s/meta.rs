//! Object metadata and conditions.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::object;

object! {
    /// `metadata` of any object. Times are RFC 3339 UTC with seconds, as Kubernetes prints them.
    pub struct ObjectMeta {
        name: String,
        generate_name: String,
        namespace: String,
        uid: String,
        resource_version: String,
        generation: i64,
        creation_timestamp: Option<String>,
        deletion_timestamp: Option<String>,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        owner_references: Vec<OwnerReference>,
        finalizers: Vec<String>,
        managed_fields: Value,
        self_link: String,
        deletion_grace_period_seconds: Option<i64>,
    }
}

object! {
    /// The object that this one belongs to.
    pub struct OwnerReference {
        api_version: String,
        kind: String,
        name: String,
        uid: String,
        controller: bool,
        block_owner_deletion: bool,
    }
}

object! {
    /// One knative condition. `status` is `True`, `False` or `Unknown`.
    pub struct Condition {
        r#type: String,
        status: String,
        severity: String,
        last_transition_time: Option<String>,
        reason: String,
        message: String,
    }
}
