//! From a plan to what the daemon is told to create.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType};

use crate::pod::{ContainerPlan, ENTRYPOINT, PodPlan, SPEC_DIR, SPEC_FILE};
use crate::policy::{Capabilities, Rights};

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// It has the attempt's network, host name and hosts file.
    Owner,
    /// It joins the one of that container.
    Join(String),
    /// It has the machine's.
    Host,
}

/// What to create for a step or sidecar.
pub fn container(
    pod: &PodPlan,
    plan: &ContainerPlan,
    image: &str,
    network: &Network,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let entrypoint = [ENTRYPOINT, "run", &format!("{SPEC_DIR}/{SPEC_FILE}")];
    let mut body = base(pod, image, network, labels, &entrypoint);
    body.working_dir = plan.working_dir.clone();
    body.user = user(plan);
    let host = body.host_config.get_or_insert_default();
    host.mounts = Some(mounts(plan));
    host.tmpfs = Some(tmpfs(plan));
    confine(host, &plan.rights);
    host.group_add = Some(plan.identity.groups.iter().map(i64::to_string).collect());
    host.nano_cpus = plan.resources.nano_cpus;
    host.cpu_shares = plan.resources.cpu_shares;
    host.memory = plan.resources.memory;
    // The same number: no swap on top of the limit.
    host.memory_swap = plan.resources.memory;
    body
}

/// What to create to hold the network of an attempt with sidecars: the entrypoint, waiting.
pub fn pause(
    pod: &PodPlan,
    image: &str,
    entrypoint_dir: &str,
    network: &Network,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let mut body = base(pod, image, network, labels, &[ENTRYPOINT, "pause"]);
    body.user = Some("0".to_owned());
    body.working_dir = Some("/".to_owned());
    let host = body.host_config.get_or_insert_default();
    confine(host, &nothing());
    host.mounts = Some(vec![bind(entrypoint_dir, "/tekton/bin", true)]);
    body
}

/// At most so many processes and threads; 0 is no limit.
pub fn limit_pids(body: &mut ContainerCreateBody, limit: u32) {
    if limit > 0 {
        body.host_config.get_or_insert_default().pids_limit = Some(i64::from(limit));
    }
}

/// The rights of a container that only waits.
pub fn nothing() -> Rights {
    let capabilities = Capabilities::Only(BTreeSet::new());
    Rights { capabilities, read_only_root: true, ..Rights::default() }
}

/// Has a container run with these rights. All capabilities are named, whatever the daemon's own
/// default is; its seccomp and AppArmor profiles stay on unless the rights say otherwise.
pub fn confine(host: &mut HostConfig, rights: &Rights) {
    let mut options = Vec::new();
    if rights.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if rights.seccomp_unconfined {
        options.push("seccomp=unconfined".to_owned());
    }
    if let Some(profile) = &rights.app_armor {
        options.push(format!("apparmor={profile}"));
    }
    host.security_opt = Some(options);
    host.privileged = Some(rights.privileged);
    host.readonly_rootfs = Some(rights.read_only_root);
    if rights.proc_unmasked {
        (host.masked_paths, host.readonly_paths) = (Some(Vec::new()), Some(Vec::new()));
    }
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect();
    let all = || vec!["ALL".to_owned()];
    let (add, drop) = match &rights.capabilities {
        Capabilities::AllBut(dropped) => (all(), names(dropped)),
        Capabilities::Only(kept) => (names(kept), all()),
    };
    (host.cap_add, host.cap_drop) = (Some(add), Some(drop));
}

fn base(
    pod: &PodPlan,
    image: &str,
    network: &Network,
    labels: HashMap<String, String>,
    entrypoint: &[&str],
) -> ContainerCreateBody {
    let is_owner = *network == Network::Owner;
    let host = HostConfig {
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        network_mode: Some(match network {
            Network::Owner => "default".to_owned(),
            Network::Join(owner) => format!("container:{owner}"),
            Network::Host => "host".to_owned(),
        }),
        // The hosts file belongs to whoever owns the network.
        extra_hosts: is_owner.then(|| extra_hosts(pod)),
        // And so does resolv.conf.
        dns: asked(is_owner, &pod.dns.nameservers),
        dns_search: asked(is_owner, &pod.dns.searches),
        dns_options: asked(is_owner, &pod.dns.options),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: is_owner.then(|| pod.hostname.clone()),
        entrypoint: Some(entrypoint.iter().map(|&word| word.to_owned()).collect()),
        cmd: Some(Vec::new()),
        labels: Some(labels),
        // An image's own health check would run beside the step, for nobody.
        healthcheck: Some(bollard::models::HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..Default::default()
        }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// An empty list would be something else than none: it would leave out what the daemon takes by itself.
fn asked(is_owner: bool, list: &[String]) -> Option<Vec<String>> {
    (is_owner && !list.is_empty()).then(|| list.to_vec())
}

fn extra_hosts(pod: &PodPlan) -> Vec<String> {
    let mut hosts = Vec::new();
    for (address, names) in &pod.host_aliases {
        hosts.extend(names.iter().map(|name| format!("{name}:{address}")));
    }
    hosts
}

fn user(plan: &ContainerPlan) -> Option<String> {
    match (plan.identity.user, plan.identity.group) {
        (None, None) => None,
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("0:{group}")),
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
    }
}

fn mounts(plan: &ContainerPlan) -> Vec<Mount> {
    let binds = plan.binds.iter();
    binds.map(|one| bind(&one.source.to_string_lossy(), &one.target, one.read_only)).collect()
}

fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn tmpfs(plan: &ContainerPlan) -> HashMap<String, String> {
    let one = |tmpfs: &crate::pod::Tmpfs| {
        let mut options = format!("mode={:o}", tmpfs.mode);
        if let Some(size) = tmpfs.size {
            options.push_str(&format!(",size={size}"));
        }
        (tmpfs.target.clone(), options)
    };
    plan.tmpfs.iter().map(one).collect()
}
