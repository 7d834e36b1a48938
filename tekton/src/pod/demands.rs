//! What a Pod asks for beyond what it gets for the asking.
//!
//! What it gets for the asking is what Kubernetes' *baseline* Pod Security Standard lets any Pod have.
//! The rest is a [`Demand`]: a machine grants it or not. A grant is written like a demand, and may cover
//! more than one: `host-path=/data` covers `/data/cache`. Paths are compared as text; whoever mounts
//! one looks at where it really leads.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pod;
use crate::k8s::{Capabilities, SecurityContext, Volume};

/// Capabilities that Kubernetes' baseline standard lets a container add.
const BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sockets through which a container commands the machine's container engine.
const SOCKETS: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/var/run/containerd/containerd.sock",
    "/var/run/docker.sock",
    "/var/run/podman/podman.sock",
];

/// The CSI driver by which a directory of the machine is bound to a workspace.
pub const DIRECTORY_DRIVER: &str = "directory.tenon.dev";

/// Something that a machine grants or does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Demand {
    /// A container with all rights of the machine's root.
    Privileged,
    /// No seccomp or AppArmor profile, or an unmasked `/proc`.
    Unconfined,
    /// The machine's network.
    HostNetwork,
    /// The socket of the machine's container engine.
    ContainerSocket,
    /// A capability by its name without `CAP_`; `ALL` for all.
    Capability(String),
    /// A file or directory of the machine, absolute and clean.
    HostPath(String),
}

impl Demand {
    /// Whether who grants this has granted the other.
    pub fn covers(&self, other: &Demand) -> bool {
        match (self, other) {
            (Demand::Privileged, Demand::Unconfined | Demand::Capability(_)) => true,
            (Demand::Capability(own), Demand::Capability(_)) if own == "ALL" => true,
            (Demand::HostPath(own), Demand::HostPath(path)) => is_below(path, own),
            _ => self == other,
        }
    }

    /// Whether one of the grants covers it.
    pub fn is_granted<'a>(&self, grants: impl IntoIterator<Item = &'a Demand>) -> bool {
        grants.into_iter().any(|grant| grant.covers(self))
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Demand::Privileged => f.write_str("privileged"),
            Demand::Unconfined => f.write_str("unconfined"),
            Demand::HostNetwork => f.write_str("host-network"),
            Demand::ContainerSocket => f.write_str("docker-socket"),
            Demand::Capability(name) => write!(f, "capability={name}"),
            Demand::HostPath(path) => write!(f, "host-path={path}"),
        }
    }
}

impl From<Demand> for String {
    fn from(demand: Demand) -> String {
        demand.to_string()
    }
}

impl TryFrom<String> for Demand {
    type Error = String;

    fn try_from(text: String) -> Result<Demand, String> {
        text.parse()
    }
}

impl FromStr for Demand {
    type Err = String;

    fn from_str(text: &str) -> Result<Demand, String> {
        match text.split_once('=') {
            None => match text {
                "privileged" => Ok(Demand::Privileged),
                "unconfined" => Ok(Demand::Unconfined),
                "host-network" => Ok(Demand::HostNetwork),
                "docker-socket" => Ok(Demand::ContainerSocket),
                _ => Err(format!("{text}: nothing that can be granted")),
            },
            Some(("capability", name)) if !name.is_empty() => {
                Ok(Demand::Capability(capability(name)))
            }
            Some(("host-path", path)) if path.starts_with('/') => Ok(Demand::HostPath(clean(path))),
            Some(_) => Err(format!("{text}: nothing that can be granted")),
        }
    }
}

/// A demand, and what asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For what.
    pub demand: Demand,
    /// Who, for people: `step "build"`, `volume "cache"`, `the pod`.
    pub who: String,
    /// Where it says so: `securityContext.privileged`.
    pub field: &'static str,
}

