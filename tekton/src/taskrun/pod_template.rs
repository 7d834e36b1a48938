//! Two podTemplates made one: the more specific one's fields win whole, but `env` and `volumes` are
//! merged by name.

use crate::k8s::PodTemplate;
use crate::object::Absent;

fn keep<T: Absent>(own: &mut T, base: T) {
    if own.is_absent() {
        *own = base;
    }
}

fn merge_by_name<T>(own: &mut Vec<T>, base: Vec<T>, name: impl Fn(&T) -> &str) {
    if own.is_empty() {
        *own = base;
        return;
    }
    own.retain(|item| !name(item).is_empty());
    for item in base {
        if !name(&item).is_empty() && !own.iter().any(|known| name(known) == name(&item)) {
            own.push(item);
        }
    }
}

/// `own` over `base`.
pub fn merge_pod_templates(
    own: Option<PodTemplate>,
    base: Option<PodTemplate>,
) -> Option<PodTemplate> {
    let (mut own, base) = match (own, base) {
        (Some(own), Some(base)) => (own, base),
        (own, base) => return own.or(base),
    };
    merge_by_name(&mut own.env, base.env, |variable| &variable.name);
    merge_by_name(&mut own.volumes, base.volumes, |volume| &volume.name);
    keep(&mut own.node_selector, base.node_selector);
    keep(&mut own.tolerations, base.tolerations);
    keep(&mut own.affinity, base.affinity);
    keep(&mut own.security_context, base.security_context);
    keep(&mut own.runtime_class_name, base.runtime_class_name);
    keep(&mut own.automount_service_account_token, base.automount_service_account_token);
    keep(&mut own.dns_policy, base.dns_policy);
    keep(&mut own.dns_config, base.dns_config);
    keep(&mut own.enable_service_links, base.enable_service_links);
    keep(&mut own.priority_class_name, base.priority_class_name);
    keep(&mut own.scheduler_name, base.scheduler_name);
    keep(&mut own.image_pull_secrets, base.image_pull_secrets);
    keep(&mut own.host_aliases, base.host_aliases);
    keep(&mut own.host_network, base.host_network);
    keep(&mut own.host_users, base.host_users);
    keep(&mut own.topology_spread_constraints, base.topology_spread_constraints);
    Some(own)
}
