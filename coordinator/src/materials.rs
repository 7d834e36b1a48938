//! The ConfigMaps and Secrets of a run, held in memory beside the engine and handed to the agent
//! that needs them. They are never part of the engine's state, a log or an event (invariant 9).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tenon_tekton::k8s::{ConfigMap, EnvFromSource, EnvVar, Secret, Volume};
use tenon_tekton::pod::Pod;

/// What travels with a run besides its spec.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Materials {
    /// By name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
}

/// The parts of [`Materials`] that one pod refers to, as JSON objects.
pub(crate) struct Selected {
    pub config_maps_json: Vec<String>,
    pub secrets_json: Vec<String>,
}

impl Materials {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty()
    }

    /// What `pod` refers to by name: volumes, environment, credentials, pull secrets.
    pub(crate) fn select(&self, pod: &Pod) -> Selected {
        let mut names = Names::default();
        for step in &pod.steps {
            names.add_environment(&step.env, &step.env_from);
        }
        for sidecar in &pod.sidecars {
            names.add_environment(&sidecar.env, &sidecar.env_from);
        }
        for volume in &pod.volumes {
            names.add_volume(volume);
        }
        names.secrets.extend(pod.credential_secrets.iter().map(String::as_str));
        names.secrets.extend(pod.image_pull_secrets.iter().map(|secret| secret.name.as_str()));
        Selected {
            config_maps_json: json_of(&self.config_maps, &names.config_maps),
            secrets_json: json_of(&self.secrets, &names.secrets),
        }
    }

    /// Every secret value of the run, as text, for masking.
    pub(crate) fn values_to_mask(&self) -> Vec<String> {
        let mut values = BTreeSet::new();
        for secret in self.secrets.values() {
            for value in tenon_tekton::secrets::values(secret).unwrap_or_default().into_values() {
                values.insert(String::from_utf8_lossy(&value).into_owned());
            }
        }
        values.into_iter().collect()
    }
}

fn json_of<T: serde::Serialize>(all: &BTreeMap<String, T>, names: &BTreeSet<&str>) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| all.get(*name))
        .map(|object| {
            serde_json::to_string(object)
                .expect("a Kubernetes object has only string keys, so it is always valid JSON")
        })
        .collect()
}

#[derive(Default)]
struct Names<'a> {
    config_maps: BTreeSet<&'a str>,
    secrets: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn add_environment(&mut self, env: &'a [EnvVar], env_from: &'a [EnvFromSource]) {
        for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.as_str()));
            self.secrets.extend(source.secret_key_ref.iter().map(|key| key.name.as_str()));
        }
        for source in env_from {
            self.config_maps.extend(source.config_map_ref.iter().map(|map| map.name.as_str()));
            self.secrets.extend(source.secret_ref.iter().map(|secret| secret.name.as_str()));
        }
    }

    fn add_volume(&mut self, volume: &'a Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|map| map.name.as_str()));
        self.secrets.extend(volume.secret.iter().map(|secret| secret.secret_name.as_str()));
        for source in volume.projected.iter().flat_map(|projected| &projected.sources) {
            self.config_maps.extend(source.config_map.iter().map(|map| map.name.as_str()));
            self.secrets.extend(source.secret.iter().map(|secret| secret.name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, value: &str) -> (String, Secret) {
        let mut secret = Secret::default();
        secret.metadata.name = name.to_owned();
        secret.string_data.insert("key".to_owned(), value.to_owned());
        (name.to_owned(), secret)
    }

    #[test]
    fn only_what_a_pod_names_goes_to_its_agent() {
        let materials = Materials {
            secrets: [secret("wanted", "one-value"), secret("other", "other-value")].into(),
            ..Materials::default()
        };
        let pod = Pod { credential_secrets: vec!["wanted".to_owned()], ..Pod::default() };

        let selected = materials.select(&pod);

        assert_eq!(selected.secrets_json.len(), 1);
        assert!(selected.secrets_json[0].contains("one-value"));
        assert_eq!(materials.values_to_mask(), ["one-value", "other-value"]);
    }
}
