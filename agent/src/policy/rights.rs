//! What one container may do, of what it asks for and what the machine has by default.

use serde_json::Value;
use tenon_tekton::k8s::{PodSecurityContext, SecurityContext};

use super::Capabilities;
use crate::pod::Refusal;

/// The rights of one container; of what [`super::Policy::check`] has let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// All rights of the machine's root. Capabilities and confinement do not matter then.
    pub privileged: bool,
    /// No program gains rights by being executed.
    pub no_new_privileges: bool,
    /// The capabilities that it may ever have.
    pub capabilities: Capabilities,
    /// Without the engine's seccomp profile.
    pub seccomp_unconfined: bool,
    /// Another AppArmor profile than the engine's: its name, or `unconfined`.
    pub app_armor: Option<String>,
    /// Nothing of `/proc` is hidden or read-only.
    pub proc_unmasked: bool,
    /// Nothing but mounts can be written.
    pub read_only_root: bool,
}

impl Default for Rights {
    /// Those of a container that asks for nothing.
    fn default() -> Rights {
        Rights {
            privileged: false,
            no_new_privileges: true,
            capabilities: Capabilities::of(None),
            seccomp_unconfined: false,
            app_armor: None,
            proc_unmasked: false,
            read_only_root: false,
        }
    }
}

impl Rights {
    /// Of a container's own settings, and those of its Pod for what it leaves open.
    pub fn of(
        own: Option<&SecurityContext>,
        shared: Option<&PodSecurityContext>,
    ) -> Result<Rights, Refusal> {
        let none = SecurityContext::default();
        let own = own.unwrap_or(&none);
        let either = |own: &Value, of_pod: Option<&Value>| match own.is_null() {
            true => of_pod.cloned().unwrap_or_default(),
            false => own.clone(),
        };
        let seccomp = either(&own.seccomp_profile, shared.map(|it| &it.seccomp_profile));
        let app_armor = either(&own.app_armor_profile, shared.map(|it| &it.app_armor_profile));
        if seccomp["type"] == "Localhost" {
            return Err(Refusal {
                reason: "CreateContainerConfigError",
                message: "seccompProfile: this machine has no profiles of its own (Localhost); \
                          use RuntimeDefault"
                    .to_owned(),
            });
        }
        let privileged = own.privileged == Some(true);
        let capabilities = Capabilities::of(own.capabilities.as_ref());
        // As in Kubernetes: who has all rights can gain no more.
        let has_all = privileged || capabilities.has("SYS_ADMIN");
        Ok(Rights {
            privileged,
            no_new_privileges: own.allow_privilege_escalation != Some(true) && !has_all,
            seccomp_unconfined: seccomp["type"] == "Unconfined",
            app_armor: match app_armor["type"].as_str() {
                Some("Unconfined") => Some("unconfined".to_owned()),
                Some("Localhost") => app_armor["localhostProfile"].as_str().map(str::to_owned),
                _ => None,
            },
            proc_unmasked: own.proc_mount.as_deref() == Some("Unmasked"),
            read_only_root: own.read_only_root_filesystem == Some(true),
            capabilities,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(own: Value, shared: Value) -> Result<Rights, Refusal> {
        let own: SecurityContext = serde_json::from_value(own).unwrap();
        let shared: PodSecurityContext = serde_json::from_value(shared).unwrap();
        Rights::of(Some(&own), Some(&shared))
    }

    #[test]
    fn least_without_asking() {
        let rights = Rights::of(None, None).unwrap();
        assert_eq!(rights, Rights::default());
        assert!(rights.no_new_privileges && !rights.privileged && !rights.seccomp_unconfined);
        assert!(!rights.read_only_root && !rights.proc_unmasked && rights.app_armor.is_none());
    }

    #[test]
    fn privileges_are_escalated_only_when_asked_for() {
        for (own, forbidden) in [
            (json!({"allowPrivilegeEscalation": true}), false),
            (json!({"allowPrivilegeEscalation": false}), true),
            (json!({"privileged": true}), false),
            (json!({"capabilities": {"add": ["SYS_ADMIN"]}}), false),
            (json!({"capabilities": {"add": ["MKNOD"]}}), true),
        ] {
            let rights = of(own.clone(), json!({})).unwrap();
            assert_eq!(rights.no_new_privileges, forbidden, "{own}");
        }
    }

    #[test]
    fn a_containers_own_profile_wins_over_its_pods() {
        let unconfined = json!({"seccompProfile": {"type": "Unconfined"}});
        assert!(of(json!({}), unconfined.clone()).unwrap().seccomp_unconfined);
        let own = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        assert!(!of(own, unconfined).unwrap().seccomp_unconfined);
        let own = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}});
        assert!(of(own, json!({})).is_err());
        let own = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}});
        assert_eq!(of(own, json!({})).unwrap().app_armor.as_deref(), Some("mine"));
    }
}
