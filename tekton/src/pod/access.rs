//! What the containers of a Pod do with its PersistentVolumeClaims.

use std::collections::BTreeMap;

use super::Pod;

/// What a Pod does with a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimAccess {
    /// A container has it mounted so that it can be written to.
    pub writes: bool,
}

impl Pod {
    /// The PersistentVolumeClaims of the Pod, by name.
    pub fn claims(&self) -> BTreeMap<&str, ClaimAccess> {
        let mut claims: BTreeMap<&str, ClaimAccess> = BTreeMap::new();
        for volume in &self.volumes {
            let Some(claim) = &volume.persistent_volume_claim else { continue };
            let access = claims.entry(claim.claim_name.as_str()).or_default();
            let steps = self.steps.iter().flat_map(|step| &step.volume_mounts);
            let sidecars = self.sidecars.iter().flat_map(|sidecar| &sidecar.volume_mounts);
            let mut mounts = steps.chain(sidecars).filter(|mount| mount.name == volume.name);
            access.writes |= !claim.read_only && mounts.any(|mount| !mount.read_only);
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_written_to_where_any_mount_lets_one() {
        let volume = |name: &str, claim: &str, read_only: bool| json!({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}});
        let mount = |name: &str, read_only: bool| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": read_only});
        let pod: Pod = serde_json::from_value(json!({
            "volumes": [
                volume("a", "both", false), volume("b", "both", true), volume("c", "read", false),
                volume("d", "kept", true), volume("e", "unused", false), {"name": "f"},
            ],
            "steps": [{"name": "s", "volumeMounts": [mount("b", false), mount("c", true)]}],
            "sidecars": [{"name": "s", "volumeMounts": [mount("a", false), mount("d", false)]}],
        }))
        .unwrap();
        let claims = pod.claims().into_iter().map(|(name, access)| (name, access.writes));
        let expected = [("both", true), ("kept", false), ("read", false), ("unused", false)];
        assert_eq!(claims.collect::<Vec<_>>(), expected);
    }
}
