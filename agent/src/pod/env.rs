//! A container's environment: look-ups in ConfigMaps, Secrets and the pod, then `$(VAR)`.
//!
//! Messages are the kubelet's own.

use tenon_proto::agent::v1::AttemptId;
use tenon_tekton::k8s::{EnvFromSource, EnvVar, KeySelector, ResourceRequirements};
use tenon_tekton::pod::Pod;

use super::container::container_name;
use super::expand::expand;
use super::{Env, Materials, Refusal, quantity};

/// Builds the environment of one container, `step-<name>` or `sidecar-<name>`.
pub fn environment(
    pod: &Pod,
    materials: &Materials,
    container: &str,
    env_from: &[EnvFromSource],
    env: &[EnvVar],
    resources: &ResourceRequirements,
) -> Result<Env, Refusal> {
    let mut built = Env::default();
    // The Task's own variables of these names go before them.
    for (name, value) in materials.attempt.iter().flat_map(identity) {
        built.set(name, value);
    }
    if let Some(traceparent) = materials.traceparents.get(container) {
        built.set("TRACEPARENT", traceparent.clone());
    }
    for source in env_from {
        add_all(&mut built, materials, source)?;
    }
    for variable in env {
        let value = match &variable.value_from {
            None => Some(expand(&variable.value, |name| built.get(name))),
            Some(_) if !variable.value.is_empty() => {
                Some(expand(&variable.value, |name| built.get(name)))
            }
            Some(from) => {
                if let Some(selector) = &from.config_map_key_ref {
                    config_map_key(pod, materials, selector)?
                } else if let Some(selector) = &from.secret_key_ref {
                    secret_key(pod, materials, selector)?
                } else if let Some(field) = &from.field_ref {
                    Some(pod_field(pod, &field.field_path)?)
                } else if let Some(field) = &from.resource_field_ref {
                    Some(resource_field(resources, &field.resource, &field.divisor)?)
                } else {
                    return Err(refuse(format!(
                        "environment variable \"{}\": this kind of valueFrom is not supported here",
                        variable.name
                    )));
                }
            }
        };
        if let Some(value) = value {
            built.set(&variable.name, value);
        }
    }
    Ok(built)
}