impl Pod {
    /// Everything that it asks for beyond the baseline, in the order of its parts.
    pub fn asked(&self) -> Vec<Asked> {
        let mut asked = Vec::new();
        let mut ask = |demand, who: &str, field| {
            asked.push(Asked { demand, who: who.to_owned(), field });
        };
        if self.host_network {
            ask(Demand::HostNetwork, "the pod", "podTemplate.hostNetwork");
        }
        if let Some(shared) = &self.security_context {
            if is_unconfined(&shared.seccomp_profile) {
                let field = "podTemplate.securityContext.seccompProfile";
                ask(Demand::Unconfined, "the pod", field);
            }
            if is_unconfined(&shared.app_armor_profile) {
                let field = "podTemplate.securityContext.appArmorProfile";
                ask(Demand::Unconfined, "the pod", field);
            }
        }
        let steps = self.steps.iter().map(|step| ("step", &step.name, &step.security_context));
        let sidecars = self.sidecars.iter();
        let sidecars = sidecars.map(|it| ("sidecar", &it.name, &it.security_context));
        for (kind, name, security) in steps.chain(sidecars) {
            let Some(security) = security else { continue };
            let who = format!("{kind} \"{name}\"");
            of_container(security, &mut |demand, field| ask(demand, &who, field));
        }
        for volume in &self.volumes {
            let who = format!("volume \"{}\"", volume.name);
            let (path, field) = match host_path(volume) {
                Some(found) => found,
                None => continue,
            };
            for demand in path_demands(path) {
                ask(demand, &who, field);
            }
        }
        asked
    }

    /// What a machine has to grant for it.
    pub fn demands(&self) -> BTreeSet<Demand> {
        self.asked().into_iter().map(|asked| asked.demand).collect()
    }
}

fn of_container(security: &SecurityContext, ask: &mut dyn FnMut(Demand, &'static str)) {
    if security.privileged == Some(true) {
        ask(Demand::Privileged, "securityContext.privileged");
    }
    for name in added(security.capabilities.as_ref()) {
        if !BASELINE.contains(&name.as_str()) {
            ask(Demand::Capability(name), "securityContext.capabilities.add");
        }
    }
    if is_unconfined(&security.seccomp_profile) {
        ask(Demand::Unconfined, "securityContext.seccompProfile");
    }
    if is_unconfined(&security.app_armor_profile) {
        ask(Demand::Unconfined, "securityContext.appArmorProfile");
    }
    if security.proc_mount.as_deref() == Some("Unmasked") {
        ask(Demand::Unconfined, "securityContext.procMount");
    }
}

fn added(capabilities: Option<&Capabilities>) -> impl Iterator<Item = String> {
    capabilities.into_iter().flat_map(|it| it.add.iter().map(|name| capability(name)))
}

fn is_unconfined(profile: &Value) -> bool {
    profile["type"] == "Unconfined"
}

fn host_path(volume: &Volume) -> Option<(&str, &'static str)> {
    if let Some(host) = &volume.host_path {
        return Some((&host.path, "hostPath.path"));
    }
    let csi = volume.csi.as_ref().filter(|csi| csi.driver == DIRECTORY_DRIVER)?;
    let path = csi.volume_attributes.get("path").map_or("/", String::as_str);
    Some((path, "csi.volumeAttributes.path"))
}

/// What has to be granted for a path of the machine. For the socket of a container engine that is only
/// the socket; for a directory with one in it, both.
pub fn path_demands(path: &str) -> Vec<Demand> {
    let path = clean(path);
    if SOCKETS.contains(&path.as_str()) {
        return vec![Demand::ContainerSocket];
    }
    let holds_socket = SOCKETS.iter().any(|socket| is_below(socket, &path));
    let mut demands = vec![Demand::HostPath(path)];
    demands.extend(holds_socket.then_some(Demand::ContainerSocket));
    demands
}

/// A capability's name as the kernel has it, without `CAP_`.
pub fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
}

