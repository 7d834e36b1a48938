//! The ConfigMaps and Secrets that travel with an attempt, decoded and by name.

use std::collections::BTreeMap;

use tenon_proto::agent::v1::{AttemptId, TaskInvocation};
use tenon_tekton::k8s::{ConfigMap, ObjectMeta, Secret};
use tenon_tekton::secrets;

use super::Refusal;

/// ConfigMaps and Secrets by name.
#[derive(Default)]
pub struct Materials {
    /// The ConfigMaps.
    pub config_maps: BTreeMap<String, ConfigMapValues>,
    /// The Secrets.
    pub secrets: BTreeMap<String, SecretValues>,
    /// Which placement of which attempt this is, where that is known.
    pub attempt: Option<AttemptId>,
    /// W3C trace context by container: `step-<name>` or `sidecar-<name>`.
    pub traceparents: std::collections::HashMap<String, String>,
}

/// One ConfigMap, decoded.
#[derive(Clone, Debug, Default)]
pub struct ConfigMapValues {
    /// `data`, key to contents: what a variable can be taken from.
    pub texts: BTreeMap<String, Vec<u8>>,
    /// `binaryData`, which is only for volumes.
    pub binary: BTreeMap<String, Vec<u8>>,
}

impl ConfigMapValues {
    /// All that a volume of it holds.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let all = self.texts.iter().chain(&self.binary);
        all.map(|(key, contents)| (key.clone(), contents.clone())).collect()
    }
}

/// One Secret, decoded. Has no `Debug`: values are not to be printed.
#[derive(Clone, Default)]
pub struct SecretValues {
    /// Kubernetes' type, `kubernetes.io/basic-auth` and so on.
    pub kind: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Key to value.
    pub values: BTreeMap<String, Vec<u8>>,
}

impl SecretValues {
    /// A value as text, `""` when there is none.
    pub fn text(&self, key: &str) -> String {
        self.values
            .get(key)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    }
}

impl Materials {
    /// Decodes what came with an attempt.
    pub fn decode(task: &TaskInvocation) -> Result<Materials, Refusal> {
        let mut materials = Materials {
            attempt: task.attempt.clone(),
            traceparents: task.traceparents.clone(),
            ..Materials::default()
        };
        for json in &task.config_maps_json {
            let map: ConfigMap = serde_json::from_str(json).map_err(|error| refuse(&error))?;
            let texts = map.data.into_iter().map(|(key, text)| (key, text.into_bytes()));
            let mut values =
                ConfigMapValues { texts: texts.collect(), ..ConfigMapValues::default() };
            for (key, text) in map.binary_data {
                let bytes = secrets::decode_base64(&text).map_err(|at| {
                    refuse(&format!(
                        "ConfigMap \"{}\": binaryData.{key}: illegal base64 data at input byte {at}",
                        map.metadata.name
                    ))
                })?;
                values.binary.insert(key, bytes);
            }
            materials.config_maps.insert(map.metadata.name, values);
        }
        for json in &task.secrets_json {
            // The error of a decoder may quote what it read, so it is not passed on.
            let secret: Secret = serde_json::from_str(json)
                .map_err(|_| refuse(&"a Secret of this run is not a valid Secret object"))?;
            let values = secrets::values(&secret).map_err(|error| refuse(&error))?;
            materials.secrets.insert(
                secret.metadata.name.clone(),
                SecretValues { kind: secret.r#type, metadata: secret.metadata, values },
            );
        }
        Ok(materials)
    }
}

fn refuse(error: &dyn std::fmt::Display) -> Refusal {
    Refusal { reason: "CreateContainerConfigError", message: error.to_string() }
}