/// What a step is told of the placement that it belongs to.
fn identity(attempt: &AttemptId) -> [(&'static str, String); 5] {
    [
        ("TENON_RUN_ID", attempt.run_id.clone()),
        ("TENON_TASK_RUN", attempt.task_run.clone()),
        ("TENON_ATTEMPT", attempt.attempt.to_string()),
        ("TENON_PLACEMENT", attempt.placement.to_string()),
        ("TENON_FENCING_TOKEN", fencing_token(attempt).to_string()),
    ]
}

/// A number that is greater for each later placement of a TaskRun: attempt and placement, the latter
/// in six digits.
fn fencing_token(attempt: &AttemptId) -> u64 {
    u64::from(attempt.attempt) * 1_000_000 + u64::from(attempt.placement.min(999_999))
}

fn add_all(built: &mut Env, materials: &Materials, source: &EnvFromSource) -> Result<(), Refusal> {
    let (values, name, kind, optional) = if let Some(from) = &source.config_map_ref {
        let values = materials.config_maps.get(&from.name).map(|map| &map.texts);
        (values, &from.name, "configmap", from.optional)
    } else if let Some(from) = &source.secret_ref {
        let values = materials.secrets.get(&from.name).map(|s| &s.values);
        (values, &from.name, "secret", from.optional)
    } else {
        return Ok(());
    };
    let Some(values) = values else {
        if optional == Some(true) {
            return Ok(());
        }
        return Err(refuse(format!("{kind} \"{name}\" not found")));
    };
    for (key, value) in values {
        let variable = format!("{}{key}", source.prefix);
        // A key that no shell could name is skipped, as the kubelet does.
        if !variable.is_empty() && !variable.contains('=') && !variable.contains('\0') {
            built.set(&variable, String::from_utf8_lossy(value).into_owned());
        }
    }
    Ok(())
}

fn config_map_key(
    pod: &Pod,
    materials: &Materials,
    selector: &KeySelector,
) -> Result<Option<String>, Refusal> {
    let optional = selector.optional == Some(true);
    let Some(map) = materials.config_maps.get(&selector.name) else {
        return absent(optional, || format!("configmap \"{}\" not found", selector.name));
    };
    match map.texts.get(&selector.key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None => absent(optional, || {
            format!(
                "couldn't find key {} in ConfigMap {}/{}",
                selector.key, pod.namespace, selector.name
            )
        }),
    }
}

fn secret_key(
    pod: &Pod,
    materials: &Materials,
    selector: &KeySelector,
) -> Result<Option<String>, Refusal> {
    let optional = selector.optional == Some(true);
    let Some(secret) = materials.secrets.get(&selector.name) else {
        return absent(optional, || format!("secret \"{}\" not found", selector.name));
    };
    match secret.values.get(&selector.key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None => absent(optional, || {
            format!(
                "couldn't find key {} in Secret {}/{}",
                selector.key, pod.namespace, selector.name
            )
        }),
    }
}

fn absent(optional: bool, message: impl Fn() -> String) -> Result<Option<String>, Refusal> {
    if optional { Ok(None) } else { Err(refuse(message())) }
}

/// A field of the pod as the downward API gives it.
pub fn pod_field(pod: &Pod, path: &str) -> Result<String, Refusal> {
    let subscript =
        |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = subscript("metadata.labels") {
        return Ok(pod.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript("metadata.annotations") {
        return Ok(pod.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.task_run_uid.clone(),
        "metadata.labels" => pairs(&pod.labels),
        "metadata.annotations" => pairs(&pod.annotations),
        "spec.nodeName" => host_name(),
        "spec.serviceAccountName" if pod.service_account_name.is_empty() => "default".to_owned(),
        "spec.serviceAccountName" => pod.service_account_name.clone(),
        // Known only once containers run; everything of a pod shares its loopback.
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => {
            "127.0.0.1".to_owned()
        }
        _ => {
            return Err(refuse(format!(
                "fieldPath \"{path}\" is not supported here; supported: metadata.name, \
                 metadata.namespace, metadata.uid, metadata.labels['KEY'], \
                 metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, \
                 status.podIP, status.hostIP"
            )));
        }
    })
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".to_owned())
}

/// `limits.cpu` and the like of one of the pod's containers, `step-<name>` or `sidecar-<name>`.
pub fn container_resource_field(
    pod: &Pod,
    container: &str,
    resource: &str,
    divisor: &serde_json::Value,
) -> Result<String, Refusal> {
    let is_meant = |kind: &str, name: &str| container_name(kind, name) == container;
    let of_step = pod.steps.iter().find(|step| is_meant("step", &step.name));
    let of_sidecar = pod.sidecars.iter().find(|sidecar| is_meant("sidecar", &sidecar.name));
    let resources = of_step
        .map(|step| &step.compute_resources)
        .or_else(|| of_sidecar.map(|sidecar| &sidecar.compute_resources));
    match resources {
        Some(resources) => resource_field(resources, resource, divisor),
        None => Err(refuse(format!("container {container} not found"))),
    }
}

/// `limits.cpu` and the like, divided and rounded up. Without a limit: what the machine has.
fn resource_field(
    resources: &ResourceRequirements,
    resource: &str,
    divisor: &serde_json::Value,
) -> Result<String, Refusal> {
    let (list, name) = match resource.split_once('.') {
        Some(("limits", name)) => (&resources.limits, name),
        Some(("requests", name)) => (&resources.requests, name),
        _ => return Err(refuse(format!("unsupported resource: \"{resource}\""))),
    };
    let divisor = match divisor {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => "1".to_owned(),
    };
    let divisor = quantity::nanos(&divisor).filter(|&d| d > 0).unwrap_or(1_000_000_000);
    let value = match list.get(name).and_then(|q| quantity::nanos(&q.0)) {
        Some(value) => value,
        None if resource.starts_with("requests.") => 0,
        None => machine(name),
    };
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// What the machine has of a resource, in billionths.
fn machine(resource: &str) -> i128 {
    let amount = match resource {
        "cpu" => std::thread::available_parallelism().map_or(1, |n| n.get() as i128),
        "memory" => std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
                line.split_whitespace().nth(1)?.parse::<i128>().ok()
            })
            .map_or(0, |kib| kib * 1024),
        _ => 0,
    };
    amount * 1_000_000_000
}

fn refuse(message: String) -> Refusal {
    Refusal { reason: "CreateContainerConfigError", message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::{ConfigMapValues, SecretValues};

    fn materials() -> Materials {
        let attempt = AttemptId {
            run_id: "R".to_owned(),
            task_run: "t".to_owned(),
            attempt: 2,
            placement: 3,
        };
        Materials {
            attempt: Some(attempt),
            traceparents: [("step-s".to_owned(), "00-t-s-01".to_owned())].into(),
            config_maps: [(
                "cm".to_owned(),
                ConfigMapValues {
                    texts: [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]
                        .into(),
                    binary: [("bin".to_owned(), b"3".to_vec())].into(),
                },
            )]
            .into(),
            secrets: [(
                "sec".to_owned(),
                SecretValues {
                    values: [("k".to_owned(), b"hidden".to_vec())].into(),
                    ..SecretValues::default()
                },
            )]
            .into(),
        }
    }

    fn build(env_from: serde_json::Value, env: serde_json::Value) -> Result<Env, String> {
        let pod = Pod {
            name: "p".into(),
            namespace: "ns".into(),
            labels: [("l".to_owned(), "v".to_owned())].into(),
            service_account_name: "robot".into(),
            ..Pod::default()
        };
        let resources = serde_json::from_value(json!({"limits": {"cpu": "1500m"}})).unwrap();
        environment(
            &pod,
            &materials(),
            "step-s",
            &serde_json::from_value::<Vec<EnvFromSource>>(env_from).unwrap(),
            &serde_json::from_value::<Vec<EnvVar>>(env).unwrap(),
            &resources,
        )
        .map_err(|refusal| refusal.message)
    }

    #[test]
    fn look_ups_and_expansion() {
        let env = build(
            json!([{"prefix": "P_", "configMapRef": {"name": "cm"}},
                   {"secretRef": {"name": "none", "optional": true}}]),
            json!([
                {"name": "X", "value": "$(P_a)-$(LATER)"},
                {"name": "LATER", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
                {"name": "Y", "value": "$(LATER) $$(LATER)"},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "z", "optional": true}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MCPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
                {"name": "X", "value": "again"},
                {"name": "TENON_PLACEMENT", "value": "its own"},
            ]),
        )
        .unwrap();
        for (name, expected) in [
            ("P_a", Some("1")),
            ("P_b", Some("2")),
            ("P_bin", None),
            ("ACCOUNT", Some("robot")),
            ("X", Some("again")),
            ("LATER", Some("hidden")),
            ("Y", Some("hidden $(LATER)")),
            ("GONE", None),
            ("POD", Some("p")),
            ("L", Some("v")),
            ("CPU", Some("2")),
            ("MCPU", Some("1500")),
            ("TRACEPARENT", Some("00-t-s-01")),
            ("TENON_RUN_ID", Some("R")),
            ("TENON_TASK_RUN", Some("t")),
            ("TENON_ATTEMPT", Some("2")),
            ("TENON_PLACEMENT", Some("its own")),
            ("TENON_FENCING_TOKEN", Some("2000003")),
        ] {
            assert_eq!(env.get(name), expected, "{name}");
        }
        assert!(!format!("{env:?}").contains("hidden"));
    }

    #[test]
    fn a_later_placement_has_a_greater_token() {
        let token = |attempt, placement| {
            fencing_token(&AttemptId { attempt, placement, ..AttemptId::default() })
        };
        let tokens =
            [token(1, 1), token(1, 2), token(1, u32::MAX), token(2, 1), token(u32::MAX, 1)];
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    }

    #[test]
    fn what_is_missing_is_said_as_the_kubelet_does() {
        for (env, message) in [
            (
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]),
                "secret \"no\" not found",
            ),
            (
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "no"}}}]),
                "couldn't find key no in Secret ns/sec",
            ),
            (
                json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]),
                "configmap \"no\" not found",
            ),
            (
                json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]),
                "couldn't find key no in ConfigMap ns/cm",
            ),
            (
                json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "bin"}}}]),
                "couldn't find key bin in ConfigMap ns/cm",
            ),
        ] {
            assert_eq!(build(json!([]), env).unwrap_err(), message);
        }
    }
}