fn is_below(path: &str, parent: &str) -> bool {
    parent == "/"
        || path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path without `.`, `..` and double slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(pod: Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let asked = pod.asked().into_iter();
        asked.map(|it| format!("{}: {} ({})", it.who, it.demand, it.field)).collect()
    }

    #[test]
    fn the_baseline_is_had_for_the_asking() {
        let pod = json!({
            "steps": [{"name": "a", "securityContext": {
                "capabilities": {"add": ["CAP_MKNOD", "setfcap"], "drop": ["ALL"]},
                "allowPrivilegeEscalation": true, "privileged": false, "procMount": "Default",
                "seccompProfile": {"type": "RuntimeDefault"},
            }}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "csi": {"driver": "other"}}],
        });
        assert_eq!(asked(pod), [""; 0]);
    }

    #[test]
    fn everything_beyond_it_is_asked_for() {
        let pod = json!({
            "hostNetwork": true,
            "securityContext": {"seccompProfile": {"type": "Unconfined"}},
            "steps": [{"name": "a", "securityContext": {
                "privileged": true, "capabilities": {"add": ["cap_sys_admin", "CHOWN"]},
            }}],
            "sidecars": [{"name": "dind", "securityContext": {
                "procMount": "Unmasked", "appArmorProfile": {"type": "Unconfined"},
            }}],
            "volumes": [
                {"name": "h", "hostPath": {"path": "/data/../srv//x/"}},
                {"name": "s", "hostPath": {"path": "/var/run/docker.sock"}},
                {"name": "r", "hostPath": {"path": "/var/run"}},
                {"name": "d", "csi": {
                    "driver": DIRECTORY_DRIVER, "volumeAttributes": {"path": "/home/me"},
                }},
            ],
        });
        assert_eq!(
            asked(pod),
            [
                "the pod: host-network (podTemplate.hostNetwork)",
                "the pod: unconfined (podTemplate.securityContext.seccompProfile)",
                "step \"a\": privileged (securityContext.privileged)",
                "step \"a\": capability=SYS_ADMIN (securityContext.capabilities.add)",
                "sidecar \"dind\": unconfined (securityContext.appArmorProfile)",
                "sidecar \"dind\": unconfined (securityContext.procMount)",
                "volume \"h\": host-path=/srv/x (hostPath.path)",
                "volume \"s\": docker-socket (hostPath.path)",
                "volume \"r\": host-path=/var/run (hostPath.path)",
                "volume \"r\": docker-socket (hostPath.path)",
                "volume \"d\": host-path=/home/me (csi.volumeAttributes.path)",
            ]
        );
    }

    #[test]
    fn grants_cover_what_they_say_and_no_more() {
        for (grant, demand, covers) in [
            ("privileged", "privileged", true),
            ("privileged", "capability=SYS_ADMIN", true),
            ("privileged", "unconfined", true),
            ("privileged", "host-path=/", false),
            ("privileged", "docker-socket", false),
            ("capability=ALL", "capability=BPF", true),
            ("capability=cap_net_raw", "capability=NET_RAW", true),
            ("capability=NET_RAW", "capability=ALL", false),
            ("capability=ALL", "privileged", false),
            ("host-path=/data", "host-path=/data/a", true),
            ("host-path=/data/", "host-path=/data", true),
            ("host-path=/data", "host-path=/database", false),
            ("host-path=/data", "host-path=/data/../etc", false),
            ("host-path=/", "host-path=/etc", true),
            ("host-path=/", "docker-socket", false),
        ] {
            let (grant, demand): (Demand, Demand) =
                (grant.parse().unwrap(), demand.parse().unwrap());
            assert_eq!(demand.is_granted([&grant]), covers, "{grant} {demand}");
            assert_eq!(demand.to_string().parse(), Ok(demand));
        }
        for bad in ["", "host-path=data", "capability=", "everything"] {
            assert!(bad.parse::<Demand>().is_err(), "{bad}");
        }
    }
}
