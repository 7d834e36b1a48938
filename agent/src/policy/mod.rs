//! What this machine lets a Pod have: the agent's last word on what it runs.
//!
//! [`Policy::check`] is a function of the Pod and the policy; [`Rights`] says what each container
//! gets. A container has least without asking: no new privileges, few capabilities, the engine's
//! seccomp profile, a limited number of processes. It gets what Kubernetes' baseline standard allows
//! by asking for it, and anything beyond only where the machine's owner allows it.

mod capabilities;
mod rights;

use std::path::{Path, PathBuf};

use tenon_tekton::pod::{Demand, Pod, image_is_allowed, path_demands};

pub use capabilities::Capabilities;
pub use rights::Rights;

use crate::pod::Refusal;

/// Tekton's reason for a Pod that is not let in.
pub const REASON: &str = "PodAdmissionFailed";
/// How many processes and threads a container may have, unless said otherwise.
pub const PIDS: u32 = 4096;

/// What the owner of a machine allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The command whose flags allow more, for people: `tenon agent`.
    pub command: &'static str,
    /// What is granted beyond the baseline.
    pub grants: Vec<Demand>,
    /// Images, as patterns with `*`; empty for all.
    pub images: Vec<String>,
    /// Processes and threads of one container; 0 for no limit.
    pub pids_limit: u32,
    /// The container engine's own socket, where it is not in a usual place.
    pub socket: Option<PathBuf>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            command: "tenon agent",
            grants: Vec::new(),
            images: Vec::new(),
            pids_limit: PIDS,
            socket: None,
        }
    }
}

impl Policy {
    /// Whether the Pod may have all that it asks for; else what, where it asks, and what allows it.
    pub fn check(&self, pod: &Pod) -> Result<(), Refusal> {
        let steps = pod.steps.iter().map(|step| ("step", &step.name, &step.image));
        let sidecars = pod.sidecars.iter().map(|it| ("sidecar", &it.name, &it.image));
        for (kind, name, image) in steps.chain(sidecars) {
            if !image_is_allowed(&self.images, image) {
                let asks = format!("the {kind} \"{name}\" asks for the image \"{image}\"");
                return Err(self.refusal(&asks, &format!("image={image}")));
            }
        }
        match pod.asked().into_iter().find(|asked| !asked.demand.is_granted(&self.grants)) {
            Some(asked) => {
                let (who, field) = (asked.who, asked.field);
                let the = if who.starts_with("the ") { "" } else { "the " };
                let asks = format!("{the}{who} asks for {} ({field})", words(&asked.demand));
                Err(self.refusal(&asks, &asked.demand.to_string()))
            }
            None => Ok(()),
        }
    }

    /// The same for one path of the machine, which is free of symlinks. What is allowed may be written
    /// with symlinks.
    pub fn check_path(&self, who: &str, path: &Path) -> Result<(), Refusal> {
        let grants: Vec<Demand> = self.grants.iter().flat_map(real).collect();
        let mut demands = path_demands(&path.to_string_lossy());
        let socket = self.socket.as_deref().and_then(|socket| socket.canonicalize().ok());
        if socket.is_some_and(|socket| socket.starts_with(path)) {
            demands.push(Demand::ContainerSocket);
            // Who may have the socket may have its path.
            demands.retain(|demand| !is_file(path) || *demand == Demand::ContainerSocket);
        }
        match demands.into_iter().find(|demand| !demand.is_granted(&grants)) {
            Some(demand) => {
                let asks = format!("{who} leads to {}", words(&demand));
                Err(self.refusal(&asks, &demand.to_string()))
            }
            None => Ok(()),
        }
    }

    fn refusal(&self, asks: &str, flag: &str) -> Refusal {
        let machine = match self.command {
            "tenon agent" => "this agent does not allow",
            _ => "is not allowed here",
        };
        Refusal {
            reason: REASON,
            message: format!("{asks}, which {machine}; `{} --allow-{flag}` does", self.command),
        }
    }
}

fn is_file(path: &Path) -> bool {
    !path.is_dir()
}

/// What it stands for, with what its path really is.
fn real(grant: &Demand) -> Vec<Demand> {
    let mut all = vec![grant.clone()];
    if let Demand::HostPath(path) = grant
        && let Ok(path) = Path::new(path).canonicalize()
    {
        all.push(Demand::HostPath(path.to_string_lossy().into_owned()));
    }
    all
}

fn words(demand: &Demand) -> String {
    match demand {
        Demand::Privileged => "a privileged container".to_owned(),
        Demand::Unconfined => "a container without its usual confinement".to_owned(),
        Demand::HostNetwork => "the machine's network".to_owned(),
        Demand::ContainerSocket => "the container engine's socket".to_owned(),
        Demand::Capability(name) => format!("the capability {name}"),
        Demand::HostPath(path) => format!("\"{path}\" of the machine"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(policy: &Policy, pod: Value) -> Result<(), String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        policy.check(&pod).map_err(|refusal| {
            assert_eq!(refusal.reason, REASON);
            refusal.message
        })
    }

    #[test]
    fn a_refusal_says_what_where_and_what_allows_it() {
        let nothing = Policy::default();
        let pod = json!({"sidecars": [{
            "name": "dind", "securityContext": {"privileged": true},
        }]});
        let message = check(&nothing, pod.clone()).unwrap_err();
        assert_eq!(
            message,
            "the sidecar \"dind\" asks for a privileged container (securityContext.privileged), \
             which this agent does not allow; `tenon agent --allow-privileged` does"
        );
        let run = Policy { command: "tenon run", ..Policy::default() };
        let net = json!({"hostNetwork": true});
        assert_eq!(
            check(&run, net).unwrap_err(),
            "the pod asks for the machine's network (podTemplate.hostNetwork), which is not allowed \
             here; `tenon run --allow-host-network` does"
        );
        let allowed = Policy { grants: vec![Demand::Privileged], ..Policy::default() };
        assert_eq!(check(&allowed, pod), Ok(()));
    }

    #[test]
    fn images_that_are_not_listed_are_refused() {
        let policy = Policy { images: vec!["registry.example/*".to_owned()], ..Policy::default() };
        let pod = |image: &str| json!({"steps": [{"name": "a", "image": image}]});
        assert_eq!(check(&policy, pod("registry.example/app:1")), Ok(()));
        let message = check(&policy, pod("busybox")).unwrap_err();
        assert!(message.ends_with("`tenon agent --allow-image=busybox` does"), "{message}");
    }

    #[test]
    fn a_path_is_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (real, link) = (dir.join("real"), dir.join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let grant = |path: &Path| vec![Demand::HostPath(path.display().to_string())];
        let policy = Policy { grants: grant(&link), ..Policy::default() };
        assert_eq!(policy.check_path("it", &real.join("below")), Ok(()));
        assert!(policy.check_path("it", &dir).is_err());
        let socket = real.join("engine.sock");
        std::fs::write(&socket, "").unwrap();
        let policy = Policy { socket: Some(socket.clone()), ..policy };
        let message = policy.check_path("it", &real).unwrap_err().message;
        assert!(message.ends_with("--allow-docker-socket` does"), "{message}");
        let grants = vec![Demand::ContainerSocket];
        let policy = Policy { grants, ..policy };
        assert_eq!(policy.check_path("it", &socket), Ok(()));
        assert!(policy.check_path("it", &real).is_err());
    }
}
