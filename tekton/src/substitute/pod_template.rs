//! The fields of a podTemplate that are substituted: every text of it that Tekton names.
//!
//! Parts carried as JSON (affinity, tolerations, …) mean nothing here and are substituted as a whole,
//! text by text.

use serde_json::Value;

use super::{Replacements, fields};
use crate::k8s::PodTemplate;

fn apply_to_json(value: &mut Value, with: &Replacements) {
    match value {
        Value::String(text) => with.apply_to(text),
        Value::Array(items) => items.iter_mut().for_each(|item| apply_to_json(item, with)),
        Value::Object(entries) => entries.values_mut().for_each(|item| apply_to_json(item, with)),
        _ => {}
    }
}

/// Replaces in a podTemplate.
pub fn apply_to_pod_template(template: &mut PodTemplate, with: &Replacements) {
    template.node_selector = std::mem::take(&mut template.node_selector)
        .into_iter()
        .map(|(key, value)| (with.apply(&key).into_owned(), with.apply(&value).into_owned()))
        .collect();
    for json in [
        &mut template.tolerations,
        &mut template.affinity,
        &mut template.dns_config,
        &mut template.topology_spread_constraints,
    ] {
        apply_to_json(json, with);
    }
    for text in [
        &mut template.runtime_class_name,
        &mut template.dns_policy,
        &mut template.priority_class_name,
    ]
    .into_iter()
    .flatten()
    {
        with.apply_to(text);
    }
    with.apply_to(&mut template.scheduler_name);
    for secret in &mut template.image_pull_secrets {
        with.apply_to(&mut secret.name);
    }
    for alias in &mut template.host_aliases {
        with.apply_to(&mut alias.ip);
        alias.hostnames.iter_mut().for_each(|name| with.apply_to(name));
    }
    for volume in &mut template.volumes {
        fields::apply_to_volume(volume, with);
    }
    for variable in &mut template.env {
        with.apply_to(&mut variable.name);
        with.apply_to(&mut variable.value);
        if let Some(source) = &mut variable.value_from {
            for selector in
                [&mut source.secret_key_ref, &mut source.config_map_key_ref].into_iter().flatten()
            {
                with.apply_to(&mut selector.name);
                with.apply_to(&mut selector.key);
            }
            if let Some(field) = &mut source.field_ref {
                with.apply_to(&mut field.field_path);
            }
            if let Some(field) = &mut source.resource_field_ref {
                with.apply_to(&mut field.resource);
                with.apply_to(&mut field.container_name);
            }
        }
    }
}
