//! stepTemplate and steps made one, as Kubernetes' strategic merge of a container does.
//!
//! A step's field wins; `env` is merged by name, mounts by path, devices by path, resources by name;
//! `command`, `args` and `envFrom` are replaced whole.

use crate::k8s::{EnvVar, ResourceRequirements, SecurityContext, VolumeDevice, VolumeMount};
use crate::object::Absent;
use crate::v1::{Step, StepTemplate};

fn keep<T: Absent + Clone>(own: &mut T, base: &T) {
    if own.is_absent() {
        own.clone_from(base);
    }
}

/// Merges the template into every step.
pub(super) fn merge_template(template: &StepTemplate, steps: &mut [Step]) {
    for step in steps {
        keep(&mut step.image, &template.image);
        // A script takes the place of any command.
        if step.script.is_empty() {
            keep(&mut step.command, &template.command);
        }
        keep(&mut step.args, &template.args);
        keep(&mut step.working_dir, &template.working_dir);
        keep(&mut step.env_from, &template.env_from);
        keep(&mut step.image_pull_policy, &template.image_pull_policy);
        step.env = merge_lists(&template.env, &step.env, |e: &EnvVar| &e.name, merge_env);
        step.volume_mounts = merge_lists(
            &template.volume_mounts,
            &step.volume_mounts,
            |mount: &VolumeMount| &mount.mount_path,
            merge_mount,
        );
        step.volume_devices = merge_lists(
            &template.volume_devices,
            &step.volume_devices,
            |device: &VolumeDevice| &device.device_path,
            |_, own| own.clone(),
        );
        merge_resources(&mut step.compute_resources, &template.compute_resources);
        if let Some(base) = &template.security_context {
            let own = step.security_context.get_or_insert_default();
            merge_security(own, base);
        }
    }
}

/// `own` keys over `base` keys.
pub(super) fn merge_resources(own: &mut ResourceRequirements, base: &ResourceRequirements) {
    let pairs = [(&mut own.limits, &base.limits), (&mut own.requests, &base.requests)];
    for (own, base) in pairs {
        for (name, quantity) in base {
            own.entry(name.clone()).or_insert_with(|| quantity.clone());
        }
    }
    keep(&mut own.claims, &base.claims);
}

fn merge_security(own: &mut SecurityContext, base: &SecurityContext) {
    match (&mut own.capabilities, &base.capabilities) {
        (Some(own), Some(base)) => {
            keep(&mut own.add, &base.add);
            keep(&mut own.drop, &base.drop);
        }
        (own, base) => keep(own, base),
    }
    keep(&mut own.privileged, &base.privileged);
    keep(&mut own.se_linux_options, &base.se_linux_options);
    keep(&mut own.windows_options, &base.windows_options);
    keep(&mut own.run_as_user, &base.run_as_user);
    keep(&mut own.run_as_group, &base.run_as_group);
    keep(&mut own.run_as_non_root, &base.run_as_non_root);
    keep(&mut own.read_only_root_filesystem, &base.read_only_root_filesystem);
    keep(&mut own.allow_privilege_escalation, &base.allow_privilege_escalation);
    keep(&mut own.proc_mount, &base.proc_mount);
    keep(&mut own.seccomp_profile, &base.seccomp_profile);
    keep(&mut own.app_armor_profile, &base.app_armor_profile);
}

fn merge_env(base: &EnvVar, own: &EnvVar) -> EnvVar {
    // `value: ""` is left out of JSON, so it cannot override; a value and a source exclude each other.
    if own.value.is_empty() && own.value_from.is_none() { base.clone() } else { own.clone() }
}

fn merge_mount(base: &VolumeMount, own: &VolumeMount) -> VolumeMount {
    let mut merged = own.clone();
    keep(&mut merged.name, &base.name);
    keep(&mut merged.read_only, &base.read_only);
    keep(&mut merged.recursive_read_only, &base.recursive_read_only);
    keep(&mut merged.sub_path, &base.sub_path);
    keep(&mut merged.mount_propagation, &base.mount_propagation);
    keep(&mut merged.sub_path_expr, &base.sub_path_expr);
    merged
}

/// Merges by key, in Kubernetes' order: own items keep theirs; a base-only item comes before the next
/// own item that the base has too and has later, so new own items come first.
fn merge_lists<T: Clone>(
    base: &[T],
    own: &[T],
    key: impl Fn(&T) -> &str,
    merge: impl Fn(&T, &T) -> T,
) -> Vec<T> {
    if base.is_empty() {
        return own.to_vec();
    }
    let position = |name: &str| base.iter().position(|item| key(item) == name);
    let mut base_only = base
        .iter()
        .enumerate()
        .filter(|(_, item)| !own.iter().any(|other| key(other) == key(item)))
        .peekable();
    let mut merged = Vec::with_capacity(base.len() + own.len());
    for item in own {
        match position(key(item)) {
            None => merged.push(item.clone()),
            Some(at) => {
                while let Some((_, before)) = base_only.next_if(|(i, _)| *i < at) {
                    merged.push(before.clone());
                }
                merged.push(merge(&base[at], item));
            }
        }
    }
    merged.extend(base_only.map(|(_, item)| item.clone()));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_as_kubernetes_does() {
        let template: StepTemplate = serde_json::from_value(json!({
            "image": "t", "command": ["c"], "args": ["a"], "workingDir": "/t",
            "env": [{"name": "KEEP_THIS", "value": "A"}, {"name": "SOME_KEY", "value": "OLD"}, {"name": "EMPTY", "value": "E"}],
            "volumeMounts": [{"name": "ws", "mountPath": "/w", "subPath": "s"}],
            "computeResources": {"requests": {"cpu": "1", "memory": "1Mi"}},
            "securityContext": {"runAsUser": 7, "capabilities": {"add": ["X"]}},
        }))
        .expect("a template");
        let steps: Vec<Step> = serde_json::from_value(json!([
            {"image": "s", "args": ["b"],
             "env": [{"name": "NEW_KEY", "value": "A"}, {"name": "SOME_KEY", "value": "NEW"}, {"name": "EMPTY"}],
             "volumeMounts": [{"name": "mine", "mountPath": "/w"}],
             "computeResources": {"requests": {"cpu": "2"}},
             "securityContext": {"runAsUser": 8, "capabilities": {"drop": ["Y"]}}},
            {"script": "true"},
        ]))
        .expect("steps");
        let mut merged = steps;
        merge_template(&template, &mut merged);
        let [first, second] = &merged[..] else { panic!("two steps") };
        assert_eq!((first.image.as_str(), first.working_dir.as_str()), ("s", "/t"));
        assert_eq!(
            (&first.command[..], &first.args[..]),
            (&["c".to_owned()][..], &["b".to_owned()][..])
        );
        let env: Vec<String> =
            first.env.iter().map(|e| format!("{}={}", e.name, e.value)).collect();
        assert_eq!(env, ["NEW_KEY=A", "KEEP_THIS=A", "SOME_KEY=NEW", "EMPTY=E"]);
        assert_eq!(
            (first.volume_mounts[0].name.as_str(), first.volume_mounts[0].sub_path.as_str()),
            ("mine", "s")
        );
        assert_eq!(first.compute_resources.requests["cpu"].0, "2");
        assert_eq!(first.compute_resources.requests["memory"].0, "1Mi");
        let security = first.security_context.as_ref().expect("a security context");
        assert_eq!(security.run_as_user, Some(8));
        assert_eq!(security.capabilities.as_ref().expect("capabilities").add, ["X"]);
        // The template's command is not for a script.
        assert!(second.command.is_empty());
        assert_eq!(second.args, ["a"]);
    }
}
